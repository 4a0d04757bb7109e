import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from jaxlm.config import CountsConfig, RunConfig
from jaxlm.config.serialization import settings_that_change_numbers, to_json
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import Score
from jaxlm.runs import directory, metrics


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": null}', "{", ""])
def test_a_fingerprint_of_something_else(tmp_path, content):
    (tmp_path / "fingerprint.json").write_text(content)
    with pytest.raises(UserError, match="fingerprint"):
        directory.open_existing(tmp_path)


def test_a_run_of_a_newer_format(tmp_path):
    (tmp_path / "fingerprint.json").write_text(json.dumps({"format": directory.FORMAT + 1}))
    with pytest.raises(UserError, match=f"format {directory.FORMAT + 1}.*update jaxlm"):
        directory.open_existing(tmp_path)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "names_mlp-lr-range.png").touch()
    with pytest.raises(UserError, match=r"names_mlp-lr-range\.png' is a file, not a run$"):
        directory.open_existing(tmp_path / "names_mlp-lr-range.png")


def test_a_missing_run_has_a_near_name(tmp_path):
    (tmp_path / "names_mlp").mkdir()
    with pytest.raises(UserError, match=r"does not exist.*did you mean.*names_mlp"):
        directory.open_existing(tmp_path / "names_mlpp")


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"model": {}}', '{"model": {"class": "jaxlm:CountsConfig", "order": "x"}}', "{"]
)
def test_damaged_settings_of_a_run_name_their_file(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"^run file '.*config\.json'") as caught:
        directory.RunDir(tmp_path).read_config()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [({"seed": 5}, "seed: 5, now 0"), ({"else": 1}, None)])
def test_settings_that_were_edited_since_are_refused_by_name(tmp_path, change, message):
    run, config = directory.RunDir(tmp_path), RunConfig(model=CountsConfig())
    tree = to_json(config)
    directory.write_json(run.config, tree)
    directory.write_json(
        run.fingerprint, {"format": directory.FORMAT, "settings": {**settings_that_change_numbers(tree), **change}}
    )
    if message is None:
        assert run.read_config() == config
    else:
        with pytest.raises(UserError, match=rf"config\.json' was edited: {message}; put back"):
            run.read_config()


def test_arrays_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    directory.write_arrays(tmp_path / "buffers.npz", {"a": np.ones(2)})
    monkeypatch.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        directory.write_arrays(tmp_path / "buffers.npz", {"a": np.zeros(2)})
    with np.load(tmp_path / "buffers.npz") as arrays:
        assert arrays["a"].tolist() == [1, 1]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, error):
    path = tmp_path / "eval.json"
    directory.write_json(path, {"step": 1})

    def torn(self, content):
        Path.open(self, "wb").close()
        raise error

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(type(error)):
        directory.write_json(path, {"step": 2})
    assert directory.read_json(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["eval.json"]
    with pytest.raises(ValueError, match="JSON"):
        directory.write_json(path, {"loss": float("nan")})


def test_the_hash_of_arrays_tells_names_types_and_shapes_apart():
    arrays: list[np.ndarray] = [
        np.zeros((2, 3)),
        np.zeros((3, 2)),
        np.zeros(6),
        np.zeros(6, np.int32),
        np.zeros(6, np.float32),
    ]
    hashes = [directory.hash_of({name: array}) for name in "ab" for array in arrays]
    assert len(set(hashes)) == len(hashes)
    both = {"a": arrays[0], "b": arrays[1]}
    assert directory.hash_of(both) == directory.hash_of(dict(reversed(both.items())))


def test_a_huge_loss_has_no_perplexity_in_json():
    entry = Score(nats=8000.0, tokens=10, bytes=10, impossible=0).to_json()
    assert entry["nats_per_token"] == 800 and entry["perplexity"] is None


LINES = [
    json.dumps({"step": step, "split": split, "loss": 2.5, "unit": "nats/token"})
    for step, split in [(0, "dev"), (5, "train"), (5, "dev"), (10, "train")]
]


@pytest.mark.parametrize(
    ("content", "step", "kept"),
    [
        ("\n".join(LINES) + "\n", 10, LINES),
        ("\n".join(LINES) + "\n", 9, LINES[:3]),
        ("\n".join(LINES) + "\n", 5, LINES[:3]),
        ("\n".join(LINES) + "\n", 4, LINES[:1]),
        ("\n".join(LINES) + "\n", -1, []),
        ("\n".join(LINES) + '\n{"step": 10, "los', 10, LINES),
        ("\n".join(LINES), 10, LINES),
        ("\n".join(LINES) + "\n12\n", 10, LINES),
        ("", 10, []),
    ],
)
def test_metrics_are_cut_to_a_checkpoint(tmp_path, content, step, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    metrics.cut(path, step)
    assert path.read_text() == "".join(line + "\n" for line in kept)
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert metrics.read(path) == [json.loads(line) for line in kept]


def test_metrics_that_do_not_exist_need_no_cut(tmp_path):
    metrics.cut(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == [] and metrics.read(tmp_path / "metrics.jsonl") == []
