"""The published figures on makemore's names: the lecture's losses, reached."""

import json
import math
from pathlib import Path

import pytest

import jaxlm
from jaxlm.cli.train_command import parse_train
from jaxlm.training import train
from tests import processes
from tests.conftest import REPOSITORY
from tests.processes import Cli

WHOLE = ["--data.split", "1", "0", "0"]
ONLY_LOSSES = ["--no-plots", "--sample.n", "0"]


@pytest.fixture(scope="session")
def cli(tmp_path_factory) -> Cli:
    return processes.cli(tmp_path_factory, as_users_do=True)


@pytest.fixture(scope="session")
def names(shared_data: Path) -> Path:
    path = shared_data / "names" / "makemore_names.txt"
    if not path.is_file():
        pytest.skip("wants makemore_names.txt")
    return path


def counted(names: Path, run_dir: Path, config: str, *args: str) -> dict:
    """The result of counting in this process."""
    path = str(REPOSITORY / "configs" / config)
    command = parse_train([path, "--data.path", str(names), "--run-dir", str(run_dir), *ONLY_LOSSES, *args])
    assert command is not None
    train(command.config, log=lambda line: None)
    return json.loads((run_dir / "eval.json").read_text())


def trained(cli: Cli, config: str, names: Path, run_dir: Path, *args: str) -> dict:
    """The result of train.py, compiled as a user's is."""
    done = cli.train(REPOSITORY / "configs" / config, "--data.path", names, "--run-dir", run_dir, *ONLY_LOSSES, *args)
    assert done.code == 0, done.stderr
    return json.loads((run_dir / "eval.json").read_text())


@pytest.mark.parametrize(
    ("config", "add_k", "figure"),
    [
        ("names_bigram.py", 1, 2.4546),
        ("names_trigram.py", 0, 2.1857),
        ("names_trigram.py", 1, 2.2126),
    ],
)
def test_counts_on_all_names(names, tmp_path, config, add_k, figure):
    result = counted(names, tmp_path / "run", config, *WHOLE, "--model.add-k", str(add_k))
    assert result["train"]["tokens"] == 228_146
    assert result["train"]["bytes"] == names.stat().st_size + (not names.read_text().endswith("\n"))
    assert result["train"]["nats_per_token"] == pytest.approx(figure, abs=5e-5)
    assert result["dev"] is None and result["test"] is None


def test_the_bigram_without_smoothing_and_emma_term_by_term(names, tmp_path):
    """The lecture's table: p(e|.), p(m|e), p(m|m), p(a|m), p(.|a)."""
    result = counted(names, tmp_path / "run", "names_bigram.py", *WHOLE, "--model.add-k", "0")
    assert result["train"]["nats_per_token"] == pytest.approx(2.4540, abs=5e-5)
    scored = jaxlm.score(jaxlm.load_run(tmp_path / "run"), "emma")
    assert [round(math.exp(-nats), 4) for nats in scored.nats.tolist()] == [0.0478, 0.0377, 0.0253, 0.3899, 0.1960]


@pytest.mark.slow
def test_the_neural_bigram_on_all_names(cli, names, tmp_path):
    result = trained(cli, "names_bigram_neural.py", names, tmp_path / "run", *WHOLE)
    assert 2.4540 - 5e-5 < result["train"]["nats_per_token"] < 2.4540 + 0.005


@pytest.mark.slow
def test_the_scaled_mlp_after_a_short_run(cli, names, tmp_path):
    """Below the trigram's 2.21 within a twentieth of the lecture's steps."""
    result = trained(cli, "names_mlp_better.py", names, tmp_path / "run", "--steps", "20000")
    assert result["dev"]["nats_per_token"] < 2.21
    assert result["train"]["nats_per_token"] < result["dev"]["nats_per_token"] + 0.05
