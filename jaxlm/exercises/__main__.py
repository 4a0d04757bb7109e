"""python -m jaxlm.exercises [E01 ... E06 | all] [--out DIR] [--data.path FILE]: train, measure, answer, draw."""

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jaxlm.cli.parsing import parse
from jaxlm.cli.process import run_main
from jaxlm.config import DataConfig, check
from jaxlm.errors import Stopped, UserError, check_folder
from jaxlm.exercises import EXERCISES


@dataclasses.dataclass(frozen=True)
class ExerciseCommand:
    """Do an exercise of the makemore lecture: print what it measured and the answer, and save its picture."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The text."""
    out: Path = Path("runs/exercises")
    """Directory for the plots."""
    seed: int = 0
    """Seed of parameters and batches."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best device that JAX finds."""


def main(args: list[str]) -> int:
    """Run the exercises that the first argument names; without one, list them."""
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
        return 0
    chosen = [name for name in EXERCISES if args[0].upper() in (name, "ALL")]
    if not chosen:
        raise UserError(f"the first argument wants one of {', '.join(EXERCISES)} or all, got {args[0]!r}")
    command = parse(ExerciseCommand, args[1:], prog=f"python -m jaxlm.exercises {args[0]}")
    check.between("seed", command.seed, 0, 2**32 - 1)
    check_folder("--out", command.out)
    try:
        return _do(chosen, command)
    except OSError as error:
        raise UserError(f"--out {str(command.out)!r} cannot be written: {error.strerror or error}") from error


def _do(chosen: list[str], command: ExerciseCommand) -> int:
    from jaxlm.exercises import cross_entropy, indexing, kneser_ney, smoothing, trigram
    from jaxlm.exercises.lab import Lab

    exercises: dict[str, Callable[[Lab], object]] = {
        "E01": trigram.beat_the_bigram,
        "E02": trigram.held_out_losses,
        "E03": smoothing.tune_smoothing,
        "E04": indexing.compare_indexing,
        "E05": cross_entropy.compare_losses,
        "E06": kneser_ney.compare_orders,
    }
    lab = Lab(command.data, command.out, command.seed, command.device)
    for name in chosen:
        began = time.monotonic()
        print(f"{name}: {EXERCISES[name]}", flush=True)
        try:
            exercises[name](lab)
        except Stopped as stopped:
            print(f"stopped by {signal.Signals(stopped.signum).name}", file=sys.stderr)
            return 128 + stopped.signum
        print(f"picture: {lab.picture(name)}, {time.monotonic() - began:.1f} s\n", flush=True)
    return 0


def _usage() -> str:
    listed = "\n".join(f"  {name}  {title}" for name, title in EXERCISES.items())
    return (
        "usage: python -m jaxlm.exercises EXERCISE|all [--out DIR] [--data.path FILE] [--SETTING VALUE ...]\n\n"
        f"{listed}\n\n"
        "EXERCISE --help lists the settings; without any, the names that come with the package are used."
    )


if __name__ == "__main__":
    run_main(main)
