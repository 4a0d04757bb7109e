"""Train a model: python train.py configs/names_mlp.py [--optim.lr 0.05] [--run-dir DIR] [--restart] [--dry-run]."""

import shlex
import sys

from jaxlm.cli import parse_train, run_main


def main(args: list[str]) -> int:
    """Parse, train, and say how to go on after a signal."""
    command = parse_train(args)
    if command is None:
        return 0
    from jaxlm.training import Stopped, train

    try:
        train(command.config, restart=command.restart, dry_run=command.dry_run)
    except Stopped as stopped:
        again = shlex.join(["python", "train.py", *(arg for arg in args if arg != "--restart")])
        print(f"saved at step {stopped.step}; to go on, run: {again}", file=sys.stderr)
        return 128 + stopped.signum
    return 0


if __name__ == "__main__":
    run_main(main)
