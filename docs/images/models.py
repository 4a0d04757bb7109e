"""Draw README's picture, dev loss against parameters, from the leaderboard that stands in docs/reproducing.md.

python docs/images/models.py [--out docs/images/models.png]
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

PAGE = Path(__file__).resolve().parent.parent / "reproducing.md"
LABELS = {
    "names_gpt": ("GPT, 4 blocks", "below"),
    "names_kneser_ney": ("6-gram counts, Kneser-Ney", "above"),
    "names_wavenet": ("WaveNet", "below"),
    "names_lstm": ("LSTM", "right"),
    "names_gru": ("GRU", "left"),
    "names_rnn": ("RNN", "left"),
    "names_mlp_better": ("MLP, better start", "left"),
    "names_bow": ("bag of words", "right"),
    "names_mlp": ("MLP", "left"),
    "names_trigram": ("trigram counts", "right"),
    "names_bigram": ("bigram counts", "right"),
    "names_bigram_neural": ("bigram, neural", "left"),
}
"""Each run's label, and on which side of its point it stands."""
PLACES = {
    "left": ((-7, 0), "right", "center"),
    "right": ((7, 0), "left", "center"),
    "above": ((0, 7), "center", "bottom"),
    "below": ((0, -7), "center", "top"),
}


class Entry(NamedTuple):
    """A line of the leaderboard."""

    run: str
    model: str
    dev: float
    params: int


def entries(page: str) -> list[Entry]:
    """The lines of the page's leaderboard, in its order. Raises ValueError where the page has none."""
    head = re.search(r"^run +model +dev .*$", page, re.MULTILINE)
    if head is None:
        raise ValueError(f"{PAGE} wants a leaderboard (a line that begins with 'run  model  dev'), got none")
    columns = head.group().split()
    found = []
    for line in page[head.end() :].strip().split("\n```")[0].splitlines():
        cells = dict(zip(columns, line.split(), strict=True))
        params = int(cells["params"].replace(",", ""))
        found.append(Entry(cells["run"], cells["model"], float(cells["dev"]), params))
    return found


def draw(runs: list[Entry], path: Path) -> None:
    """A point for each run: nats per token against parameters, counts and networks in two colours."""
    figure, axes = plt.subplots(figsize=(7.6, 4.2), dpi=110, layout="constrained")
    axes.set_xscale("log")
    for counted, color, marker, label in ((True, "#c8553d", "s", "counts"), (False, "#28666e", "o", "networks")):
        chosen = [run for run in runs if (run.model == "Counts") == counted]
        axes.scatter(
            [run.params for run in chosen], [run.dev for run in chosen], c=color, marker=marker, s=42, label=label
        )
    for run in runs:
        text, side = LABELS[run.run]
        offset, ha, va = PLACES[side]
        axes.annotate(text, (run.params, run.dev), offset, textcoords="offset points", ha=ha, va=va, fontsize=9)
    axes.set_xlabel("parameters")
    axes.set_ylabel("dev loss, nats per letter")
    axes.set_xlim(170, 2e6)
    axes.set_ylim(1.93, 2.49)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    axes.set_title("What comes next in a name: from a table of counts to a GPT", fontsize=11)
    figure.savefig(path)


def main() -> None:
    """Read the page, draw."""
    parser = argparse.ArgumentParser(description="Draw the leaderboard of docs/reproducing.md.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("models.png"))
    draw(entries(PAGE.read_text("utf-8")), parser.parse_args().out)


if __name__ == "__main__":
    main()
