"""Settings of tokens: how text is cut into them, and how a tokenizer is built from the settings."""

import abc
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings, expand_home, refuse_unused
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.tokenizers import BpeTokenizer, ByteTokenizer, CharTokenizer, ReanTokenizer, Tokenizer, WordTokenizer


@dataclasses.dataclass(frozen=True)
class TokensConfig(Settings, abc.ABC, group="data.tokens.", example="CharactersConfig()"):
    """How text is cut into tokens. A subclass adds its settings and builds the tokenizer from them.

    A subclass in a file of your own works with train.py as these do.
    """

    restores_text: ClassVar[bool] = True
    """False: what lies between the tokens is dropped, so that no language model can be trained on them."""
    are_words: ClassVar[bool] = False
    """True: tokens are words, of which word2vec can train vectors."""

    @abc.abstractmethod
    def build(self, whole: str, train: Sequence[str]) -> "Tokenizer | WordTokenizer":
        """The tokenizer of a text, of which `train` are the lines (or the stretch) that training reads."""


@dataclasses.dataclass(frozen=True)
class CharactersConfig(TokensConfig):
    """A token for each character of the whole text."""

    def build(self, whole: str, train: Sequence[str]) -> "CharTokenizer":
        """The tokenizer of all characters of the text, in code-point order."""
        from jaxlm.tokenizers import CharTokenizer

        return CharTokenizer.of_text(whole)


@dataclasses.dataclass(frozen=True)
class BytesConfig(TokensConfig):
    """A token for each byte of UTF-8."""

    def build(self, whole: str, train: Sequence[str]) -> "ByteTokenizer":
        """The tokenizer of all bytes, whatever the text has."""
        from jaxlm.tokenizers import ByteTokenizer

        return ByteTokenizer()


@dataclasses.dataclass(frozen=True)
class BpeConfig(TokensConfig):
    """Byte-level BPE: frequent words and parts of words as one token, for any text (extra `bpe`)."""

    vocab_size: int = 4096
    """Tokens at most: EOS, 256 bytes, and what is merged from the most frequent pairs of train."""
    path: str | None = None
    """In place of a training: a directory with GPT-2's encoder.json and vocab.bpe, or Hugging Face's tokenizer.json."""
    eos: str | None = None
    """path: the special token that ends a text. None: the one that the files name, or <|endoftext|>."""

    def __post_init__(self) -> None:
        expand_home(self, "path")
        check.between("data.tokens.vocab_size", self.vocab_size, 257, 2**24)
        if self.path is None:
            refuse_unused(self, ("eos",), "data.tokens.path None", "data.tokens.path set")
        else:
            refuse_unused(self, ("vocab_size",), f"data.tokens.path {self.path!r}", "data.tokens.path None")

    def build(self, whole: str, train: Sequence[str]) -> "BpeTokenizer":
        """The tokenizer of the files, or of train."""
        from jaxlm.tokenizers import BpeTokenizer

        if self.path is not None:
            return BpeTokenizer.open(Path(self.path), self.eos)
        return BpeTokenizer.of_texts(train, self.vocab_size)


@dataclasses.dataclass(frozen=True)
class ReanTokensConfig(TokensConfig):
    """Words with the white space after them, other characters alone, unknown words in bytes."""

    min_count: int = 2
    """How often train has a word at least; the rarer ones are spelled in bytes."""
    max_vocab: int | None = None
    """Words at most, the most frequent. None: any number."""

    are_words: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check.at_least("data.tokens.min_count", self.min_count, 1)
        check.at_least("data.tokens.max_vocab", self.max_vocab, 1)

    def build(self, whole: str, train: Sequence[str]) -> "ReanTokenizer":
        """The tokenizer of the words of train."""
        from jaxlm.tokenizers import ReanTokenizer

        return ReanTokenizer.of_texts(train, self.min_count, self.max_vocab)


@dataclasses.dataclass(frozen=True)
class WordsConfig(TokensConfig):
    """Words alone, for word2vec: a sentence is a line (data.kind lines) or a stretch of text."""

    pattern: str = r"[^\W_]+"
    """A regular expression: each match is a word, what lies between is dropped.
    Its letters take the combining marks after them, as Unicode's words do."""
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

    restores_text: ClassVar[bool] = False
    are_words: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check.at_least("data.tokens.min_count", self.min_count, 1)
        check.at_least("data.tokens.max_vocab", self.max_vocab, 2)
        check.between("data.tokens.max_sentence", self.max_sentence, 2, 2**20)
        check.more_than("data.tokens.phrases", self.phrases, 0)
        check.at_least("data.tokens.phrase_discount", self.phrase_discount, 0)
        check.at_least("data.tokens.max_counted", self.max_counted, 2)
        if self.phrases is None:
            refuse_unused(self, ("phrase_discount",), "data.tokens.phrases None", "data.tokens.phrases set")
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise UserError(f"data.tokens.pattern wants a regular expression, got {self.pattern!r}: {error}") from None
        if groups:
            raise UserError(f"data.tokens.pattern wants no groups, got {self.pattern!r}: write (?:...) for (...)")
        if re.compile(self.pattern).match(""):
            raise UserError(f"data.tokens.pattern wants at least one character in a match, got {self.pattern!r}")

    def build(self, whole: str, train: Sequence[str]) -> "WordTokenizer":
        """The vocabulary of the whole text, as published: vectors are scored on words that all splits have."""
        from jaxlm.word2vec.vocabulary import build_vocabulary

        return build_vocabulary(lambda: [whole], "data.path", self, lines=True)[0]


CHOICES: dict[str, type[TokensConfig]] = {
    "characters": CharactersConfig,
    "bytes": BytesConfig,
    "bpe": BpeConfig,
    "rean": ReanTokensConfig,
    "words": WordsConfig,
}
"""The classes by the names that --data.tokens takes on the command line."""
