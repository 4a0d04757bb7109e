"""Text to splits of tokens, on the host."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data.labels import check_labels
from jaxlm.data.source import read
from jaxlm.errors import UserError, naming
from jaxlm.tokenizers import Tokenizer, UnknownCharacter, WordTokenizer

SPLITS = ("train", "dev", "test")
MAX_AGE = 2**16 - 1
LONG_LINE = 5000
"""Characters above which a line is taken for running text, with a note."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """All splits' tokens in one array, train first, so that every split is a range of positions.

    Each position i is one prediction: the target is tokens_N[i], and the k-th token before it is tokens_N[i - k] where
    age_N[i] >= k, else the tokenizer's EOS (lines, dialogues and splits do not see each other).
    """

    tokenizer: Tokenizer
    tokens_N: np.ndarray
    age_N: np.ndarray
    bounds: dict[str, tuple[int, int]]
    kind: Literal["lines", "stream", "dialogues"]
    """The kind that the text was read as (data.kind)."""
    data_hash: str
    split_hash: str
    notes: tuple[str, ...] = ()
    """Lines about the text that are logged before training."""

    @property
    def lines(self) -> dict[str, list[str]]:
        """Each split's lines, or its dialogues' turns, decoded anew at each use: no text is kept. {} of a stream."""
        return {} if self.kind == "stream" else {split: self._lines(split) for split in SPLITS}

    def _lines(self, split: str) -> list[str]:
        token_N = self.tokens(split)
        end_L, tokens = np.flatnonzero(token_N == self.tokenizer.eos), token_N.tolist()
        start_L = np.concatenate([[0], end_L[:-1] + 1]) if len(end_L) else end_L
        parts = zip(start_L.tolist(), end_L.tolist(), strict=True)
        # a line is never empty: the second EOS at a dialogue's end ends none
        return [self.tokenizer.decode(tokens[start:end]) for start, end in parts if end > start]

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
        """Predictions in the longest line or dialogue (its end included), or in the longest split of a stream."""
        return int(self.age_N.max()) + 1


def load(config: DataConfig, tokenizer: Tokenizer | None = None) -> Corpus:
    """Read, split and encode, by a tokenizer of the text's own unless one is given.

    The last text that was read is kept: a sweep, and the recipe for any text, train on it again. Raises UserError where
    the text cannot be used, naming init_from and the place where the given tokenizer does not know a character.
    """
    if tokenizer is not None or config.path is None:
        return _load(config, tokenizer)
    try:
        file = Path(config.path).stat()
    except OSError:
        return _load(config, None)  # which says why
    rows = DataConfig()
    rows_apart = {name: getattr(rows, name) for name in ("example", "max_length", "order", "overlap")}
    return _load_again(dataclasses.replace(config, **rows_apart), (file.st_mtime_ns, file.st_size, file.st_ino))


@functools.lru_cache(maxsize=1)
def _load_again(config: DataConfig, version: tuple[int, ...]) -> Corpus:
    """`_load` of a file in this version."""
    return _load(config, None)


def _load(config: DataConfig, tokenizer: Tokenizer | None) -> Corpus:
    read_as = {"lines": from_lines, "stream": from_stream, "dialogues": from_dialogues}
    text = read(config)
    notes: tuple[str, ...] = ()
    if config.kind == "dialogues":
        notes = check_labels(split_dialogues(text), config.labels, config.path or config.name)
    elif config.kind == "lines":
        notes = _notes_on_lines(split_lines(text))
    with contextlib.nullcontext() if tokenizer is None else naming("init_from"), _placing(text):
        return dataclasses.replace(read_as[config.kind](text, config, tokenizer), notes=notes)


def _notes_on_lines(lines: Sequence[str]) -> tuple[str, ...]:
    longest = max(map(len, lines), default=0)
    if len(lines) != 1 and longest <= LONG_LINE:
        return ()
    what = "the text has one line" if len(lines) == 1 else f"a line of the text has {longest:,} characters"
    return (f"note: {what}; each line is one example: if it is running text, give --data.kind stream",)


@contextlib.contextmanager
def _placing(text: str) -> Iterator[None]:
    """Context for encoding a text: the error about an unknown character begins with its first line and column."""
    try:
        yield
    except UnknownCharacter as error:
        at = text.find(error.character)
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        raise UserError(f"line {line}, column {column}: {error}") from error


def tokenizer_of(config: DataConfig, whole: str, train: Sequence[str]) -> Tokenizer:
    """The tokenizer that data.tokens builds. Raises UserError where its tokens do not give the text back."""
    if not config.tokens.restores_text:
        raise UserError(
            f"data.tokens wants tokens that give the text back, got {type(config.tokens).__name__}(): take "
            "CharactersConfig(), BytesConfig(), BpeConfig() or ReanTokensConfig()"
        )
    tokenizer = config.tokens.build(whole, train)
    assert not isinstance(tokenizer, WordTokenizer), config.tokens
    return tokenizer


def split_lines(text: str) -> list[str]:
    """The lines of a text, each as it is; blank ones are left out."""
    return [line for line in text.split("\n") if line.strip()]


def split_dialogues(text: str) -> list[list[str]]:
    """The turns of each dialogue of a text: its lines, up to a blank one."""
    dialogues: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            dialogues[-1].append(line)
        elif dialogues[-1]:
            dialogues.append([])
    return dialogues if dialogues[-1] else dialogues[:-1]


def shares(n: int, split: tuple[float, float, float]) -> tuple[int, int]:
    """Where train ends and where dev ends among n things; train has at least one of them."""
    first = max(1, int(split[0] * n + 1e-6))
    second = n if split[2] == 0 else max(first, int((split[0] + split[1]) * n + 1e-6))
    return (second if split[1] == 0 else first), second


def lines_of_splits(text: str, config: DataConfig) -> tuple[dict[str, list[str]], str]:
    """Each split's lines, and the SHA-256 of all: shuffled by random.Random(split_seed), then cut."""
    lines = split_lines(text)
    if not lines:
        raise UserError("data.path wants at least one line with text, got only blank lines")
    data_hash = _sha256("\n".join(lines))
    random.Random(config.split_seed).shuffle(lines)
    first, second = shares(len(lines), config.split)
    return dict(zip(SPLITS, (lines[:first], lines[first:second], lines[second:]), strict=True)), data_hash


def from_lines(text: str, config: DataConfig, tokenizer: Tokenizer | None = None) -> Corpus:
    """One example a line: shuffled by random.Random(split_seed), then cut into train, dev and test."""
    parts, data_hash = lines_of_splits(text, config)
    tokenizer = tokenizer or tokenizer_of(config, "".join(map("".join, parts.values())), parts["train"])
    tokens = [tokenizer.encode_lines(part) for part in parts.values()]
    tokens_N = np.concatenate(tokens)
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=tokens_N,
        age_N=line_ages(tokens_N, tokenizer.eos),
        bounds=_bounds([len(part) for part in tokens]),
        kind="lines",
        data_hash=data_hash,
        split_hash=_split_hash(config),
    )


def from_dialogues(text: str, config: DataConfig, tokenizer: Tokenizer | None = None) -> Corpus:
    """One example a dialogue: shuffled by random.Random(split_seed), then cut into train, dev and test.

    EOS ends every turn, and stands once more at the end of the dialogue, for the blank line.
    """
    dialogues = split_dialogues(text)
    if not dialogues:
        raise UserError("data.path wants at least one line with text, got only blank lines")
    data_hash = _sha256("\n\n".join(map("\n".join, dialogues)))
    random.Random(config.split_seed).shuffle(dialogues)
    first, second = shares(len(dialogues), config.split)
    parts = dict(zip(SPLITS, (dialogues[:first], dialogues[first:second], dialogues[second:]), strict=True))
    lines = {split: [turn for turns in part for turn in turns] for split, part in parts.items()}
    tokenizer = tokenizer or tokenizer_of(config, "".join(map("".join, lines.values())), lines["train"])
    tokens = {split: [encode_dialogue(turns, tokenizer) for turns in part] for split, part in parts.items()}
    every = [tokens_T for part in tokens.values() for tokens_T in part]
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=np.concatenate(every),
        age_N=_ages_of(every),
        bounds=_bounds([sum(map(len, part)) for part in tokens.values()]),
        kind="dialogues",
        data_hash=data_hash,
        split_hash=_split_hash(config),
    )


def encode_dialogue(turns: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """A dialogue's tokens: each turn followed by EOS, and one more EOS."""
    return np.append(tokenizer.encode_lines(turns), np.int32(tokenizer.eos))


def from_stream(text: str, config: DataConfig, tokenizer: Tokenizer | None = None) -> Corpus:
    """Running text: cut by position (in characters) into train, dev and test."""
    first, second = shares(len(text), config.split)
    parts = dict(zip(SPLITS, (text[:first], text[first:second], text[second:]), strict=True))
    tokenizer = tokenizer or tokenizer_of(config, text, [parts["train"]])
    tokens = [tokenizer.encode(part) for part in parts.values()]
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=np.concatenate(tokens),
        age_N=_ages_of(tokens),
        bounds=_bounds([len(part) for part in tokens]),
        kind="stream",
        data_hash=_sha256(text),
        split_hash=_split_hash(config),
    )


def line_ages(tokens_N: np.ndarray, eos: int = 0) -> np.ndarray:
    """How many tokens of its own line stand before each position, at most MAX_AGE; a line ends with `eos`. uint16."""
    place_N = np.arange(len(tokens_N))
    ends_N = np.concatenate([[True], tokens_N[:-1] == eos])
    start_N = np.maximum.accumulate(np.where(ends_N, place_N, 0))
    return np.minimum(place_N - start_N, MAX_AGE).astype(np.uint16)


def encode_text(text: str, tokenizer: Tokenizer, kind: Literal["lines", "stream", "dialogues"]) -> Corpus:
    """A text of its own as a corpus whose train split is all of it.

    Raises UserError with the place of an unknown character.
    """
    lines = split_lines(text)
    if not lines:
        raise UserError("the text to score wants at least one line with text, got none")
    with _placing(text):
        if kind == "lines":
            tokens = [tokenizer.encode_lines([line]) for line in lines]
        elif kind == "dialogues":
            tokens = [encode_dialogue(turns, tokenizer) for turns in split_dialogues(text)]
        else:
            tokens = [tokenizer.encode(text)]
    tokens_N = np.concatenate(tokens)
    return Corpus(
        tokenizer=tokenizer,
        tokens_N=tokens_N,
        age_N=_ages_of(tokens),
        bounds=_bounds([len(tokens_N), 0, 0]),
        kind=kind,
        data_hash=_sha256(text),
        split_hash="",
    )


def line_hash(line: str) -> int:
    """A 64-bit hash of a line: the first 8 bytes of its BLAKE2b, little-endian."""
    return int.from_bytes(_digest(line), "little")


def line_hashes(lines: Sequence[str]) -> np.ndarray:
    """The hash of each distinct line, sorted, uint64."""
    return np.unique(np.frombuffer(b"".join(map(_digest, lines)), "<u8")).astype(np.uint64)


def _digest(line: str) -> bytes:
    return hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _ages_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """How many tokens of its own part stand before each one, at most MAX_AGE, uint16."""
    length_L = np.array([len(part) for part in parts])
    start_N = np.repeat(np.cumsum(length_L) - length_L, length_L)
    return np.minimum(np.arange(length_L.sum()) - start_N, MAX_AGE).astype(np.uint16)


def _bounds(sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([0, *sizes]).tolist()
    return {name: (ends[i], ends[i + 1]) for i, name in enumerate(SPLITS)}


def _split_hash(config: DataConfig) -> str:
    return _sha256(json.dumps([config.kind, list(config.split), config.split_seed]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
