"""Tokenizers of models that other programs trained: Hugging Face's BPE, with normalizers and several ends."""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxlm.errors import UserError
from jaxlm.tokenizers import huggingface, token_spelling
from jaxlm.tokenizers.base import utf8
from jaxlm.tokenizers.byte_pairs import BpeTokenizer


@dataclasses.dataclass(frozen=True)
class ImportedTokenizer(BpeTokenizer):
    """Hugging Face's BPE as it is: of bytes, as GPT-2's, or of characters with bytes for the rest, as Llama 2's.

    `encode` reads the name of a special token as the text that it is, `encode_special` as the token. A normalizer may
    change a text before it is encoded (NFC, or a blank before it): `decode` then gives the text that it became.
    """

    begin: int
    """The token before the first of a text."""
    before: tuple[int, ...]
    """Tokens that the folder's tokenizer puts before each text: none, or the one that begins it."""
    ends: tuple[int, ...]
    """Tokens that end a text or a turn, eos first."""
    template: str | None
    """The Jinja template by which the turns of a chat become a text; it is kept, never run here."""

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "ImportedTokenizer":
        """The tokenizer that `to_json` wrote."""
        if tree.get("kind") != "huggingface":
            raise UserError(f"tokenizer.json wants kind 'huggingface', got {tree.get('kind')!r}")
        return cls(
            model=huggingface.compact(tree["huggingface"]),
            eos=tree["eos"],
            begin=tree["bos"],
            before=tuple(tree["prefix"]),
            ends=tuple(tree["ends"]),
            template=tree["chat_template"],
        )

    def to_json(self) -> dict[str, Any]:
        """All that is needed to encode and decode: "huggingface" is a tokenizer.json for other programs too."""
        own = {"bos": self.begin, "prefix": list(self.before), "ends": list(self.ends), "chat_template": self.template}
        return {**super().to_json(), "kind": "huggingface", **own}

    @property
    def bos(self) -> int:
        """The token before the first of a text."""
        return self.begin

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens that the folder's tokenizer puts before each text."""
        return self.before

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of the folder."""
        return self.template

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text or a turn, eos first."""
        return self.ends

    @property
    def bos_text(self) -> str:
        """The name by which `encode_special` reads bos, "" where it has none: what a chat template calls bos_token."""
        return self._names.get(self.begin, "")

    @property
    def eos_text(self) -> str:
        """The name by which `encode_special` reads eos, "" where it has none: what a chat template calls eos_token."""
        return self._names.get(self.eos, "")

    @property
    def start(self) -> int:
        """The token before the first of a text."""
        return self.bos

    @functools.cached_property
    def keeps_text(self) -> bool:
        """True if every text that can be encoded is decoded to itself."""
        return token_spelling.keeps_text(self._tree)

    def encode_special(self, text: str) -> np.ndarray:
        """Token ids of a text in which the names of special tokens stand for these tokens, (N,) int32.

        For texts that a program put together, as a chat template does: in a text of somebody else's it would let them
        end the turn that they are in.
        """
        utf8(text)
        return np.array(self._special_encoder.encode(text, add_special_tokens=False).ids, np.int32)

    def _check_whole(self, token_N: np.ndarray, size: int) -> None:
        if self.keeps_text and self.bytes_of_token[token_N].sum(dtype=np.int64) != size:
            raise UserError("the text has a character that no token of the imported tokenizer stands for")

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {token: name for name, token in huggingface.special(self._tree).items()}

    @functools.cached_property
    def _special_encoder(self) -> Any:
        return huggingface.encoder(huggingface.encoding_alone(self._tree))

    @functools.cached_property
    def _encoder(self) -> Any:
        unknown = self._tree["model"].get("unk_token")
        return huggingface.encoder(huggingface.without_special(self._tree, unknown))

    @functools.cached_property
    def _may_cut(self) -> bool:
        return token_spelling.may_cut(self._tree) and super()._may_cut

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        return token_spelling.token_bytes(self._tree)
