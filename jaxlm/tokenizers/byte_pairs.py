"""Byte-level BPE: tokens are runs of bytes, merged from the pairs that a text has most often."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.errors import UserError, naming
from jaxlm.tokenizers import huggingface
from jaxlm.tokenizers.base import EOS, OneEnd, utf8, visible
from jaxlm.tokenizers.long_texts import CUT, PROBE, batches, pieces

SEVERAL = 8
"""Texts from which on a batch is shared by threads, which take longer to start than few short texts."""


@dataclasses.dataclass(frozen=True)
class BpeTokenizer(OneEnd):
    """Tokens of one byte and more, for any text. Encodes by Hugging Face's `tokenizers` (extra `bpe`), decodes alone.

    Special tokens, EOS among them, stand for no text, and a text that spells one is encoded as any other.
    """

    model: str
    """Vocabulary, merges and the pattern that cuts words: Hugging Face's tokenizer.json."""
    eos: int
    """The token that ends a text."""

    @classmethod
    def of_texts(cls, texts: Iterable[str], vocab_size: int) -> "BpeTokenizer":
        """Train a tokenizer of at most `vocab_size` tokens: EOS is 0, the bytes are 1 to 256, merges come after."""
        return cls(huggingface.compact(huggingface.trained(texts, vocab_size)), EOS)

    @classmethod
    def open(cls, path: Path, eos: str | None = None) -> "BpeTokenizer":
        """The tokenizer of a directory or file (`huggingface.opened`), with its ids; `eos` names the token that ends a
        text where the files leave it open. Raises UserError.
        """
        try:
            tree = huggingface.opened(path)
            tokenizer = cls(huggingface.compact(tree), huggingface.end_of(tree, path, eos))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"data.tokens.path wants Hugging Face's tokenizer.json, got {str(path)!r} with other parts "
                f"({type(error).__name__}: {error})"
            ) from None
        with naming(f"data.tokens.path {str(path)!r}"):
            tokenizer.encode(PROBE)
        return tokenizer

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "BpeTokenizer":
        """The tokenizer that `to_json` wrote."""
        if tree.get("kind") != "bpe":
            raise UserError(f"tokenizer.json wants kind 'bpe', got {tree.get('kind')!r}")
        return cls(huggingface.compact(tree["huggingface"]), tree["eos"])

    def to_json(self) -> dict[str, Any]:
        """All that is needed to encode and decode: "huggingface" is a tokenizer.json for other programs too."""
        return {"kind": "bpe", "eos": self.eos, "huggingface": json.loads(self.model)}

    @property
    def vocab_size(self) -> int:
        """Special tokens, bytes and merges."""
        return len(self._bytes)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """The tokens after the last byte and the last special token, those that are no UTF-8 with U+FFFD."""
        first = max((token for token, raw in enumerate(self._bytes) if len(raw) < 2), default=-1) + 1
        return tuple(raw.decode("utf-8", "replace") for raw in self._bytes[first:])

    @property
    def start(self) -> int:
        """The byte of a line's end."""
        return self._bytes.index(b"\n")

    @functools.cached_property
    def bytes_of_token(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, (V,) int32; EOS counts one, other special tokens none."""
        size_V = np.array([len(raw) for raw in self._bytes], np.int32)
        size_V[self.eos] = 1
        return size_V

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, (N,) int32. Raises UnknownCharacter for half of a surrogate pair."""
        return self._encoded(pieces(text) if self._may_cut else [text])

    def encode_lines(self, lines: Sequence[str]) -> np.ndarray:
        """Token ids of lines in a row, each followed by EOS, (N,) int32."""
        return self._encoded(lines, [self.eos])

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; special tokens give nothing, and bytes that are no UTF-8 give U+FFFD."""
        return b"".join([self._bytes[token] for token in tokens]).decode("utf-8", "replace")

    def spell(self, token: int) -> str:
        """One token as people can read it: EOS as '⏎', white space escaped, a part of a character in hexadecimal."""
        if token == self.eos:
            return "⏎"
        raw = self._bytes[token]
        try:
            return visible(raw.decode()) or self._special.get(token, f"<{token}>")
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in raw)

    def _encoded(self, texts: Iterable[str], after: Sequence[int] = ()) -> np.ndarray:
        """Tokens of all texts, each followed by those of `after`."""
        parts = [np.zeros(0, np.int32)]
        for batch in batches(texts):
            size = sum(len(utf8(text)) for text in batch)
            if len(batch) < SEVERAL:
                found = [self._encoder.encode(text, add_special_tokens=False) for text in batch]
            else:
                found = self._encoder.encode_batch_fast(batch, add_special_tokens=False)
            tokens: list[int] = []
            for one in found:
                tokens += one.ids
                tokens += after
            parts.append(np.array(tokens, np.int32))
            self._check_whole(parts[-1], size + len(after) * len(batch))
        return np.concatenate(parts)

    def _check_whole(self, token_N: np.ndarray, size: int) -> None:
        """Raise UserError unless tokens stand for as many bytes as the text has."""
        if self.bytes_of_token[token_N].sum(dtype=np.int64) != size:
            raise UserError("data.tokens.path wants a tokenizer that keeps every text as it is, got one that does not")

    @functools.cached_property
    def _encoder(self) -> Any:
        return huggingface.encoder(huggingface.without_special(self._tree))

    @functools.cached_property
    def _may_cut(self) -> bool:
        """True if a long text has the same tokens when it is cut: all places where it may be are cut by the pattern."""
        found = {end for _, (_, end) in self._encoder.pre_tokenizer.pre_tokenize_str(PROBE)}
        added = any(not token.get("special") for token in self._tree.get("added_tokens") or [])
        return not added and {place.end() for place in CUT.finditer(PROBE)} <= found

    @functools.cached_property
    def _tree(self) -> huggingface.Tree:
        tree: huggingface.Tree = json.loads(self.model)
        return tree

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        return huggingface.token_bytes(self._tree)

    @functools.cached_property
    def _special(self) -> dict[int, str]:
        return {token: name for name, token in huggingface.special(self._tree).items()}
