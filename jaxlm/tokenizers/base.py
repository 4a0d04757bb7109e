"""The interface of every tokenizer."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from jaxlm.errors import UserError

EOS = 0
"""`Tokenizer.eos` of every tokenizer but those that are opened from files of another program."""


class UnknownCharacter(UserError):
    """A text has a character that no token stands for."""

    def __init__(self, character: str, message: str):
        super().__init__(message)
        self.character = character


def utf8(text: str) -> bytes:
    """A text in UTF-8. Raises UnknownCharacter for half of a surrogate pair, which UTF-8 cannot have."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        char = text[error.start]
        name = f"the character {char!r} (U+{ord(char):04X})"
        raise UnknownCharacter(char, f"{name} is half of a surrogate pair, which has no bytes in UTF-8") from None


def visible(text: str) -> str:
    """A text with its blanks as '␣', other white space and what has no sign escaped."""
    return "".join("␣" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text)


class Tokenizer(Protocol):
    """Text to token ids and back: joined, the texts of the tokens are the text."""

    @property
    def vocab_size(self) -> int:
        """Tokens, the EOS included."""
        ...

    @property
    def eos(self) -> int:
        """The token that ends every line (or turn of a dialogue) and fills a context before its start.

        No text is encoded to it.
        """
        ...

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text or a turn, `eos` first."""
        ...

    @property
    def bos(self) -> int:
        """The token before the first of a text, from which that is predicted."""
        ...

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens that stand before running text that a model continues."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja template by which the turns of a chat become a text; None where there is none."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """The texts of the vocabulary's last tokens, in order; those before (special ones, bytes) are no words."""
        ...

    @property
    def start(self) -> int:
        """A token from which running text can begin where nothing is given."""
        ...

    @property
    def bytes_of_token(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, (V,) int32; EOS counts one, other special tokens none."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, (N,) int32. Raises UserError where it has something that no token stands for."""
        ...

    def encode_lines(self, lines: Sequence[str]) -> np.ndarray:
        """Token ids of lines in a row, each followed by EOS, (N,) int32."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; EOS gives nothing."""
        ...

    def spell(self, token: int) -> str:
        """One token as people can read it."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All that is needed to encode and decode, and the "kind" of tokenizer."""
        ...


class HasEos(Protocol):
    """A tokenizer's EOS."""

    @property
    def eos(self) -> int:
        """The token that ends every text."""
        ...


class OneEnd:
    """The members of a tokenizer whose EOS is its only special token: it ends every text and stands before it."""

    @property
    def end_tokens(self: HasEos) -> tuple[int, ...]:
        """EOS alone."""
        return (self.eos,)

    @property
    def bos(self: HasEos) -> int:
        """EOS."""
        return self.eos

    @property
    def prefix(self) -> tuple[int, ...]:
        """None."""
        return ()

    @property
    def chat_template(self) -> str | None:
        """None."""
        return None
