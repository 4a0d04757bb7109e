"""Paths that begin with ~, and machines where no home directory is known or can be written to."""

import os
import pwd
from pathlib import Path

import jax
import pytest

import jaxlm
from jaxlm.cli import interactive
from jaxlm.cli.report_commands import parse_leaderboard
from jaxlm.cli.sample_command import parse_sample
from jaxlm.cli.train_command import parse_range, parse_train
from jaxlm.data import source
from jaxlm.devices import compilation
from tests.conftest import REPOSITORY


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_paths_of_a_run_begin_at_home(home):
    (home / "my.py").write_text((REPOSITORY / "configs" / "names_mlp.py").read_text())
    args = ["--data.path=~/a b.txt", "--run-dir=~/runs/x", "--init-from", "~/runs/y"]
    command = parse_train(["~/my.py", *args])
    assert command is not None
    config = command.config
    assert (config.data.path, config.run_dir, config.init_from) == (
        f"{home}/a b.txt",
        f"{home}/runs/x",
        f"{home}/runs/y",
    )
    vectors = jaxlm.ReanConfig(table="frozen", vectors="~/v.bin").vectors
    assert vectors == f"{home}/v.bin"
    ranged = parse_range([str(REPOSITORY / "configs" / "names_mlp.py"), "--out", "~/p.png"])
    assert ranged is not None and ranged.out == home / "p.png"


def test_paths_of_other_commands_begin_at_home(home):
    for option in ("--score", "--export", "--evaluate", "--pairs"):
        command = parse_sample(["~/runs/x", option, "~/f.txt"])
        assert command.run == home / "runs" / "x"
        assert getattr(command, option[2:]) == home / "f.txt"
    assert parse_sample(["x", "--trust-code", "~/own.py"]).trusted == home / "own.py"
    assert parse_sample(["x", "--prompt", "~/f.txt"]).prompt == "~/f.txt"
    assert parse_leaderboard(["~/runs/x", "runs/y"]).runs == (home / "runs" / "x", Path("runs/y"))


@pytest.fixture
def no_home(monkeypatch):
    """No home directory can be found, as with a user id that the system does not know."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def unknown(*args):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_without_a_home_nothing_is_cached(no_home):
    assert source.cache_dir() is None
    assert jaxlm.DataConfig(path="~/a.txt").path == "~/a.txt"
    with pytest.raises(jaxlm.UserError, match=r"no home directory is known: set XDG_CACHE_HOME, or .*--data.path FILE"):
        source.read(jaxlm.DataConfig(name="makemore"))
    assert interactive._history()() is None
    was = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.enable_cache(None)
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", was)


def test_the_name_of_another_home_is_taken_where_it_is_known():
    user = pwd.getpwuid(os.getuid())
    assert jaxlm.DataConfig(path=f"~{user.pw_name}/a.txt").path == f"{user.pw_dir.rstrip('/')}/a.txt"
    assert jaxlm.DataConfig(path="~nobody at all/a.txt").path == "~nobody at all/a.txt"
