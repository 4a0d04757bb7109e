"""The loss of a split: nats, tokens and bytes, block by block in one compiled function."""

import math
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.data.dataset import Dataset
from jaxlm.data.rows import Batch
from jaxlm.data.shard_dataset import ShardDataset
from jaxlm.devices.layout import on_mesh
from jaxlm.devices.mesh import must_block, rows_multiple
from jaxlm.models.base import LanguageModel, Params
from jaxlm.runs.metrics import NATS_PER_BIT

EVAL_TOKENS = 8192
"""Predictions in one block of an evaluation."""
EVAL_LOGITS = 2**25
"""Logits in one block of an evaluation, of a model that holds them all: with many tokens it has fewer predictions."""

NATS_PER_TOKEN = "nats/token"
"""The unit of a loss that is the likelihood."""

Stop = Callable[[], bool]
"""Asked between the blocks of an evaluation: True ends it with Interrupted."""


class Interrupted(Exception):
    """An evaluation was ended before all was read, because its `stop` returned True."""


def never() -> bool:
    """Return False: the evaluation runs to its end."""
    return False


class Score(NamedTuple):
    """How well a text was predicted."""

    nats: float
    """Nats summed over the events that can happen."""
    tokens: int
    bytes: int
    impossible: int
    """Events to which the model gives probability 0; with one of them the loss is infinite, given as None."""

    @property
    def nats_per_token(self) -> float | None:
        """Mean negative log-likelihood."""
        return None if self.impossible or not self.tokens else self.nats / self.tokens

    @property
    def loss(self) -> float | None:
        """The loss by which checkpoints are compared: nats per token."""
        return self.nats_per_token

    @property
    def bits_per_byte(self) -> float | None:
        """The same in bits, over the text's UTF-8 bytes, one for each line's end."""
        return None if self.impossible or not self.bytes else self.nats / NATS_PER_BIT / self.bytes

    @property
    def perplexity(self) -> float | None:
        """exp(nats per token); None beyond what a float holds."""
        nats = self.nats_per_token
        return None if nats is None or nats > math.log(sys.float_info.max) else math.exp(nats)

    def to_json(self) -> dict[str, float | int | None]:
        """The entry of eval.json."""
        entry: dict[str, float | int | None] = {
            "nats_per_token": self.nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "tokens": self.tokens,
            "bytes": self.bytes,
        }
        return entry | ({"impossible": self.impossible} if self.impossible else {})

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Score":
        """The score of an entry of eval.json; the nats of a text with impossible events are lost."""
        nats = (entry["nats_per_token"] or 0.0) * entry["tokens"]
        return cls(nats, entry["tokens"], entry["bytes"], entry.get("impossible", 0))

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl for this score, which took `seconds` to find, `time_s` into the run."""
        return {
            "step": step,
            "split": split,
            "loss": self.nats_per_token,
            "unit": NATS_PER_TOKEN,
            "nats_per_token": self.nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "tokens_per_s": self.tokens / max(seconds, 1e-9),
            "lr": None,
            "time_s": time_s,
        }


def token_fields(mean: float, bytes_per_token: float) -> dict[str, Any]:
    """The fields of a line of metrics.jsonl for a mean loss in nats per token."""
    return {
        "unit": NATS_PER_TOKEN,
        "nats_per_token": mean,
        "bits_per_byte": mean / NATS_PER_BIT / bytes_per_token,
    }


class Evaluator:
    """Scores rows of a data set (windows or sequences), block by block.

    A block has `most` predictions at most, EVAL_TOKENS by default. Its rows lie along the mesh on which the parameters
    are; None: all devices, each with the whole model.
    """

    def __init__(
        self,
        model: LanguageModel[Any],
        dataset: Dataset | ShardDataset,
        bytes_V: np.ndarray,
        *,
        mesh: Any = None,
        most: int | None = None,
    ):
        most = most or EVAL_TOKENS
        if getattr(model, "holds_logits", True):
            most = min(most, EVAL_LOGITS // model.vocab_size)
        rows = max(1, most // dataset.targets_per_row)
        multiple = 1 if mesh is None else rows_multiple(mesh)
        self._rows = -(-rows // multiple) * multiple
        self._model, self._dataset, self._mesh = model, dataset, mesh
        self._bytes_V = bytes_V.astype(np.float32)

    def __call__(self, params: Params, row_R: np.ndarray, stop: Stop = never) -> Score:
        """The score of these rows.

        One block is computed while the next one is dispatched. Raises Interrupted as soon as `stop` returns True.
        """
        parts: list[Any] = []
        for row_B in self._blocks(row_R):
            if stop():
                raise Interrupted
            parts.append(self._run(_sums, params, row_B, self._bytes_V))
            jax.block_until_ready(parts[-2:-1])
        nats, tokens, size, impossible = np.sum(np.array(jax.device_get(parts), np.float64).reshape(-1, 4), axis=0)
        return Score(float(nats), int(tokens), int(size), int(impossible))

    def per_token(self, params: Params, row_R: np.ndarray) -> np.ndarray:
        """-log p in nats of every prediction of these rows in order, (tokens,); infinite where p = 0."""
        parts = [jax.device_get(self._run(_nats, params, row_B)) for row_B in self._blocks(row_R)]
        return np.concatenate([nats_N[counts_N] for nats_N, _, counts_N in parts] or [np.zeros(0, np.float32)])

    def _blocks(self, row_R: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(row_R), self._rows):
            row_B = np.full(self._rows, -1, row_R.dtype)
            part = row_R[start : start + self._rows]
            row_B[: len(part)] = part
            yield row_B

    def _run(self, function: Any, params: Params, row_B: np.ndarray, *rest: np.ndarray) -> Any:
        result = _compiled(function, self._mesh)(self._model, params, self._dataset.batch(row_B), *rest)
        return jax.block_until_ready(result) if self._mesh is not None and must_block(self._mesh) else result


@cache
def _compiled(function: Callable[..., Any], mesh: Any) -> Callable[..., Any]:
    """The function compiled for a mesh, once for all evaluators."""
    return jax.jit(function if mesh is None else on_mesh(mesh, function), static_argnums=0)


def _nats(model: LanguageModel[Any], params: Params, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """nats_N, target_N, and whether each counts, of a batch."""
    assert batch.weight is not None  # of a batch of given rows
    target_N, counts_N = batch.target.reshape(-1), batch.weight.reshape(-1) > 0
    if batch.target.ndim == 1:
        return model.next_nats(params, batch.tok, target_N), target_N, counts_N
    nats_BT, _ = model.sequence_nats(params, batch.tok, batch.target)
    return nats_BT.reshape(-1), target_N, counts_N


def _sums(model: LanguageModel[Any], params: Params, batch: Batch, bytes_V: jax.Array) -> tuple[jax.Array, ...]:
    """Nats of the possible events, tokens, bytes, and impossible events of a batch."""
    return sums_of(*_nats(model, params, batch), bytes_V)


def sums_of(
    nats_N: jax.Array, target_N: jax.Array, counts_N: jax.Array, bytes_V: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Nats of the possible events, tokens, bytes, and impossible events of those predictions that count."""
    possible_N = ~jnp.isposinf(nats_N)
    return (
        jnp.sum(jnp.where(counts_N & possible_N, nats_N, 0.0)),
        jnp.sum(counts_N.astype(jnp.float32)),
        jnp.sum(jnp.where(counts_N, bytes_V[target_N], 0.0)),
        jnp.sum((counts_N & ~possible_N).astype(jnp.float32)),
    )
