"""A run of a GPT becomes a Hugging Face folder, which is read back before it counts as written."""

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxlm.config import GptConfig
from jaxlm.config.user_code import TrustCode
from jaxlm.errors import UserError, check_folder, writing
from jaxlm.interop import tensors
from jaxlm.interop.architectures import gpt_config
from jaxlm.interop.folder import WEIGHTS, read_json
from jaxlm.interop.mapping import Place, places, shapes_of
from jaxlm.interop.model_card import model_card
from jaxlm.interop.targets import architecture_of, function_of, settings_of
from jaxlm.interop.tokenizer_export import check_opens, files_of
from jaxlm.interop.tokenizer_files import read_tokenizer
from jaxlm.models.base import Params
from jaxlm.runs.directory import RunDir, write_json
from jaxlm.runs.loading import Run, load_run
from jaxlm.tokenizers import CharTokenizer, Tokenizer

PROBES = ("the king's 2 Queens\n\n  said: naïve “日本” 😀!\n", "\t\ta=b_c;  42 1999 \r\n x", "e\u0301 \ufb01 \u00a0z")
"""Texts whose tokens are compared: blanks, digits, marks, and letters of several bytes."""


def export_folder(
    path: Path,
    out: Path,
    *,
    which: Literal["best", "last"] = "best",
    weights: Literal["ema", "raw"] = "ema",
    trust_code: TrustCode = False,
) -> str:
    """Write a run as a folder that transformers' AutoModelForCausalLM and AutoTokenizer open; returns a line about it.

    The folder is written under another name, read back, compared with the run and renamed. Raises UserError for options
    and tokenizers that transformers has not.
    """
    _check_free(out)
    run = load_run(path, which=which, weights=weights, trust_code=trust_code)
    name = architecture_of(run.config.model)
    config = run.config.model
    assert isinstance(config, GptConfig)
    begins = run.config.data.kind != "stream"
    files = files_of(run.tokenizer, config.context, begins=begins)
    check_opens(name, files["tokenizer.json"])
    ends = list(run.tokenizer.end_tokens)
    ids = {"bos_token_id": run.tokenizer.bos, "eos_token_id": ends if len(ends) > 1 else ends[0]}
    files["config.json"] = {**settings_of(config, name), **ids}
    files["generation_config.json"] = ids
    wanted = places(config, shapes_of(run.params))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part-{secrets.token_hex(4)}")
    try:
        with writing(part):
            part.mkdir()
            for file, content in files.items():
                write_json(part / file, content)
            shapes = {tensor: _shape(there) for tensor, there in wanted.items()}
            tensors.write(part / WEIGHTS, shapes, _tensors(run.params, wanted))
            (part / "README.md").write_text(model_card(run, RunDir(path), out.name), "utf-8")
        _check(part, run, config, wanted)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    count = sum(leaf.size for leaf in run.params.values())
    return f"{out}: {name}, {count:,} parameters of step {run.step:,}, read back and equal"


def _check_free(out: Path) -> None:
    check_folder("--out", out)
    if out.is_symlink() or out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"--out wants a folder that does not exist yet, got {str(out)!r}: take another name")


def _shape(there: Sequence[Place]) -> tuple[int, ...]:
    return there[0].source.their_shape(there[0].shape)


def _tensors(params: Params, wanted: Mapping[str, Sequence[Place]]) -> Iterator[np.ndarray]:
    """Each tensor's numbers in order, made as it is asked for."""
    for there in wanted.values():
        parts = []
        for place in there:
            whole = np.asarray(params[place.name])
            parts.append(place.source.theirs(whole if place.layer is None else whole[place.layer]))
        yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _check(folder: Path, run: Run, config: GptConfig, wanted: Mapping[str, Sequence[Place]]) -> None:
    """Read a folder as `import` does, and compare it with the run. Raises UserError where they differ."""
    settings = read_json(folder / "config.json")
    if function_of(gpt_config(settings)) != function_of(config):
        raise _differs(folder, "config.json")
    there = tensors.entries([folder / WEIGHTS])
    for name, values in zip(wanted, _tensors(run.params, wanted), strict=True):
        if not np.array_equal(tensors.read(there[name]).view(np.int32), np.ascontiguousarray(values).view(np.int32)):
            raise _differs(folder, f"the tensor {name}")
    generation = read_json(folder / "generation_config.json")
    tokenizer = read_tokenizer(folder, settings, generation)
    same = (tokenizer.eos, tokenizer.bos, tokenizer.end_tokens, tokenizer.vocab_size, tokenizer.chat_template)
    ours = run.tokenizer
    if same != (ours.eos, ours.bos, ours.end_tokens, ours.vocab_size, ours.chat_template):
        raise _differs(folder, "tokenizer_config.json")
    for text in _probes(ours):
        if not np.array_equal(tokenizer.encode(text), ours.encode(text)):
            raise _differs(folder, f"tokenizer.json, for the text {text!r}")


def _probes(tokenizer: Tokenizer) -> Sequence[str]:
    if isinstance(tokenizer, CharTokenizer):
        return [tokenizer.characters, tokenizer.characters[::-1]]
    return PROBES


def _differs(folder: Path, what: str) -> UserError:
    return UserError(
        f"export wants what it reads back to be what it wrote, but {what} differs: a full or failing disk?"
    )
