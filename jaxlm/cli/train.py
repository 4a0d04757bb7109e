"""train.py: train one run or a sweep of them, and say how to go on after a signal.

Quickly imported, so that Ctrl-C is handled from the start.
"""

import math
import shlex
import sys
from typing import TYPE_CHECKING

from jaxlm.cli.process import EXIT_NON_FINITE, exit_codes, raise_on_signals, show
from jaxlm.errors import Stopped

if TYPE_CHECKING:
    from jaxlm.config import RunConfig


def main() -> None:
    """Train as the process's arguments say, and exit."""
    with exit_codes(ignore_write_errors=True):
        sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Train as the arguments say; return the exit code. Raises UserError, and NonFiniteLoss for a single run."""
    if any(arg.startswith("--sweep") for arg in args[1:]):
        return _sweep(args)
    from jaxlm.cli.train_command import parse_train

    command = parse_train(args)
    if command is None:  # only help was wanted
        return 0
    from jaxlm.config import AnyTextConfig

    if isinstance(command.config.model, AnyTextConfig):
        from jaxlm.any_text import train
    else:
        from jaxlm.training import train

    _use_cores(command.config)
    raise_on_signals()
    try:
        train(command.config, restart=command.restart, dry_run=command.dry_run, log=show)
    except Stopped as stopped:
        return _stopped(args, stopped)
    return 0


def _sweep(args: list[str]) -> int:
    from jaxlm.cli.sweep_command import parse_sweep
    from jaxlm.sweep import sweep

    command = parse_sweep(args)
    import jaxlm.training  # noqa: F401 - before signals raise: an exception in an import may be swallowed

    _use_cores(command.runs[0].config)
    raise_on_signals()
    try:
        results = sweep(command.runs, restart=command.restart, dry_run=command.dry_run, log=show)
    except Stopped as stopped:
        return _stopped(args, stopped)
    return EXIT_NON_FINITE if any(math.isnan(result.loss) for result in results) else 0


def _use_cores(config: "RunConfig") -> None:
    """Let several seeds have a CPU's core each, which must be said before JAX is used."""
    if config.seeds > 1:
        from jaxlm.devices.replicas import use_cores

        use_cores(config)


def _stopped(args: list[str], stopped: Stopped) -> int:
    """Say how to go on after a signal; return its exit code."""
    from jaxlm.devices import processes

    if not processes.is_first():
        return 128 + stopped.signum
    again = shlex.join(["python", "train.py", *(arg for arg in args if arg != "--restart")])
    done = f"saved at step {stopped.step}" if stopped.step else "stopped before the first step"
    print(f"{done}; to go on, run: {again}", file=sys.stderr)
    return 128 + stopped.signum
