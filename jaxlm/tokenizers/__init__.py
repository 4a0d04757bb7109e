"""Text to token ids and back: characters, bytes, byte-level BPE, or words with the white space after them."""

from collections.abc import Callable
from typing import Any

from jaxlm.errors import UserError
from jaxlm.tokenizers.base import EOS, Tokenizer, UnknownCharacter, visible
from jaxlm.tokenizers.byte_pairs import BpeTokenizer
from jaxlm.tokenizers.byte_tokens import ByteTokenizer
from jaxlm.tokenizers.characters import CharTokenizer
from jaxlm.tokenizers.imported import ImportedTokenizer
from jaxlm.tokenizers.rean_tokens import ReanTokenizer
from jaxlm.tokenizers.word_list import WordTokenizer

__all__ = [
    "EOS",
    "BpeTokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "ImportedTokenizer",
    "ReanTokenizer",
    "Tokenizer",
    "UnknownCharacter",
    "WordTokenizer",
    "tokenizer_from_json",
    "visible",
]


KINDS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {
    "characters": CharTokenizer.from_json,
    "bytes": ByteTokenizer.from_json,
    "bpe": BpeTokenizer.from_json,
    "rean": ReanTokenizer.from_json,
    "huggingface": ImportedTokenizer.from_json,
}
"""The reader of each kind of tokenizer.json."""


def tokenizer_from_json(tree: dict[str, Any]) -> Tokenizer:
    """The tokenizer that its `to_json` wrote. Raises UserError for a kind that this version does not have."""
    kind = tree.get("kind")
    if kind not in KINDS:
        raise UserError(f"tokenizer.json wants kind {', '.join(map(repr, KINDS))}, got {kind!r}")
    return KINDS[kind](tree)
