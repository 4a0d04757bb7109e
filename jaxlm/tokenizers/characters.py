"""One token for each character."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxlm.errors import UserError
from jaxlm.tokenizers.base import EOS, OneEnd, UnknownCharacter


@dataclasses.dataclass(frozen=True)
class CharTokenizer(OneEnd):
    """One token for each Unicode character; token 0 is EOS. Token i > 0 is characters[i - 1]."""

    characters: str

    @classmethod
    def of_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer of all characters in a text, line ends too, in code-point order."""
        return cls("".join(map(chr, np.unique(_code_points(text)).tolist())))

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "CharTokenizer":
        """The tokenizer that `to_json` wrote."""
        if tree.get("kind") != "characters":
            raise UserError(f"tokenizer.json wants kind 'characters', got {tree.get('kind')!r}")
        return cls(tree["characters"])

    def to_json(self) -> dict[str, Any]:
        """All that is needed to encode and decode."""
        return {"kind": "characters", "characters": self.characters}

    @property
    def vocab_size(self) -> int:
        """Characters and EOS."""
        return len(self.characters) + 1

    @property
    def eos(self) -> int:
        """Token 0."""
        return EOS

    @property
    def words(self) -> str:
        """The characters themselves."""
        return self.characters

    @property
    def start(self) -> int:
        """The line's end where the text has lines, else the first character."""
        return self.characters.find("\n") + 1 if "\n" in self.characters else 1

    @property
    def bytes_of_token(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, (V,) int32; EOS counts one, a line's end."""
        return np.array([1, *(len(c.encode("utf-8", "surrogatepass")) for c in self.characters)], np.int32)

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, (N,) int32. Raises UnknownCharacter for the first that has no token."""
        points_N = _code_points(text)
        known_V = _code_points(self.characters)
        token_N = np.searchsorted(known_V, points_N, side="right")
        unknown_N = np.concatenate([[-1], known_V])[token_N] != points_N
        if unknown_N.any():
            raise self._unknown(chr(int(points_N[unknown_N][0])))
        return token_N.astype(np.int32)

    def encode_lines(self, lines: Sequence[str]) -> np.ndarray:
        """Token ids of lines in a row, each followed by EOS, (N,) int32."""
        ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
        return np.insert(self.encode("".join(lines)), ends, EOS).astype(np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; EOS gives nothing."""
        return "".join([self._text_of_token[token] for token in tokens])

    @functools.cached_property
    def _text_of_token(self) -> list[str]:
        return ["", *self.characters]

    def spell(self, token: int) -> str:
        """One token as people can read it: EOS as '.' ('⏎' where the text has dots), white space and controls
        escaped.
        """
        if token == EOS:
            return "⏎" if "." in self.characters else "."
        char = self.characters[token - 1]
        return char if char.isprintable() and not char.isspace() else json.dumps(char)[1:-1] if char != " " else "␣"

    def _unknown(self, char: str) -> UnknownCharacter:
        shown = "".join(self.characters[:40]).replace("\n", "⏎")
        more = "…" if len(self.characters) > 40 else ""
        name = f"the character {char!r} (U+{ord(char):04X})"
        return UnknownCharacter(char, f"{name} is not in this tokenizer; it knows: {shown}{more}")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
