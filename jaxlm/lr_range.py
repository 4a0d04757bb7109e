"""Range test of the learning rate: python -m jaxlm.lr_range configs/names_mlp.py [--low 1e-5] [--high 10]."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax

from jaxlm.cli.process import run_main
from jaxlm.cli.train_command import parse_range
from jaxlm.config import RunConfig, check
from jaxlm.config.rean import TableConfig
from jaxlm.devices.processes import refuse_several
from jaxlm.errors import UserError, check_folder
from jaxlm.models.base import axes_of
from jaxlm.training import optim
from jaxlm.training.language import LanguageJob
from jaxlm.training.progress import Progress

DIVERGED = 4.0
"""The test ends when the smoothed loss reaches this multiple of its minimum."""
SMOOTHING = 0.025
"""Standard deviation of the smoothing window, as a share of the test's steps."""
OF_THE_FALL = 0.98
"""Share of the smoothed loss's decrease that is reached at the suggested rate."""
LEAST_RISE, MOST_AT_ONCE = 0.1, 0.3
"""Least rise at the end and greatest decrease in the first twentieth of the test, as shares of the decrease, for the
range to be wide enough."""
CLEAR = 2.0
"""Least decrease of the loss in standard deviations of single batches; smoothing leaves about a tenth of one."""
TABLE_LINES = 16
"""Most lines of the printed table."""
PICTURES = (".png", ".pdf", ".svg")
"""Suffixes of a plot."""


class RangeCurve(NamedTuple):
    """The training loss against the learning rate, step by step."""

    rate_K: np.ndarray
    """Learning rate of each step."""
    loss_K: np.ndarray
    """Loss of each step's batch in the unit of the training loss, finite and not negative."""
    smooth_K: np.ndarray
    """Smoothed loss at each step."""
    stopped: bool
    """True if the test ended before the highest rate because the loss diverged."""


def main(args: list[str]) -> int:
    """Run the range test of a config, print its table and suggestion, and draw its curve."""
    command = parse_range(args)
    if command is None:
        return 0
    if command.out.suffix not in PICTURES:
        raise UserError(f"--out wants a picture ({', '.join(PICTURES)}), got {str(command.out)!r}")
    if command.out.is_dir():
        raise UserError(f"--out {str(command.out)!r} is a directory")
    check_folder("--out", command.out.parent)
    curve = measure(command.config, low=command.low, high=command.high, steps=command.range_steps, log=print)
    print(curve_table(curve))
    try:
        rate = suggest(curve)
    except UserError:
        _draw(curve, None, command.out)
        raise
    settings = command.config.optim  # the rate of Muon's matrices rose in proportion
    beside = f" --optim.muon-lr {rate * settings.muon_lr / settings.lr:.2g}" if settings.name == "muon" else ""
    print(f"suggested: --optim.lr {rate:.2g}{beside}", flush=True)
    _draw(curve, rate, command.out)
    print(f"curve: {command.out}")
    return 0


def measure(
    config: RunConfig, *, low: float, high: float, steps: int, log: Callable[[str], None] = lambda line: None
) -> RangeCurve:
    """Train from the initial state while the rate of step s is low * (high / low) ** (s / (steps - 1)).

    The config's own rate and schedule are not used, and nothing is saved (Smith 2017, "Cyclical learning rates for
    training neural networks", section 3.3, with geometric instead of linear steps). Ends early when the loss is not
    finite or diverges (DIVERGED). Raises UserError as `train` does, and for a negative loss.
    """
    check.more_than("--low", low, 0)
    check.more_than("--high", high, low)
    if high / low > check.LARGEST:  # float32 could not hold their ratio
        raise UserError(f"--low wants at least {high / check.LARGEST:.2g} where --high is {high:g}, got {low:g}")
    check.between("--range-steps", steps, 20, 10**6)
    if not (config.model.trained_by_steps and config.model.predicts_text):
        raise UserError(f"the range test wants a language model trained by steps, got {type(config.model).__name__}")
    if isinstance(config.model, TableConfig) and config.model.vectors_from is not None and config.init_from is None:
        raise UserError(
            "model.vectors_from wants vectors to be trained first: train the run, then give their directory (it ends "
            "in _vectors) as model.vectors"
        )
    refuse_several(config, "the range test")
    settings = config.optim.at_constant_rate()
    config = dataclasses.replace(config, optim=settings, steps=steps, epochs=None, tokens=None)
    job = config.model.prepare(config, restart=True, dry_run=True, log=log)
    assert isinstance(job, LanguageJob), job
    for line in job.summary():
        log(line)
    rate = optax.exponential_decay(low, steps - 1, high / low)
    setup = job.setup
    optimizer = optim.update_rule(settings, rate, axes_of(setup.model))
    state, train_chunk = setup.initial_state(optimizer), setup.compiled_chunk(optimizer, rate)
    most, loss_K, end = job.cadence(None).chunk, np.empty(0), None
    progress = Progress(steps, 0)
    while end is None and len(loss_K) < steps:
        K = min(most, steps - len(loss_K))
        state, chunk = train_chunk(state, setup.dataset.batches(len(loss_K), K), setup.placed_buffers, K)
        loss_K = np.append(loss_K, np.asarray(chunk.loss_K, np.float64))
        progress.steps(len(loss_K), float(loss_K[-1]))
        end = 0 if (loss_K < 0).any() else _end(loss_K, steps)
    progress.close()
    below = np.flatnonzero(loss_K < 0)
    if below.size:
        raise UserError(
            f"the range test wants a training loss that is never negative, got {loss_K[below[0]]:.4g} at step "
            f"{below[0] + 1} (that of REAN's model.objective vmf may be): compare rates by train.py --sweep.optim.lr"
        )
    if end == 0:
        raise UserError(f"--low {low:g}: the loss is {loss_K[0]} at the first step")
    rate_K = low * (high / low) ** (np.arange(steps) / (steps - 1))
    return RangeCurve(rate_K[:end][: len(loss_K)], loss_K[:end], smoothed(loss_K[:end], steps), end is not None)


def suggest(curve: RangeCurve) -> float:
    """Suggest the smallest rate at which the smoothed loss has made 98 % of its decrease.

    At the minimum itself training is close to diverging, and the valley may be flat for several powers of ten. Raises
    UserError if the curve does not show the valley's beginning and end.
    """
    low, high = curve.rate_K[[0, -1]]
    lowest = int(curve.smooth_K.argmin())
    floor = float(curve.smooth_K[lowest])
    fall = float(curve.smooth_K[: lowest + 1].max()) - floor
    early = float(curve.smooth_K[0] - curve.smooth_K[len(curve.smooth_K) // 20])
    if not curve.stopped and curve.smooth_K[-1] - floor < LEAST_RISE * fall:
        raise UserError(f"--high {high:g} is too low: the loss does not rise before it; try --high {high * 100:g}")
    if lowest == 0 or early > MOST_AT_ONCE * fall:
        raise UserError(f"--low {low:g} is too high: the loss falls at once or never; try --low {low / 1000:g}")
    noise = float(np.std((curve.loss_K - curve.smooth_K)[: lowest + 1]))
    if fall < CLEAR * noise:
        raise UserError(
            f"--range-steps wants more steps: the loss falls by {fall:.3g} in all, too little beside the {noise:.3g} "
            "by which it varies from batch to batch (or take a wider range)"
        )
    return float(curve.rate_K[np.flatnonzero(curve.smooth_K <= floor + (1 - OF_THE_FALL) * fall)[0]])


def smoothed(loss_K: np.ndarray, steps: int) -> np.ndarray:
    """Smooth non-negative losses by geometric means in a Gaussian window, which keep a huge loss from dominating."""
    width = SMOOTHING * steps
    reach = math.ceil(3 * width)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)

    def window_sum(x_K: np.ndarray) -> np.ndarray:
        return np.convolve(x_K, weight)[reach : reach + len(x_K)]

    log_K = np.log(np.maximum(loss_K, np.finfo(np.float32).tiny))
    return np.exp(window_sum(log_K) / window_sum(np.ones_like(log_K)))


def curve_table(curve: RangeCurve) -> str:
    """Format evenly spaced points of the curve as a table of rates and smoothed losses."""
    chosen = np.unique(np.linspace(0, len(curve.rate_K) - 1, TABLE_LINES).astype(int))
    rows = [f"{curve.rate_K[k]:>9.2e}  {curve.smooth_K[k]:.4f}" for k in chosen]
    return "\n".join(["     rate  smoothed loss", *rows])


def _end(loss_K: np.ndarray, steps: int) -> int | None:
    """Number of losses before the first that is not finite or has diverged; None if there is none."""
    bad_K = ~np.isfinite(loss_K)
    count = int(bad_K.argmax()) if bad_K.any() else len(loss_K)
    smooth_K = smoothed(loss_K[:count], steps) if count else np.empty(0)
    beyond_K = smooth_K > DIVERGED * np.minimum.accumulate(smooth_K)
    if beyond_K.any():
        return int(beyond_K.argmax())
    return count if bad_K.any() else None


def _draw(curve: RangeCurve, rate: float | None, path: Path) -> None:
    from jaxlm.plots.pictures import rate_curve

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rate_curve(curve.rate_K, curve.loss_K, curve.smooth_K, rate, path)
    except OSError as error:
        raise UserError(f"--out {str(path)!r} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    run_main(main)
