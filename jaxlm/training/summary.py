"""A finished run on one screen of 24 rows and 80 columns: data, model, losses beside counts, samples, what to try next.

Pure functions of the settings, eval.json, metrics.jsonl and samples.txt: a run that is done says the same again.
"""

import math
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.config import CharactersConfig, MixtureConfig, PreparedTokensConfig, RunConfig
from jaxlm.inference.evaluation import Score
from jaxlm.inference.formatting import score_line
from jaxlm.runs.metrics import NATS_PER_BIT

COLUMNS = 79
"""Columns of a row."""
SHOWN = 10
"""Samples that are shown of those in samples.txt."""
CLEARLY = 0.005
"""Share of a loss by which another one is called better or worse."""
BY_HEART = 0.1
"""Share by which the loss of train is below that of dev where much was learned by heart."""
LONG_BEFORE = 0.75
"""Share of a run's steps before which the best dev loss was met long before the end."""


def screen(
    config: RunConfig,
    result: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    *,
    data: Sequence[str],
    losses: Sequence[str],
    samples: str,
) -> list[str]:
    """The rows about a run that is done.

    `result` is eval.json, `lines` metrics.jsonl, `samples` samples.txt; `data` and `losses` are the job's own lines
    about its data and the losses of its splits.
    """
    model = f"model: {type(config.model).__name__.removesuffix('Config')}, {result['params']:,} parameters"
    if config.model.trained_by_steps:
        batch = "all rows" if config.batch_size == "full" else f"{config.batch_size:,}"
        model += f", {result['steps']:,} steps of {batch}"
    if "network_share" in result:
        model += f"; {result['network_share']:.0%} network, the rest counts"
    name = config.data.name if config.data.path is None else Path(config.data.path).name
    rows = [
        *(line.replace("data: ", f"data: {name}: ", 1) for line in data),
        model,
        *losses,
        *beside(result),
        *remarks(config, result, lines),
    ]
    return [*shown_samples(config, samples), *rows, f"next: {advice(config, result, lines)}"]


def loss_line(config: RunConfig, split: str, entry: dict[str, Any]) -> str:
    """A split's entry in eval.json in a row, with bits per character where tokens are characters."""
    if entry.get("impossible") or not entry["tokens"]:
        return f"{split}: {score_line(Score.from_json(entry))}"
    head = f"{split}: {entry['nats_per_token']:.4f} nats/token, "
    bits = f"{entry['bits_per_byte']:.4f} bits/byte"
    tokens = f"({entry['tokens']:,} tokens)"
    if isinstance(config.data.tokens, CharactersConfig) and entry["tokens"] != entry["bytes"]:
        return f"{head}{entry['nats_per_token'] / NATS_PER_BIT:.4f} bits/character, {bits} {tokens}"
    perplexity = "inf" if entry["perplexity"] is None else f"{entry['perplexity']:.3f}"
    return f"{head}{bits}, perplexity {perplexity} {tokens}"


def beside(result: dict[str, Any]) -> list[str]:
    """The row of the losses of counts on dev; none where eval.json has none."""
    found = result.get("baselines") or {}
    names = {
        "unigram": "words by chance",
        "uniform": "uniform",
        "bigram": "bigram",
        "kneser_ney": f"Kneser-Ney ({found.get('kneser_ney_order')}-grams)",
    }
    shown = [f"{name} {found[key]:.4f}" for key, name in names.items() if key in found]
    return [f"beside dev: {', '.join(shown)}"] if shown else []


def remarks(config: RunConfig, result: dict[str, Any], lines: Sequence[dict[str, Any]]) -> list[str]:
    """Plain words where the best dev loss was met long before the end, and where counts have a lower one."""
    said = []
    curve = _curve(lines, "dev")
    if _was_best_early(result, curve):
        last, best = max(curve), result["step"]
        rest = "the rest overfitted" if _overfitted(result, lines) else "the rest was unstable"
        losses = f"{_dev_at(result, curve):.4f} to {curve[last]:.4f}"
        said.append(f"dev was best at step {best:,} of {last:,}, {rest}: {losses}")
    dev, found = _loss(result, "dev"), result.get("baselines") or {}
    if dev is not None:
        for name, words in (("uniform", "a guess"), ("bigram", "the bigram"), ("unigram", "words by chance")):
            if name in found and dev > found[name] * (1 + CLEARLY):
                said.append(f"dev {dev:.4f} is worse than {words} ({found[name]:.4f}) on the same split")
                break
    return said


def advice(config: RunConfig, result: dict[str, Any], lines: Sequence[dict[str, Any]]) -> str:
    """Suggest in a line the next thing to try, by the losses."""
    dev, found, curve = _loss(result, "dev"), result.get("baselines") or {}, _curve(lines, "dev")
    text = f" --data.path {shlex.quote(config.data.path)}" if config.data.path else ""
    any_text = f"python train.py configs/any_text.py{text or ' --data.path FILE'}"
    if (result["dev"] or {}).get("impossible"):
        return "--model.smoothing kneser-ney, which leaves no token without a probability"
    if dev is None and isinstance(config.data.tokens, PreparedTokensConfig):
        return "shards with a dev split: python -m jaxlm.data prepare with a larger --held-out"
    if dev is None:
        return "a dev split (--data.split 0.8 0.1 0.1) shows what is learned and what is learned by heart"
    if not config.model.trained_by_steps:
        counts = found.get("kneser_ney", dev)
        better = f"configs/names_kneser_ney.py{text} (about {counts:.4f})"
        return f"python train.py {better}" if counts < dev * (1 - CLEARLY) else any_text
    early = _was_best_early(result, curve)
    if early and not _overfitted(result, lines):
        return f"a smaller --optim.lr than {config.optim.lr:g}"
    train = _loss(result, "train")
    if train is not None and train > found.get("uniform", math.inf):
        return f"another --optim.lr than {config.optim.lr:g}: python -m jaxlm.lr_range CONFIG suggests one"
    by_heart = train is not None and train < dev * (1 - BY_HEART) and dev > found.get("bigram", math.inf)
    if early or by_heart:
        dropout = ", --model.dropout 0.2" if getattr(config.model, "dropout", None) == 0 else ""
        patience = ", --eval.patience 3" if config.eval.patience is None else ""
        worse = f", or {any_text}" if dev > found.get("kneser_ney", math.inf) else ""
        return f"more text, a smaller model{dropout}{patience}{worse}"
    if _still_falls(curve) and isinstance(config.model, MixtureConfig):
        return f"more time: {any_text} --minutes {max(1, round(3 * result['train_time_s'] / 60))} --restart"
    if _still_falls(curve):
        return f"more steps: --steps {2 * result['steps']} in another --run-dir"
    if dev > found.get("kneser_ney", math.inf):
        return f"{any_text}: counts are better here"
    if dev > found.get("unigram", math.inf) * (1 - CLEARLY):
        return "another text: words stand next to each other as if by chance in this one"
    return "a larger model" if config.model.predicts_text else "more text"


def shown_samples(config: RunConfig, samples: str) -> list[str]:
    """The first ten samples of samples.txt, each in a row, under their headings if they have some."""
    text = samples.rstrip("\n")
    if not text:
        return []
    if config.data.kind != "lines" and config.model.predicts_text:
        texts = text.split("\n---\n")
        return [_row(one.replace("\n", " / ")) for one in texts[:SHOWN]]
    rows, left = [], SHOWN
    for row in text.split("\n"):
        heading = config.model.predicts_text and not row.startswith("  ")
        left -= not heading
        if heading or left >= 0:
            rows.append(_row(row))
    return rows


def _row(text: str) -> str:
    """A text that fits a row: control characters escaped, its end cut off where it is too wide."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    width_T = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text]
    if sum(width_T) <= COLUMNS:
        return text
    room, kept = COLUMNS - 3, 0
    while kept < len(text) and room >= width_T[kept]:
        room -= width_T[kept]
        kept += 1
    return text[:kept] + "..."


def _loss(result: dict[str, Any], split: str) -> float | None:
    """The loss of a split in eval.json; None if there is none or it is infinite."""
    entry = result[split] or {}
    loss = entry.get("loss", entry.get("nats_per_token"))
    return None if loss is None else float(loss)


def _curve(lines: Sequence[dict[str, Any]], split: str) -> dict[int, float]:
    """The losses of a split by step, without that of the untrained model."""
    return {
        line["step"]: line["loss"]
        for line in lines
        if line["split"] == split and line["step"] and line["loss"] is not None
    }


def _dev_at(result: dict[str, Any], curve: dict[int, float]) -> float:
    """The dev loss of the best checkpoint as training saw it."""
    return curve.get(result["step"], min(curve.values()))


def _was_best_early(result: dict[str, Any], curve: dict[int, float]) -> bool:
    """True if the dev loss was clearly better long before the last evaluation than at it."""
    if not curve:
        return False
    last = max(curve)
    return result["step"] <= LONG_BEFORE * last and curve[last] > _dev_at(result, curve) * (1 + CLEARLY)


def _overfitted(result: dict[str, Any], lines: Sequence[dict[str, Any]]) -> bool:
    """True if the loss of train did not rise as that of dev did, or is not known."""
    curve = _curve(lines, "train_sample") or _curve(lines, "train")
    at_best = [loss for step, loss in curve.items() if step <= result["step"]]
    return not at_best or curve[max(curve)] <= at_best[-1]


def _still_falls(curve: dict[int, float]) -> bool:
    """True if the dev loss is least at the end, and fell clearly since the middle of the run."""
    if len(curve) < 2:
        return False
    last = max(curve)
    before = [loss for step, loss in curve.items() if step <= last / 2]
    return bool(before) and curve[last] == min(curve.values()) and curve[last] < before[-1] * (1 - 2 * CLEARLY)
