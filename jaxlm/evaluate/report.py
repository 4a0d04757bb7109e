"""The results of runs as a table, with what the leaderboard says of them, and as JSON."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.evaluate.choices import Accuracy, ChoicesResult
from jaxlm.evaluate.text import TextResult
from jaxlm.leaderboard import Row, aligned, loss_cells, nats_cell, or_dash, printable


class RunResult(NamedTuple):
    """What was measured of one run."""

    path: Path
    model: str
    """Class of the model's settings without "Config"."""
    text: TextResult | None
    choices: ChoicesResult | None
    ranked: Row | None
    """The run's row of the leaderboard; None of a run that is not finished."""

    @property
    def sort_key(self) -> tuple[float, float]:
        """Fewest bits per byte first, which compare across tokenizers, then the highest accuracy."""
        bits = None if self.text is None else self.text.score.bits_per_byte
        return math.inf if bits is None else bits, -self.choices.plain.share if self.choices else 0.0

    def to_json(self) -> dict[str, Any]:
        """The result as JSON; null where nothing was asked for or the run has none."""
        losses = self.ranked and {name: getattr(self.ranked, name) for name in ("dev", "test", "train")}
        return {
            "run": str(self.path),
            "model": self.model,
            "text": self.text
            and self.text.score.to_json() | {"context": self.text.context, "stride": self.text.stride},
            "choices": self.choices and self.choices.to_json(),
            "leaderboard": losses and {name: loss and dataclasses.asdict(loss) for name, loss in losses.items()},
        }


def table(results: Sequence[RunResult], text: Path | None, choices: Path | None) -> str:
    """Results as aligned text, the best first, with a legend of the columns at the end."""
    heads = ["run", "model"]
    heads += ["nats/token", "perplexity", "bits/byte", "tokens", "context", "stride"] if text else []
    heads += ["acc", "±", "acc_norm", "±", "acc_tokens", "±"] if choices else []
    heads += ["dev", "test", "train", "dev bits/byte"]
    ordered = sorted(results, key=lambda result: result.sort_key)
    lines = aligned([heads, *map(_cells, ordered)])
    legend = []
    if text:
        size = next(result.text.score.bytes for result in ordered if result.text)
        legend.append(
            f"nats/token to stride: of {printable(str(text))} ({size:,} bytes), each token once, in windows of context "
            "tokens that move by stride; without a stride each token sees all that the model can"
        )
    if choices:
        found = next(result.choices for result in ordered if result.choices)
        legend.append(
            f"acc: share of {found.questions:,} questions of {printable(str(choices))} whose right choice has the "
            f"highest log p (chance {found.chance:.1%}); acc_norm: log p / characters; acc_tokens: log p / tokens; ±: "
            "standard error"
        )
    legend.append("dev, test, train: nats per token at the end of training, as the leaderboard has them")
    return "\n".join([*lines, "", *legend])


def _cells(result: RunResult) -> list[str]:
    cells = [printable(str(result.path)), printable(result.model)]
    if result.text:
        score = result.text.score
        inf = "inf" if score.impossible else None
        cells += [
            nats_cell(score),
            inf or ("inf" if score.perplexity is None else f"{score.perplexity:,.3f}"),
            inf or or_dash(score.bits_per_byte, ".4f"),
            f"{score.tokens:,}",
            or_dash(result.text.context, ",d"),
            or_dash(result.text.stride, ",d"),
        ]
    if result.choices:
        found = result.choices
        for accuracy in (found.plain, found.by_characters, found.by_tokens):
            cells += _accuracy(accuracy)
    return cells + loss_cells(result.ranked)


def _accuracy(accuracy: Accuracy) -> list[str]:
    return [f"{accuracy.share:.1%}", or_dash(accuracy.stderr, ".1%")]
