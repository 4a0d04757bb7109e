"""Sample from a run: python sample.py runs/names_mlp [-n 20] [--prompt TEXT] [--compare] [--score FILE]."""

from jaxlm.start import run_main


def main(args: list[str]) -> int:
    """Parse and answer."""
    from jaxlm.cli import parse_sample

    command = parse_sample(args)
    from jaxlm.console import answer

    answer(command)
    return 0


if __name__ == "__main__":
    run_main(main)
