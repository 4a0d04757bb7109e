"""The run directory: its files by name, what is in them, and how they are written."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.codec import from_json
from jaxlm.data.corpus import SPLITS
from jaxlm.errors import UserError, near_path
from jaxlm.tokenizer import Tokenizer, WordTokenizer, tokenizer_from_json

FORMAT = 1
"""Of the run directory. A run of a newer format is refused."""


class RunDir:
    """The files of one run, by name."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.tokenizer = path / "tokenizer.json"
        self.seen = path / "seen.npz"
        self.constants = path / "constants.npz"
        self.fingerprint = path / "fingerprint.json"
        self.metrics = path / "metrics.jsonl"
        self.eval = path / "eval.json"
        self.novelty = path / "novelty.json"
        self.samples = path / "samples.txt"
        self.checkpoints = path / "checkpoints"
        self.broken = path / "broken"
        self.plots = path / "plots"
        self.pairs = self.plots / "pairs.npz"
        self.word_map = self.plots / "words.npz"
        self.tensorboard = path / "tensorboard"
        self.replaced = path / "replaced"
        self.discarded = path / "replaced.part"
        self.lock = path / ".lock"

    @property
    def contents(self) -> tuple[Path, ...]:
        """All that a run may consist of but its fingerprint; results come first."""
        results = (self.eval, self.novelty, self.metrics, self.samples)
        folders = (self.checkpoints, self.broken, self.plots, self.tensorboard)
        return (*results, *folders, self.seen, self.constants, self.config, self.tokenizer)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a whole one, which may be damaged."""
        return any(entry.name.isdecimal() for entry in self.checkpoints.glob("*"))

    def read_config(self) -> RunConfig:
        """The resolved settings. Raises UserError where they cannot be had."""
        tree = read_json(self.config)
        try:
            return from_json(tree)
        except UserError as error:
            raise UserError(f"run file {str(self.config)!r}: {error}") from error

    def read_tokenizer(self) -> Tokenizer:
        """What encodes and decodes."""
        return tokenizer_from_json(read_json(self.tokenizer))

    def read_words(self) -> WordTokenizer:
        """The vocabulary of vectors."""
        return WordTokenizer.from_json(read_json(self.tokenizer))

    def read_seen(self) -> dict[str, np.ndarray]:
        """Hashes of each split's lines."""
        with np.load(self.seen) as arrays:
            return {split: arrays[split] for split in SPLITS}

    def read_constants(self) -> dict[str, np.ndarray]:
        """What the model has beside its parameters; empty for most models. Raises UserError where it is broken."""
        if not self.constants.exists():
            return {}
        try:
            with np.load(self.constants) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"run file {str(self.constants)!r} cannot be read: {error}") from error


def open_existing(path: Path) -> RunDir:
    """A run directory to read. Raises UserError where it is not one or is from a newer format."""
    run = RunDir(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"run {str(path)!r} is a file, not a run")
    if not path.is_dir():
        raise UserError(f"run {str(path)!r} does not exist{near_path(path)}; train it first: train.py CONFIG")
    if not run.fingerprint.is_file():
        raise UserError(f"run {str(path)!r} is not a run directory (it has no fingerprint.json)")
    found = read_json(run.fingerprint)
    made = found.get("format") if isinstance(found, dict) else None
    if not isinstance(made, int):
        raise UserError(f"run {str(path)!r} is not a run directory: its fingerprint.json is not ours")
    if made > FORMAT:
        raise UserError(f"run {str(path)!r} has format {made}, this version reads up to {FORMAT}: update jaxlm")
    return run


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file whole or not at all."""
    try:
        content = dump(value).encode()
    except UnicodeEncodeError:  # a path of bytes that are not UTF-8
        content = json.dumps(value, indent=2, allow_nan=False).encode()
    write_bytes(path, content + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """A JSON file of a run. Raises UserError where it is missing or broken."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"run file {str(path)!r} cannot be read: {error}") from error


def dump(value: Any) -> str:
    """JSON as people can read it; NaN and infinity are a bug."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
