"""One token for each byte of UTF-8."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxlm.errors import UserError
from jaxlm.tokenizers.base import EOS, OneEnd, utf8

BYTES = 256
NO_BYTE = b"\xff"
"""A byte that UTF-8 never has: one more than it is 0 in eight bits, the token EOS."""


@dataclasses.dataclass(frozen=True)
class ByteTokenizer(OneEnd):
    """One token for each byte of UTF-8, for any text: token 0 is EOS, token 1 + b the byte b."""

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "ByteTokenizer":
        """The tokenizer that `to_json` wrote."""
        if tree.get("kind") != "bytes":
            raise UserError(f"tokenizer.json wants kind 'bytes', got {tree.get('kind')!r}")
        return cls()

    def to_json(self) -> dict[str, Any]:
        """The kind alone: all such tokenizers are the same."""
        return {"kind": "bytes"}

    @property
    def vocab_size(self) -> int:
        """EOS and bytes."""
        return 1 + BYTES

    @property
    def eos(self) -> int:
        """Token 0."""
        return EOS

    @property
    def words(self) -> tuple[str, ...]:
        """None: bytes are no words."""
        return ()

    @property
    def start(self) -> int:
        """The byte of a line's end."""
        return 1 + ord("\n")

    @property
    def bytes_of_token(self) -> np.ndarray:
        """One for each token, (V,) int32; EOS counts one, a line's end."""
        return np.ones(self.vocab_size, np.int32)

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, (N,) int32. Raises UnknownCharacter for half of a surrogate pair."""
        return _tokens(utf8(text))

    def encode_lines(self, lines: Sequence[str]) -> np.ndarray:
        """Token ids of lines in a row, each followed by EOS, (N,) int32."""
        return _tokens(b"".join([utf8(line) + NO_BYTE for line in lines]))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; EOS gives nothing, and bytes that are no UTF-8 give U+FFFD."""
        return bytes(token - 1 for token in tokens if token != EOS).decode("utf-8", "replace")

    def spell(self, token: int) -> str:
        """One token as people can read it: EOS as '⏎', a blank as '␣', bytes that are no ASCII sign in hexadecimal."""
        if token == EOS:
            return "⏎"
        char = chr(token - 1)
        return "␣" if char == " " else char if "!" <= char <= "~" else f"<0x{token - 1:02X}>"


def _tokens(raw: bytes) -> np.ndarray:
    return (np.frombuffer(raw, np.uint8) + np.uint8(1)).astype(np.int32)
