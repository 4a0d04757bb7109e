"""The run directory: the names of its files, and how they are read and written."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.serialization import differences, from_json
from jaxlm.config.user_code import TrustCode
from jaxlm.data.corpus import SPLITS
from jaxlm.errors import UserError, check_fields, naming, near_path
from jaxlm.tokenizers import Tokenizer, WordTokenizer, tokenizer_from_json

FORMAT = 2
"""The format of the run directory; a run of any other is refused."""
MADE_ANEW = "run train.py again, which makes it anew (of a finished run, delete eval.json before)"
"""Fix for a damaged file that a resume rewrites."""
START_OVER = "put it back, or start over with train.py --restart"
"""Fix for a damaged fingerprint, without which the run's data and settings cannot be verified."""


class RunDir:
    """The files of one run, by name."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.tokenizer = path / "tokenizer.json"
        self.seen = path / "seen.npz"
        self.buffers = path / "buffers.npz"
        self.fingerprint = path / "fingerprint.json"
        self.metrics = path / "metrics.jsonl"
        self.eval = path / "eval.json"
        self.novelty = path / "novelty.json"
        self.samples = path / "samples.txt"
        self.checkpoints = path / "checkpoints"
        self.broken = path / "broken"
        self.plots = path / "plots"
        self.bigrams = self.plots / "bigrams.npz"
        self.word_points = self.plots / "words.npz"
        self.tensorboard = path / "tensorboard"
        self.wandb = path / "wandb.json"
        self.profile = path / "profile"
        self.lock = path / ".lock"

    @property
    def has_checkpoint(self) -> bool:
        """True if a checkpoint has been saved completely."""
        return bool(checkpoint_steps(self.checkpoints))

    def read_config(self, trust_code: TrustCode = False) -> RunConfig:
        """Read the resolved settings.

        Raises UserError if they are unreadable, were edited after training began, or have a class in a user's own file
        that has not been loaded while `trust_code` is False.
        """
        tree = read_json(self.config)
        with naming(f"run file {str(self.config)!r}"):
            if isinstance(tree, dict):
                tree.pop("format", None)
            config = from_json(tree, trust_code, self.path)
        with decoding(self.fingerprint, START_OVER):
            began = read_json(self.fingerprint).get("settings")
            edited = differences(began, config) if began is not None else []
        if edited:
            raise UserError(f"run file {str(self.config)!r} was edited: {'; '.join(edited)}; put back what was there")
        return config

    def read_fingerprint(self) -> dict[str, Any]:
        """Read the fingerprint. Raises UserError if a part of it is missing or malformed."""
        found = read_json(self.fingerprint, START_OVER)
        with decoding(self.fingerprint, START_OVER):
            hashes = ("data", "tokenizer", "split", "buffers", "init_from")
            check_fields({"buffers": "", "init_from": "", **found}, **dict.fromkeys(hashes, (str,)))
            check_fields(found, settings=(dict,))
        return dict(found)

    def read_tokenizer(self) -> Tokenizer:
        """Read the tokenizer. Raises UserError if it is not the one the run was trained with."""
        return tokenizer_from_json(self._vocabulary())

    def read_words(self) -> WordTokenizer:
        """Read the vocabulary of a word2vec run. Raises UserError if it is not the one the run was trained with."""
        return WordTokenizer.from_json(self._vocabulary())

    def _vocabulary(self) -> Any:
        found = read_json(self.tokenizer)
        with decoding(self.tokenizer):
            self._check_same(self.tokenizer, "tokenizer", hash_of_json(found))
        return found

    def read_seen(self) -> dict[str, np.ndarray]:
        """Read the hashes of each split's lines. Raises UserError if they are missing or damaged."""
        with decoding(self.seen):
            arrays = _arrays(self.seen)
            return {split: arrays[split] for split in SPLITS}

    def read_buffers(self) -> dict[str, np.ndarray]:
        """Read the model's arrays that are not trained; most models have none.

        Raises UserError if they are damaged, or missing from a run that has them.
        """
        if not self.buffers.exists() and "buffers" not in read_json(self.fingerprint):
            return {}
        with decoding(self.buffers):
            arrays = _arrays(self.buffers)
            self._check_same(self.buffers, "buffers", hash_of(arrays))
            return arrays

    def _check_same(self, path: Path, name: str, content: str) -> None:
        if read_json(self.fingerprint).get(name) not in (None, content):
            raise UserError(f"run file {str(path)!r} is not what the run was trained with: {MADE_ANEW}")

    def read_eval(self) -> dict[str, Any]:
        """Read the results. Raises UserError if a number or a split is missing or malformed."""
        found = read_json(self.eval)
        with decoding(self.eval):
            check_fields(found, params=(int,), step=(int,), steps=(int,), train_time_s=(int, float))
            for split in SPLITS:
                check_fields(found, **{split: (dict, type(None))})
                if found[split] is not None:
                    _check_loss({"impossible": 0, **found[split]})
            check_fields({"baselines": None, **found}, baselines=(dict, type(None)))
            counts = found.get("baselines") or {}
            check_fields(counts, **dict.fromkeys(counts, (int, float)))
        return dict(found)


def seed_directory(run_dir: Path, seed: int) -> Path:
    """The run directory of one seed within that of several seeds which one program trains."""
    return run_dir / f"seed-{seed}"


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of all checkpoints, including broken ones, oldest first."""
    entries = directory.iterdir() if directory.exists() else ()
    return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())


def open_existing(path: Path) -> RunDir:
    """Open a run directory for reading. Raises UserError if it is not one, is unreadable or has another format."""
    run = RunDir(path)
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"run {str(path)!r} is a file, not a run")
        if not path.is_dir():
            raise UserError(f"run {str(path)!r} does not exist{near_path(path)}; train it first: train.py CONFIG")
        if not run.fingerprint.is_file():
            raise UserError(f"run {str(path)!r} is not a run directory (it has no fingerprint.json)")
    except OSError as error:
        raise UserError(f"run {str(path)!r} cannot be read: {error.strerror}") from error
    found = read_json(run.fingerprint, START_OVER)
    made = found.get("format") if isinstance(found, dict) else None
    if not isinstance(made, int):
        raise UserError(f"run {str(path)!r} is not a run directory: its fingerprint.json is not ours")
    if made != FORMAT:
        fix = "update jaxlm" if made > FORMAT else "train it again with train.py --restart, which keeps it as NAME.old"
        raise UserError(f"run {str(path)!r} has format {made}, this version reads format {FORMAT}: {fix}")
    return run


@contextlib.contextmanager
def decoding(path: Path, fix: str = MADE_ANEW) -> Iterator[None]:
    """Context for reading a file of a run: a missing or damaged file raises UserError with the reason and the fix."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"run file {str(path)!r} is missing: {fix}") from None
    except OSError as error:
        raise UserError(f"run file {str(path)!r} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can make its reader raise anything
        raise UserError(f"run file {str(path)!r} cannot be read ({type(error).__name__}: {error}): {fix}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    try:
        content = dump(value).encode()
    except UnicodeEncodeError:  # a path of bytes that are not UTF-8
        content = json.dumps(value, indent=2, allow_nan=False).encode()
    write_bytes(path, content + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file atomically."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())


def read_json(path: Path, fix: str = MADE_ANEW) -> Any:
    """Read a JSON file of a run. Raises UserError if it is missing or damaged."""
    with decoding(path, fix):
        return json.loads(path.read_text("utf-8"))


def dump(value: Any) -> str:
    """Format a value as indented JSON. Raises ValueError for NaN and infinity."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)


def hash_of_json(value: Any) -> str:
    """SHA-256 of a value in the form that `dump` gives it."""
    return hashlib.sha256(dump(value).encode()).hexdigest()


def hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, which is opened here because NumPy leaves a damaged one open."""
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def _check_loss(entry: dict[str, Any]) -> None:
    """Raise ValueError if a split's entry in eval.json, of a language model or of word2vec, lacks a number."""
    loss, unit = ("loss", "pairs") if "pairs" in entry else ("nats_per_token", "bytes")
    numbers = dict.fromkeys(("tokens", "impossible", unit), (int,))
    check_fields(entry, **numbers, **{loss: (int, float, type(None))})
