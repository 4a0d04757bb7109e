"""Arguments of python -m jaxlm.interop: import, and export."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlm.cli.parsing import OpensRuns, parse, trust_last
from jaxlm.config.mesh import MeshConfig
from jaxlm.errors import UserError

PROG = "python -m jaxlm.interop"
USAGE = f"""\
usage: {PROG} import FOLDER --out RUN
       {PROG} export RUN --out FOLDER
       {PROG} export RUN --program FILE

import: a local folder of Hugging Face (config.json, *.safetensors, tokenizer.json) becomes a run directory
export --out: a run of a GPT becomes such a folder, for transformers
export --program: any run becomes a file that JAX runs without this project
Their options: import --help, export --help"""


@dataclasses.dataclass(frozen=True)
class ImportCommand:
    """Make a run directory of a local folder of Hugging Face: GPT-2, Llama, Mistral or Qwen2. Nothing in it is run."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The folder, with config.json, tokenizer.json and *.safetensors."""
    out: Path
    """The run directory to make."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """model.dtype of the run, the type of its products. Parameters are float32."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where the parameters are read to. auto: the best that JAX finds."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """How several devices share the parameters meanwhile."""


@dataclasses.dataclass(frozen=True)
class ExportCommand(OpensRuns):
    """Write a run of a GPT as a folder that transformers opens, or any run as a program for JAX alone."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    out: Path | None = None
    """The folder to make: config.json, model.safetensors, the tokenizer's files, README.md."""
    program: Path | None = None
    """The file to make: the model's programs for CPUs, NVIDIA GPUs and TPUs, its weights and its tokenizer."""
    checkpoint: Literal["best", "last"] = "best"
    """best: by dev loss."""
    weights: Literal["ema", "raw"] = "ema"
    """Of a run with optim.ema: the average of its parameters, or the parameters as the last update left them."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where the parameters are read to. auto: the best that JAX finds."""


def parse_interop(args: list[str]) -> ImportCommand | ExportCommand | None:
    """Parse the arguments; None where they ask for the usage. Raises UserError before anything is read."""
    name, rest = (args[0], args[1:]) if args else ("", [])
    if name in ("-h", "--help"):
        return None
    if name == "import":
        return parse(ImportCommand, rest, prog=f"{PROG} import")
    if name == "export":
        command = parse(ExportCommand, trust_last(rest), prog=f"{PROG} export")
        if (command.out is None) == (command.program is None):
            given = "neither" if command.out is None else "both"
            raise UserError(f"export wants --out FOLDER, for transformers, or --program FILE, for JAX, got {given}")
        return command
    raise UserError(f"jaxlm.interop wants import or export, got {name or 'nothing'!r} (--help)")
