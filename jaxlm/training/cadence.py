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
EARLY_POINTS = 6
"""Most early evaluations: at 1/2, 1/4, ... 1/64 of the steps to the first evaluation of the cadence."""
EARLY_STEPS = 20
"""Fewest steps before the first early evaluation."""
EARLY_SHARE = 0.005
"""Share of the run's operations that the early evaluations may take together."""
EARLY_FLOPS = 2.5e9
"""Operations that the early evaluations may take in any run, an eighth of a second on a CPU."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Steps between logs, evaluations and saves, which are multiples of the steps of a chunk.

    Before the first evaluation of the cadence there are early ones on a grid that doubles, so that the least dev loss
    of a small file is met, whose training overfits long before.
    """

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
    early: tuple[int, ...] = ()
    """Steps of the early evaluations; a checkpoint is saved at each if there is one at every evaluation."""
    early_chunk: int | None = None
    """Steps of a chunk within the first `chunk` steps, a divisor of `chunk`; None: all chunks have `chunk` steps."""
    traced: tuple[int, int] | None = None
    """Steps between which a trace is written: they are chunks of one step, compiled in the step before them."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        parameters: int,
        batch_tokens: int,
        *,
        rate: float,
        chunk: int | None = None,
        eval_tokens: int = 0,
    ) -> "Cadence":
        """Choose the cadence of a config whose steps take 6 * parameters * batch_tokens operations, at `rate` a second.

        A chunk has the largest size that takes about half a second. A resumed run gives its checkpoint's `chunk`, so
        that it logs, evaluates and saves at the same steps. Cadences are rounded up to whole chunks. There are as many
        early evaluations as cost little: one takes 2 * parameters * eval_tokens operations.
        """
        steps, step = config.last_step, step_flops(parameters, batch_tokens)
        if chunk is None:
            most = min(CHUNK_SECONDS * rate / step, BATCH_TOKENS_OF_A_CHUNK / batch_tokens, steps)
            fitting = [size for size in CHUNK_SIZES if size <= most] or [1]
            even = [size for size in fitting if steps % size == 0 and 4 * size >= fitting[-1]]
            chunk = (even or fitting)[-1]
        log_every = _whole_chunks(config.eval.log_every or steps // 100, chunk)
        eval_every = _whole_chunks(config.eval.every or steps // 10, chunk)
        save_every = _whole_chunks(config.checkpoint.every or eval_every, chunk)
        affordable = max(EARLY_SHARE * step * steps, EARLY_FLOPS) / max(step_flops(parameters, eval_tokens) / 3, 1.0)
        early, early_chunk = _early_points(eval_every, chunk, int(min(affordable, EARLY_POINTS)))
        return cls(steps, chunk, log_every, eval_every, save_every, early, early_chunk, config.profile_steps)

    def size_at(self, step: int) -> int:
        """Steps of the chunk after `step`.

        1 if `step` is not on the grid of chunks, if fewer than a chunk are left, or if the chunk has traced steps.
        """
        size = self.early_chunk if self.early_chunk and step < self.chunk else self.chunk
        on_grid = step % size == 0 and step + size <= self.steps
        traced = self.traced is not None and self.traced[0] - 1 < step + size and step < self.traced[1]
        return size if on_grid and not traced else 1

    def logs(self, step: int) -> bool:
        """True if a train line is written after this step."""
        return self._at(step, self.log_every)

    def evaluates(self, step: int) -> bool:
        """True if the splits are evaluated after this step."""
        return self._at(step, self.eval_every) or step in self.early

    def saves(self, step: int) -> bool:
        """True if a checkpoint is saved after this step."""
        return self._at(step, self.save_every) or (self.save_every == self.eval_every and step in self.early)

    def _at(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps


def step_flops(parameters: int, batch_tokens: int) -> float:
    """Approximate operations of a step: 6 * parameters * batch_tokens, two thirds of them in the backward pass."""
    return 6.0 * parameters * batch_tokens


def _whole_chunks(every: int, chunk: int) -> int:
    return max(1, math.ceil(every / chunk)) * chunk


def _early_points(every: int, chunk: int, count: int) -> tuple[tuple[int, ...], int | None]:
    """Steps of at most `count` evaluations before `every`, halved again and again, and the steps of a chunk for them.

    Points beyond the first chunk are rounded down to whole chunks. If some lie within it, it is cut into smaller ones
    of a single size, because every size is compiled.
    """
    points = [every / 2**halvings for halvings in range(1, count + 1) if every / 2**halvings >= EARLY_STEPS]
    size = chunk
    if points and points[-1] < chunk:
        size = max((size for size in CHUNK_SIZES if size <= points[-1] and chunk % size == 0), default=1)
    grid = [chunk if point >= chunk else size for point in points]
    early = {int(point // unit) * unit for point, unit in zip(points, grid, strict=True)}
    return tuple(sorted(early)), size if size < chunk else None
