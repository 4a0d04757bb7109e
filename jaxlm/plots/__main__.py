"""Draw the pictures of a run (again): python -m jaxlm.plots RUN."""

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context

from jaxlm.cli.process import run_main
from jaxlm.data.bigrams import load_pairs
from jaxlm.errors import UserError
from jaxlm.plots import pictures
from jaxlm.plots.word_points import load_map
from jaxlm.runs import metrics
from jaxlm.runs.directory import decoding, open_existing, read_json


def main(args: list[str]) -> int:
    """Draw the pictures of a finished run again."""
    from jaxlm.cli.parsing import parse
    from jaxlm.cli.report_commands import PlotsCommand

    if not args:
        raise UserError("run wants a run directory, as in: python -m jaxlm.plots runs/names_mlp")
    return _draw(parse(PlotsCommand, args, prog="python -m jaxlm.plots").run, lambda: True)


def draw_beside_training(args: list[str]) -> int:
    """The same for a run that goes on: a line on standard input comes before the first picture, and another before the
    losses; its end, without one, is the end of the drawing.
    """
    return _draw(Path(args[0]), lambda: bool(sys.stdin.readline()))


def _draw(path: Path, may_go_on: Callable[[], bool]) -> int:
    """Draw the pairs of a run's data or the map of its words, then its loss curve."""
    if not may_go_on():
        return 0
    run = open_existing(path)
    numbers = run.word_map if run.word_map.is_file() else run.pairs
    if not numbers.is_file():
        raise UserError(f"run {str(path)!r} has no plots/{numbers.name}: it was trained with --no-plots")
    with rc_context(pictures.STYLE):
        if numbers == run.pairs:
            with decoding(numbers):
                pairs = load_pairs(numbers)
            with decoding(run.config):
                kind = read_json(run.config)["data"]["kind"]  # the model's class may be a user's own: it is not needed
            pictures.bigram_table(pairs, run.plots / "bigrams.png", run.read_tokenizer(), kind)
            pictures.frequent_pairs(pairs, run.plots / "pairs.png")
        else:
            with decoding(numbers):
                words, xy_N2 = load_map(numbers)
            pictures.word_map(
                words, xy_N2, run.plots / "words.png", pictures.map_title(run.path.name, len(words), "pca")
            )
        if may_go_on() and run.metrics.exists():
            pictures.loss_curve(metrics.read(run.metrics), run.plots / "loss.png")
    return 0


if __name__ == "__main__":
    run_main(main)
