"""Text to splits of tokens, on the host."""

import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data.source import read
from jaxlm.errors import UserError
from jaxlm.tokenizer import CharTokenizer

SPLITS = ("train", "dev", "test")
MAX_AGE = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class Corpus:
    """All splits' tokens in one array, train first, so that every split is a range of positions.

    Each position i is one prediction: the target is tokens_N[i], and the k-th token before it is tokens_N[i - k] where
    age_N[i] >= k, else the boundary 0 (lines and splits do not see each other).
    """

    tokenizer: CharTokenizer
    tokens_N: np.ndarray
    age_N: np.ndarray
    bounds: dict[str, tuple[int, int]]
    lines: dict[str, list[str]]
    data_hash: str
    split_hash: str

    def tokens(self, split: str) -> np.ndarray:
        """The targets of a split in order."""
        start, end = self.bounds[split]
        return self.tokens_N[start:end]

    def size(self, split: str) -> int:
        """Predictions in a split."""
        start, end = self.bounds[split]
        return end - start

    @property
    def longest(self) -> int:
        """Predictions in the longest line (its end included), or in the longest split of a stream."""
        return int(self.age_N.max()) + 1


def load(config: DataConfig, tokenizer: CharTokenizer | None = None) -> Corpus:
    """Read, split and encode, by a tokenizer of the text's own characters unless one is given.

    Raises UserError where the text cannot be used.
    """
    text = read(config)
    return (from_lines if config.kind == "lines" else from_stream)(text, config, tokenizer)


def split_lines(text: str) -> list[str]:
    """The lines of a text, each as it is; blank ones are left out."""
    return [line for line in text.split("\n") if line.strip()]


def shares(n: int, split: tuple[float, float, float]) -> tuple[int, int]:
    """Where train ends and where dev ends among n things; train has at least one of them."""
    first = max(1, int(split[0] * n + 1e-6))
    second = n if split[2] == 0 else max(first, int((split[0] + split[1]) * n + 1e-6))
    return (second if split[1] == 0 else first), second


def from_lines(text: str, config: DataConfig, tokenizer: CharTokenizer | None = None) -> Corpus:
    """One example a line: shuffled by random.Random(split_seed), then cut into train, dev and test."""
    lines = split_lines(text)
    if not lines:
        raise UserError("data.path wants at least one line with text, got only blank lines")
    tokenizer = tokenizer or CharTokenizer.of_text("".join(lines))
    data_hash = _sha256("\n".join(lines))
    random.Random(config.split_seed).shuffle(lines)
    first, second = shares(len(lines), config.split)
    parts = dict(zip(SPLITS, (lines[:first], lines[first:second], lines[second:]), strict=True))
    tokens = [tokenizer.encode_lines(part) for part in parts.values()]
    tokens_N = np.concatenate(tokens)
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=tokens_N,
        age_N=line_ages(tokens_N),
        bounds=_bounds([len(part) for part in tokens]),
        lines=parts,
        data_hash=data_hash,
        split_hash=_split_hash(config),
    )


def from_stream(text: str, config: DataConfig, tokenizer: CharTokenizer | None = None) -> Corpus:
    """Running text: cut by position into train, dev and test."""
    tokenizer = tokenizer or CharTokenizer.of_text(text)
    first, second = shares(len(text), config.split)
    parts = dict(zip(SPLITS, (text[:first], text[first:second], text[second:]), strict=True))
    sizes = [len(part) for part in parts.values()]
    age_N = np.concatenate([np.minimum(np.arange(size), MAX_AGE) for size in sizes]).astype(np.uint16)
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=tokenizer.encode(text),
        age_N=age_N,
        bounds=_bounds(sizes),
        lines={name: split_lines(part) for name, part in parts.items()},
        data_hash=_sha256(text),
        split_hash=_split_hash(config),
    )


def line_ages(tokens_N: np.ndarray) -> np.ndarray:
    """How many tokens of its own line stand before each position, at most MAX_AGE; a line ends with token 0. uint16."""
    place_N = np.arange(len(tokens_N))
    ends_N = np.concatenate([[True], tokens_N[:-1] == 0])
    start_N = np.maximum.accumulate(np.where(ends_N, place_N, 0))
    return np.minimum(place_N - start_N, MAX_AGE).astype(np.uint16)


def encode_text(text: str, tokenizer: CharTokenizer, kind: str) -> Corpus:
    """A text of its own as a corpus whose train split is all of it. Raises UserError for an unknown character."""
    lines = split_lines(text)
    if not lines:
        raise UserError("the text to score wants at least one line with text, got none")
    tokens_N = tokenizer.encode_lines(lines) if kind == "lines" else tokenizer.encode(text)
    age_N = line_ages(tokens_N) if kind == "lines" else np.minimum(np.arange(len(text)), MAX_AGE).astype(np.uint16)
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=tokens_N,
        age_N=age_N,
        bounds=_bounds([len(tokens_N), 0, 0]),
        lines={"train": lines, "dev": [], "test": []},
        data_hash=_sha256(text),
        split_hash="",
    )


def line_hash(line: str) -> int:
    """A 64-bit hash of a line: the first 8 bytes of its BLAKE2b, little-endian."""
    return int.from_bytes(hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def line_hashes(lines: Sequence[str]) -> np.ndarray:
    """The hash of each distinct line, sorted, uint64."""
    return np.array(sorted({line_hash(line) for line in lines}), np.uint64)


def _bounds(sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([0, *sizes]).tolist()
    return {name: (ends[i], ends[i + 1]) for i, name in enumerate(SPLITS)}


def _split_hash(config: DataConfig) -> str:
    return _sha256(json.dumps([config.kind, list(config.split), config.split_seed]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
