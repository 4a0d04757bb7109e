"""Sample from a run: python sample.py runs/names_mlp [-n 20] [--prompt TEXT] [--compare] [--score FILE]."""

from jaxlm.cli.process import run_main


def main(args: list[str]) -> int:
    """Parse and answer."""
    from jaxlm.cli.sample_command import parse_sample

    command = parse_sample(args)
    from jaxlm.cli.sample import answer

    answer(command)
    return 0


if __name__ == "__main__":
    run_main(main)
