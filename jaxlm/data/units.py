"""Units of work of a preparation: documents of some spans of files, encoded into files of their own."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.config import PrepareConfig
from jaxlm.data.documents import Fragment, fragments_of
from jaxlm.data.files import Span
from jaxlm.data.shards import PARTS, SPLITS, TOKENIZER, load_tokenizer, smallest_dtype
from jaxlm.errors import UserError, check_fields
from jaxlm.tokenizers import Tokenizer

BATCH = 2**18
"""Characters of short documents that are encoded at once."""


class Unit(NamedTuple):
    """A unit of work: spans of files, whose tokens become one part."""

    number: int
    spans: tuple[Span, ...]


def is_held_out(head: str, share: float) -> bool:
    """True if a document with these first characters belongs to dev: its 64-bit BLAKE2b is below share * 2 ** 64.

    Neither other documents nor their order or files matter; documents that begin alike belong to one split.
    """
    digest = hashlib.blake2b(head.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def encode_unit(out: Path, config: PrepareConfig, unit: Unit) -> None:
    """Write the tokens of a unit's documents, each followed by EOS, and then, as the sign that they are whole, how many
    they are.
    """
    tokenizer = _tokenizer(out / TOKENIZER, (out / TOKENIZER).stat().st_mtime_ns)
    dtype = smallest_dtype(tokenizer.vocab_size)
    count = dict.fromkeys(SPLITS, 0)
    with contextlib.ExitStack() as stack:
        files = {split: stack.enter_context(part_file(out, unit.number, split).open("wb")) for split in SPLITS}
        for split, token_N in _encoded(tokenizer, config, unit):
            files[split].write(token_N.astype(dtype).tobytes())
            count[split] += len(token_N)
    write_json(done_file(out, unit.number), count)


def counts_of(out: Path, number: int) -> dict[str, int] | None:
    """The tokens of each split in a unit's files; None unless they are whole."""
    try:
        count = json.loads(done_file(out, number).read_bytes())
        check_fields(count, **dict.fromkeys(SPLITS, (int,)))
    except (OSError, ValueError):
        return None
    return {split: int(count[split]) for split in SPLITS}


def characters_of(config: PrepareConfig, unit: Unit) -> str:
    """The characters of a unit's documents, in code-point order."""
    seen_V = np.zeros(0x110000, bool)
    for span in unit.spans:
        for fragment in fragments_of(span, config):
            seen_V[np.frombuffer(fragment.text.encode("utf-32-le", "surrogatepass"), "<u4")] = True
    return "".join(map(chr, np.flatnonzero(seen_V).tolist()))


def sample_of(config: PrepareConfig, units: Sequence[Unit], most: int) -> Iterator[str]:
    """Documents of train, or their beginnings, from the start of each of some units: `most` characters at most."""
    for unit in units:
        left = most // len(units)
        for fragment in (found for span in unit.spans for found in fragments_of(span, config)):
            if split_of(fragment, config) == "train":
                yield fragment.text[:left]
                left -= len(fragment.text)
            if left <= 0:
                break


def _encoded(tokenizer: Tokenizer, config: PrepareConfig, unit: Unit) -> Iterator[tuple[str, np.ndarray]]:
    """The tokens of a unit's documents, and which split they belong to; short documents are encoded together."""
    for span in unit.spans:
        waiting: dict[str, list[str]] = {split: [] for split in SPLITS}
        size = dict.fromkeys(SPLITS, 0)
        with _naming(span):
            for fragment in fragments_of(span, config):
                split = split_of(fragment, config)
                if fragment.ends:
                    waiting[split].append(fragment.text)
                    size[split] += len(fragment.text)
                if waiting[split] and (size[split] >= BATCH or not fragment.ends):
                    yield split, tokenizer.encode_lines(waiting[split])
                    waiting[split], size[split] = [], 0
                if not fragment.ends:
                    yield split, tokenizer.encode(fragment.text)
            for split, texts in waiting.items():
                if texts:
                    yield split, tokenizer.encode_lines(texts)


def split_of(fragment: Fragment, config: PrepareConfig) -> str:
    """The split of a fragment's document."""
    return "dev" if is_held_out(fragment.head, config.held_out) else "train"


@contextlib.contextmanager
def _naming(span: Span) -> Iterator[None]:
    """Context for encoding a span: a UserError names its file, and has a type that can be pickled."""
    try:
        yield
    except UserError as error:
        named = str(error) if span.path in str(error) else f"file {span.path!r}: {error}"
        raise UserError(named) from None


@functools.lru_cache(maxsize=1)
def _tokenizer(path: Path, changed: int) -> Tokenizer:
    """The tokenizer, which a process that has many units reads once."""
    return load_tokenizer(path)


def part_file(out: Path, number: int, split: str) -> Path:
    """The file of a unit's tokens of a split."""
    return out / PARTS / f"{number:06}-{split}.bin"


def done_file(out: Path, number: int) -> Path:
    """The file that is there when a unit's tokens are written, with their numbers."""
    return out / PARTS / f"{number:06}.json"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", "utf-8")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Context that yields a path to write to, whose file takes its place under `path`, on the disk, at the end."""
    part = path.with_name(path.name + ".part")
    yield part
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
