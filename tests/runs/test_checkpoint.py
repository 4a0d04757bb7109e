import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.devices.mesh import make_mesh, replicated
from jaxlm.errors import UserError
from jaxlm.runs import checkpoints, checksums
from jaxlm.runs.checksums import CHECKSUMS
from jaxlm.runs.create import is_free
from jaxlm.runs.directory import checkpoint_steps
from jaxlm.runs.loading import load_run
from tests.loops import abstract_like


def state(seed: int, width: int = 3) -> dict[str, Any]:
    key = jax.random.key(seed)
    params = {"table": jax.random.normal(key, (width,)), "layer": {"w": jax.random.normal(key, (2, 3))}}
    training = {"step": jnp.int32(seed), "opt_state": ({"m": -jax.random.normal(key, (width,))},)}
    return jax.device_put({"params": params, "training": training}, replicated(make_mesh()))


def save(directory: Path, losses: dict[int, float | None], keep: int = 2, width: int = 3) -> None:
    with checkpoints.CheckpointWriter(directory, keep) as writer:
        for step, loss in losses.items():
            writer.save(step, state(step, width), dev_loss=loss, metadata={"sums": {"loss": step}})


def load(directory: Path, step: int, width: int = 3):
    one = next((one for one in checkpoints.saved(directory) if one.step == step), None)
    return None if one is None else checkpoints.load(directory, one, abstract_like(state(0, width)))


def everywhere(tree: Any) -> Any:
    return jax.tree.map(lambda _: replicated(make_mesh()), tree)


def bits(state) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    save(tmp_path / "checkpoints", {1: 3.0, 2: None})
    for step in (1, 2):
        assert bits(load(tmp_path / "checkpoints", step)) == bits(state(step)) != bits(state(3))
        one = checkpoints.saved(tmp_path / "checkpoints")[step - 1]
        params = checkpoints.load_params(
            tmp_path / "checkpoints", one, lambda tree: jax.tree.map(lambda _: replicated(make_mesh()), tree)
        )
        assert bits(params) == bits(state(step)["params"])
    assert [(one.step, one.dev_loss) for one in checkpoints.saved(tmp_path / "checkpoints")] == [
        (1, 3.0),
        (2, checkpoints.NO_DEV_LOSS),
    ]
    assert checkpoints.saved(tmp_path / "checkpoints")[0].metadata["sums"] == {"loss": 1}


@pytest.mark.parametrize("name", ["a%5Bb", "two\nlines", "~", "a{b,c}", "a.orbax-checkpoint-tmp", "s3:/x", "日 本"])
def test_odd_names_that_are_not_refused_are_read_again(tmp_path, name):
    assert is_free(tmp_path / name)
    (tmp_path / name).mkdir(parents=True)
    save(tmp_path / name / "checkpoints", {1: 3.0})
    assert bits(load(tmp_path / name / "checkpoints", 1)) == bits(state(1))


def test_the_newest_and_the_best_stay(tmp_path):
    save(tmp_path / "checkpoints", {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: 2.5})
    assert checkpoint_steps(tmp_path / "checkpoints") == [2, 4, 5]
    assert [one.step for one in checkpoints.best_first(tmp_path / "checkpoints")] == [2, 5, 4]


def test_a_writer_of_a_resumed_run_keeps_the_best_of_before(tmp_path):
    """Of equal ones the newest is the best."""
    save(tmp_path / "checkpoints", {1: None, 2: 2.0})
    save(tmp_path / "checkpoints", {3: 2.5, 4: None, 5: None})
    assert checkpoint_steps(tmp_path / "checkpoints") == [2, 4, 5]
    save(tmp_path / "checkpoints", {6: 2.0, 7: None, 8: None})
    assert checkpoint_steps(tmp_path / "checkpoints") == [6, 7, 8]


def test_a_saved_step_can_be_saved_again(tmp_path):
    save(tmp_path / "checkpoints", {1: 3.0, 2: 2.0})
    with checkpoints.CheckpointWriter(tmp_path / "checkpoints", 2) as writer:
        writer.save(2, state(7), dev_loss=1.0, metadata={})
    assert bits(load(tmp_path / "checkpoints", 2)) == bits(state(7))


def test_other_shapes_are_not_loaded(tmp_path):
    save(tmp_path / "checkpoints", {1: 3.0})
    with pytest.raises(UserError, match=r"checkpoint 1 of .* is left as it is, but cannot be loaded"):
        load(tmp_path / "checkpoints", 1, width=4)
    assert load(tmp_path / "checkpoints", 2) is None


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(24, "Too many open files")])
def test_what_the_system_refuses_to_read_is_not_broken(tmp_path, monkeypatch, error):
    save(tmp_path / "checkpoints", {1: 3.0})
    read = Mock(side_effect=error)
    monkeypatch.setattr(checksums, "_crc32", read)
    with pytest.raises(UserError, match=f"left as it is, but cannot be loaded .*{error.strerror}"):
        load(tmp_path / "checkpoints", 1)
    assert read.called
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=error))
    with pytest.raises(OSError, match=error.strerror):
        checkpoints.set_aside_unreadable(tmp_path / "checkpoints")
    assert checkpoint_steps(tmp_path / "checkpoints") == [1]


def test_a_directory_that_may_not_be_entered_is_no_damage(tmp_path, monkeypatch):
    save(tmp_path / "checkpoints", {1: 3.0})
    scandir = os.scandir

    def refusing(path: Path) -> Any:
        if Path(path).name == "params":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=r"checkpoint 1 of .* is left as it is.*Permission denied"):
        load(tmp_path / "checkpoints", 1)


def test_a_run_that_is_moved_while_it_trains_is_not_made_again_in_its_old_place(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with checkpoints.CheckpointWriter(run / "checkpoints", 2) as writer:
        writer.save(1, state(1), dev_loss=None, metadata={})
        writer.wait()
        run.rename(tmp_path / "elsewhere")
        for _ in range(2):
            with pytest.raises(UserError, match=r"run_dir '.*run' is gone: .*put it back"):
                writer.save(2, state(2), dev_loss=None, metadata={})
    assert not run.exists() and checkpoint_steps(tmp_path / "elsewhere" / "checkpoints") == [1]


def test_a_run_that_is_moved_during_a_save_is_reported(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with checkpoints.CheckpointWriter(run / "checkpoints", 2) as writer:
        writer.save(1, state(1), dev_loss=None, metadata={})
        run.rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=r"run_dir '.*run' is gone: .*put it back"):
            writer.wait()


@pytest.mark.parametrize("told", [True, False], ids=["as an error", "as broken"])
def test_a_run_that_trains_is_read_though_its_checkpoints_go(tmp_path, mlp_run, monkeypatch, told):
    shutil.copytree(mlp_run.path, tmp_path / "run")
    directory, real = tmp_path / "run" / "checkpoints", checkpoints.load_params
    said: list[str] = []
    (one,) = checkpoints.saved(directory)

    def late(directory: Path, asked: checkpoints.Saved, everywhere: Any, **options: Any) -> Any:
        if asked.step == one.step:  # a better one takes its place
            with checkpoints.CheckpointWriter(directory, 1) as writer:
                items = {"params": mlp_run.params, "training": {"step": jnp.int32(0)}}
                writer.save(one.step + 1, items, dev_loss=one.dev_loss - 1, metadata={})
            assert not (directory / str(one.step)).exists()
            if told:
                raise UserError("left as it is")
            return None
        return real(directory, asked, everywhere, **options)

    monkeypatch.setattr(checkpoints, "load_params", late)
    assert load_run(tmp_path / "run", log=said.append).step == one.step + 1
    assert said == []


def test_metadata_that_are_a_directory_are_none(tmp_path):
    save(tmp_path / "checkpoints", {1: 3.0, 2: 2.0})
    metadata = tmp_path / "checkpoints" / "2" / checkpoints.METADATA
    metadata.unlink()
    metadata.mkdir()
    assert [one.step for one in checkpoints.saved(tmp_path / "checkpoints")] == [1]


def test_nothing_takes_the_place_of_what_was_set_aside(tmp_path):
    for loss in (1.0, 2.0):
        save(tmp_path / "checkpoints", {1: loss})
        checkpoints.set_aside(tmp_path / "checkpoints", 1)
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {"1", "1-1"}


PARTS = ("_CHECKPOINT_METADATA", "params/_METADATA", "params/manifest.ocdbt", "training/manifest.ocdbt", "training/d")


@pytest.mark.parametrize("how", ["missing", "empty", "half", "garbage"])
@pytest.mark.parametrize("part", PARTS)
def test_a_broken_checkpoint_is_never_loaded(tmp_path, part, how):
    directory = tmp_path / "checkpoints"
    save(directory, {1: 3.0, 2: 2.0})
    path = directory / "2" / part
    path = next(path.iterdir()) if path.is_dir() else path
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        garbage = bytes(random.Random(0).randrange(256) for _ in content)
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": garbage}[how])
    readable = [one.step for one in checkpoints.saved(directory)]
    assert readable in ([1], [1, 2])
    assert readable == [1] or load(directory, 2) is None
    checkpoints.set_aside(directory, 2)
    assert (tmp_path / "broken" / "2").is_dir() and checkpoint_steps(directory) == [1]
    assert bits(load(directory, 1)) == bits(state(1))


@pytest.mark.parametrize("part", ["params", "training"])
def test_a_flipped_bit_is_never_loaded(tmp_path, part):
    """Arrays of some kB lie in files of their own; one bit in the middle of one is another number."""
    directory = tmp_path / "checkpoints"
    save(directory, {1: 3.0}, width=20_000)
    path = max((directory / "1" / part).rglob("*"), key=lambda entry: entry.stat().st_size)
    content = bytearray(path.read_bytes())
    assert len(content) > 40_000
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    loaded = load(directory, 1, width=20_000)
    assert loaded is None or bits(loaded) == bits(state(1, 20_000))


@pytest.mark.parametrize("content", [b"", b'{"custom_me', b"\xff\xfe", b"[]"])
def test_a_broken_old_checkpoint_costs_no_newer_one(tmp_path, content):
    directory = tmp_path / "checkpoints"
    save(directory, {1: 1.0, 2: 2.0, 3: 3.0})
    (directory / "1" / "_CHECKPOINT_METADATA").write_bytes(content)
    assert checkpoints.set_aside_unreadable(directory) == [1]
    with checkpoints.CheckpointWriter(directory, 2) as writer:
        writer.save(4, state(4), dev_loss=4.0, metadata={})
    assert checkpoint_steps(directory) == [2, 3, 4]
    assert bits(load(directory, 3)) == bits(state(3))


def test_sampling_takes_the_next_best_checkpoint_that_can_be_read(tmp_path, mlp_run):
    shutil.copytree(mlp_run.path, tmp_path / "run")
    directory = tmp_path / "run" / "checkpoints"
    (best,) = checkpoints.saved(directory)
    other = jax.tree.map(lambda x: x + 1, mlp_run.params)
    with checkpoints.CheckpointWriter(directory, 2) as writer:
        items = {"params": other, "training": {"step": jnp.int32(0)}}
        writer.save(best.step + 1, items, dev_loss=best.dev_loss + 1, metadata={})
    assert bits(load_run(tmp_path / "run").params) == bits(mlp_run.params) != bits(other)
    assert load_run(tmp_path / "run", which="last").step == best.step + 1
    (directory / str(best.step) / "params" / "manifest.ocdbt").write_bytes(b"")
    fallen = load_run(tmp_path / "run")
    assert fallen.step == best.step + 1 and bits(fallen.params) == bits(other)
    shutil.rmtree(directory)
    with pytest.raises(UserError, match=r"no checkpoint"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize("change", ['"dev_loss_":', '"dev_loss": "1.0", "_":', '"dev_loss": [], "_":'])
def test_metadata_without_a_dev_loss_are_broken(tmp_path, change):
    save(tmp_path / "checkpoints", {1: 3.0, 2: 2.0})
    metadata = tmp_path / "checkpoints" / "2" / checkpoints.METADATA
    metadata.write_text(metadata.read_text().replace('"dev_loss":', change))
    assert [one.step for one in checkpoints.best_first(tmp_path / "checkpoints")] == [1]
    assert checkpoints.unreadable(tmp_path / "checkpoints") == [2]


@pytest.mark.parametrize("left", range(0, 18, 3))
def test_a_kill_while_orbax_deletes_an_old_checkpoint_is_no_news(tmp_path, left):
    """It deletes file by file, in any order."""
    directory = tmp_path / "checkpoints"
    save(directory, {1: 1.0, 2: 9.0, 3: 3.0, 4: 4.0}, keep=4)
    files = sorted(path for path in (directory / "2").rglob("*") if path.is_file())
    for path in random.Random(left).sample(files, len(files) - left):
        path.unlink()
    assert checkpoints.set_aside_unreadable(directory) == []
    with checkpoints.CheckpointWriter(directory, 2) as writer:
        writer.save(5, state(5), dev_loss=5.0, metadata={})
    assert checkpoint_steps(directory) == [1, 4, 5] and not (tmp_path / "broken").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_a_checkpoint_that_has_lost_its_metadata_alone_is_news(tmp_path, step):
    save(tmp_path / "checkpoints", {1: 1.0, 2: 2.0})
    (tmp_path / "checkpoints" / str(step) / checkpoints.METADATA).unlink()
    assert checkpoints.set_aside_unreadable(tmp_path / "checkpoints") == [step]
    assert (tmp_path / "broken" / str(step)).is_dir()


def test_a_save_is_on_disk_with_its_checksums_once_it_was_awaited(tmp_path):
    directory = tmp_path / "checkpoints"
    with checkpoints.CheckpointWriter(directory, 2) as writer:
        for step in (1, 2):
            writer.save(step, state(step), dev_loss=1.0, metadata={})
            writer.wait()
            assert checkpoint_steps(directory)[-1] == step
            assert (directory / str(step) / CHECKSUMS).exists()
