"""A Hugging Face folder becomes a run directory."""

import dataclasses
import secrets
import shutil
from pathlib import Path

from jaxlm.config import DataConfig, GptConfig, PreparedTokensConfig, RunConfig
from jaxlm.config.mesh import MeshConfig
from jaxlm.data.corpus import SPLITS
from jaxlm.devices import platform
from jaxlm.errors import UserError, writing
from jaxlm.interop import folder as folders
from jaxlm.interop.architectures import Dtype, architecture, gpt_config
from jaxlm.interop.tokenizer_files import read_tokenizer
from jaxlm.interop.weights import read_params
from jaxlm.models.base import Params
from jaxlm.runs.checkpoints import CheckpointWriter
from jaxlm.runs.create import check_name, fill
from jaxlm.runs.directory import RunDir, hash_of_json, write_json
from jaxlm.runs.fingerprint import fingerprint
from jaxlm.tokenizers import Tokenizer

SCORED_AT_ONCE = 1024
"""Predictions of a row when a text is scored, at most: data.max_length of the run."""


@dataclasses.dataclass(frozen=True)
class NoData:
    """The data of a run that was trained elsewhere: its tokenizer alone."""

    tokenizer: Tokenizer
    data_hash: str = hash_of_json(None)
    split_hash: str = hash_of_json(None)

    @property
    def lines(self) -> dict[str, list[str]]:
        """None: nothing is known of what the model has seen."""
        return {}


def import_folder(folder: Path, out: Path, *, dtype: Dtype = "float32", mesh: MeshConfig | None = None) -> str:
    """Make a run directory of a local folder of GPT-2, Llama, Mistral or Qwen2; returns a line about it.

    Nothing in the folder is executed. The run is written under another name first, so that there is a whole one or
    none. Raises UserError where the folder has what this package does not, with all that is wrong of a kind at once.
    """
    folders.check(folder)
    settings = folders.read_json(folder / "config.json")
    generation = folders.read_if_there(folder / "generation_config.json")
    model = gpt_config(settings, dtype)
    tokenizer = read_tokenizer(folder, settings, generation)
    if tokenizer.vocab_size > (model.vocab_size or 0):
        raise UserError(
            f"import wants a vocabulary that holds the tokenizer's {tokenizer.vocab_size:,} tokens, got vocab_size "
            f"{model.vocab_size:,} in config.json"
        )
    _check_free(out)
    params = read_params(folder, model, mesh or MeshConfig())
    config = run_config(model, folder, out)
    with writing(out):
        _write(config, NoData(tokenizer), params, out)
    count = sum(leaf.size for leaf in params.values())
    return f"{out}: {architecture(settings)}, {count:,} parameters, {tokenizer.vocab_size:,} tokens"


def run_config(model: GptConfig, folder: Path, out: Path) -> RunConfig:
    """The settings of an imported run: running text in which EOS ends a document, and nothing to train."""
    data = DataConfig(
        path=str(folder.resolve()),
        kind="stream",
        tokens=PreparedTokensConfig(),
        example="sequence",
        max_length=min(model.context or SCORED_AT_ONCE, SCORED_AT_ONCE),
    )
    return RunConfig(model=model, data=data, steps=1, run_dir=str(out))


def _check_free(out: Path) -> None:
    check_name(out)
    if out.is_symlink() or out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"--out wants a run directory that does not exist yet, got {str(out)!r}: take another name")


def _write(config: RunConfig, data: NoData, params: Params, out: Path) -> None:
    """Write the run directory under a name of its own, and rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part-{secrets.token_hex(4)}")
    part.mkdir()
    try:
        run = RunDir(part)
        fill(run, config, data, fingerprint(config, data), None)
        largest = max(leaf.nbytes for leaf in params.values())
        with CheckpointWriter(run.checkpoints, keep=1, largest=largest) as writer:
            writer.save(0, {"params": params}, dev_loss=None, metadata={"numerics": platform.numerics()})
        write_json(run.eval, _results(params))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _results(params: Params) -> dict[str, object]:
    """The content of eval.json: no split has a loss, since no data is known."""
    count = sum(leaf.size for leaf in params.values())
    ran = {"params": count, "step": 0, "steps": 0, "train_time_s": 0.0}
    return {**dict.fromkeys(SPLITS), "baselines": None, **ran}
