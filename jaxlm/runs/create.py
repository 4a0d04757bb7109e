"""Creation of a run directory: claiming it for a training, and setting an old run aside."""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from jaxlm.config import RunConfig
from jaxlm.config.serialization import to_json
from jaxlm.data.corpus import line_hashes
from jaxlm.devices import processes
from jaxlm.errors import UserError, writing
from jaxlm.runs.directory import FORMAT, RunDir, open_existing, read_json, write_arrays, write_json
from jaxlm.runs.fingerprint import Buffers, RunData, fingerprint, refuse_changes
from jaxlm.runs.lock import locked
from jaxlm.runs.shared_disk import check_shared, mark

State = Literal["new", "resume", "done"]
"""The work left in a run directory: training from step 0, resuming from a checkpoint, or none."""
UNNAMEABLE = re.compile(r"[*?\[\\\ud800-\udfff]|gs:(/|$)|^/(gs|s3|az|hf)/")
"""Parts of a path that Orbax reads as a pattern or a cloud storage address, or cannot encode."""


@contextlib.contextmanager
def claimed(
    config: RunConfig,
    data: RunData,
    *,
    buffers: Buffers | None = None,
    init_from: str | None = None,
    restart: bool = False,
    log: Callable[[str], None] = print,
) -> Iterator[tuple[RunDir, State]]:
    """Context that creates or opens a config's run directory, locks it, and yields it with what is left to do.

    The fingerprint is written first and the other files after it, so that a kill at any moment leaves either a run
    that the same command completes or a directory that counts as free. Raises UserError, changing nothing, if the
    directory cannot be used or belongs to other data or settings. Of several processes the first does this, and the
    others open the same directory; raises UserError, in all of them, if one does not see it.
    """
    if not processes.is_first():
        found, marked = processes.share(None)
        run = RunDir(config.directory)
        check_shared(run, Path(marked) if marked else None)
        yield run, found
        return
    path, now = config.directory, fingerprint(config, data, buffers, init_from)
    if restart:
        set_aside(path, log)
    run = RunDir(path)
    with writing(path):
        if is_free(path):
            path.mkdir(parents=True, exist_ok=True)
        else:
            check_run(path, now, config)
    with contextlib.ExitStack() as stack:
        with writing(path):
            stack.enter_context(locked(run))
            if not run.fingerprint.exists():
                write_json(run.fingerprint, now)
            refuse_changes(open_existing(path), now, config)  # another process may have written it first
            state: State = "done" if run.eval.exists() else "resume" if run.checkpoints.exists() else "new"
            if state != "done" or not _settings_readable(run):
                fill(run, config, data, now, buffers)
            marked = mark(run)
        processes.share([state, str(marked) if marked else None])
        check_shared(run, marked)
        yield run, state


def check_run(path: Path, now: dict[str, Any] | None, config: RunConfig) -> None:
    """Raise UserError if a directory is not a run, is in use, or differs from `now`, the fingerprint of `config`.

    `now` is None if any fingerprint will do.
    """
    if not RunDir(path).fingerprint.is_file():
        raise UserError(f"run_dir {str(path)!r} exists and is not a run directory: choose another with --run-dir")
    run = open_existing(path)
    with locked(run):
        if now is not None:
            refuse_changes(run, now, config)


def set_aside(path: Path, log: Callable[[str], None] = print) -> None:
    """Rename an old run, if there is one, to NAME.old (or NAME.old-2, NAME.old-3, ... if that is taken).

    Raises UserError if the directory is not a run, is in use or has a newer format, and for a path like "." or "..",
    which would lead to the renamed run afterwards.
    """
    with writing(path):
        if is_free(path):
            return
        run = RunDir(path)
        if not run.fingerprint.is_file():
            raise UserError(f"run_dir {str(path)!r} exists and is not a run directory: choose another with --run-dir")
        if _is_foreign(run):
            open_existing(path)  # raises with the reason
        if path.name in ("", ".."):
            raise UserError(
                f"run_dir {str(path)!r} cannot be renamed by --restart, which wants a name: "
                f"take --run-dir {path.resolve()}"
            )
        with locked(run):
            names = (f"{path.name}.old{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
            target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
            path.rename(target)
    log(f"{path} is renamed to {target}")


def is_free(path: Path) -> bool:
    """True if the path does not exist, or holds only a lock and an unfinished fingerprint that a kill left.

    Raises UserError if Orbax cannot keep checkpoints under such a path.
    """
    check_name(path)
    begun = {RunDir(path).lock.name, f"{RunDir(path).fingerprint.name}.part"}
    return not path.exists() or (path.is_dir() and {entry.name for entry in path.iterdir()} <= begun)


def check_name(run_dir: Path) -> None:
    """Raise UserError if Orbax cannot keep checkpoints under such a path."""
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


def _is_foreign(run: RunDir) -> bool:
    """True where the fingerprint is whole, but of something else or of a newer version; a torn one is a run's."""
    try:
        found = read_json(run.fingerprint)
    except UserError:
        return False
    made = found.get("format") if isinstance(found, dict) else None
    return not isinstance(made, int) or made > FORMAT


def _settings_readable(run: RunDir) -> bool:
    try:
        run.read_config()
    except UserError:  # the file of a user's own model class was moved
        return False
    return True


def fill(run: RunDir, config: RunConfig, data: RunData, now: dict[str, Any], buffers: Buffers | None) -> None:
    """Write every file that describes the run, restoring lost ones."""
    write_json(run.config, {"format": FORMAT, **to_json(config)})
    write_json(run.tokenizer, data.tokenizer.to_json())
    if lines_of := data.lines:
        write_arrays(run.seen, {split: line_hashes(lines) for split, lines in lines_of.items()})
    if buffers:
        write_arrays(run.buffers, buffers)
    write_json(run.fingerprint, now)
