"""The fingerprint of a run: hashes of its data, and the settings that change numbers, which a resume must match."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.serialization import differences, settings_that_change_numbers, to_json
from jaxlm.errors import UserError
from jaxlm.models.base import Params, without_buffers
from jaxlm.models.initialization import by_name
from jaxlm.runs.directory import FORMAT, RunDir, hash_of, hash_of_json
from jaxlm.tokenizers import Tokenizer, WordTokenizer

Buffers = Mapping[str, np.ndarray]
"""Arrays of a model that are not trained, by name."""
HASHES = ("data", "tokenizer", "split", "buffers", "init_from")
"""The fingerprint's entries that are hashes."""


class RunData(Protocol):
    """Interface of the parts of a corpus that a run directory keeps."""

    @property
    def tokenizer(self) -> Tokenizer | WordTokenizer:
        """The tokenizer of the text."""
        ...

    @property
    def data_hash(self) -> str:
        """SHA-256 of the text."""
        ...

    @property
    def split_hash(self) -> str:
        """SHA-256 of the settings that split the text."""
        ...

    @property
    def lines(self) -> dict[str, list[str]]:
        """The lines of each split, with which samples are compared; empty for data without lines."""
        ...


def fingerprint(
    config: RunConfig, data: RunData, buffers: Buffers | None = None, init_from: str | None = None
) -> dict[str, Any]:
    """Compute the fingerprint: hashes of data, tokenizer, split, buffers and initial parameters, and flat settings.

    Only settings that change numbers are part of it.
    """
    settings = settings_that_change_numbers(to_json(config))
    return {"format": FORMAT, **data_hashes(data, buffers, init_from), "settings": settings}


def data_hashes(data: RunData, buffers: Buffers | None = None, init_from: str | None = None) -> dict[str, str]:
    """The hashes of a fingerprint: of data, tokenizer, split, and of buffers and initial parameters where there are."""
    return {
        "data": data.data_hash,
        "tokenizer": hash_of_json(data.tokenizer.to_json()),
        "split": data.split_hash,
        **({"buffers": hash_of(buffers)} if buffers else {}),
        **({"init_from": init_from} if init_from else {}),
    }


def content_hash(params: Params) -> str:
    """SHA-256 of the trained parameters: their names, types, shapes and numbers."""
    return hash_of(by_name(without_buffers(params)))


def refuse_changes(run: RunDir, now: dict[str, Any], config: RunConfig) -> None:
    """Raise UserError listing every difference if a run has another fingerprint than `now`, that of `config`."""
    was = run.read_fingerprint()
    other = [name for name in HASHES if name in was and name in now and was[name] != now[name]]
    settings = dict(was["settings"])
    # The same parameters at another path are no difference.
    if "init_from" in was and was["init_from"] == now.get("init_from"):
        settings["init_from"] = now["settings"]["init_from"]
    changed = [f"{name} has other content (sha256 {was[name][:8]}, now {now[name][:8]})" for name in other]
    changed += differences(settings, config)
    if changed:
        begun = run.eval.exists() or run.has_checkpoint
        goes_on = begun and {line.partition(":")[0] for line in changed} <= {"steps", "epochs"}
        resumable = other == ["init_from"] and len(changed) == 1 and run.has_checkpoint
        way_on = "; or move that run away: this one resumes without it" if resumable else ""
        if goes_on:
            way_on = f"; to go on from its parameters, give another --run-dir and --init-from {run.path}"
        raise UserError(
            f"run_dir {str(run.path)!r} belongs to other data or settings: {'; '.join(changed)}. "
            f"Take another --run-dir, or --restart to rename the old run and begin anew{way_on}"
        )
