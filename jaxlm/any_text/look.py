"""A look at a text: its kind, its size, its alphabet."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxlm.data.labels import speaker

SPEAKERS = 0.9
"""Share of the lines that begin with a speaker in dialogues, at least."""
MOST_SPEAKERS = 8
"""Different speakers in dialogues, at most: more are headings, keys or times of day."""
WORDS_OF_A_LINE = 3
"""Words in most lines of a list, at most: names, words, terms. Longer lines are sentences, which go on."""
LONGEST_LINE = 500
"""Characters in the longest line of a list, at most."""
INDENTED = 0.05
"""Share of the lines of a list that begin with white space, at most: code has more."""
BLANK = 0.05
"""Share of the lines of a list that are blank, at most: blank lines part paragraphs and verses."""
RARE = 10
"""A character seen less often is rare."""


@dataclass(frozen=True)
class Look:
    """Properties of a text that decide how it is learned."""

    kind: Literal["lines", "stream", "dialogues"]
    """A list of lines without order, running text, or dialogues of labelled turns with blank lines between them."""
    labels: tuple[str, str] | None
    """The two speakers of dialogues: who begins, and who answers. None of other kinds."""
    characters: int
    bytes: int
    """UTF-8 bytes."""
    alphabet: int
    """Different characters."""
    rare: int
    """Different characters that occur less than RARE times."""
    lines: int
    """Lines that are not blank."""
    longest: int
    """Characters of the longest line."""

    def describe(self) -> str:
        """Describe the text in one line."""
        what = {"lines": "a list of lines", "stream": "running text", "dialogues": "dialogues"}[self.kind]
        speakers = f" of {self.labels[0]!r} and {self.labels[1]!r}" if self.labels else ""
        return (
            f"{what}{speakers}: {self.characters:,} characters in {self.lines:,} lines, {self.alphabet:,} different "
            f"ones, {self.rare:,} of them seen less than {RARE} times"
        )


def look(text: str) -> Look:
    """Look at a text with LF at its line ends.

    Dialogues: nearly all lines begin with one of a few speakers, and blank lines part them. A list: lines of a few
    words, none indented or long, without speakers or paragraphs. All else is running text, read in order.
    """
    every = text.split("\n")
    if every[-1] == "":
        every.pop()
    lines = [line for line in every if line.strip()]
    point_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    count_P = np.bincount(point_N)  # a Counter takes three times as long
    speakers = _speakers(lines)
    labels = speakers if len(lines) < len(every) else None
    length_L = np.array([len(line) for line in lines])
    words_L = np.array([len(line.split()) for line in lines])
    indented = sum(line[0].isspace() for line in lines)
    is_list = (
        speakers is None
        and np.median(words_L) <= WORDS_OF_A_LINE
        and length_L.max() <= LONGEST_LINE
        and indented <= INDENTED * len(lines)
        and len(every) - len(lines) <= BLANK * len(every)
        and len(lines) > 1
    )
    return Look(
        kind="dialogues" if labels else "lines" if is_list else "stream",
        labels=labels,
        characters=len(text),
        bytes=len(text.encode("utf-8", "surrogatepass")),
        alphabet=int((count_P > 0).sum()),
        rare=int(((count_P > 0) & (count_P < RARE)).sum()),
        lines=len(lines),
        longest=int(length_L.max()),
    )


def _speakers(lines: list[str]) -> tuple[str, str] | None:
    """The two most frequent speakers, the one that begins first; None where lines do not begin with speakers."""
    named = [label for line in lines if (label := speaker(line)) is not None]
    found = Counter(named)
    if not 2 <= len(found) <= MOST_SPEAKERS or len(named) < SPEAKERS * len(lines):
        return None
    both = {label for label, _ in found.most_common(2)}
    first = next(label for label in named if label in both)
    (second,) = both - {first}
    return first, second
