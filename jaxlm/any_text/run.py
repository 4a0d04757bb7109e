"""The recipe for any text as a run: chosen, trained as any other, and replaced by counts where those are better."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxlm.any_text.choose import Choice, choose
from jaxlm.any_text.counts import Counts, best_counts
from jaxlm.any_text.look import Look, look
from jaxlm.any_text.speed import guessed_speed, seconds_a_step
from jaxlm.config import AnyTextConfig, CountsConfig, DataConfig, OptimConfig, RunConfig
from jaxlm.config.settings import refuse_unused
from jaxlm.data import corpus as corpora
from jaxlm.data.corpus import Corpus
from jaxlm.data.source import cache_dir, read
from jaxlm.devices import compilation, platform
from jaxlm.devices.processes import refuse_several
from jaxlm.errors import UserError
from jaxlm.runs.create import is_free, set_aside
from jaxlm.runs.directory import RunDir, open_existing
from jaxlm.training import train as train_chosen

CHOSEN = ("steps", "epochs", "tokens", "batch_size", "batch_tokens", "init_from")
"""Settings of a run that the recipe chooses, or does without."""
CHOSEN_OF_DATA = ("tokens", "example", "max_length", "order", "overlap")
"""Settings of the data that it chooses."""
FEWEST_TOKENS = 200
"""Predictions of train below which there is nothing to learn but counts."""
MEASUREMENTS = 2
"""Models whose step is measured, at most: the one that a guess of the speed chooses, and the one chosen after that."""
LARGE_TEXT, HELD_OUT = 2**24, 2**20
"""Characters of a text beyond which dev and test have HELD_OUT characters each, if the split is not given."""
COUNTING_S = 2e-6
"""Seconds that counting takes for each token of train, about."""


class Text(NamedTuple):
    """A text that has been read."""

    seen: Look
    corpus: Corpus
    counts: Counts
    seconds: float
    """How long reading and counting took."""


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Path | None:
    """Choose a model for the text that the settings name, and train it. Returns the run directory.

    What is chosen is logged in three lines, and is an ordinary run: its config.json has the settings that were chosen,
    and a run that was begun is resumed with them. Where the trained model predicts dev worse than interpolated
    Kneser-Ney, its run is renamed to NAME.old and counts take its place. Raises UserError as `jaxlm.train` does, and
    for settings that the recipe chooses.
    """
    check_asked(config)
    refuse_several(config, "the recipe for any text")
    path = config.directory
    platform.choose_device(config.device, config.gpu_memory)
    compilation.enable_cache(cache_dir())
    if restart or is_free(path):
        text = read_text(config)
        chosen = choose_run(config, text, log)
        if dry_run or isinstance(chosen.model, CountsConfig):
            return train_chosen(chosen, restart=restart, dry_run=dry_run, log=log)
    else:
        chosen = begun(config)
        log(f"{path} goes on with the settings that were chosen when it began; --restart chooses anew")
        if dry_run or isinstance(chosen.model, CountsConfig) or RunDir(path).eval.exists():
            return train_chosen(chosen, dry_run=dry_run, log=log)
        text = read_text(config)
    train_chosen(chosen, restart=restart, log=log)
    counts = text.counts
    result = RunDir(path).read_eval()
    if result["dev"] is None or result["dev"]["nats_per_token"] <= counts.dev:
        return path
    log(
        f"{counts.order}-gram counts predict dev better than the trained model: {counts.dev:.4f} nats a token "
        f"against {result['dev']['nats_per_token']:.4f}; the counts are the model"
    )
    set_aside(path, log)
    return train_chosen(counted(config, text), log=log)


def check_asked(config: RunConfig) -> None:
    """Raise UserError for a setting that the recipe chooses itself."""
    assert isinstance(config.model, AnyTextConfig), config.model
    wanted = "a recipe of its own, as configs/names_gpt.py"
    refuse_unused(config, CHOSEN, "the recipe for any text, which chooses it", wanted)
    for name in CHOSEN_OF_DATA:
        if getattr(config.data, name) != getattr(DataConfig(), name):
            raise UserError(f"data.{name} is chosen by the recipe for any text: leave it out, or take {wanted}")
    if config.optim != OptimConfig():
        raise UserError(f"optim is chosen by the recipe for any text: leave it out, or take {wanted}")


def read_text(config: RunConfig) -> Text:
    """Read the text, look at it, and count it."""
    began = time.monotonic()
    seen = look(read(config.data))
    if config.data.kind != DataConfig().kind:
        seen = dataclasses.replace(seen, kind=config.data.kind, labels=config.data.labels)
    corpus = corpora.load(data_of(config, seen))
    counts = best_counts(corpus)
    return Text(seen, corpus, counts, time.monotonic() - began)


def choose_run(config: RunConfig, text: Text, log: Callable[[str], None]) -> RunConfig:
    """Choose the run, and log in three lines what was seen, what the counts reach, and what was chosen and why.

    The time that reading has taken, and that counting will take, is taken from the minutes, up to half of them.
    """
    counts, tokens = text.counts, text.corpus.size("train")
    log(f"text: {text.seen.describe()}")
    log(f"counts: Kneser-Ney of {counts.order}-grams has a dev loss of {counts.dev:.4f} nats a token, the best order")
    if tokens < FEWEST_TOKENS:
        log(f"model: those counts, since train has only {tokens:,} tokens")
        return counted(config, text)
    minutes = config.model.minutes  # type: ignore[attr-defined]
    minutes = max(minutes / 2, minutes - (text.seconds + COUNTING_S * tokens) / 60)
    choice = _choose(config, text, minutes, guessed_speed(config))
    for _ in range(MEASUREMENTS):
        network = dataclasses.replace(choice.config, model=choice.network)  # the counts cost a step nothing
        measured = choice.operations_a_step / seconds_a_step(network)
        before, choice = choice, _choose(config, text, minutes, measured)
        if choice.config.model == before.config.model:
            break
    log(f"model: {choice.reason}")
    return choice.config


def data_of(config: RunConfig, seen: Look) -> DataConfig:
    """Return the settings of the data for a text that was seen."""
    split = config.data.split
    if split == DataConfig().split and seen.characters > LARGE_TEXT:
        share = HELD_OUT / seen.characters
        split = (1 - 2 * share, share, share)
    return dataclasses.replace(config.data, kind=seen.kind, labels=seen.labels or DataConfig().labels, split=split)


def counted(config: RunConfig, text: Text) -> RunConfig:
    """Return the run of the best counts."""
    model = CountsConfig(order=text.counts.order, smoothing="kneser-ney")
    return dataclasses.replace(config, model=model, data=data_of(config, text.seen))


def begun(config: RunConfig) -> RunConfig:
    """Return what was chosen for a run that has begun, with the settings that may differ as they are asked now."""
    chosen = open_existing(config.directory).read_config()
    names = ["kind", "labels", *CHOSEN_OF_DATA]
    if config.data.split == DataConfig().split:
        names.append("split")
    data = dataclasses.replace(config.data, **{name: getattr(chosen.data, name) for name in names})
    kept = ("model", "optim", "steps", "epochs", "batch_size")
    return dataclasses.replace(config, data=data, **{name: getattr(chosen, name) for name in kept})


def _choose(config: RunConfig, text: Text, minutes: float, speed: float) -> Choice:
    """Choose for so many minutes by a speed in operations a second."""
    corpus, (start, end) = text.corpus, text.corpus.bounds["train"]
    return choose(
        dataclasses.replace(config, data=data_of(config, text.seen)),
        tokens=end - start,
        examples=int((corpus.age_N[start:end] == 0).sum()),
        longest=corpus.longest,
        vocab_size=corpus.tokenizer.vocab_size,
        order=text.counts.order,
        minutes=minutes,
        speed=speed,
        has_dev=corpus.size("dev") > 0,
    )
