"""The vocabulary of vectors of words."""

import dataclasses
from typing import Any

from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class WordTokenizer:
    """One token for each word of a vocabulary, the most frequent first: token i is words[i]; there is no EOS."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    """How often each stands in the text it was counted in."""
    pattern: str
    """Its matches are a text's words (data.tokens.pattern and .punctuation decide it)."""
    lower: bool
    phrases: tuple[tuple[str, str], ...] = ()
    """Pairs of words that are joined to one by "_"."""

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "WordTokenizer":
        """The tokenizer that `to_json` wrote."""
        if tree.get("kind") != "words":
            raise UserError(f"tokenizer.json wants kind 'words', got {tree.get('kind')!r}")
        phrases = tuple((first, second) for first, second in tree["phrases"])
        return cls(tuple(tree["words"]), tuple(tree["counts"]), tree["pattern"], tree["lower"], phrases)

    def to_json(self) -> dict[str, Any]:
        """All that is needed to find the words of a text and their tokens."""
        return {"kind": "words", **dataclasses.asdict(self)}

    @property
    def vocab_size(self) -> int:
        """Words."""
        return len(self.words)
