"""python -m jaxlm.data: make token shards of text files, and check them."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import tyro

from jaxlm.cli.parsing import parse
from jaxlm.cli.process import show
from jaxlm.config import PrepareConfig, check
from jaxlm.data.prepare import prepare
from jaxlm.data.shards import SPLITS, Shards, verify
from jaxlm.errors import UserError

USAGE = """\
usage: python -m jaxlm.data prepare PATHS... --out DIR [--SETTING VALUE ...]
       python -m jaxlm.data verify DIR

prepare: files, directories and patterns of .txt, .jsonl, .parquet (.gz, .zst) to token shards, which
train.py CONFIG --data.path DIR trains on; run again, it goes on. Its settings: prepare --help
verify: read all shards and compare them with their checksums"""


@dataclasses.dataclass(frozen=True)
class PrepareCommand:
    """Make token shards of text files; run again, it goes on where it was stopped."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Files, directories and patterns of .txt, .jsonl, .json (an object a line) and .parquet, also .gz and .zst."""
    out: Path
    """The directory of the shards, for --data.path."""
    settings: Annotated[PrepareConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=PrepareConfig)
    processes: int | None = None
    """How many work at once. None: one for each core."""


def run(args: list[str]) -> int:
    """Do what the arguments say; return the exit code. Raises UserError."""
    name, rest = (args[0], args[1:]) if args else ("", [])
    if name in ("-h", "--help"):
        show(USAGE)
    elif name == "prepare":
        command = parse(PrepareCommand, rest, prog="python -m jaxlm.data prepare")
        check.at_least("--processes", command.processes, 1)
        began = time.monotonic()
        shards = prepare(command.paths, command.out, command.settings, command.processes, log=show)
        show(f"{summary(shards)}, in {time.monotonic() - began:.1f} s")
    elif name == "verify":
        if len(rest) != 1:
            raise UserError(f"verify wants one directory of shards, got {' '.join(rest) or 'none'}")
        shards, damaged = verify(Path(rest[0]))
        if damaged:
            raise UserError(
                f"{rest[0]!r}: the shard {damaged[0]!r} has other content than its checksum says "
                f"({len(damaged):,} of {len(shards.shards):,} shards): put it back, or prepare the text again"
            )
        show(f"{summary(shards)}: as their checksums say")
    else:
        raise UserError(f"jaxlm.data wants prepare or verify, got {name or 'nothing'!r} (--help)")
    return 0


def summary(shards: Shards) -> str:
    """The shards, documents and tokens of each split in a line."""
    counts = []
    for split in SPLITS:
        documents = sum(shard.documents for shard in shards.of_split(split))
        counts.append(f"{split} {shards.size(split):,} tokens of {documents:,} documents")
    return f"{shards.path}: {len(shards.shards):,} shards, {', '.join(counts)}"
