"""Token shards on disk: a directory of .bin files, their tokenizer, and a manifest that says what they hold."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config import DataConfig, PreparedTokensConfig
from jaxlm.config.settings import refuse_unused
from jaxlm.errors import UserError, check_fields, reading
from jaxlm.tokenizers import Tokenizer, tokenizer_from_json

FORMAT = "jaxlm token shards 1"
MANIFEST, TOKENIZER, PLAN, PARTS = "manifest.json", "tokenizer.json", "prepare.json", "parts"
"""Names in the directory: the manifest, which is written last; the tokenizer; the settings and sources that it was
prepared from; and the tokens of single units of work while they are prepared."""
SPLITS: tuple[str, ...] = ("train", "dev")
DTYPES = ("uint16", "uint32")
"""Types of tokens on disk, little-endian; the first that holds all tokens is taken."""
AT_ONCE = 2**20
"""Tokens of a shard that are read at once."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of tokens, as the manifest describes it."""

    file: str
    split: str
    tokens: int
    documents: int
    """Documents that end in it."""
    bytes: int
    """UTF-8 bytes of their text, one for each document's end."""
    sha256: str


@dataclasses.dataclass(frozen=True)
class Shards:
    """A prepared corpus, of which only the manifest and the tokenizer are in memory."""

    path: Path
    tokenizer: Tokenizer
    dtype: np.dtype[Any]
    eos: int
    """The token that ends each document."""
    shards: tuple[Shard, ...]
    """Those of train, then those of dev."""
    data_hash: str
    split_hash: str
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> dict[str, list[str]]:
        """Nothing: the documents are not compared with samples."""
        return {}

    def of_split(self, split: str) -> list[Shard]:
        """The shards of a split."""
        return [shard for shard in self.shards if shard.split == split]

    def size(self, split: str) -> int:
        """Predictions in a split."""
        return sum(shard.tokens for shard in self.of_split(split))

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of a token of train on average."""
        return sum(shard.bytes for shard in self.of_split("train")) / self.size("train")

    def map(self, shard: Shard) -> np.ndarray:
        """The tokens of a shard, memory-mapped: only what is read is loaded."""
        with reading(self.path / shard.file, "shard"):
            return np.memmap(self.path / shard.file, self.dtype, mode="r")


def open_shards(path: Path) -> Shards:
    """Open a prepared directory; no tokens are read.

    Raises UserError naming the file where it is not one or not finished, the manifest or the tokenizer is damaged, or
    a shard is missing, cut off or not in the manifest. What is in a shard only `verify` checks.
    """
    where = f"data.path {str(path)!r}"
    if not (path / MANIFEST).is_file():
        if (path / PLAN).is_file():
            raise UserError(
                f"{where} has no {MANIFEST}: its preparation was stopped; run the same python -m jaxlm.data prepare "
                "again, which goes on"
            )
        raise UserError(
            f"{where} is a directory without {MANIFEST}: make token shards of its files with python -m jaxlm.data "
            f"prepare {path} --out DIR, and give DIR"
        )
    try:
        tree = json.loads((path / MANIFEST).read_bytes())
        if tree.get("format") != FORMAT:
            raise ValueError(f"format wants {FORMAT!r}, got {tree.get('format')!r}")
        check_fields(tree, tokenizer_sha256=(str,), dtype=(str,), eos=(int,), settings=(dict,), shards=(list,))
        if tree["dtype"] not in DTYPES:
            raise ValueError(f"dtype wants {' or '.join(DTYPES)}, got {tree['dtype']!r}")
        shards = tuple(Shard(**shard) for shard in tree["shards"])
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: {MANIFEST} cannot be used: {error}") from error
    dtype = np.dtype(tree["dtype"]).newbyteorder("<")
    for shard in shards:
        _check_size(path, shard, dtype.itemsize)
    strange = sorted({file.name for file in path.glob("*.bin")} - {shard.file for shard in shards})
    if strange:
        raise UserError(f"{where}: the shard {strange[0]!r} is not in {MANIFEST}: move it away")
    split = {name: tree["settings"].get(name) for name in ("document", "field", "held_out")}
    return Shards(
        path=path,
        tokenizer=_tokenizer(path, tree["tokenizer_sha256"]),
        dtype=dtype,
        eos=tree["eos"],
        shards=shards,
        data_hash=_sha256([tree["dtype"], tree["eos"], [[s.split, s.tokens, s.sha256] for s in shards]]),
        split_hash=_sha256(split),
    )


def is_directory(config: DataConfig) -> bool:
    """True if data.path is a directory, which holds shards and not a text."""
    return config.path is not None and Path(config.path).is_dir()


def refuse_settings_of_text(config: DataConfig) -> None:
    """Raise UserError for settings of the data that shards have decided, or that they do not take."""
    here, wanted = f"data.path {config.path!r}, a directory of shards", "a text file"
    refuse_unused(config, ("encoding", "overlap", "split", "split_seed"), here, wanted)
    for name, value in (("kind", "stream"), ("example", "sequence")):
        if getattr(config, name) != value:
            raise UserError(
                f"data.{name} wants {value} with {here}, got {getattr(config, name)}: give --data.{name} {value}"
            )
    if not isinstance(config.tokens, PreparedTokensConfig) and config.tokens != DataConfig().tokens:
        raise UserError(
            f"data.tokens wants PreparedTokensConfig() with {here}, whose tokens were chosen when they were prepared, "
            f"got {type(config.tokens).__name__}()"
        )


def describe(path: Path, split: str, dtype: np.dtype[Any], bytes_V: np.ndarray, eos: int) -> Shard:
    """Read a shard through, as the manifest describes it."""
    sha256, tokens, documents, size = hashlib.sha256(), 0, 0, 0
    for token_N in _blocks(path, dtype):
        sha256.update(token_N.tobytes())
        tokens += len(token_N)
        documents += int(np.count_nonzero(token_N == eos))
        size += int(bytes_V[token_N].sum(dtype=np.int64))
    return Shard(path.name, split, tokens, documents, size, sha256.hexdigest())


def verify(path: Path) -> tuple[Shards, list[str]]:
    """Read every shard through; returns the corpus and the files whose content is not what the manifest says."""
    corpus = open_shards(path)
    bytes_V = corpus.tokenizer.bytes_of_token
    damaged = []
    for shard in corpus.shards:
        try:
            found = describe(path / shard.file, shard.split, corpus.dtype, bytes_V, corpus.eos)
        except IndexError:  # a token that the tokenizer does not have
            found = None
        if found != shard:
            damaged.append(shard.file)
    return corpus, damaged


def smallest_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type on disk of tokens below vocab_size."""
    return np.dtype(DTYPES[vocab_size > 2**16]).newbyteorder("<")


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises UserError where it cannot be read."""
    with reading(path, "tokens"):
        raw = path.read_bytes()
    try:
        return tokenizer_from_json(json.loads(raw))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"tokens {str(path)!r} is no tokenizer.json of a run: {error}") from error


def _blocks(path: Path, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    with reading(path, "shard"), path.open("rb") as file:
        while len(token_N := np.fromfile(file, dtype, AT_ONCE)):
            yield token_N


def _check_size(path: Path, shard: Shard, itemsize: int) -> None:
    wanted, file = shard.tokens * itemsize, path / shard.file
    got = file.stat().st_size if file.is_file() else None
    if got != wanted:
        state = "is missing" if got is None else f"wants {wanted:,} bytes, got {got:,}"
        raise UserError(
            f"data.path {str(path)!r}: the shard {shard.file!r} {state}: put it back, or prepare the text again into "
            "another directory"
        )


def _tokenizer(path: Path, sha256: str) -> Tokenizer:
    with reading(path / TOKENIZER, "data.path: the tokenizer"):
        raw = (path / TOKENIZER).read_bytes()
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise UserError(f"data.path {str(path)!r}: {TOKENIZER} is not the one that the shards were made with")
    return load_tokenizer(path / TOKENIZER)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
