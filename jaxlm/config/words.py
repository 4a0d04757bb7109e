"""Settings of how text becomes words."""

import dataclasses
import re
from typing import Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class WordsConfig(Settings, group="model.words."):
    """From text to a vocabulary and sentences of its words: a line (data.kind lines) or a stretch of text."""

    pattern: str = r"[^\W_]+"
    """A regular expression: each match is a word, what lies between is dropped."""
    lower: bool = True
    """Lower-case the text first."""
    punctuation: Literal["drop", "keep"] = "drop"
    """keep: each punctuation mark is a word of its own."""
    min_count: int = 5
    """Rarer words are dropped before windows are laid."""
    max_vocab: int | None = None
    """Keep only so many of the most frequent words. None: all."""
    max_sentence: int = 1000
    """Words in a sentence at most; a longer one is cut, and windows do not reach over the cut."""
    phrases: float | None = None
    """Two words a b become a_b where (count(a b) - phrase_discount) * words / (count(a) * count(b)) is above this.
    None: no phrases; 100 is a start."""
    phrase_discount: float = 5.0
    """Keeps pairs of rare words apart."""
    max_counted: int = 5_000_000
    """Different words, or pairs of words for phrases, kept count of at once; a million take about 0.12 GB.
    Where a text has more, those seen least so far are dropped while counting, as word2vec's programs do."""

    def __post_init__(self) -> None:
        check.at_least("model.words.min_count", self.min_count, 1)
        check.at_least("model.words.max_vocab", self.max_vocab, 2)
        check.between("model.words.max_sentence", self.max_sentence, 2, 2**20)
        check.more_than("model.words.phrases", self.phrases, 0)
        check.at_least("model.words.phrase_discount", self.phrase_discount, 0)
        check.at_least("model.words.max_counted", self.max_counted, 2)
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise UserError(f"model.words.pattern wants a regular expression, got {self.pattern!r}: {error}") from None
        if groups:
            raise UserError(f"model.words.pattern wants no groups, got {self.pattern!r}: write (?:...) for (...)")
        if re.compile(self.pattern).match(""):
            raise UserError(f"model.words.pattern wants at least one character in a match, got {self.pattern!r}")
