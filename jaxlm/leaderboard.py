"""Rank finished runs in one table: python -m jaxlm.leaderboard runs/*. JAX is imported only to draw samples."""

import dataclasses
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.process import run_main
from jaxlm.cli.report_commands import parse_leaderboard
from jaxlm.config.user_code import TrustCode
from jaxlm.errors import UserError, one_line
from jaxlm.inference.novelty import Shares, shares_of_run
from jaxlm.runs import metrics
from jaxlm.runs.directory import RunDir, open_existing, read_json
from jaxlm.tokenizers import tokenizer_from_json

if TYPE_CHECKING:
    from jaxlm.inference.evaluation import Score

LISTED_REASONS = 3
"""Most runs whose reasons are listed in the error that no run can be ranked."""


@dataclasses.dataclass(frozen=True)
class SplitLoss:
    """The loss of one split, from eval.json."""

    nats_per_token: float | None
    """Mean loss in nats per token."""
    bits_per_byte: float | None
    """Mean loss in bits per byte of text."""
    impossible: int
    """Tokens of probability 0; with any of them the losses are infinite, and None."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One finished run; the fields are the keys of --json, and None if the run lacks them."""

    group: str
    """Description of data, split and tokens, equal for runs that can be compared."""
    run: str
    """Path of the run directory."""
    model: str
    """Class of the model's settings without "Config"."""
    kind: str
    """data.kind: lines, stream or dialogues."""
    dev: SplitLoss | None
    """Loss on dev."""
    test: SplitLoss | None
    """Loss on test."""
    train: SplitLoss | None
    """Loss on train."""
    params: int
    """Number of trained parameters."""
    buffers: int
    """Number of values that are not trained, such as a frozen table."""
    step: int
    """Step of the evaluated checkpoint."""
    steps: int
    """Steps of the whole run."""
    train_time_s: float
    """Seconds of training."""
    tokens_per_s: float | None
    """Median speed of training, from metrics.jsonl; None for count models."""
    ms_per_step: float | None
    """Median milliseconds of a step, from metrics.jsonl."""
    data_hash: str
    """SHA-256 of the text."""
    tokenizer_hash: str
    """SHA-256 of the tokenizer."""
    split_hash: str
    """SHA-256 of the settings of the split."""
    samples: Shares | None = None
    """Shares of samples that are lines of the data; `train` is the share of exact copies of train."""

    @property
    def sort_key(self) -> tuple[bool, int, float, str]:
        """Sort key: finite dev losses first, then infinite ones by impossible tokens, then runs without a dev split."""
        nats, impossible = (None, 0) if self.dev is None else (self.dev.nats_per_token, self.dev.impossible)
        return nats is None and not impossible, impossible, nats or 0.0, self.run


def main(args: list[str]) -> int:
    """Read the runs, classify samples not yet classified, and print the ranking."""
    command = parse_leaderboard(args)
    rows, reasons = read_rows(command.runs)
    if not rows:
        more = len(reasons) - LISTED_REASONS
        listed = "; ".join(reasons[:LISTED_REASONS]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(f"runs wants at least one finished run, got none: {listed}")
    for reason in reasons:
        _log(f"left out: {reason}")
    if command.samples and command.device != "auto":
        from jaxlm.devices import platform

        platform.choose_device(command.device)  # an absent device is an error before any run is blamed for it
    ranked = rank([with_shares(row, command.samples, command.device, _log, command.trusted) for row in rows])
    print(json.dumps([dataclasses.asdict(row) for row in ranked], indent=2) if command.json else ranking_table(ranked))
    return 0


def read_rows(paths: Iterable[Path]) -> tuple[list[Row], list[str]]:
    """Read the finished runs among the paths, each once; returns their rows, and why the others are left out."""
    rows, reasons, read = [], [], set()
    for path in paths:
        if path.resolve() in read:
            continue
        read.add(path.resolve())
        try:
            rows.append(read_row(path))
        except UserError as error:
            reasons.append(one_line(str(error)))
    return rows, reasons


def read_row(path: Path) -> Row:
    """Read the row of a run directory. Raises UserError if it is not a finished run of a language model."""
    run = open_existing(path)
    if not run.eval.exists():
        raise UserError(f"run {str(path)!r} is not finished (it has no eval.json): train.py with its config goes on")
    config, tokenizer = map(read_json, (run.config, run.tokenizer))
    if isinstance(tokenizer, dict) and tokenizer.get("kind") == "words":
        raise UserError(f"run {str(path)!r} has vectors of words, and no likelihood to rank it by")
    result, hashes, lines = run.read_eval(), run.read_fingerprint(), metrics.read(run.metrics)
    try:
        return Row(
            group=_in_words(config["data"], tokenizer_from_json(tokenizer).vocab_size, hashes),
            run=str(path),
            model=config["model"]["class"].rpartition(":")[2].removesuffix("Config"),
            kind=config["data"]["kind"],
            dev=_loss(result["dev"]),
            test=_loss(result["test"]),
            train=_loss(result["train"]),
            params=result["params"],
            buffers=int(result.get("buffers", 0)),
            step=result["step"],
            steps=result["steps"],
            train_time_s=result["train_time_s"],
            tokens_per_s=_speed(lines),
            ms_per_step=_step_ms(lines),
            data_hash=hashes["data"],
            tokenizer_hash=hashes["tokenizer"],
            split_hash=hashes["split"],
        )
    except Exception as error:  # an edited file can make its reader raise anything
        raise UserError(
            f"run {str(path)!r} has files that cannot be understood ({type(error).__name__}: {error}); train it again "
            "with --restart"
        ) from error


def with_shares(row: Row, n: int, device: str, log: Callable[[str], None], trust_code: TrustCode = False) -> Row:
    """Add the shares of n samples that are lines of the run's data to its row.

    The row is unchanged for n = 0, for data other than lines, and if samples cannot be drawn, which is logged.
    """
    if not n or row.kind != "lines":
        return row
    try:
        return dataclasses.replace(row, samples=shares_of_run(RunDir(Path(row.run)), n, row.step, device, trust_code))
    except UserError as error:
        log(f"no samples: {error}")
    except Exception as error:  # a run damaged in an unforeseen way must not hide the others
        log(f"no samples: run {row.run!r} cannot be used ({type(error).__name__}: {error})")
    return row


def rank(rows: Sequence[Row]) -> list[Row]:
    """Order rows by group, large groups first and groups without dev losses last; within a group by dev loss."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.data_hash, row.tokenizer_hash, row.split_hash), []).append(row)
    best_first = [sorted(group, key=lambda row: row.sort_key) for group in groups.values()]
    best_first.sort(key=lambda group: (group[0].sort_key[0], -len(group), group[0].group))
    return [dataclasses.replace(row, group=group[0].group) for group in best_first for row in group]


def ranking_table(ranked: Sequence[Row]) -> str:
    """Format ranked rows as aligned text with a heading for each group and a legend of the columns at the end."""
    heads = ["run", "model", "dev", "test", "train", "bits/byte", "params", "buffers"]
    heads += ["steps", "seconds", "ms/step", "tokens/s", "new", "copies"]
    lines = [heads, *map(_cells, ranked)]
    text, group = [], None
    for row, line in zip((None, *ranked), aligned(lines), strict=True):
        if row is not None and row.group != group:
            group = row.group
            text += ["", printable(group)]
        text.append(line)
    drawn = max((row.samples.n for row in ranked if row.samples), default=0)
    legend = (
        "dev, test, train: nats per token; bits/byte of dev; buffers: numbers that are not trained; seconds of training"
    )
    shares = f"; new: share of {drawn:,} samples not in the data; copies: share that are lines of train"
    return "\n".join([*text, "", legend + (shares if drawn else "")])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text in columns: the first two, names, to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            f"{cell:{'<' if i < 2 else '>'}{width}}" for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def loss_cells(row: Row | None) -> list[str]:
    """The cells of a run's losses on dev, test and train and its bits per byte of dev; None: of no finished run."""
    dev, test, train = (None,) * 3 if row is None else (row.dev, row.test, row.train)
    bits = "inf" if dev and dev.impossible else or_dash(dev.bits_per_byte if dev else None, ".4f")
    return [*map(nats_cell, (dev, test, train)), bits]


def _cells(row: Row) -> list[str]:
    return [
        printable(row.run),
        printable(row.model),
        *loss_cells(row),
        f"{row.params:,}",
        f"{row.buffers:,}",
        f"{row.steps:,}",
        f"{row.train_time_s:,.1f}",
        or_dash(row.ms_per_step, ",.1f" if (row.ms_per_step or 0) >= 10 else ".2g"),
        or_dash(row.tokens_per_s, ",.0f"),
        or_dash(row.samples.new if row.samples else None, ".1%"),
        or_dash(row.samples.train if row.samples else None, ".1%"),
    ]


def _loss(entry: dict[str, Any] | None) -> SplitLoss | None:
    if entry is None:
        return None
    impossible = int(entry.get("impossible", 0))
    return SplitLoss(_finite(entry["nats_per_token"]), _finite(entry["bits_per_byte"]), impossible)


def _finite(value: Any) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"a loss or speed is {value}")
    return None if value is None else float(value)


def _speed(lines: Iterable[dict[str, Any]]) -> float | None:
    """Median tokens per second of training."""
    values = [line["tokens_per_s"] for line in lines if line["split"] == "train"]
    speeds = [float(speed) for speed in values if speed is not None]
    return statistics.median(speeds) if speeds else None


def _step_ms(lines: Iterable[dict[str, Any]]) -> float | None:
    """Median milliseconds of a step, from the times between training's lines."""
    points = [(line["step"], line["time_s"]) for line in lines if line["split"] == "train" and "time_s" in line]
    took = [1e3 * (t - s) / (b - a) for (a, s), (b, t) in itertools.pairwise(points) if b > a]
    return statistics.median(took) if took else None


def _in_words(data: dict[str, Any], vocab_size: int, hashes: dict[str, Any]) -> str:
    """Describe a group of comparable runs, with hashes that distinguish data of the same name."""
    name = data["name"] if data["path"] is None else Path(data["path"]).name
    split = " ".join(f"{share:g}" for share in data["split"])
    listed = ", ".join(f"{part} {hashes[part][:8]}" for part in ("data", "tokenizer", "split"))
    return f"{name}: {data['kind']}, split {split}, seed {data['split_seed']}, {vocab_size:,} tokens ({listed})"


def nats_cell(loss: "SplitLoss | Score | None") -> str:
    """The cell of a loss in nats per token."""
    if loss is not None and loss.impossible:
        return f"inf ({loss.impossible:,} impossible)"
    return or_dash(loss.nats_per_token if loss else None, ".4f")


def or_dash(value: float | None, form: str) -> str:
    """The cell of a number; "-" where there is none."""
    return "-" if value is None else format(value, form)


def printable(text: str) -> str:
    """A name as it is, quoted where it has control characters."""
    return text if text.isprintable() else repr(text)


def _log(line: str) -> None:
    print(one_line(line), file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
