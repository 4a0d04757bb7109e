"""The tokens of REAN: words with the white space after them, other characters alone, unknown words in bytes."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxlm.errors import UserError
from jaxlm.tokenizers.base import EOS, OneEnd, visible
from jaxlm.tokenizers.unicode_words import finder

BYTES = 256
FIRST_WORD = 1 + BYTES
"""Token 0 is EOS, token 1 + b the byte b, and words begin here."""

PATTERN = r"(?:[^\W_][\u0300-\u036f]*)+\s*|[\W_]\s*"
"""Its matches, one after the other, are a text whose first character is no white space."""


@dataclasses.dataclass(frozen=True)
class ReanTokenizer(OneEnd):
    """Token FIRST_WORD + i is words[i]: a run of letters and digits, or one other character, each with the white space
    that follows it. What is not among the words is spelled in bytes, so that every text can be encoded.
    """

    words: tuple[str, ...]
    """The most frequent first."""

    @classmethod
    def of_texts(cls, texts: Iterable[str], min_count: int = 1, limit: int | None = None) -> "ReanTokenizer":
        """The tokenizer of the words that occur at least min_count times in some texts, the `limit` most frequent ones.

        Words that are equally frequent stand in the order of their code points.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(pieces(text))
        frequent = [(-count, word) for word, count in counts.items() if count >= min_count]
        return cls(tuple(word for _, word in sorted(frequent)[:limit]))

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "ReanTokenizer":
        """The tokenizer that `to_json` wrote."""
        if tree.get("kind") != "rean":
            raise UserError(f"tokenizer.json wants kind 'rean', got {tree.get('kind')!r}")
        return cls(tuple(tree["words"]))

    def to_json(self) -> dict[str, Any]:
        """All that is needed to encode and decode."""
        return {"kind": "rean", "words": list(self.words)}

    @property
    def vocab_size(self) -> int:
        """EOS, bytes and words."""
        return FIRST_WORD + len(self.words)

    @property
    def eos(self) -> int:
        """Token 0."""
        return EOS

    @property
    def start(self) -> int:
        """The most frequent word that ends a line, or the byte of a line's end."""
        ends = (FIRST_WORD + i for i, word in enumerate(self.words) if word.endswith("\n"))
        return next(ends, 1 + ord("\n"))

    @functools.cached_property
    def bytes_of_token(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, (V,) int32; EOS counts one, a line's end."""
        return np.array([1] * FIRST_WORD + [len(_utf8(word)) for word in self.words], np.int32)

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, (N,) int32."""
        return np.array(self._tokens(text), np.int32)

    def encode_lines(self, lines: Sequence[str]) -> np.ndarray:
        """Token ids of lines in a row, each followed by EOS, (N,) int32."""
        tokens: list[int] = []
        for line in lines:
            tokens += self._tokens(line)
            tokens.append(EOS)
        return np.array(tokens, np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; EOS gives nothing, and bytes that are no UTF-8 give U+FFFD."""
        raw = b"".join(self._bytes(token) for token in tokens)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")

    def spell(self, token: int) -> str:
        """One token as people can read it: EOS as '⏎', bytes in hexadecimal, white space escaped."""
        if token == EOS:
            return "⏎"
        if token < FIRST_WORD:
            return f"<0x{token - 1:02X}>"
        return visible(self.words[token - FIRST_WORD])

    def _tokens(self, text: str) -> list[int]:
        number = self._number
        tokens: list[int] = []
        for piece in pieces(text):
            known = number.get(piece)
            if known is None:
                tokens += self._spelled(piece)
            else:
                tokens.append(known)
        return tokens

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {word: FIRST_WORD + i for i, word in enumerate(self.words)}

    def _spelled(self, piece: str) -> list[int]:
        """A piece that is no word: its bytes, or, where only the white space makes it one, a word and that in bytes."""
        for end in range(len(piece) - 1, len(piece.rstrip()) - 1, -1):
            if piece[:end] in self._number:
                return [self._number[piece[:end]], *(1 + byte for byte in _utf8(piece[end:]))]
        return [1 + byte for byte in _utf8(piece)]

    def _bytes(self, token: int) -> bytes:
        if token == EOS:
            return b""
        return bytes([token - 1]) if token < FIRST_WORD else _utf8(self.words[token - FIRST_WORD])


def pieces(text: str) -> list[str]:
    """A text cut into words and other characters, each with the white space after it; joined, they are the text.

    Letters of every script and digits, with the combining marks and joiners after them, make words; white space before
    all else is a piece of its own.
    """
    return finder(PATTERN)(text)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
