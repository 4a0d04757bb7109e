"""Files of a run that were lost, torn or edited: a line with the file and the fix, or done without."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import leaderboard
from jaxlm.cli.sample import answer
from jaxlm.cli.sample_command import SampleCommand
from jaxlm.config import MlpConfig, RunConfig
from jaxlm.errors import UserError
from jaxlm.inference import novelty
from jaxlm.plots import __main__ as plots_command
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.checksums import CHECKSUMS
from jaxlm.runs.directory import FORMAT, MADE_ANEW, RunDir, hash_of, write_arrays
from jaxlm.runs.loading import load_run
from jaxlm.training import train

TORN = [None, b"", b"{", b"[]", b"\xff\xfe", b"PK\3\4"]
"""None: the file is gone."""


@dataclasses.dataclass(frozen=True)
class Own(MlpConfig):
    """A class of the user's own, who may edit it."""

    width: ClassVar[int] = 16

    def build(self) -> Any:
        return MlpConfig(self.vocab_size, self.context, d_embed=4, d_hidden=self.width).build()


@pytest.fixture
def run(mlp_run, tmp_path) -> RunDir:
    """A finished run to damage."""
    return RunDir(shutil.copytree(mlp_run.path, tmp_path / "run"))


@pytest.fixture
def again(mlp_run, run) -> Callable[[], list[str]]:
    """Trains the run's config again; gives what was said."""

    def go_on() -> list[str]:
        config: RunConfig = dataclasses.replace(mlp_run.config, run_dir=str(run.path))
        said: list[str] = []
        train(config, log=said.append)
        return said

    return go_on


def tear(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; ... takes one away."""
    tree = {name: value for name, value in (json.loads(path.read_text()) | changes).items() if value is not ...}
    path.write_text(json.dumps(tree))


def one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("content", TORN)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("tokenizer.json", RunDir.read_tokenizer),
        ("tokenizer.json", RunDir.read_words),
        ("seen.npz", RunDir.read_seen),
        ("eval.json", RunDir.read_eval),
        ("fingerprint.json", RunDir.read_fingerprint),
    ],
)
def test_a_torn_file_is_named_with_the_fix(run, name, read, content):
    tear(run.path / name, content)
    with pytest.raises(UserError) as error:
        read(run)
    one_line(error, f"run file {str(run.path / name)!r}", "--restart" if name == "fingerprint.json" else MADE_ANEW)


@pytest.mark.parametrize("content", TORN)
def test_buffers_are_wanted_of_a_run_that_has_them(run, content):
    assert run.read_buffers() == {}
    edit(run.fingerprint, buffers=hash_of({"table": np.ones(3)}))
    write_arrays(run.buffers, {"table": np.ones(3)})
    assert run.read_buffers()["table"].tolist() == [1, 1, 1]
    tear(run.buffers, content)
    with pytest.raises(UserError) as error:
        run.read_buffers()
    one_line(error, "buffers.npz", "train.py")


def test_other_buffers_are_refused(run):
    edit(run.fingerprint, buffers=hash_of({"table": np.arange(3)}))
    write_arrays(run.buffers, {"table": np.arange(3)[::-1]})
    with pytest.raises(UserError) as error:
        run.read_buffers()
    one_line(error, "buffers.npz' is not what the run was trained with")


def test_a_file_that_the_system_refuses_is_not_made_anew(run, monkeypatch):
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match=r"eval\.json' cannot be read: Permission denied$"):
        run.read_eval()


def test_an_edited_tokenizer_reads_no_other_text(run):
    edit(run.tokenizer, characters=run.read_tokenizer().words.replace("b", "ß"))
    with pytest.raises(UserError, match=r"tokenizer\.json.*not what the run was trained with"):
        load_run(run.path)


def test_a_fingerprint_without_settings_is_enough_for_sampling(run, mlp_run):
    run.fingerprint.write_text(json.dumps({"format": FORMAT}))
    assert load_run(run.path).tokenizer == mlp_run.tokenizer


LOSS = {"nats_per_token": 2.0, "bits_per_byte": 3.0, "tokens": 9, "bytes": 9}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dev": ...}, "dev is missing"),
        ({"dev": {}}, "tokens is missing"),
        ({"dev": []}, "dev wants dict"),
        ({"test": LOSS | {"nats_per_token": "2.0"}}, "nats_per_token wants int or float"),
        ({"test": LOSS | {"impossible": "2"}}, "impossible wants int, got str"),
        ({"train": {"pairs": 3, "tokens": 9}}, "loss is missing"),
        ({"steps": "300"}, "steps wants int, got str"),
        ({"step": ...}, "step is missing"),
        ({"train_time_s": None}, "train_time_s wants int or float"),
    ],
)
def test_results_that_were_edited_are_refused(run, again, changes, words):
    edit(run.eval, **changes)
    with pytest.raises(UserError) as error:
        again()
    one_line(error, "eval.json", words, "train.py")
    _, (reason,) = leaderboard.read_rows([run.path])
    assert words in reason and "eval.json" in reason


def test_the_fix_is_one(run, again, mlp_run):
    """What the messages advise brings every file back, and trains nothing."""
    before = run.read_eval()
    for path in (run.eval, run.metrics, run.tokenizer, run.seen, run.samples):
        path.unlink()
    assert f"resuming {run.path} at step {mlp_run.step}" in again()
    after = run.read_eval()
    assert run.read_seen() and run.read_tokenizer() == mlp_run.tokenizer and run.samples.exists()
    for name in ("dev", "test", "step", "train_time_s"):
        assert after[name] == before[name], name


@pytest.mark.parametrize("content", [None, b"emma \xff\n"])
def test_samples_can_be_done_without(run, again, content):
    tear(run.samples, content)
    said = again()
    assert any("trained already" in line for line in said) and any(line.startswith("dev: ") for line in said)


@pytest.mark.parametrize("content", [None, b"PK\3\4"])
def test_samples_are_written_although_nothing_tells_them_new(run, capsys, content):
    command = SampleCommand(run.path, n=3, json=True)
    answer(command)
    texts = [entry["text"] for entry in json.loads(capsys.readouterr().out)]
    tear(run.seen, content)
    answer(command)
    out, err = capsys.readouterr()
    assert json.loads(out) == [{"text": text} for text in texts]
    assert err.count("\n") == 1 and "not sorted" in err and "seen.npz" in err
    answer(dataclasses.replace(command, json=False))
    assert capsys.readouterr().out.splitlines() == texts


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"\xff" * 9, b'{"step": 1', b"[]", b'{"step": 0}', b'{"step": "0", "split": "dev"}']
)
def test_a_damaged_line_of_metrics_is_named_and_a_resume_drops_it(run, again, line):
    whole = run.metrics.read_bytes()
    first, rest = whole.split(b"\n", 1)
    run.metrics.write_bytes(first + b"\n" + line + b"\n" + rest)
    for read in (metrics.read, lambda path: leaderboard.read_row(path.parent)):
        with pytest.raises(UserError) as error:
            read(run.metrics)
        one_line(error, "metrics.jsonl", "delete line 2")
    run.eval.unlink()
    again()
    assert run.metrics.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [{"sums": ...}, {"sums": None}, {"sums": {"loss": "1"}}, {"sums": {"losz": 1}}, {"chunk": ...}, {"chunk": "1"}],
)
def test_a_checkpoint_with_damaged_sums_or_chunk_gives_way(run, again, change):
    """Here there is none before it: the run begins anew."""
    (one,) = checkpoints.saved(run.checkpoints)
    place = run.checkpoints / str(one.step) / checkpoints.METADATA
    metadata = {name: value for name, value in (one.metadata | change).items() if value is not ...}
    edit(place, custom_metadata=metadata)
    (place.parent / CHECKSUMS).unlink()
    before = run.read_eval()
    run.eval.unlink()
    assert any(f"checkpoint {one.step} of {run.path} is broken" in line for line in again())
    assert run.read_eval()["dev"] == before["dev"]


def test_a_broken_best_checkpoint_is_logged_where_training_ends(run, again, mlp_run):
    better = mlp_run.step - 1
    with checkpoints.CheckpointWriter(run.checkpoints, 2) as writer:
        params = jax.tree.map(lambda x: x + 1, mlp_run.params)
        items = {"params": params, "training": {"step": jnp.int32(better)}}
        writer.save(better, items, dev_loss=0.0, metadata={})
    (run.checkpoints / str(better) / "params" / "manifest.ocdbt").write_bytes(b"")
    run.eval.unlink()
    told = f"checkpoint {better} of {run.path} is broken: taking that of step {mlp_run.step}"
    assert told in again() and run.read_eval()["step"] == mlp_run.step
    said: list[str] = []
    assert load_run(run.path, log=said.append).step == mlp_run.step and said == [told]
    (run.checkpoints / str(better) / checkpoints.METADATA).write_bytes(b"")
    assert load_run(run.path, log=said.append).step == mlp_run.step and said == [told, told]


def test_the_advice_without_checkpoints_is_one_that_train_takes(run):
    shutil.rmtree(run.checkpoints)
    with pytest.raises(UserError, match=r"no checkpoint .*train\.py --restart$"):
        load_run(run.path)
    run.eval.unlink()
    with pytest.raises(UserError, match=r"no checkpoint .*train\.py$"):
        load_run(run.path)


@pytest.mark.parametrize("content", TORN[1:])
def test_damaged_numbers_of_a_picture(run, content):
    run.plots.mkdir(exist_ok=True)
    run.bigrams.write_bytes(content)
    with pytest.raises(UserError) as error:
        plots_command.main([str(run.path)])
    one_line(error, "bigrams.npz", "train.py")


def test_shares_that_are_no_numbers_are_drawn_again(run, monkeypatch):
    run.novelty.write_text(json.dumps({"n": 5, "seed": 0, "step": 3, "train": "x", "dev_or_test": 0.0, "new": []}))
    monkeypatch.setattr(novelty, "_draw", lambda path, n, *rest: ["new"] * n)
    assert novelty.shares_of_run(run, 5, 3) == novelty.Shares(5, 0, 3, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run.seen.unlink(),
        lambda run: edit(run.tokenizer, characters="ab"),
        lambda run: edit(run.config, model=json.loads(run.config.read_text())["model"] | {"d_hidden": 7}),
    ],
    ids=["seen", "tokenizer", "config"],
)
def test_a_run_that_cannot_be_sampled_costs_no_other_its_place(run, counts_run, tmp_path, capsys, damage):
    damage(run)
    good = shutil.copytree(counts_run.path, tmp_path / "good")
    leaderboard.main([str(run.path), str(good), "--samples", "20", "--json"])
    out, err = capsys.readouterr()
    samples = {row["run"]: row["samples"] for row in json.loads(out)}
    assert samples[str(run.path)] is None and samples[str(good)]
    assert err.startswith("no samples: run ") and str(run.path) in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("eval.json", {"buffers": float("inf")}),
        ("fingerprint.json", {"data": []}),
        ("fingerprint.json", {"settings": ...}),
    ],
)
def test_a_run_with_an_odd_value_is_left_out(run, name, changes):
    edit(run.path / name, **changes)
    rows, (reason,) = leaderboard.read_rows([run.path])
    assert rows == [] and str(run.path) in reason


def test_a_class_that_has_changed_since_the_training_is_refused(make_run, monkeypatch):
    path = make_run(Own())
    assert load_run(path).params
    monkeypatch.setattr(Own, "width", 17)
    with pytest.raises(UserError) as error:
        load_run(path)
    one_line(error, str(path), "parameter 'hidden' was 12 x 16, now 12 x 17", "--restart")


def test_a_run_that_has_lost_its_checkpoints_says_that_it_begins_anew(run, again):
    """As where the disk is not there that they were moved to."""
    run.eval.unlink()
    run.checkpoints.rename(run.path.parent / "elsewhere")
    assert f"{run.path} was stopped before its first checkpoint, or has lost them: training begins at step 0" in again()
