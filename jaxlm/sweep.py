"""A sweep: one run after another, for every combination of some settings' values."""

import dataclasses
import gc
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import RunConfig
from jaxlm.errors import NonFiniteLoss, UserError, writing

LONGEST_NAME = 230
"""Bytes in a run directory's name, with room for what is added while it is made."""


class Variant(NamedTuple):
    """One run of a sweep."""

    values: dict[str, Any]
    """The settings that the sweep varies, by name: {"optim.lr": 0.1}."""
    config: RunConfig
    """The whole run, with a directory of its own."""


class Result(NamedTuple):
    """The loss of one run of a sweep."""

    variant: Variant
    split: str
    """dev, or train where there is no dev split."""
    loss: float
    """Nats per token (word2vec: per pair) by eval.json; NaN where training stopped at a loss that is not a number."""
    texts: tuple[str, ...]
    """Hashes of data, tokenizer and split: losses compare where they are the same."""
    error: float | None = None
    """The standard error of the loss, a mean over seeds; None of a run of one seed."""


def named(runs: Sequence[Variant]) -> list[Variant]:
    """The runs with their values at the end of their directories' names: runs/x-optim.lr=0.01,model.d_hidden=100.

    Raises UserError where two would share a directory or a name would be too long.
    """
    made: dict[str, Variant] = {}
    for values, config in runs:
        base = config.directory
        ending = ",".join(f"{name}={_in_a_name(value)}" for name, value in values.items())
        place = base.with_name(f"{base.name}-{ending}")
        if len(place.name.encode()) > LONGEST_NAME:
            raise UserError(
                f"run_dir {place.name!r} is too long for a name: sweep fewer settings, or a shorter --run-dir"
            )
        if str(place) in made:
            raise UserError(f"the sweep has two runs for {str(place)!r}: give each value once")
        made[str(place)] = Variant(values, dataclasses.replace(config, run_dir=str(place)))
    return list(made.values())


def sweep(
    runs: Sequence[Variant], *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> list[Result]:
    """Train the runs in turn as `train` does, finished ones not again; the results come best first.

    All settings, data and run directories are checked before the first step; `restart` then throws all the old runs
    away, so that a sweep that was stopped goes on without it. A run whose loss is not a number is told, and the next
    one follows. Raises UserError and Stopped as `train` does.
    """
    from jaxlm.training import train

    _check(runs, restart=restart, dry_run=dry_run, log=log)
    if dry_run:
        log("\n".join([f"{len(runs)} runs:", *(f"  {run.config.run_dir}{_state(run)}" for run in runs)]))
        return []
    results = []
    for number, variant in enumerate(runs, 1):
        log(f"run {number} of {len(runs)}: {variant.config.run_dir}")
        try:
            train(variant.config, log=log)
        except NonFiniteLoss as error:
            log(f"{variant.config.run_dir} has no result: {error}")
        results.append(_result(variant))
        gc.collect()  # what the run kept on the devices
    results.sort(key=lambda result: (math.isnan(result.loss), result.loss))
    log(table(results))
    return results


def table(results: Sequence[Result]) -> str:
    """Each run's values and loss, in the given order, and the first one's directory."""
    names = list(results[0].variant.values)
    head = [*names, "/".join(sorted({result.split for result in results}))]
    rows = [[*map(_text, result.variant.values.values()), _loss(result)] for result in results]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    if len({(result.split, *result.texts) for result in results}) > 1:
        return "\n".join([*lines, "the texts scored differ from run to run: these losses do not compare"])
    best = (
        f"best: {results[0].variant.config.run_dir}" if math.isfinite(results[0].loss) else "no run has a finite loss"
    )
    return "\n".join([*lines, best])


def _check(runs: Sequence[Variant], *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> None:
    """Find what would stop a run before one trains; with `restart`, old runs are set aside when all else is good."""
    from jaxlm.devices.processes import refuse_several
    from jaxlm.rean.training import vectors_first
    from jaxlm.runs.create import check_run, is_free, set_aside
    from jaxlm.runs.fingerprint import fingerprint
    from jaxlm.training.seeds import job as seeds

    refuse_several(runs[0].config, "a sweep, whose runs follow each other in one process")
    configs = [variant.config for variant in runs]
    for config in configs:
        prepare = seeds.prepare if config.seeds > 1 else config.model.prepare
        job = prepare(config, restart=restart, dry_run=True, log=lambda line: None)
        path, vectors = config.directory, vectors_first(job.config, restart=restart)
        if vectors is not None and vectors not in configs:
            configs.append(vectors)
        with writing(path):
            if not dry_run and not is_free(path):
                now = fingerprint(job.config, job.data, init_from=job.init_hash)
                check_run(path, None if restart else now, job.config)
    if restart and not dry_run:
        for config in configs:
            set_aside(config.directory, log)


def _state(variant: Variant) -> str:
    from jaxlm.runs.directory import RunDir

    run = RunDir(Path(variant.config.run_dir or ""))
    return " (trained already)" if run.eval.exists() else " (begun)" if run.checkpoints.exists() else ""


def _result(variant: Variant) -> Result:
    from jaxlm.runs.directory import RunDir

    run = RunDir(Path(variant.config.run_dir or ""))
    hashes = run.read_fingerprint()
    texts = tuple(hashes[name] for name in ("data", "tokenizer", "split"))
    if not run.eval.exists():
        return Result(variant, "dev" if variant.config.data.split[1] else "train", math.nan, texts)
    scores = run.read_eval()
    split = "dev" if scores["dev"] else "train"
    nats = scores[split].get("loss", scores[split]["nats_per_token"])
    error = scores[split].get("standard_error")
    return Result(variant, split, math.inf if nats is None else nats, texts, error)


def _in_a_name(value: Any) -> str:
    """A value as a part of a directory's name."""
    return re.sub(r"[^\w.+-]", "_", _text(value))


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _loss(result: Result) -> str:
    if math.isnan(result.loss):
        return "not a number"
    loss = f"{result.loss:.4f}" if result.loss < 1e4 else f"{result.loss:.3g}"
    return loss if result.error is None else f"{loss} ± {result.error:.4f}"
