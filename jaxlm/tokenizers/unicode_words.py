r"""Regular expressions in which a letter takes the combining marks after it, as Unicode's words do.

Python's \w has letters and digits without the marks that belong to them, so that
[^\W_]+ cuts हिन्दी at each.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable

JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: part of a word between its letters."""
ONE_CHARACTER = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\.", re.DOTALL)
"""The parts of a regular expression that stand for one character: an escape, a set, the dot."""


@functools.cache
def marks() -> str:
    """All combining marks (categories Mn, Mc and Me) as ranges of a set in a regular expression."""
    planes = itertools.chain(range(0x300, 0x20000), range(0xE0100, 0xE01F0))  # there are none elsewhere
    points = [point for point in planes if unicodedata.category(chr(point))[0] == "M"]
    ranges = []
    for _, group in itertools.groupby(enumerate(points), lambda pair: pair[1] - pair[0]):
        run = [point for _, point in group]
        ranges.append(f"\\U{run[0]:08x}-\\U{run[-1]:08x}")
    return "".join(ranges)


@functools.cache
def _any_mark() -> re.Pattern[str]:
    return re.compile(f"[{marks()}{JOINERS}]")


def has_marks(text: str) -> bool:
    """True if a text has a combining mark or a joiner."""
    return not text.isascii() and _any_mark().search(text) is not None


def with_marks(pattern: str) -> str:
    r"""The regular expression in which what stands for any letter takes the marks and joiners after it.

    That is \w, \S, the dot, [...\w...] and [^...\W...]. [^...\w...], as of punctuation, takes the marks after it and
    does not match one alone. A set of given characters stays as it is.
    """
    tail = rf"(?:[{marks()}]|[{JOINERS}](?=[\w{marks()}]))*+"

    def extended(found: re.Match[str]) -> str:
        one = found[0]
        if one.startswith("[^") and r"\w" in one:
            return f"(?:[^{marks()}{JOINERS}{one[2:]}{tail})"
        letters = r"\W" in one if one.startswith("[^") else one.startswith("[") and r"\w" in one
        return f"(?:{one}{tail})" if letters or one in (r"\w", r"\S", ".") else one

    return ONE_CHARACTER.sub(extended, pattern)


@functools.cache
def finder(pattern: str) -> Callable[[str], list[str]]:
    r"""The `findall` of a regular expression, by `with_marks` in a text that has marks.

    Any other text has the same matches either way, and is read several times faster without. A pattern that cannot be
    extended, as one with a look-behind for \w, which wants a fixed width, is taken as it is.
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
