"""The two runs, or the two directories of seeds, that are compared, and the text that both are asked about."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm.config.user_code import TrustCode
from jaxlm.data.corpus import Corpus, load
from jaxlm.data.shards import is_directory
from jaxlm.data.source import read_text
from jaxlm.errors import UserError, naming
from jaxlm.runs.directory import open_existing, seed_directory
from jaxlm.runs.loading import Run, load_run


class Side(NamedTuple):
    """One run, or the runs of several seeds that were trained together."""

    path: Path
    runs: list[Run]
    seeds: list[int]

    @property
    def is_group(self) -> bool:
        """True for the runs of several seeds."""
        return len(self.runs) > 1


def open_side(path: Path, trust_code: TrustCode = False) -> Side:
    """Open a run, or all runs of a directory of seeds. Raises UserError."""
    run = open_existing(path)
    config = run.read_config(trust_code)
    if config.seeds == 1:
        return Side(path, [load_run(path, trust_code=trust_code)], [config.seed])
    if not run.eval.exists():
        raise UserError(f"run {str(path)!r} is not finished (it has no eval.json): train.py with its config goes on")
    seeds = list(range(config.seed, config.seed + config.seeds))
    return Side(path, [load_run(seed_directory(path, seed), trust_code=trust_code) for seed in seeds], seeds)


def check_pair(a: Side, b: Side) -> None:
    """Raise UserError for two sides that cannot be compared."""
    if a.is_group != b.is_group:
        group, single = (a, b) if a.is_group else (b, a)
        raise UserError(
            f"compare wants two runs or two directories of seeds, got the {len(group.runs)} seeds of "
            f"{str(group.path)!r} and the single run {str(single.path)!r}: take a run out of the seeds', as "
            f"{seed_directory(group.path, group.seeds[0])}"
        )
    kinds = [side.runs[0].config.data.kind for side in (a, b)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"compare wants runs on one kind of text (data.kind), got {kinds[0]} of {str(a.path)!r} and {kinds[1]} of "
            f"{str(b.path)!r}"
        )


def text_of(a: Side, b: Side, file: Path | None) -> tuple[str, str]:
    """The text that both sides are asked about, and its name: a file's, or that of A's dev split.

    Raises UserError where there is none, or B was not trained on the same split of the same text.
    """
    if file is not None:
        return read_text(file, "--text"), str(file)
    config = a.runs[0].config
    here, there = (open_existing(side.runs[0].path).read_fingerprint() for side in (a, b))
    differ = [name for name in ("data", "split") if here[name] != there[name]]
    if differ:
        raise UserError(
            f"compare wants runs with the same dev split, but {' and '.join(differ)} of {str(a.path)!r} and "
            f"{str(b.path)!r} differ: give a text that neither has seen, with --text FILE"
        )
    if is_directory(config.data):
        raise UserError(f"run {str(a.path)!r} was trained on shards: give a text with --text FILE")
    with naming(f"the data of run {str(a.path)!r}"):
        corpus = load(config.data, a.runs[0].tokenizer)
    if corpus.data_hash != here["data"]:
        raise UserError(f"the data of run {str(a.path)!r} has changed since it was trained: give --text FILE")
    if not corpus.size("dev"):
        raise UserError(f"run {str(a.path)!r} has no dev split: give a text with --text FILE")
    return dev_text(corpus), f"dev of {a.path}"


def dev_text(corpus: Corpus) -> str:
    """The dev split as a text that is read as the corpus was."""
    tokenizer, token_N = corpus.tokenizer, corpus.tokens("dev")
    if corpus.kind == "stream":
        return tokenizer.decode(token_N.tolist())
    ends_L = np.flatnonzero(token_N == tokenizer.eos)
    starts = [0, *(ends_L[:-1] + 1).tolist()]
    tokens = token_N.tolist()
    return "\n".join(tokenizer.decode(tokens[i:j]) for i, j in zip(starts, ends_L.tolist(), strict=True))
