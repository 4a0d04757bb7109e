"""Long texts cut into pieces that are encoded one by one, to the tokens of the whole."""

import re
from collections.abc import Iterable, Iterator

PIECE = 2**14
"""Characters of a piece, at least."""
BATCH = 2**20
"""Characters of the texts that are encoded at once, about: each token takes some 150 bytes meanwhile."""
CUT = re.compile(r"(?<=\S)\n(?=[^\W_])|(?<=[^\W\d_])(?= [^\W\d_])")
"""Places at whose end a text may be cut: after a single line end before a letter or digit, or before a single blank
between two letters. Patterns of BPE as GPT-2's, GPT-4's and Llama 3's cut there whatever is around.
"""
PROBE = "ab cd\nef.\ngh"
"""A text with every kind of such places."""


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """A text cut at the first place after every `size` characters; a text without such places stays whole."""
    start = 0
    while start < len(text):
        found = CUT.search(text, start + size)
        end = found.end() if found else len(text)
        yield text[start:end]
        start = end


def batches(texts: Iterable[str], size: int = BATCH) -> Iterator[list[str]]:
    """Texts in lists of about `size` characters, each counted as one more."""
    batch: list[str] = []
    filled = 0
    for text in texts:
        batch.append(text)
        filled += len(text) + 1
        if filled >= size:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
