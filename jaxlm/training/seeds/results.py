"""The results of several seeds together: means and standard errors of their losses."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from jaxlm.config import RunConfig
from jaxlm.data.corpus import SPLITS
from jaxlm.inference.evaluation import Score
from jaxlm.runs.directory import RunDir

AVERAGED = ("nats_per_token", "bits_per_byte")
"""Numbers of a split's entry in eval.json, and of a line of metrics.jsonl, that are means over the seeds."""


@dataclasses.dataclass(frozen=True)
class SeedsScore:
    """The loss of a split under each seed."""

    of_seeds: tuple[Score, ...]

    @property
    def nats(self) -> float:
        """The summed loss of all seeds in nats."""
        return sum(score.nats for score in self.of_seeds)

    @property
    def loss(self) -> float | None:
        """The mean over the seeds in nats per token; None where one of them is infinite."""
        return mean([score.loss for score in self.of_seeds])

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl: that of a single run with means, and the standard error of the loss."""
        lines = [score.metrics_line(step, split, seconds=seconds, time_s=time_s) for score in self.of_seeds]
        means = {name: mean([line[name] for line in lines]) for name in ("loss", *AVERAGED)}
        tokens = sum(line["tokens_per_s"] for line in lines)
        error = standard_error([line["loss"] for line in lines])
        return {**lines[0], **means, "tokens_per_s": tokens, "standard_error": error}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is None."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def standard_error(values: Sequence[float | None]) -> float | None:
    """The standard error of the mean, s / sqrt(N) with s^2 = sum (x - mean)^2 / (N - 1); None where a value is None or
    there is only one.
    """
    known = [value for value in values if value is not None]
    if len(known) != len(values) or len(known) < 2:
        return None
    return statistics.stdev(known) / math.sqrt(len(known))


def results(config: RunConfig, runs: Sequence[RunDir], seconds: float) -> dict[str, Any]:
    """The content of the group's eval.json: that of a single run, each split's losses being means over the seeds."""
    found = [run.read_eval() for run in runs]
    splits = {split: _split([one[split] for one in found]) for split in SPLITS}
    first = {name: found[0][name] for name in ("baselines", "params", "steps")}
    seeds = list(range(config.seed, config.seed + config.seeds))
    return {**splits, **first, "seeds": seeds, "step": config.last_step, "train_time_s": seconds}


def loss_lines(seeds: Sequence[int], runs: Sequence[RunDir]) -> list[str]:
    """A table of the seeds' losses in nats per token, then their mean and standard error."""
    found = [run.read_eval() for run in runs]
    splits = [split for split in SPLITS if found[0][split]]
    of_split = {split: [one[split]["nats_per_token"] for one in found] for split in splits}
    rows = [["seed", *splits, "best step"]]
    for n, seed in enumerate(seeds):
        rows.append([str(seed), *(_loss(of_split[split][n]) for split in splits), f"{found[n]['step']:,}"])
    rows.append(["mean", *(_loss(mean(of_split[split])) for split in splits), ""])
    rows.append(["standard error", *(_loss(standard_error(of_split[split])) for split in splits), ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in lines]


def _split(entries: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    known = [entry for entry in entries if entry is not None]
    if not known:
        return None
    nats = [entry["nats_per_token"] for entry in known]
    means = {name: mean([entry[name] for entry in known]) for name in AVERAGED}
    middle = means["nats_per_token"]
    possible = middle is not None and middle < math.log(1e300)
    return {
        **known[0],
        **means,
        "perplexity": math.exp(middle) if middle is not None and possible else None,
        "standard_error": standard_error(nats),
        "of_seeds": nats,
    }


def _loss(nats: float | None) -> str:
    return "-" if nats is None else f"{nats:.4f}" if nats < 1e4 else f"{nats:.3g}"
