"""Suggestions for a misspelled word, fast enough for a vocabulary of a million words."""

import difflib
from collections.abc import Sequence

LOOKED_AT = 20_000
"""Most candidates compared letter by letter: the first, which are the most frequent."""


def near_spellings(word: str, words: Sequence[str], n: int = 3) -> list[str]:
    """Up to n words spelled like an unknown one: first those that differ in case only, then by difflib's ratio.

    Only words of similar length that begin or end with the same letter are compared, which one pass finds quickly.
    """
    if not word:
        return []
    folded = word.casefold()
    same = [other for other in words if len(other) == len(word) and other.casefold() == folded][:n]
    first, last, lengths = folded[0], folded[-1], range(len(word) - 2, len(word) + 3)
    alike = [
        other
        for other in words
        if len(other) in lengths and other and (other[0].casefold() == first or other[-1].casefold() == last)
    ]
    return [*same, *(w for w in difflib.get_close_matches(word, alike[:LOOKED_AT], n, 0.7) if w not in same)][:n]
