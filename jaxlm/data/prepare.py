"""Preparation of a corpus that need not fit into memory: text files to token shards with a manifest.

The work is cut into units by the names and sizes of the files alone. Processes write the tokens of each unit to files
of its own under parts/, which are then put together in order into shards of equal size: the same bytes whatever the
number of processes, and however often the work was killed and begun again.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxlm.config import PrepareConfig, ReanTokensConfig
from jaxlm.data.files import find_files, units_of
from jaxlm.data.parallel import spread
from jaxlm.data.shards import (
    AT_ONCE,
    FORMAT,
    MANIFEST,
    PARTS,
    PLAN,
    SPLITS,
    TOKENIZER,
    Shard,
    Shards,
    describe,
    load_tokenizer,
    open_shards,
    smallest_dtype,
)
from jaxlm.data.units import (
    Unit,
    characters_of,
    counts_of,
    encode_unit,
    part_file,
    sample_of,
    whole_file,
    write_json,
)
from jaxlm.errors import UserError, reading
from jaxlm.tokenizers import BpeTokenizer, ByteTokenizer, CharTokenizer, ReanTokenizer, Tokenizer

SAMPLE_CHARACTERS, SAMPLED_UNITS = 2**26, 64
"""Characters that a tokenizer is trained on at most, and units of work, evenly spread, whose beginnings they are."""
SECONDS_BETWEEN_LINES = 10.0
"""Least seconds between lines of progress if the output is not a terminal."""


def prepare(
    paths: Sequence[str | Path],
    out: Path,
    config: PrepareConfig,
    processes: int | None = None,
    log: Callable[[str], None] = print,
) -> Shards:
    """Make token shards of text files in the directory `out`, or go on where that was stopped; open them.

    `processes` None: as many as this process may use. Raises UserError, naming the file or setting, for text that
    cannot be read and for a directory that holds anything else.
    """
    files = find_files(paths)
    processes = processes or _cores()
    with _claimed(out, _plan(files, config)) as is_done:
        if is_done:
            log(f"{out} is prepared already")
        else:
            units = [Unit(number, spans) for number, spans in enumerate(units_of(files))]
            if not units:
                raise UserError(f"prepare wants text, got {len(files):,} empty files, as {str(files[0])!r}")
            tokenizer = _tokenizer(out, config, units, processes)
            V = tokenizer.vocab_size
            log(f"{len(files):,} files in {len(units):,} units of work, vocabulary {V:,}, {processes} processes")
            _encode(out, config, units, processes)
            _write_manifest(out, config, files, tokenizer, _joined(out, config, units, tokenizer))
        shutil.rmtree(out / PARTS, ignore_errors=True)
    shards = open_shards(out)
    if config.held_out and not shards.size("dev"):
        log(
            "note: no document was held out, so there is no dev split: where .txt files have several documents, give "
            "--document blank-lines or lines"
        )
    return shards


def tokens_from(config: PrepareConfig, characters: Callable[[], str], sample: Callable[[], Iterator[str]]) -> Tokenizer:
    """The tokenizer that `tokens` names: bytes, bpe, characters, rean, one of a run, or one of another program.

    `characters` gives those of all documents, `sample` texts of train to train on; each is called where it is wanted.
    Raises UserError.
    """
    if config.tokens == "bytes":
        return ByteTokenizer()
    if config.tokens == "bpe":
        return BpeTokenizer.of_texts(sample(), config.vocab_size)
    if config.tokens == "characters":
        return CharTokenizer(characters())
    if config.tokens == "rean":
        return ReanTokenizer.of_texts(sample(), ReanTokensConfig().min_count)
    path = Path(config.tokens)
    if not path.is_dir() and path.suffix != ".json":
        raise UserError(
            "tokens wants bytes, bpe, characters, rean, a run, a tokenizer.json, or a directory with GPT-2's "
            f"encoder.json and vocab.bpe, got {config.tokens!r}"
        )
    file = path / TOKENIZER if path.is_dir() else path
    return load_tokenizer(file) if _is_ours(file) else BpeTokenizer.open(path)


def _is_ours(file: Path) -> bool:
    """True if a file is the tokenizer.json of a run, not of another program."""
    try:
        return "kind" in json.loads(file.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _tokenizer(out: Path, config: PrepareConfig, units: Sequence[Unit], processes: int) -> Tokenizer:
    """The tokenizer of the shards, which is kept in their directory as soon as it is known."""

    def characters() -> str:
        work = _with_progress("characters", partial(characters_of, config), units, processes)
        return "".join(sorted(set().union(*(found for _, found in work))))

    def sample() -> Iterator[str]:
        return sample_of(config, units[:: -(-len(units) // SAMPLED_UNITS)], SAMPLE_CHARACTERS)

    if (out / TOKENIZER).exists():
        return load_tokenizer(out / TOKENIZER)
    tokenizer = tokens_from(config, characters, sample)
    write_json(out / TOKENIZER, tokenizer.to_json())
    return tokenizer


def _encode(out: Path, config: PrepareConfig, units: Sequence[Unit], processes: int) -> None:
    """Encode the units that have not been encoded yet."""
    (out / PARTS).mkdir(exist_ok=True)
    left = [unit for unit in units if counts_of(out, unit.number) is None]
    for _ in _with_progress("tokens", partial(encode_unit, out, config), left, processes):
        pass


def _joined(out: Path, config: PrepareConfig, units: Sequence[Unit], tokenizer: Tokenizer) -> list[Shard]:
    """Put the parts together into shards of config.shard_tokens. A part is removed when its tokens are in shards."""
    dtype, bytes_V, shards = smallest_dtype(tokenizer.vocab_size), tokenizer.bytes_of_token, []
    counts = [counts_of(out, unit.number) or {} for unit in units]
    for split in SPLITS:
        end_P = np.cumsum([0, *(count[split] for count in counts)])
        total = int(end_P[-1])
        if split == "train" and not total:
            raise UserError("prepare wants at least one document for train, got none: is --held-out too large?")
        for number, start in enumerate(range(0, total, config.shard_tokens)):
            stop = min(start + config.shard_tokens, total)
            path = out / f"{split}-{number:05}.bin"
            first, last = (int(np.searchsorted(end_P, place, side="right")) - 1 for place in (start, stop))
            if not path.exists():
                with whole_file(path) as part, part.open("wb") as file:
                    for unit in range(first, min(last, len(units) - 1) + 1):
                        low, high = (min(max(place, end_P[unit]), end_P[unit + 1]) for place in (start, stop))
                        _copy(part_file(out, unit, split), file, dtype, int(low - end_P[unit]), int(high - low))
            shards.append(describe(path, split, dtype, bytes_V, tokenizer.eos))
            if shards[-1].tokens != stop - start:
                raise UserError(
                    f"the shard {str(path)!r} is damaged: remove it and the directory's {PARTS}, and prepare again"
                )
            for unit in range(first, last):
                part_file(out, unit, split).unlink(missing_ok=True)
    return shards


def _copy(source: Path, file: Any, dtype: np.dtype[Any], start: int, count: int) -> None:
    """Append `count` tokens of a part, from the token `start` on, to an open file."""
    if not count:
        return
    with reading(source, "part"), source.open("rb") as part:
        part.seek(start * dtype.itemsize)
        while count:
            raw = part.read(min(count, AT_ONCE) * dtype.itemsize)
            if not raw:
                raise UserError(f"part {str(source)!r} is cut off: remove the directory and prepare the text again")
            file.write(raw)
            count -= len(raw) // dtype.itemsize


def _write_manifest(
    out: Path, config: PrepareConfig, files: Sequence[Path], tokenizer: Tokenizer, shards: Sequence[Shard]
) -> None:
    tree = {
        "format": FORMAT,
        "settings": dataclasses.asdict(config),
        "tokenizer_sha256": hashlib.sha256((out / TOKENIZER).read_bytes()).hexdigest(),
        "vocab_size": tokenizer.vocab_size,
        "dtype": smallest_dtype(tokenizer.vocab_size).name,
        "eos": tokenizer.eos,
        "shards": [dataclasses.asdict(shard) for shard in shards],
        "sources": [{"path": str(file), "bytes": file.stat().st_size} for file in files],
    }
    write_json(out / MANIFEST, tree)


def _plan(files: Sequence[Path], config: PrepareConfig) -> dict[str, Any]:
    """All that decides the shards: settings, and the files with their sizes and times of change."""
    stats = [(file, file.stat()) for file in files]
    sources = {str(file): [stat.st_size, stat.st_mtime_ns] for file, stat in stats}
    return {"format": FORMAT, "settings": dataclasses.asdict(config), "sources": sources}


@contextlib.contextmanager
def _claimed(out: Path, plan: dict[str, Any]) -> Iterator[bool]:
    """Context that creates or opens the directory and locks it; yields True if its shards are finished.

    Raises UserError, changing nothing, where the directory holds something else, or shards of other settings or files.
    """
    if out.is_dir():
        strange = sorted({entry.name for entry in out.iterdir()} - {PLAN, f"{PLAN}.part", ".lock"})
        if strange and not (out / PLAN).is_file():
            raise UserError(f"--out wants a new directory, got {str(out)!r}, which has {strange[0]!r}")
    elif out.exists():
        raise UserError(f"--out wants a directory, got the file {str(out)!r}")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {str(out)!r} is being prepared by another process: wait for it") from None
        if (out / PLAN).is_file():
            _refuse_changes(out, plan)
        else:
            write_json(out / PLAN, plan)
        yield (out / MANIFEST).is_file()


def _refuse_changes(out: Path, plan: dict[str, Any]) -> None:
    """Raise UserError listing in what a directory was begun otherwise."""
    try:
        was = json.loads((out / PLAN).read_bytes())
        settings, sources = dict(was["settings"]), dict(was["sources"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--out {str(out)!r}: {PLAN} cannot be read: {error}; take another directory") from error
    changed = [
        f"--{name.replace('_', '-')} {settings.get(name)} (now {value})"
        for name, value in plan["settings"].items()
        if settings.get(name) != value
    ]
    files = [name for name in {**sources, **plan["sources"]} if sources.get(name) != plan["sources"].get(name)]
    if files or list(sources) != list(plan["sources"]):
        changed.append(f"other files or contents, as {files[0]!r}" if files else "files in another order")
    if changed:
        raise UserError(
            f"--out {str(out)!r} was begun with {'; '.join(changed)}: take another directory, or remove that one"
        )


def _with_progress(name: str, function: Callable[[Unit], Any], units: Sequence[Unit], processes: int) -> Iterator[Any]:
    """`spread`, with a line of progress on stderr."""
    every = 0.5 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES
    with tqdm(total=len(units), desc=name, unit="unit", file=sys.stderr, mininterval=every, miniters=1) as bar:
        for done in spread(function, units, processes):
            bar.update()
            yield done


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
