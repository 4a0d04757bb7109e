"""The same text under two runs, cut into the smallest pieces that are whole tokens of both."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.data.corpus import encode_text
from jaxlm.errors import UserError, naming
from jaxlm.inference.score import score
from jaxlm.runs.loading import Run
from jaxlm.runs.metrics import NATS_PER_BIT

STREAM_BLOCK = 64
"""Pieces in a block of running text: neighbours depend on each other, blocks hardly do."""
MOST_BLOCKS = 4096
"""Blocks that are resampled at most; of more lines, neighbours are taken together."""
FEWEST_BLOCKS = 10
"""Fewer have no interval that means anything."""


class ScoredText(NamedTuple):
    """A text token by token under R runs of one tokenizer."""

    run: Run
    """The first of them."""
    token_N: np.ndarray
    """Token ids."""
    nats_RN: np.ndarray
    """-log p of each under each run, float64."""
    bytes_N: np.ndarray
    """UTF-8 bytes of each; a line's end has one."""
    begins_N: np.ndarray
    """True for the first token of a line or dialogue, or of running text."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A text in P pieces that both runs predict: tokens, where the tokenizers are the same."""

    text: list[str]
    """Each piece, spelled by A's tokenizer."""
    a_RP: np.ndarray
    """-log p under each run of A in nats."""
    b_RP: np.ndarray
    """-log p under each run of B in nats."""
    size_P: np.ndarray
    """The divisor of losses: 1 for a token, else the piece's bytes times ln 2, which gives bits per byte."""
    block_P: np.ndarray
    """Number of the block that each piece is in: its line, its dialogue, or its part of running text."""
    unit: str
    """nats/token or bits/byte."""
    blocks: str
    """The word for the blocks."""

    @property
    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean loss of each run of A, and of each of B."""
        return self.a_RP.sum(axis=1) / self.size_P.sum(), self.b_RP.sum(axis=1) / self.size_P.sum()

    @property
    def count(self) -> int:
        """Number of blocks."""
        return int(self.block_P[-1]) + 1

    def of_blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean loss of A's runs minus that of B's in each block, and its size."""
        difference_P = self.a_RP.mean(axis=0) - self.b_RP.mean(axis=0)
        return np.bincount(self.block_P, difference_P), np.bincount(self.block_P, self.size_P)


def scored(runs: Sequence[Run], text: str) -> ScoredText:
    """Score a text token by token. Raises UserError where a run cannot read it or gives a token probability 0."""
    first, nats = runs[0], []
    with naming(f"run {str(first.path)!r}"):
        corpus = encode_text(text, first.tokenizer, first.config.data.kind)
    for run in runs:
        with naming(f"run {str(run.path)!r}"):
            found = score(run, text)
            if found.total.impossible:
                raise UserError(
                    f"{found.total.impossible:,} of the text's {found.total.tokens:,} tokens have probability 0, so "
                    "its loss is infinite: compare a run that smooths its counts"
                )
        nats.append(found.nats.astype(np.float64))
    bytes_N = first.tokenizer.bytes_of_token[corpus.tokens_N]
    return ScoredText(first, corpus.tokens_N, np.stack(nats), bytes_N, corpus.age_N == 0)


def paired(a: ScoredText, b: ScoredText) -> Pieces:
    """Pair two scores of one text. Raises UserError where the tokenizers do not give the same bytes, and for a text of
    fewer than FEWEST_BLOCKS blocks.
    """
    same = a.run.tokenizer == b.run.tokenizer and np.array_equal(a.token_N, b.token_N)
    end_N, end_M = np.cumsum(a.bytes_N), np.cumsum(b.bytes_N)
    if end_N[-1] != end_M[-1]:
        raise UserError(
            f"the tokenizers of {str(a.run.path)!r} and {str(b.run.path)!r} cannot be compared: they make "
            f"{end_N[-1]:,} and {end_M[-1]:,} bytes of one text"
        )
    common = end_N if same else np.intersect1d(end_N, end_M)
    last_P = np.arange(len(end_N)) if same else np.searchsorted(end_N, common, side="right") - 1
    start_P = np.append(0, last_P[:-1] + 1)
    other_P = start_P if same else np.append(0, np.searchsorted(end_M, common, side="right")[:-1])
    spell = {token: a.run.tokenizer.spell(token) for token in np.unique(a.token_N).tolist()}
    tokens = a.token_N.tolist()
    text = ["".join(spell[token] for token in tokens[i : j + 1]) for i, j in zip(start_P, last_P, strict=True)]
    size_P = np.ones(len(text)) if same else np.add.reduceat(a.bytes_N, start_P) * NATS_PER_BIT
    block_P, word = _blocks(a.run.config.data.kind, np.maximum.reduceat(a.begins_N, start_P))
    nats = np.add.reduceat(a.nats_RN, start_P, axis=1), np.add.reduceat(b.nats_RN, other_P, axis=1)
    return Pieces(text, *nats, size_P, block_P, "nats/token" if same else "bits/byte", word)


def _blocks(kind: str, begins_P: np.ndarray) -> tuple[np.ndarray, str]:
    """The number of each piece's block, from 0, and the word for the blocks."""
    if kind == "stream":
        block_P, word = np.arange(len(begins_P)) // STREAM_BLOCK, f"blocks of {STREAM_BLOCK} tokens"
    else:
        block_P, word = np.cumsum(begins_P) - 1, kind
    count = int(block_P[-1]) + 1
    if count < FEWEST_BLOCKS:
        raise UserError(f"the text wants at least {FEWEST_BLOCKS} {word}, got {count}: give a longer --text")
    together = -(-count // MOST_BLOCKS)
    if together > 1:
        word = f"groups of {together} {word}"
    return block_P // together, word
