"""The file of an exported program: a zip of a JSON header, the tokenizer, the weights and two programs. No pickle."""

import datetime
import importlib.metadata
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

import jaxlm
from jaxlm.errors import UserError, check_folder
from jaxlm.inference.generate import prompt_tokens
from jaxlm.interop.program import PLATFORMS, SETTINGS, Programs, export_programs
from jaxlm.runs.loading import Run
from jaxlm.tokenizers.rean_tokens import PATTERN, ReanTokenizer
from jaxlm.tokenizers.unicode_words import with_marks

FORMAT, VERSION = "jaxlm-program", 1
NATIVE = "biufc"
"""Kinds of NumPy's own types; others, as bfloat16, are stored as whole numbers of their width."""


def export_program(run: Run, path: Path) -> str:
    """Write a run as an exported program; returns a line about the file, which is read back first.

    The file is there whole or not at all. Raises UserError where it cannot be written, where something is in its place
    already, and for a model without a cache to go on from.
    """
    check_place(path)
    programs = export_programs(run)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, run, programs)
        _check(part, programs)
        check_place(path)  # exporting takes a while
        part.replace(path)
    except OSError as error:
        raise UserError(f"--program {str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    size = sum(array.nbytes for array in programs.weights.values())
    return (
        f"{path}: {len(programs.prefill) + len(programs.decode):,} bytes of programs for {', '.join(PLATFORMS)} and "
        f"{size:,} of weights; python examples/run_exported.py {path} runs it"
    )


def check_place(path: Path) -> None:
    """Raise UserError unless a file can be made at the path, where nothing is yet."""
    if path.exists() or path.is_symlink():
        raise UserError(
            f"--program wants a file that does not exist yet, got {str(path)!r}: delete it, or name another"
        )
    check_folder("--program", path.parent)


def header_of(run: Run, programs: Programs) -> dict[str, Any]:
    """What a reader must know of the programs, and of how this run's texts begin and end."""
    kind, tokenizer, start = run.config.data.kind, run.tokenizer, prompt_tokens(run, "")
    turns = kind == "dialogues"
    ends = kind == "lines" or run.marks_unknown or run.has_documents
    text: dict[str, Any] = {
        "kind": kind,
        "start": start,
        "prefix": list(getattr(tokenizer, "prefix", ())) if kind == "stream" else start,
        "eos": tokenizer.eos,
        "end_tokens": list(getattr(tokenizer, "end_tokens", (tokenizer.eos,))) if ends else [],
        "stop_tokens": [tokenizer.eos] * 2 if turns else [],
        "stop_text": "\n\n" if turns else "",
        "eos_text": "\n" if turns else "",
        "goes_on": kind != "lines",
        "max_tokens": 200 if kind == "lines" else 500,
    }
    if isinstance(tokenizer, ReanTokenizer):
        text["words"] = with_marks(PATTERN)
    return {
        "format": FORMAT,
        "version": VERSION,
        "made": {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "jaxlm": jaxlm.__version__,
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
        },
        "platforms": list(PLATFORMS),
        "model": type(run.config.model).__name__,
        "vocab_size": run.model.vocab_size,
        "positions": run.model.max_length,
        "prompt": programs.prompt,
        "settings": SETTINGS,
        "weights": {name: _described(array) for name, array in programs.weights.items()},
        "cache": [_described(leaf) for leaf in programs.cache],
        "text": text,
    }


def _described(array: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": array.dtype.name}


def _write(path: Path, run: Run, programs: Programs) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("header.json", json.dumps(header_of(run, programs), indent=2))
        file.writestr("tokenizer.json", json.dumps(run.tokenizer.to_json()))
        file.writestr("prefill.bin", programs.prefill)
        file.writestr("decode.bin", programs.decode)
        for name, array in programs.weights.items():
            stored = array if array.dtype.kind in NATIVE else array.view(f"u{array.dtype.itemsize}")
            with file.open(f"weights/{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(stored, order="C"), allow_pickle=False)


def _check(path: Path, programs: Programs) -> None:
    """Raise UserError unless the file has what was written into it."""
    with zipfile.ZipFile(path) as file:
        broken = file.testzip()
        same = all(file.read(f"{name}.bin") == getattr(programs, name) for name in ("prefill", "decode"))
        readable = jax.export.deserialize(bytearray(file.read("decode.bin"))).platforms == PLATFORMS
    if broken is not None or not same or not readable:
        raise UserError(
            f"--program {str(path)!r} cannot be read back ({broken or 'the programs'} differ): export again"
        )
