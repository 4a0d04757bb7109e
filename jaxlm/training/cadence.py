"""The cadence of a run: steps in a compiled chunk, and the steps after which it is logged, evaluated and saved."""

import dataclasses
import math

from jaxlm.config import RunConfig

CHUNK_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Steps that a chunk can have."""
CHUNK_SECONDS = 0.5
"""Target duration of a chunk."""
BATCH_TOKENS_OF_A_CHUNK = 2**23
"""Most tokens in all batches of a chunk, which lie in memory together."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Steps between logs, evaluations and saves, which are multiples of the steps of a chunk."""

    steps: int
    """Steps of the whole run."""
    chunk: int
    """Steps of one compiled chunk."""
    log_every: int
    """Steps between train lines."""
    eval_every: int
    """Steps between evaluations."""
    save_every: int
    """Steps between checkpoints."""

    @classmethod
    def of(
        cls, config: RunConfig, parameters: int, batch_tokens: int, *, rate: float, chunk: int | None = None
    ) -> "Cadence":
        """Choose the cadence of a config whose steps take 6 * parameters * batch_tokens operations, at `rate` a second.

        A chunk has the largest size that takes about half a second. A resumed run gives its checkpoint's `chunk`, so
        that it logs, evaluates and saves at the same steps. Cadences are rounded up to whole chunks.
        """
        steps = config.last_step
        if chunk is None:
            seconds = step_flops(parameters, batch_tokens) / rate
            most = min(CHUNK_SECONDS / seconds, BATCH_TOKENS_OF_A_CHUNK / batch_tokens, steps)
            fitting = [size for size in CHUNK_SIZES if size <= most] or [1]
            even = [size for size in fitting if steps % size == 0 and 4 * size >= fitting[-1]]
            chunk = (even or fitting)[-1]
        log_every = _whole_chunks(config.eval.log_every or steps // 100, chunk)
        eval_every = _whole_chunks(config.eval.every or steps // 10, chunk)
        return cls(steps, chunk, log_every, eval_every, _whole_chunks(config.checkpoint.every or eval_every, chunk))

    def size_at(self, step: int) -> int:
        """Steps of the chunk after `step`: `chunk`, or 1 if `step` is not a multiple of it or fewer steps are left."""
        on_grid = step % self.chunk == 0 and step + self.chunk <= self.steps
        return self.chunk if on_grid else 1

    def logs(self, step: int) -> bool:
        """True if a train line is written after this step."""
        return self._at(step, self.log_every)

    def evaluates(self, step: int) -> bool:
        """True if the splits are evaluated after this step."""
        return self._at(step, self.eval_every)

    def saves(self, step: int) -> bool:
        """True if a checkpoint is saved after this step."""
        return self._at(step, self.save_every)

    def _at(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps


def step_flops(parameters: int, batch_tokens: int) -> float:
    """Approximate operations of a step: 6 * parameters * batch_tokens, two thirds of them in the backward pass."""
    return 6.0 * parameters * batch_tokens


def _whole_chunks(every: int, chunk: int) -> int:
    return max(1, math.ceil(every / chunk)) * chunk
