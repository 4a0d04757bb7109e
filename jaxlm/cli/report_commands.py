"""Arguments of the commands that report on finished runs: jaxlm.plots, .leaderboard, .compare, .evaluate."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlm.cli.parsing import OpensRuns, parse, trust_last
from jaxlm.config import check
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class PlotsCommand:
    """Draw the pictures of a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""


@dataclasses.dataclass(frozen=True)
class LeaderboardCommand(OpensRuns):
    """Rank finished runs by dev loss; runs on other data, tokens or splits are grouped apart."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The run directories."""
    samples: int = 1000
    """Samples from each run by which copies and new ones are counted; 0: none. The counts are kept in the runs."""
    json: bool = False
    """Print JSON."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where samples are drawn. auto: the best that JAX finds."""


def parse_leaderboard(args: list[str]) -> LeaderboardCommand:
    """Parse the arguments of python -m jaxlm.leaderboard. Raises UserError before anything is read."""
    command = parse(LeaderboardCommand, trust_last(args), prog="python -m jaxlm.leaderboard")
    check.at_least("--samples", command.samples, 0)
    if not command.runs:
        raise UserError("runs wants at least one run directory, as in: python -m jaxlm.leaderboard runs/*")
    return command


@dataclasses.dataclass(frozen=True)
class CompareCommand(OpensRuns):
    """Say which of two runs is better on one text, by how much, with what confidence, and on which tokens.

    Two single runs are compared by a paired bootstrap over the text's lines, dialogues or blocks; two directories of
    seeds (train.py --seeds N) by t-tests over the seeds. Where the tokenizers differ, the loss is in bits per byte.
    """

    a: Annotated[Path, tyro.conf.Positional]
    """A run directory, or that of several seeds."""
    b: Annotated[Path, tyro.conf.Positional]
    """Another one."""
    text: Path | None = None
    """The text to predict. None: the dev split, which must be the same for both."""
    tokens: int = 10
    """Tokens in each table."""
    resamples: int = 10_000
    """Times that the text is resampled."""
    seed: int = 0
    """Seed of the resampling."""
    json: bool = False
    """Print JSON."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where the text is scored. auto: the best that JAX finds."""


def parse_compare(args: list[str]) -> CompareCommand:
    """Parse the arguments of python -m jaxlm.compare. Raises UserError before anything is read."""
    if not args:
        raise UserError(
            "compare wants two run directories, as in: python -m jaxlm.compare runs/names_mlp runs/names_gpt"
        )
    command = parse(CompareCommand, trust_last(args), prog="python -m jaxlm.compare")
    check.at_least("--tokens", command.tokens, 0)
    check.between("--resamples", command.resamples, 100, 10**7)
    check.between("--seed", command.seed, 0, 2**32 - 1)
    return command


@dataclasses.dataclass(frozen=True)
class EvaluateCommand(OpensRuns):
    """Measure how well runs predict a text, and which answers of multiple choice they find most likely."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The run directories."""
    text: Path | None = None
    """A text to predict: perplexity, nats per token, bits per byte."""
    stride: int | None = None
    """Tokens by which the windows of a model with a context move over the text. None: half the context.
    Each token sees at least context - stride tokens before it."""
    choices: Path | None = None
    """Questions of multiple choice, a JSON object a line.
    {"context" or "question": TEXT, "choices": [TEXT, ...], "answer": NUMBER FROM 0}."""
    checkpoint: Literal["best", "last"] = "best"
    """best: that with the lowest dev loss."""
    json: bool = False
    """Print JSON."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where it runs. auto: the best that JAX finds."""


def parse_evaluate(args: list[str]) -> EvaluateCommand:
    """Parse the arguments of python -m jaxlm.evaluate. Raises UserError before anything is read."""
    command = parse(EvaluateCommand, trust_last(args), prog="python -m jaxlm.evaluate")
    if not command.runs:
        raise UserError(
            "evaluate wants at least one run directory, as in: python -m jaxlm.evaluate runs/names_gpt --text FILE"
        )
    if command.text is None and command.choices is None:
        raise UserError("evaluate wants --text FILE, --choices FILE.jsonl or both, got neither")
    check.at_least("--stride", command.stride, 1)
    if command.stride is not None and command.text is None:
        raise UserError("--stride goes with --text, which is not given")
    return command
