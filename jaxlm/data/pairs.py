"""How often each token of train follows each other one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm.data.corpus import Corpus
from jaxlm.tokenizer import BOUNDARY


class Pairs(NamedTuple):
    """Counts of pairs, and the tokens as people read them."""

    count_VV: np.ndarray
    """count[before, after], the boundary standing before a line."""
    spelled: list[str]


def count_pairs(corpus: Corpus) -> Pairs:
    """The pairs of train."""
    V = corpus.tokenizer.vocab_size
    after_N = corpus.tokens("train").astype(np.int64)
    before_N = np.where(corpus.age_N[: len(after_N)] > 0, np.roll(after_N, 1), BOUNDARY)
    count_VV = np.bincount(before_N * V + after_N, minlength=V * V).reshape(V, V)
    return Pairs(count_VV, [corpus.tokenizer.spell(token) for token in range(V)])


def save_pairs(pairs: Pairs, path: Path) -> None:
    """Write pairs.npz."""
    np.savez(path, count=pairs.count_VV, spelled=np.array(pairs.spelled))


def load_pairs(path: Path) -> Pairs:
    """Read pairs.npz."""
    with np.load(path) as arrays:
        return Pairs(arrays["count"], arrays["spelled"].tolist())
