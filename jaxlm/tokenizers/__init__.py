"""Text to token ids and back: characters, or words with the white space after them."""

from typing import Any

from jaxlm.errors import UserError
from jaxlm.tokenizers.base import EOS, Tokenizer, UnknownCharacter, visible
from jaxlm.tokenizers.characters import CharTokenizer
from jaxlm.tokenizers.rean_tokens import ReanTokenizer
from jaxlm.tokenizers.word_list import WordTokenizer

__all__ = [
    "EOS",
    "CharTokenizer",
    "ReanTokenizer",
    "Tokenizer",
    "UnknownCharacter",
    "WordTokenizer",
    "tokenizer_from_json",
    "visible",
]


def tokenizer_from_json(tree: dict[str, Any]) -> Tokenizer:
    """The tokenizer that its `to_json` wrote. Raises UserError for a kind that this version does not have."""
    kind = tree.get("kind")
    if kind == "characters":
        return CharTokenizer.from_json(tree)
    if kind == "rean":
        return ReanTokenizer.from_json(tree)
    raise UserError(f"tokenizer.json wants kind 'characters' or 'rean', got {kind!r}")
