"""The grid of a run: how many steps are one compiled chunk, and where losses, scores and saves lie."""

import dataclasses
import math

from jaxlm.config import RunConfig

CHUNK_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CHUNK_SECONDS, FLOPS_PER_SECOND = 0.5, 2e10
BATCH_TOKENS_OF_A_CHUNK = 2**23


@dataclasses.dataclass(frozen=True)
class Plan:
    """The grid of a run in steps. Cadences are multiples of `chunk`, so a resume meets the same points."""

    steps: int
    chunk: int
    log_every: int
    eval_every: int
    save_every: int

    @classmethod
    def of(cls, config: RunConfig, parameters: int, batch_tokens: int) -> "Plan":
        """The chunk is the largest that takes about half a second at a cautious speed, from sizes alone: the same
        settings give the same grid on every machine. Cadences are rounded up to it.
        """
        steps = config.last_step
        flops = step_flops(parameters, batch_tokens)
        most = min(CHUNK_SECONDS * FLOPS_PER_SECOND / flops, BATCH_TOKENS_OF_A_CHUNK / batch_tokens, steps)
        fitting = [size for size in CHUNK_SIZES if size <= most] or [1]
        even = [size for size in fitting if steps % size == 0 and 4 * size >= fitting[-1]]
        chunk = (even or fitting)[-1]
        log_every = _on_grid(config.eval.log_every or steps // 100, chunk)
        eval_every = _on_grid(config.eval.every or steps // 10, chunk)
        return cls(steps, chunk, log_every, eval_every, _on_grid(config.checkpoint.every or eval_every, chunk))

    def at(self, step: int, every: int) -> bool:
        """Whether something that happens every so often happens after this step."""
        return step % every == 0 or step == self.steps


def step_flops(parameters: int, batch_tokens: int) -> float:
    """Operations of a step, roughly: two for each parameter and token forward, four backward."""
    return 6.0 * parameters * batch_tokens


def _on_grid(every: int, chunk: int) -> int:
    return max(1, math.ceil(every / chunk)) * chunk
