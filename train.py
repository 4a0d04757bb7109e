"""Train a model: python train.py configs/names_mlp.py [--optim.lr 0.05] [--run-dir DIR] [--restart] [--dry-run].

--sweep.optim.lr 0.01 0.03 0.1 in place of a setting trains once for each value. Exit code 3 says that a loss was
not a number.
"""

import math
import shlex
import sys
from collections.abc import Callable

from jaxlm.cli.process import EXIT_NON_FINITE, leave_in_order, run_main


def main(args: list[str]) -> int:
    """Parse, train, and say how to go on after a signal."""
    work = _sweep(args) if any(arg.startswith("--sweep") for arg in args[1:]) else _single(args)
    if work is None:
        return 0
    from jaxlm.errors import Stopped

    leave_in_order()
    try:
        return work()
    except Stopped as stopped:
        again = shlex.join(["python", "train.py", *(arg for arg in args if arg != "--restart")])
        print(f"saved at step {stopped.step}; to go on, run: {again}", file=sys.stderr)
        return 128 + stopped.signum


def _single(args: list[str]) -> Callable[[], int] | None:
    from jaxlm.cli.train_command import parse_train

    command = parse_train(args)
    if command is None:
        return None

    def work() -> int:
        from jaxlm.training import train

        train(command.config, restart=command.restart, dry_run=command.dry_run)
        return 0

    return work


def _sweep(args: list[str]) -> Callable[[], int]:
    from jaxlm.cli.sweep_command import parse_sweep
    from jaxlm.sweep import sweep

    command = parse_sweep(args)

    def work() -> int:
        results = sweep(command.runs, restart=command.restart, dry_run=command.dry_run)
        return EXIT_NON_FINITE if any(math.isnan(result.loss) for result in results) else 0

    return work


if __name__ == "__main__":
    run_main(main, outlives_output=True)
