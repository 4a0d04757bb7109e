import os
import shutil
import signal
from pathlib import Path

import pytest

from tests import processes
from tests.processes import Cli, refused, tree

as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Cli:
    return processes.cli(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(cli) -> Path:
    return cli.trained("trained")


CONFIGS = {
    "nothing": "x = 1\n",
    "another thing": "config = {'steps': 3}\n",
    "unfinished": "config = RunConfig(\n",
    "failing": "raise RuntimeError('no\\nluck')\n",
    "leaving": "import sys; sys.exit(0)\n",
    "out of range": "from jaxlm import MlpConfig, RunConfig\nconfig = RunConfig(model=MlpConfig(), steps=0)\n",
    "no brackets": "from jaxlm import MlpConfig, RunConfig\nconfig = RunConfig(model=MlpConfig, steps=3)\n",
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", ["config = RunConfig(...)", "none"]),
        ("another thing", ["config = RunConfig(...)", "{'steps': 3}"]),
        ("unfinished", ["does not parse", "line 1"]),
        ("leaving", ["fails as it is loaded", "bad.py, line 1: SystemExit: 0"]),
        ("failing", ["RuntimeError", "no luck"]),
        ("out of range", ["steps", "got 0"]),
        ("no brackets", ["model wants a ModelConfig such as MlpConfig(...), got the class MlpConfig: add brackets"]),
    ],
)
def test_a_config_that_cannot_be_used(cli, tmp_path, name, words):
    path = tmp_path / "bad.py"
    path.write_text(CONFIGS[name])
    before = tree(tmp_path)
    refused(cli.train(path, "--run-dir", tmp_path / "run"), "bad.py", *words)
    assert _written(before, tmp_path) == {}


@pytest.mark.slow
def test_a_name_that_is_too_long_for_the_system(cli, tmp_path):
    long = tmp_path / f"{'long' * 75}.py"
    refused(cli.train(long), "long", "File name too long")
    refused(cli.sample(long), "long", "File name too long")
    for option in ("--data.path", "--init-from", "--run-dir"):
        refused(cli.train(option, long), "long", "File name too long")


def test_a_config_that_does_not_exist(cli, tmp_path):
    (tmp_path / "names_mlp.py").write_text("")
    refused(cli.train(tmp_path / "nmaes_mlp.py"), "does not exist", "did you mean", "names_mlp.py")
    refused(cli.python("train.py", tmp_path), "is not a file")
    refused(cli.python("train.py", "--steps", "3"), "config wants a file as the first argument")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--optim.lrr", "0.1"], ["--optim.lrr is not a setting", "did you mean --optim.lr?"]),
        (["--stepz", "1"], ["--stepz is not a setting", "did you mean --steps?"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--optim.lr", "fast"], ["--optim.lr", "fast"]),
        (["--data.kind", "linez"], ["--data.kind", "linez", "lines", "stream"]),
        (["--batch-size", "half"], ["--batch-size", "half", "full"]),
        (["--batch-size", "0"], ["error: batch_size wants a number from 1 to 16777216, got 0"]),
        (["--steps", "0"], ["error: steps wants a number from 1 to 2147483647, got 0"]),
        (["--epochs", "0"], ["error: epochs wants a number > 0, got 0"]),
        (["--steps", "3", "--epochs", "3"], ["steps", "epochs", "exclude each other"]),
        (["--seed", "-1"], ["error: seed wants a number from 0"]),
        (["--model.context", "0"], ["error: model.context wants a number from 1 to 65535, got 0"]),
        (["--optim.lr", "nan"], ["error: optim.lr wants a number > 0, got nan"]),
        (["--data.split", "0.8", "0.1", "0.2"], ["error: data.split wants three shares", "0.8 0.1 0.2"]),
        (["--data.split", "0.8", "0.2"], ["--data.split", "3 values"]),
        (["--data.split", "0", "0.5", "0.5"], ["error: data.split wants a share above 0 for train"]),
        (["--model.d-hidden", "10000000000"], ["error: model.d_hidden wants a number from 1 to 2147483647"]),
        (["--model.d-hidden", "2000000000"], ["error: the model wants", "GB", "the device has", "take a smaller one"]),
        (["--sample.max-tokens", "3000000000"], ["error: sample.max_tokens wants a number from 1 to 1048576"]),
        (
            ["--optim.schedule", "piecewise", "--optim.boundaries", "3e9", "--optim.factors", "0.1"],
            ["error: optim.boundaries wants a number from 0 to 2147483647, got 3000000000.0"],
        ),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_setting_that_cannot_be_used(cli, tmp_path, args, words):
    refused(cli.train(*args, "--run-dir", tmp_path / "run"), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_beyond_every_memory(cli, tmp_path):
    refused(cli.train("--batch-size", 10**11, "--run-dir", tmp_path / "run"), "batch_size")
    assert list(tmp_path.iterdir()) == []


BAD_TEXTS = {
    "empty": (b"", ["nothing but white space"]),
    "blank": (b"\xef\xbb\xbf\r\n  \n", ["nothing but white space"]),
    "binary": (b"\x7fELF\0\1\2", ["binary file"]),
    "latin-1": ("anna\njosé\n".encode("latin-1"), ["UTF-8", "0xe9", "line 2"]),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_text_that_cannot_be_used(cli, tmp_path, name):
    content, words = BAD_TEXTS[name]
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    before = tree(tmp_path)
    refused(cli.train("--data.path", path, "--run-dir", tmp_path / "run"), "data.path", "text.txt", *words)
    assert _written(before, tmp_path) == {}


@pytest.mark.slow
def test_a_text_that_is_missing_a_directory_or_closed(cli, tmp_path):
    (tmp_path / "names.txt").write_text("emma\n")
    before = tree(tmp_path)
    run = ("--run-dir", tmp_path / "run")
    refused(
        cli.train("--data.path", tmp_path / "nmaes.txt", *run), "data.path", "does not exist", "did you mean", "names"
    )
    refused(cli.train("--data.path", tmp_path, *run), "data.path", "directory")
    assert _written(before, tmp_path) == {}


@as_root
def test_a_text_that_may_not_be_read(cli, tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("emma\n")
    path.chmod(0)
    refused(cli.train("--data.path", path, "--run-dir", tmp_path / "run"), "data.path", "Permission denied")


@pytest.mark.slow
@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux allows such a name")
def test_a_file_name_need_not_be_utf8(cli, tmp_path):
    path = tmp_path / os.fsdecode(b"na\xefmes.txt")
    path.write_text(processes.tiny_text())
    done = cli.train(Path("configs/names_bigram.py"), "--data.path", path, "--run-dir", tmp_path / "run")
    assert done.code == 0, done.stderr


@pytest.mark.slow
def test_a_run_directory_that_is_not_one(cli, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.png").write_bytes(b"cat")
    before = tree(tmp_path)
    for more in ([], ["--restart"]):
        refused(cli.train("--run-dir", photos, *more), "run_dir", "photos", "not a run directory", "--run-dir")
    refused(cli.train("--run-dir", photos / "cat.png"), "run_dir", "not a run directory")
    refused(cli.train("--run-dir", photos / "cat.png" / "run"), "run_dir", "cannot be written")
    assert tree(tmp_path) == before


def test_a_run_directory_that_cannot_be_made(cli, tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "unmounted" / "disk")
    refused(cli.train("--run-dir", tmp_path / "gone" / "runs" / "mine"), "run_dir", "cannot be written")
    assert [entry.name for entry in tmp_path.iterdir()] == ["gone"]


@as_root
def test_a_run_directory_that_may_not_be_written(cli, tmp_path):
    tmp_path.chmod(0o555)
    try:
        refused(cli.train("--run-dir", tmp_path / "run"), "run_dir", "Permission denied")
        refused(cli.train("--run-dir", tmp_path / "deeper" / "run"), "run_dir", "Permission denied")
    finally:
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_settings_are_listed_and_refused(cli, trained):
    before = tree(trained)
    line = refused(cli.train("--run-dir", trained, "--optim.lr", "0.2", "--model.d-hidden", "5", "--seed", "3"))
    for difference in ("optim.lr: 0.1, now 0.2", "model.d_hidden: 4, now 5", "seed: 0, now 3"):
        assert difference in line
    assert "--run-dir" in line and "--restart" in line
    assert line.count("now") == 3
    assert tree(trained) == before


def test_other_data_is_told_and_refused(cli, trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(processes.tiny_text().replace("e", "z"))
    before = tree(trained)
    line = refused(cli.train("--run-dir", trained, "--data.path", other, "--data.split", "0.9", "0.1", "0"))
    for name in ("data has other content", "tokenizer has other content", "split", "data.split: [0.8, 0.1, 0.1]"):
        assert name in line
    assert "--run-dir" in line and "--restart" in line
    assert tree(trained) == before


def test_what_changes_no_numbers_is_not_refused(cli, trained, tmp_path):
    moved = tmp_path / "moved.txt"
    moved.write_text(processes.tiny_text())
    done = cli.train("--run-dir", trained, "--data.path", moved, "--eval.every", "50", "--sample.n", "3")
    assert done.code == 0 and "trained already" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("content", ['{"format": 99}', "{}", "[]", '{"format": "new"}', "{"])
def test_a_fingerprint_that_cannot_be_read(cli, tmp_path, content):
    (tmp_path / "fingerprint.json").write_text(content)
    (tmp_path / ".lock").touch()
    before = tree(tmp_path)
    words = ["format 99", "update jaxlm"] if "99" in content else []
    refused(cli.train("--run-dir", tmp_path), tmp_path.name, *words)
    refused(cli.sample(tmp_path), tmp_path.name, *words)
    assert tree(tmp_path) == before


def test_settings_of_a_run_that_cannot_be_used(cli, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "config.json").write_text("{}")
    before = tree(run)
    refused(cli.sample(run), "run file", "config.json", "'model' is missing")
    assert tree(run) == before


@pytest.mark.slow
def test_a_run_in_use_is_left_alone_until_it_ends(cli, tmp_path):
    log, args = tmp_path / "run" / "metrics.jsonl", ("--run-dir", tmp_path / "run", "--steps", 10**9)
    process = cli.start_train(*args)
    try:
        processes.wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
        for more in ([], ["--restart"]):
            refused(cli.train(*args, *more), "in use by another process", "--run-dir")
    finally:
        done = processes.signal_when(lambda: True, process, signal.SIGTERM)
    assert done.code == 143 and "saved at step" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["a new run", "over an old run"])
@pytest.mark.parametrize("mistake", ["no such run", "other shapes", "no tensorboard"])
def test_what_only_shows_late_writes_nothing_either(cli, trained, tmp_path, mistake, old):
    run, env = tmp_path / "run", {}
    if mistake == "no such run":
        args, words = ["--init-from", tmp_path / "nobody"], ["nobody"]
    elif mistake == "other shapes":
        args, words = (
            ["--init-from", trained, "--model.d-hidden", 5],
            ["init_from", "hidden is 4 x 4 there, 4 x 5 here"],
        )
    else:
        (tmp_path / "empty" / "tensorboardX").mkdir(parents=True)
        (tmp_path / "empty" / "tensorboardX" / "__init__.py").write_text("raise ImportError('not installed')")
        args, words, env = ["--tensorboard"], ["jaxlm[tensorboard]"], {"PYTHONPATH": str(tmp_path / "empty")}
    if old:
        shutil.copytree(trained, run)
        args.append("--restart")
    before = tree(run)
    refused(cli.train("--run-dir", run, *args, env=env), *words)
    assert tree(run) == before


def _written(before, path: Path) -> dict[str, object]:
    """What is new or changed below a path; Python's own cache of an imported config does not count."""
    return {name: what for name, what in tree(path).items() if before.get(name) != what and "__pycache__" not in name}
