"""The table of all runs: what is read, how it is ranked and grouped, what is left out."""

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jaxlm
from jaxlm import leaderboard
from jaxlm.data.corpus import load
from jaxlm.errors import UserError
from jaxlm.inference import novelty
from jaxlm.leaderboard import rank, ranking_table, read_row, read_rows
from jaxlm.runs.create import claimed
from jaxlm.runs.directory import FORMAT, RunDir, read_json
from jaxlm.runs.metrics import read
from tests.conftest import NAMES, REPOSITORY

KEYS = [
    *("group", "run", "model", "kind", "dev", "test", "train", "params", "buffers", "step", "steps", "train_time_s"),
    *("tokens_per_s", "ms_per_step", "data_hash", "tokenizer_hash", "split_hash", "samples"),
]

LOSS_OF_A_LINE = {"loss": 2.5, "unit": "nats/token"}


def loss(nats: float | None, impossible: int = 0) -> dict[str, Any]:
    entry = {"nats_per_token": nats, "bits_per_byte": None if nats is None else nats * 2, "perplexity": None}
    return {**entry, "tokens": 9, "bytes": 9} | ({"impossible": impossible} if impossible else {})


def made_run(path: Path, dev: Any = 2.0, **changes: Any) -> Path:
    """A finished run's files without a model; its samples are drawn already."""
    path.mkdir()
    data = {"path": None, "name": "makemore", "kind": "lines", "split": [0.8, 0.1, 0.1], "split_seed": 42}
    dev = dev if dev is None or isinstance(dev, dict) else loss(dev)
    files: dict[str, Any] = {
        "config.json": {"model": {"class": "jaxlm.config.gpt:GptConfig"}, "data": data | changes.pop("data", {})},
        "fingerprint.json": {
            "format": FORMAT,
            "data": "d" * 64,
            "tokenizer": "t" * 64,
            "split": "s" * 64,
            "settings": {},
        },
        "tokenizer.json": {"kind": "characters", "characters": "abc"},
        "eval.json": {"train": loss(1.5), "dev": dev, "test": loss(2.25), "step": 3, "steps": 40, "params": 5000},
        "novelty.json": {"n": 1000, "seed": 0, "step": 3, "train": 0.25, "dev_or_test": 0.05, "new": 0.7},
    }
    files["eval.json"] |= {"train_time_s": 1.25, "buffers": 1200}
    for name, change in changes.items():
        files[f"{name}.json"] |= change
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    told = [(10, 0.5, "train", 100.0), (20, 1.0, "train", None), (40, 1.6, "train", 400.0), (50, 1.8, "train", 300.0)]
    lines = [
        json.dumps({"step": step, "time_s": time, "split": split, "tokens_per_s": speed} | LOSS_OF_A_LINE)
        for step, time, split, speed in [*told, (50, 9.9, "dev", 9e9)]
    ]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return path


def names_of(rows: Any) -> list[str]:
    return [Path(row.run).name for row in rows]


def test_a_row_is_what_the_files_of_a_run_say(mlp_run, counts_run):
    for run in (mlp_run, counts_run):
        row, told = read_row(run.path), read_json(run.path / "eval.json")
        for split in ("dev", "test", "train"):
            got = getattr(row, split)
            assert got.nats_per_token == told[split]["nats_per_token"]
            assert got.bits_per_byte == told[split]["bits_per_byte"]
            assert got.impossible == told[split].get("impossible", 0)
        assert (row.params, row.step, row.steps) == (told["params"], run.step, told["steps"])
        assert row.train_time_s == told["train_time_s"]
    assert read_row(counts_run.path).tokens_per_s is None and read_row(counts_run.path).model == "Counts"
    speeds = [line["tokens_per_s"] for line in read(RunDir(mlp_run.path).metrics) if line["split"] == "train"]
    assert speeds and read_row(mlp_run.path).tokens_per_s == statistics.median(speeds)


def test_the_speed_is_the_median_of_training(tmp_path):
    row = read_row(made_run(tmp_path / "run"))
    assert row.tokens_per_s == 300.0
    assert row.ms_per_step == pytest.approx(30.0)


@pytest.mark.parametrize("ms, shown", [(0.0444, "0.044"), (1.66, "1.7"), (1234.56, "1,234.6")])
def test_the_time_of_a_step_shows_two_digits_at_least(tmp_path, ms, shown):
    row = dataclasses.replace(read_row(made_run(tmp_path / "run")), ms_per_step=ms)
    assert f" {shown} " in ranking_table([row])


def test_the_best_dev_loss_comes_first_and_none_last(tmp_path):
    devs = {"a": 2.5, "b": loss(None, 7), "c": 1.5, "d": None, "e": loss(None, 3), "f": 2.0, "g": 0.0}
    rows, _ = read_rows([made_run(tmp_path / name, dev) for name, dev in devs.items()])
    assert names_of(rank(rows)) == ["g", "c", "f", "a", "e", "b", "d"]


def test_runs_whose_data_tokens_or_split_differ_are_grouped_apart(tmp_path):
    made_run(tmp_path / "a", 2.0)
    made_run(tmp_path / "b", 1.0, fingerprint={"data": "x" * 64})
    made_run(tmp_path / "c", 1.1, fingerprint={"tokenizer": "x" * 64})
    made_run(tmp_path / "d", 1.2, fingerprint={"split": "x" * 64}, data={"split": [0.5, 0.25, 0.25]})
    made_run(tmp_path / "e", None, fingerprint={"split": "y" * 64}, data={"split": [1, 0, 0]})
    made_run(tmp_path / "f", None, fingerprint={"split": "y" * 64}, data={"split": [1, 0, 0]})
    made_run(tmp_path / "g", 3.0, data={"path": "elsewhere/names.txt"})
    ranked = rank(read_rows(sorted(tmp_path.iterdir()))[0])
    assert names_of(ranked)[:2] == ["a", "g"] and names_of(ranked)[-2:] == ["e", "f"]
    assert sorted(names_of(ranked)[2:5]) == ["b", "c", "d"]
    groups = [row.group for row in ranked]
    assert groups[0] == groups[1] and len(set(groups)) == 5
    assert groups[0] == (
        "makemore: lines, split 0.8 0.1 0.1, seed 42, 4 tokens (data dddddddd, tokenizer tttttttt, split ssssssss)"
    )
    heads = [line for line in ranking_table(ranked).splitlines() if ": lines" in line]
    assert heads == list(dict.fromkeys(groups))


def test_the_table_is_aligned_and_says_what_is_missing(tmp_path, capsys):
    made_run(tmp_path / "good", 2.125)
    made_run(tmp_path / "impossible", loss(None, 1234))
    whole = {"data": {"split": [1, 0, 0]}, "fingerprint": {"split": "y" * 64}, "eval": {"test": None}}
    made_run(tmp_path / "whole", None, **whole)
    stream = made_run(tmp_path / "stream", 2.5, data={"kind": "stream"}, fingerprint={"split": "z" * 64})
    (stream / "novelty.json").unlink()
    (stream / "metrics.jsonl").unlink()
    assert leaderboard.main([str(path) for path in sorted(tmp_path.iterdir())]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, *lines = out.splitlines()
    assert head.split() == [
        *("run", "model", "dev", "test", "train", "bits/byte", "params", "buffers", "steps", "seconds"),
        *("ms/step", "tokens/s"),
        *("new", "copies"),
    ]
    cells = {Path(line.split()[0]).name: line.split()[1:] for line in lines if line.startswith(str(tmp_path))}
    rest = ["5,000", "1,200", "40", "1.2", "30.0", "300", "70.0%", "25.0%"]
    assert cells["good"] == ["Gpt", "2.1250", "2.2500", "1.5000", "4.2500", *rest]
    assert cells["impossible"] == ["Gpt", "inf", "(1,234", "impossible)", "2.2500", "1.5000", "inf", *rest]
    assert cells["whole"] == ["Gpt", "-", "-", "1.5000", "-", *rest]
    unknown = ["5,000", "1,200", "40", "1.2", "-", "-", "-", "-"]
    assert cells["stream"] == ["Gpt", "2.5000", "2.2500", "1.5000", "5.0000", *unknown]
    assert {len(line) for line in lines if line.startswith(str(tmp_path))} == {len(head)}
    assert "1,000 samples" in lines[-1]


def test_json_has_the_same_order_and_keys_for_every_run(tmp_path, capsys):
    made_run(tmp_path / "b", 2.0)
    made_run(tmp_path / "a", loss(None, 2))
    leaderboard.main([str(tmp_path / "a"), str(tmp_path / "b"), "--json"])
    best, other = json.loads(capsys.readouterr().out)
    assert list(best) == list(other) == KEYS
    assert best["run"] == str(tmp_path / "b")
    assert best["dev"] == {"nats_per_token": 2.0, "bits_per_byte": 4.0, "impossible": 0}
    assert other["dev"] == {"nats_per_token": None, "bits_per_byte": None, "impossible": 2}
    assert best["samples"] == {"n": 1000, "seed": 0, "step": 3, "train": 0.25, "dev_or_test": 0.05, "new": 0.7}
    leaderboard.main([str(tmp_path / "b"), "--json", "--samples", "0"])
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["samples"] is None and err == ""


def test_a_run_is_listed_once(tmp_path):
    made_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert names_of(read_rows([tmp_path / "a", tmp_path / "link", tmp_path / "b" / ".." / "a"])[0]) == ["a"]


@pytest.fixture
def unusable(tmp_path: Path) -> dict[Path, str]:
    """Directories that are no finished run, and what is to be said of them."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (made_run(tmp_path / "unfinished") / "eval.json").unlink()
    made_run(tmp_path / "newer", fingerprint={"format": FORMAT + 1})
    made_run(tmp_path / "nan", float("nan"))
    made_run(tmp_path / "foreign", eval={"params": None})
    made_run(tmp_path / "strange", config={"model": {"class": None}})
    (made_run(tmp_path / "cut") / "metrics.jsonl").write_text('{"split": "tr')
    (made_run(tmp_path / "broken") / "eval.json").write_text("{")
    words = {
        "empty": "is not a run directory",
        "file": "is a file, not a run",
        "none": "does not exist",
        "unfinished": "is not finished",
        "newer": f"has format {FORMAT + 1}",
        "nan": "a loss or speed is nan",
        "foreign": "params wants int, got NoneType",
        "strange": "cannot be understood",
        "cut": "delete line 1",
        "broken": "cannot be read",
    }
    return {tmp_path / name: text for name, text in words.items()}


def test_what_is_no_finished_run_is_left_out_in_a_line(unusable, tmp_path, capsys):
    made_run(tmp_path / "good")
    assert leaderboard.main([*map(str, unusable), str(tmp_path / "good"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert [row["run"] for row in json.loads(out)] == [str(tmp_path / "good")]
    for line, (path, words) in zip(err.splitlines(), unusable.items(), strict=True):
        assert line.startswith("left out: run ") and str(path) in line and words in line


def test_a_run_that_may_not_be_read_is_left_out_in_a_line(tmp_path, monkeypatch, capsys):
    for name in ("good", "private"):
        made_run(tmp_path / name)
    is_file = Path.is_file

    def refusing(path: Path) -> bool:
        if path.parent.name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    assert leaderboard.main([str(tmp_path / "private"), str(tmp_path / "good"), "--json", "--samples", "0"]) == 0
    out, err = capsys.readouterr()
    assert [row["run"] for row in json.loads(out)] == [str(tmp_path / "good")]
    assert err == f"left out: run {str(tmp_path / 'private')!r} cannot be read: Permission denied\n"


def test_no_usable_run_is_the_users_mistake(unusable, capsys):
    with pytest.raises(UserError, match=r"at least one finished run, got none: .*; and 7 more") as caught:
        leaderboard.main([*map(str, unusable)])
    assert "\n" not in str(caught.value) and capsys.readouterr() == ("", "")
    with pytest.raises(UserError, match=r"leaderboard runs/\*"):
        leaderboard.main([])
    with pytest.raises(UserError, match=r"--samples wants a number >= 0, got -1"):
        leaderboard.main(["runs", "--samples", "-1"])


def command(*args: Any, code: str = "import runpy; runpy.run_module('jaxlm.leaderboard', run_name='__main__')") -> Any:
    """A process of its own."""
    line = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)


def test_a_device_that_is_not_there_is_the_users_mistake(tmp_path):
    made_run(tmp_path / "run")
    done = command(tmp_path / "run", "--device", "tpu", "--samples", 3)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: device wants tpu") and done.stderr.count("\n") == 1


def test_what_is_known_already_is_told_without_jax(tmp_path):
    made_run(tmp_path / "run")
    code = (
        "import sys; from jaxlm import leaderboard; leaderboard.main(sys.argv[1:])\n"
        "print({'jax', 'matplotlib', 'flax', 'orbax'} & set(sys.modules))"
    )
    done = command(tmp_path / "run", code=code)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("\nset()\n") and "70.0%" in done.stdout


def test_the_exit_code_of_no_usable_run_is_2(tmp_path):
    done = command(tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: runs wants") and done.stderr.count("\n") == 1


def test_samples_are_drawn_once(counts_run, tmp_path, capsys, monkeypatch):
    shutil.copytree(counts_run.path, tmp_path / "run")
    args = [str(tmp_path / "run"), "--samples", "60", "--json"]
    leaderboard.main(args)
    first = capsys.readouterr().out
    monkeypatch.setattr(novelty, "_draw", None)
    leaderboard.main(args)
    assert capsys.readouterr().out == first
    assert json.loads(first)[0]["samples"] == read_json(tmp_path / "run" / "novelty.json")
    assert 0 < json.loads(first)[0]["samples"]["train"] < 1


def test_a_run_without_checkpoints_is_ranked_without_shares(counts_run, tmp_path, capsys):
    shutil.copytree(counts_run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    leaderboard.main([str(tmp_path / "run"), "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["samples"] is None
    assert err.startswith("no samples: run ") and "no checkpoint" in err and err.count("\n") == 1


def test_a_restart_forgets_the_samples(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(tmp_path / "text.txt"))
    config = jaxlm.RunConfig(model=jaxlm.CountsConfig(), data=data, run_dir=str(tmp_path / "run"))
    with claimed(config, load(data)) as (run, _):
        run.novelty.touch()
    with claimed(config, load(data), restart=True) as (run, _):
        assert not run.novelty.exists()
