"""python -m jaxlm.interop at the command line."""

import pytest

from jaxlm.cli.interop_command import ExportCommand, ImportCommand, parse_interop
from jaxlm.errors import UserError
from jaxlm.interop.__main__ import main
from tests.interop import families


def test_a_folder_goes_in_and_out_by_the_command(tmp_path, capsys):
    folder = families.saved(tmp_path / "folder")
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    read, written = capsys.readouterr().out.splitlines()
    assert read.startswith(f"{tmp_path / 'run'}: GPT2LMHeadModel, 38,") and "tokens" in read
    assert written.endswith("parameters of step 0, read back and equal")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_arguments_are_checked_before_anything_is_read(capsys):
    assert main(["--help"]) == 0
    assert "import FOLDER --out RUN" in capsys.readouterr().out
    command = parse_interop(["import", "a", "--out", "b", "--dtype", "bfloat16", "--mesh.fsdp", "2"])
    assert isinstance(command, ImportCommand) and command.dtype == "bfloat16" and command.mesh.fsdp == 2
    assert isinstance(parse_interop(["export", "a", "--out", "b"]), ExportCommand)
    with pytest.raises(
        UserError, match="export wants --out FOLDER, for transformers, or --program FILE, for JAX, got neither"
    ):
        parse_interop(["export", "a"])
    with pytest.raises(UserError, match="wants import or export, got 'imprt'"):
        parse_interop(["imprt"])
