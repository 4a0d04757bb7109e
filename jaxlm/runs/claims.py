"""Who may write a run directory: create, lock, fingerprint, resume, refuse or start over."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.serialization import differences, settings_that_change_numbers, to_json
from jaxlm.data.corpus import line_hashes
from jaxlm.errors import UserError, writing
from jaxlm.runs.restart import set_aside, settle, throw_away
from jaxlm.runs.directory import FORMAT, RunDir, hash_of, hash_of_json, open_existing, write_arrays, write_json
from jaxlm.tokenizers import Tokenizer, WordTokenizer

Buffers = Mapping[str, np.ndarray]
State = Literal["new", "resume", "done"]
UNNAMEABLE = re.compile(r"[*?\[\\\ud800-\udfff]|gs:(/|$)|^/(gs|s3|az|hf)/")
"""What Orbax cannot have in a path: it takes it for a pattern, for a place in a cloud, or for no text."""


class Data(Protocol):
    """What a run directory keeps of its data."""

    @property
    def tokenizer(self) -> Tokenizer | WordTokenizer:
        """What encodes the text."""
        ...

    @property
    def data_hash(self) -> str:
        """SHA-256 of the text."""
        ...

    @property
    def split_hash(self) -> str:
        """SHA-256 of the settings that split it."""
        ...

    @property
    def lines(self) -> dict[str, list[str]]:
        """Each split's lines, that samples are compared with; empty where nothing is sampled."""
        ...


def fingerprint(
    config: RunConfig, corpus: Data, buffers: Buffers | None = None, init_from: str | None = None
) -> dict[str, Any]:
    """What decides between done, resume and refuse: hashes of data, tokenizer, split, constants and the parameters that
    init_from gives, and the settings.
    """
    return {
        "format": FORMAT,
        "data": corpus.data_hash,
        "tokenizer": hash_of_json(corpus.tokenizer.to_json()),
        "split": corpus.split_hash,
        **({"buffers": hash_of(buffers)} if buffers else {}),
        **({"init_from": init_from} if init_from else {}),
        "settings": settings_that_change_numbers(to_json(config)),
    }


def place_of(config: RunConfig) -> Path:
    """Where a config's run is."""
    return config.directory


@contextlib.contextmanager
def hold(
    config: RunConfig,
    corpus: Data,
    *,
    restart: bool,
    buffers: Buffers | None = None,
    init_from: str | None = None,
    log: Callable[[str], None] = print,
) -> Iterator[tuple[RunDir, State]]:
    """The run directory of a config, locked against other processes, and what is to be done in it.

    A restart sets the run that was there aside; it comes back where the new one ends without a checkpoint. Raises
    UserError, with everything as it was, where the directory cannot be used.
    """
    path = place_of(config)
    print_of_run = fingerprint(config, corpus, buffers, init_from)
    with writing(path):
        created = is_free(path) and _create(path, config, corpus, print_of_run, buffers)
        with claim(path, None if restart else print_of_run, config, log) as run:
            if restart and not created:
                set_aside(run)
            state: State = "done" if run.eval.exists() else "resume" if run.checkpoints.exists() else "new"
            if not created and (state != "done" or not _has_settings(run)):  # files may have been lost
                _fill(run, config, corpus, print_of_run, buffers)
            yield run, state


@contextlib.contextmanager
def claim(
    path: Path, print_of_run: dict[str, Any] | None, config: RunConfig | None, log: Callable[[str], None] = print
) -> Iterator[RunDir]:
    """A run directory that is there, locked against other processes, each restart in it settled before and after.

    Raises UserError where it is no run directory, is in use, or has another fingerprint than that of `config` (None: any will do).
    """
    run = RunDir(path)
    with writing(path):
        if not run.fingerprint.is_file():
            raise UserError(f"run_dir {str(path)!r} exists and is not a run directory: choose another with --run-dir")
        with _locked(run), _settled(run, log):
            if print_of_run is not None and config is not None:
                _refuse_changes(open_existing(path), print_of_run, config)
            elif _is_json(run.fingerprint):  # else a damaged run, which is there to be started over
                open_existing(path)
            yield run


def start_over(run: RunDir, config: RunConfig, corpus: Data) -> None:
    """Throw away what is in a claimed run directory; it is then the config's, and new."""
    with writing(run.path):
        set_aside(run)
        throw_away(run)
        _fill(run, config, corpus, fingerprint(config, corpus), None)


def is_free(path: Path) -> bool:
    """Whether a run directory can be made there: nothing is, or a directory without anything of a run.

    Raises UserError where its checkpoints could not be named.
    """
    _check_name(path)
    begun = {RunDir(path).lock.name, f"{RunDir(path).fingerprint.name}.part"}  # a kill may leave them
    return not path.exists() or (path.is_dir() and {entry.name for entry in path.iterdir()} <= begun)


def _check_name(run_dir: Path) -> None:
    """Raise UserError where the checkpoints of a run directory could not be named."""
    try:
        place = os.path.realpath(run_dir)
    except OSError as error:  # the current directory is gone
        raise UserError(f"run_dir {str(run_dir)!r} cannot be found: {error.strerror}") from error
    found = UNNAMEABLE.search(place)
    if found:
        raise UserError(
            f"run_dir wants a path that checkpoints can be kept in, got {place!r}, which has {found[0]!r}: "
            "choose another with --run-dir"
        )


def _has_settings(run: RunDir) -> bool:
    """Whether the settings can be read; not where the file of a model class was moved."""
    try:
        run.read_config()
    except UserError:
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


def _create(
    path: Path, config: RunConfig, corpus: Data, print_of_run: dict[str, Any], buffers: Buffers | None
) -> bool:
    """Make the directory beside its place, fill it, and move it there: it is whole or it is not. Whether it is ours:
    another process may have been faster.

    An empty one that is there stays, since it can be a link, a disk's mount or a shell's working directory: it gets its
    fingerprint, and is then a run whose files were lost.
    """
    if path.is_dir():
        run = RunDir(path)
        with _locked(run):
            if not run.fingerprint.exists():
                write_json(run.fingerprint, print_of_run)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        part = scratch / "run"
        part.mkdir()  # with the rights that the user's mask leaves; scratch has none for others
        _fill(RunDir(part), config, corpus, print_of_run, buffers)
        try:
            part.rename(path)
        except OSError:
            return False
        return True
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(
    run: RunDir, config: RunConfig, corpus: Data, print_of_run: dict[str, Any], buffers: Buffers | None
) -> None:
    write_json(run.config, to_json(config))
    write_json(run.tokenizer, corpus.tokenizer.to_json())
    if corpus.lines:
        write_arrays(run.seen, {split: line_hashes(lines) for split, lines in corpus.lines.items()})
    if buffers:
        write_arrays(run.buffers, buffers)
    write_json(run.fingerprint, print_of_run)


@contextlib.contextmanager
def _settled(run: RunDir, log: Callable[[str], None]) -> Iterator[None]:
    _settle(run, log)
    try:
        yield
    finally:
        _settle(run, log)


def _settle(run: RunDir, log: Callable[[str], None]) -> None:
    if settle(run):
        log(f"the restart of {run.path} ended before its first checkpoint: the run that was there before is back")


@contextlib.contextmanager
def _locked(run: RunDir) -> Iterator[None]:
    """Others are kept out within. A finished run that may not be written needs no lock: nothing of it will change."""
    try:
        opened = run.lock.open("a")
    except OSError as error:
        if not (error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and run.eval.exists()):
            raise
        yield
        return
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"run_dir {str(run.path)!r} is in use by another process: wait for it, or choose another --run-dir"
            ) from None
        yield


def _refuse_changes(run: RunDir, now: dict[str, Any], config: RunConfig) -> None:
    was = run.read_fingerprint()
    hashes = ("data", "tokenizer", "split", "buffers", "init_from")
    other = [name for name in hashes if name in was and name in now and was[name] != now[name]]
    settings = dict(was["settings"])
    if "init_from" in was and was["init_from"] == now.get("init_from"):  # the same parameters, wherever they are
        settings["init_from"] = now["settings"]["init_from"]
    changed = [f"{name} has other content (sha256 {was[name][:8]}, now {now[name][:8]})" for name in other]
    changed += differences(settings, config)
    if changed:
        begun = other == ["init_from"] and len(changed) == 1 and run.has_checkpoint
        way_on = "; or move that run away: this one goes on without it" if begun else ""
        raise UserError(
            f"run_dir {str(run.path)!r} belongs to other data or settings: {'; '.join(changed)}. "
            f"Take another --run-dir, or --restart to throw the old run away{way_on}"
        )
