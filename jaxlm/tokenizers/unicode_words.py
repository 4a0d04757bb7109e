r"""Regular expressions in which a letter takes the combining marks after it, as Unicode's words do.

Python's \w has letters and digits without the marks that belong to them, so that [^\W_]+ cuts हिन्दी at each.
"""

import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: part of a word between its letters."""
ONE_CHARACTER = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\.)(\+(?![?+]))?", re.DOTALL)
"""Parts of a regular expression that stand for one character (an escape, a set, the dot) or, with +, for several."""
FIRST_MARK = 0x300
"""No combining mark and no joiner comes before it."""


@functools.cache
def marks() -> tuple[str, str]:
    """All combining marks (categories Mn, Mc and Me): those of 16 bits, and those beyond.

    In a set each range beyond takes a test of its own, all others one together.
    """
    chars = map(chr, itertools.chain(range(FIRST_MARK, 0x20000), range(0xE0100, 0xE01F0)))  # there are none elsewhere
    every = "".join(char for char in chars if unicodedata.category(char)[0] == "M")
    beyond = next(i for i, char in enumerate(every) if char > "\uffff")
    return every[:beyond], every[beyond:]


@functools.cache
def _is_mark() -> np.ndarray:
    """True at the code points of marks and joiners."""
    is_mark_N = np.zeros(sys.maxunicode + 1, bool)
    is_mark_N[[ord(char) for char in "".join((*marks(), JOINERS))]] = True
    return is_mark_N


def has_marks(text: str) -> bool:
    """True if a text has a combining mark or a joiner."""
    if text.isascii():
        return False
    point_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return bool(_is_mark()[point_N[point_N >= FIRST_MARK]].any())


def with_marks(pattern: str) -> str:
    r"""The regular expression in which what stands for any letter takes the marks and joiners after it.

    That is \w, \S, the dot, [...\w...] and [^...\W...]. [^...\w...], as of punctuation, takes the marks after it and
    does not match one alone. A set of given characters stays as it is.
    """
    short, high = map(_ranges, marks())
    mark = rf"[{short}]|(?![\0-\uffff])[{high}]"
    tail = rf"(?:{mark}|[{JOINERS}](?=\w|{mark}))"

    def extended(found: re.Match[str]) -> str:
        one, several = found[1], found[2] or ""
        is_negated = one.startswith("[^")
        if is_negated and r"\w" in one:
            return rf"(?:(?!{mark}|[{JOINERS}]){one}{tail}*+){several}"
        if one == r"\w" or (one[0] == "[" and (r"\W" if is_negated else r"\w") in one):
            return f"(?:{one}+(?:{tail}++{one}*)*)" if several else f"(?:{one}{tail}*+)"
        return f"(?:{one}{tail}*+)" if one in (r"\S", ".") and not several else found[0]

    return ONE_CHARACTER.sub(extended, pattern)


@functools.cache
def finder(pattern: str) -> Callable[[str], list[str]]:
    r"""The `findall` of a regular expression, by `with_marks` in a text that has marks.

    Any other text has the same matches either way, and is read faster without. A pattern that cannot be extended, as
    one with a look-behind for \w, which wants a fixed width, is taken as it is.
    """
    plain = re.compile(pattern).findall

    @functools.cache
    def marked() -> Callable[[str], list[str]]:
        try:
            return re.compile(with_marks(pattern)).findall
        except re.error:
            return plain

    def find(text: str) -> list[str]:
        return marked()(text) if has_marks(text) else plain(text)

    return find


def _ranges(chars: Iterable[str]) -> str:
    """Characters, in order, as ranges of a set in a regular expression."""
    runs = itertools.groupby(enumerate(map(ord, chars)), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(group) for _, group in runs)]
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ends)
