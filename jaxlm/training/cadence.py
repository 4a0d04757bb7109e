"""The cadence of a run: steps in a compiled chunk, and the points at which it is logged, evaluated and saved."""

import dataclasses
import math

from jaxlm.config import RunConfig

CHUNK_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CHUNK_SECONDS = 0.5
BATCH_TOKENS_OF_A_CHUNK = 2**23
"""Tokens of all batches of a chunk, which lie in memory together."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Steps between points. Those between logs, evaluations and saves are multiples of `chunk`."""

    steps: int
    """Steps of the whole run."""
    chunk: int
    """Steps of one compiled chunk."""
    log_every: int
    eval_every: int
    save_every: int

    @classmethod
    def of(
        cls, config: RunConfig, parameters: int, batch_tokens: int, *, rate: float, chunk: int | None = None
    ) -> "Cadence":
        """The cadence of a config whose steps take 6 * parameters * batch_tokens operations, at `rate` a second.

        A chunk is the largest size that takes about half a second; `chunk` gives it where a checkpoint does, so that
        a resumed run meets the points it would have met. Cadences are rounded up to whole chunks.
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
        """Steps of the chunk that begins after `step`: a single one off the grid, or where a chunk would not fit."""
        on_grid = step % self.chunk == 0 and step + self.chunk <= self.steps
        return self.chunk if on_grid else 1

    def logs(self, step: int) -> bool:
        """True where a train line is written after this step."""
        return self._at(step, self.log_every)

    def evaluates(self, step: int) -> bool:
        """True where losses of the splits are taken after this step."""
        return self._at(step, self.eval_every)

    def saves(self, step: int) -> bool:
        """True where a checkpoint is saved after this step."""
        return self._at(step, self.save_every)

    def _at(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps


def step_flops(parameters: int, batch_tokens: int) -> float:
    """Operations of a step, about: two for each parameter and token forward, four backward."""
    return 6.0 * parameters * batch_tokens


def _whole_chunks(every: int, chunk: int) -> int:
    return max(1, math.ceil(every / chunk)) * chunk
