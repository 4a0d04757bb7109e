"""sample.py and the leaderboard on a run whose model class is in a file of the user's own."""

import json
from pathlib import Path

import pytest

from jaxlm.cli.report_commands import parse_leaderboard
from jaxlm.cli.sample_command import parse_sample
from tests import processes
from tests.processes import Cli, refused

OWN = """
import dataclasses
from pathlib import Path
from jaxlm import CountsConfig, DataConfig, RunConfig

with Path(__file__).with_name("runs of this file").open("a") as file:
    file.write("x")

@dataclasses.dataclass(frozen=True)
class OwnConfig(CountsConfig):
    width: int = 3

config = RunConfig(model=OwnConfig(), data=DataConfig(path={text!r}), plots=False)
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Cli:
    return processes.cli(tmp_path_factory)


@pytest.mark.slow
def test_code_that_a_run_names_runs_only_where_the_user_says_so(cli, tmp_path):
    own, counted, run = tmp_path / "own.py", tmp_path / "runs of this file", tmp_path / "run"
    own.write_text(OWN.format(text=str(cli.text)))
    done = cli.train(own, "--run-dir", run)
    assert done.code == 0 and counted.read_text() == "x", done.stderr
    assert json.loads((run / "config.json").read_text())["model"]["class"] == "../own.py:OwnConfig"
    # a finished run is found again without the flag: train.py has run the file
    assert "trained already" in cli.train(own, "--run-dir", run).stdout
    counted.unlink()
    refused(cli.sample(run), "'OwnConfig'", str(own), "--trust-code")
    board = cli.python("-m", "jaxlm.leaderboard", run, "--samples", 20, "--json")
    assert "--trust-code" in board.stderr and json.loads(board.stdout)[0]["samples"] is None
    assert not counted.exists()
    trusted = cli.sample("--trust-code", run, "-n", 3, "--json")
    assert len(json.loads(trusted.stdout)) == 3 and counted.read_text() == "x", trusted.stderr
    own.rename(tmp_path / "moved.py")
    refused(cli.sample(run, "--trust-code"), "own.py", "which is no file: give it after --trust-code")
    assert cli.sample(run, "--trust-code", tmp_path / "moved.py", "-n", 3, "--json").stdout == trusted.stdout


@pytest.mark.parametrize(
    ("args", "trusted", "run"),
    [
        (["r"], False, "r"),
        (["r", "--trust-code"], True, "r"),
        (["--trust-code", "r"], True, "r"),
        (["--trust-code", "own.py", "r"], Path("own.py"), "r"),
        (["r", "--trust-code", "own.py", "--json"], Path("own.py"), "r"),
        (["r", "--trust-code", "--json"], True, "r"),
    ],
)
def test_the_flag_takes_a_python_file_and_nothing_else(args, trusted, run):
    command = parse_sample(args)
    assert (command.trusted, command.run) == (trusted, Path(run))
    board = parse_leaderboard(args)
    assert (board.trusted, board.runs) == (trusted, (Path(run),))
