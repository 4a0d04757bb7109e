"""Saving and loading of training states with Orbax."""

import contextlib
import gc
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from jaxlm.devices import processes
from jaxlm.errors import UserError, check_fields, disk_reason, one_line
from jaxlm.runs import quiet_orbax
from jaxlm.runs.checksums import CHECKSUMS, checksums, file_names, is_intact, read_checksums, write_checksums
from jaxlm.runs.directory import checkpoint_steps
from jaxlm.runs.parameter_changes import changed_parameters
from jaxlm.runs.shared_disk import wait_to_see

T = TypeVar("T")

NO_DEV_LOSS = float("inf")
"""Dev loss of a checkpoint at which none was evaluated."""
LONGEST_REASON = 200
"""Most characters of a reason of the system that an error repeats."""
METADATA = "_CHECKPOINT_METADATA"
"""Orbax's JSON file in a checkpoint; ours is its "custom_metadata". It is read as a file, because Orbax reads it in
threads that print their errors.
"""


class Saved(NamedTuple):
    """A checkpoint with readable metadata."""

    step: int
    """The step after which it was saved."""
    metadata: dict[str, Any]
    """The JSON object that was saved with it."""

    @property
    def dev_loss(self) -> float:
        """Dev loss at this step in nats per token; infinite if none was evaluated."""
        return self.metadata["dev_loss"] if self.metadata["dev_loss"] is not None else NO_DEV_LOSS


class CheckpointWriter:
    """Saves the checkpoints of one run asynchronously with Orbax, and keeps the newest `keep` and the best by dev loss.

    `save` returns once the next step may overwrite the arrays; files are written in the background until `wait`. A
    complete checkpoint gets a list of checksums. `largest`: bytes of the largest array, where there is no memory for a
    second copy of all; arrays are then written one after the other, and must not change before `wait`. Leaving the
    context waits for the pending save and closes.
    """

    def __init__(self, directory: Path, keep: int, *, largest: int | None = None):
        self._directory, self._keep = directory, keep
        self._dev_losses = {one.step: one.dev_loss for one in seen_by_first(directory)}
        self._checkpointer: Any = None
        self._pending: tuple[int, Any] | None = None
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax.quiet_asyncio())
        if largest is not None:
            self._quiet.enter_context(quiet_orbax.little_memory(largest))

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait(lists=error is None or processes.count() == 1)  # others need not come this far
        except Exception:
            if error is None:
                raise
        finally:
            if self._checkpointer is not None:
                with contextlib.suppress(Exception):
                    self._checkpointer.close()
            self._quiet.close()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """True for each checkpoint to keep, oldest first (Orbax's preservation policy)."""
        steps_C = [one.step for one in checkpoints]
        best = min(steps_C, key=lambda step: (self._dev_losses.get(step, NO_DEV_LOSS), -step), default=None)
        return [step in steps_C[-self._keep :] or step == best for step in steps_C]

    def save(self, step: int, items: dict[str, Any], *, dev_loss: float | None, metadata: dict[str, Any]) -> None:
        """Begin to save the items of a state ("params" apart from the rest, so that sampling can load them alone).

        Raises UserError if this checkpoint, or the one before it, cannot be written.
        """
        self.wait()
        self._dev_losses[step] = NO_DEV_LOSS if dev_loss is None else dev_loss
        with self._disk_errors():
            if self._checkpointer is None:
                self._checkpointer = quiet_orbax.api().training.Checkpointer(
                    self._directory.resolve(), preservation_policy=self, cleanup_tmp_directories=True
                )
            metadata = {"step": step, "dev_loss": dev_loss, **metadata}
            response = self._checkpointer.save_checkpointables_async(
                step, items, force=True, overwrite=True, custom_metadata=metadata
            )
            self._pending = (step, response)

    def wait(self, *, lists: bool = True) -> None:
        """Wait until the pending checkpoint is on disk, and list its checksums, of which each process computes a share.

        Raises UserError if it cannot be written.
        """
        if self._pending is None:
            return
        (step, response), self._pending = self._pending, None
        with self._disk_errors():
            response.result()
            if not lists:
                return
            place = self._directory / str(step)
            names = processes.from_first(lambda: file_names(place))
            found = processes.merged(checksums(place, processes.index(), processes.count(), names))
            if found is not None:
                write_checksums(place, found)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        self._check_place()
        try:
            yield
        except Exception as error:
            self._check_place()
            reason = disk_reason(error)
            if reason is None:
                raise
            kept = ", ".join(str(one.step) for one in saved(self._directory)) or "none"
            raise UserError(
                f"run_dir {str(self._directory.parent)!r} does not take the checkpoint ({reason}); "
                f"checkpoints that are whole: {kept}; make room and run the same command again"
            ) from error

    def _check_place(self) -> None:
        """Raise UserError if the run directory is gone; Orbax would create it anew, splitting the run in two."""
        if not self._directory.parent.is_dir():
            raise UserError(
                f"run_dir {str(self._directory.parent)!r} is gone: it was moved or deleted during training; put it "
                "back and run the same command again"
            )


def saved(directory: Path) -> list[Saved]:
    """List the checkpoints with readable metadata, oldest first."""
    found = []
    for step in checkpoint_steps(directory):
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, LookupError, TypeError
        ):
            metadata = json.loads((directory / str(step) / METADATA).read_text("utf-8"))["custom_metadata"]
            check_fields(metadata, dev_loss=(int, float, type(None)))
            if metadata["step"] == step:
                found.append(Saved(step, metadata))
    return found


def seen_by_first(directory: Path) -> list[Saved]:
    """List the checkpoints as the first of several processes sees them, so that all load the same one."""
    return [Saved(*one) for one in processes.from_first(lambda: saved(directory))]


def best_first(directory: Path) -> list[Saved]:
    """List the checkpoints in the order in which sampling tries them: by dev loss, then newest first."""
    return sorted(seen_by_first(directory), key=lambda one: (one.dev_loss, -one.step))


def load(directory: Path, one: Saved, abstract: dict[str, Any]) -> dict[str, Any] | None:
    """Load the items in `abstract` ("params", "training") with its shardings; None if the checkpoint is broken.

    Raises UserError if its files cannot be read, or are intact and still cannot be loaded, naming the parameters that
    have another name or shape in `abstract`.
    """
    return _read(
        directory,
        one,
        lambda place: dict(quiet_orbax.api().load_checkpointables(place, abstract)),
        lambda place: changed_parameters(_described(place), abstract["params"]),
    )


def load_params(directory: Path, one: Saved, lies: Callable[[Any], Any], *, average: bool = False) -> Any | None:
    """Load the parameters alone, in their saved shapes; None if the checkpoint is broken. Raises as `load` does.

    `lies` gives the sharding of each, for a tree of what has shapes. With `average` they are the running average of the
    parameters, which the checkpoint must have.
    """
    name = "ema" if average else "params"

    def params(place: Path) -> Any:
        found = _described(place, name)
        like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), found, lies(found))
        return quiet_orbax.api().load_checkpointables(place, {name: like})[name]

    return _read(directory, one, params)


def _described(place: Path, name: str = "params") -> Any:
    """The saved parameters, or another item, without their values."""
    return quiet_orbax.api().checkpointables_metadata(place).metadata[name]


def _read(
    directory: Path, one: Saved, work: Callable[[Path], T], changes: Callable[[Path], str] = lambda place: ""
) -> T | None:
    """Read a checkpoint with `work`; None if it is broken. `changes` says why an intact one may not fit.

    A refusal by the system (no permission, no memory, too many open files) is an error and not damage: setting a
    checkpoint aside for it would lose all its steps. So is a failure in one of several processes: Orbax lets the others
    wait for it, so that it must end them. Orbax's messages, which name its classes, are not repeated.
    """
    place = directory / str(one.step)
    with quiet_orbax.quiet():
        try:
            return work(place.resolve()) if _is_intact(place) else None
        except UserError:
            raise
        except Exception as error:
            refused = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            damaged = not (refused or disk_reason(error) or (place / CHECKSUMS).exists())
            reason = _reason(error)
        gc.collect()  # most of what Orbax had begun, and warns of when it is collected
        if damaged and processes.count() == 1:
            return None
        changed = ""
        if reason is None:
            with contextlib.suppress(Exception):
                changed = changes(place.resolve())
    left = f"checkpoint {one.step} of {str(directory.parent)!r} is left as it is, but cannot be loaded"
    if reason is not None:
        raise UserError(f"{left} ({reason})")
    if damaged and not changed:
        raise UserError(
            f"{left} by process {processes.index()}: move it away, and training goes on from the one before"
        )
    raise UserError(
        f"{left}: {changed or 'it holds other arrays than this version trains'}; put the model back as it was, or "
        "begin anew with train.py --restart"
    )


def _is_intact(place: Path) -> bool:
    """True if a checkpoint has the files that were saved and no others, by the first process, and their checksums, of
    which each process checks its share.
    """
    wanted = processes.from_first(lambda: read_checksums(place))
    if wanted is None:
        return False
    wait_to_see(place.parent.parent, [place / name for name in (METADATA, *wanted)])
    return processes.all_true(is_intact(place, wanted, processes.index(), processes.count()))


def _reason(error: Exception) -> str | None:
    """The system's reason for an error, in its words; None if it has none."""
    told = re.search(r"\[OS error \d+: (.*?)[\]\n]", str(error))
    if isinstance(error, OSError):
        return error.strerror or one_line(str(error))[:LONGEST_REASON]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "not enough memory"
    return disk_reason(error) or (told[1] if told else None)


def set_aside(directory: Path, step: int) -> None:
    """Move a broken checkpoint to the run's broken/, so that its step can be saved again."""
    broken = directory.parent / "broken"
    broken.mkdir(exist_ok=True)
    names = (f"{step}-{number}" if number else str(step) for number in itertools.count())
    (directory / str(step)).rename(next(broken / name for name in names if not (broken / name).exists()))


def set_aside_unreadable(directory: Path) -> list[int]:
    """Set aside every checkpoint without readable metadata, which hides others from Orbax; returns their steps."""
    broken = unreadable(directory)
    for step in broken:
        set_aside(directory, step)
    for step in set(checkpoint_steps(directory)) - {one.step for one in saved(directory)}:
        shutil.rmtree(directory / str(step))
    return broken


def unreadable(directory: Path) -> list[int]:
    """Steps of the checkpoints without readable metadata, oldest first.

    One that lacks other files too, while a newer checkpoint is readable, is left out: Orbax deletes file by file, and a
    kill may leave some.
    """
    readable = [one.step for one in saved(directory)]
    others = sorted(set(checkpoint_steps(directory)) - set(readable))
    return [step for step in others if step > max(readable, default=-1) or not _is_leftover(directory / str(step))]


def _is_leftover(place: Path) -> bool:
    """True if a checkpoint's deletion was interrupted: it lacks the list of checksums, or other listed files."""
    if (place / METADATA).exists():
        return False
    try:
        names = set(json.loads((place / CHECKSUMS).read_text()))
    except (OSError, ValueError):
        return True
    return any(not (place / name).exists() for name in names - {METADATA})
