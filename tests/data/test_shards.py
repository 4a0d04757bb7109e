"""Token shards: what is opened, what is refused by name, and the rows that training reads."""

import ctypes
import json
import mmap
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.config import PrepareConfig, PreparedTokensConfig
from jaxlm.data.corpus import from_stream
from jaxlm.data.dataset import Dataset
from jaxlm.data.prepare import prepare
from jaxlm.data.shard_dataset import ShardDataset, _read_ahead
from jaxlm.data.shards import open_shards, refuse_settings_of_text, verify
from jaxlm.errors import UserError
from tests.conftest import NAMES

T = 4


@pytest.fixture
def out(tmp_path):
    """Shards of 50 tokens: several of train, at least one of dev, the last of each not full."""
    (tmp_path / "a.txt").write_text("\n".join(NAMES))
    config = PrepareConfig(tokens="characters", document="lines", held_out=0.2, shard_tokens=50)
    prepare([tmp_path / "a.txt"], tmp_path / "out", config, 1, log=lambda line: None)
    return tmp_path / "out"


def config_of(out, **settings):
    data = jaxlm.DataConfig(
        path=str(out), kind="stream", example="sequence", max_length=T, tokens=PreparedTokensConfig()
    )
    return jaxlm.RunConfig(model=jaxlm.GptConfig(), data=data, **{"steps": 1, "batch_size": 3, **settings})


class Share:
    """The rows of one of several processes, whose arrays stay on the host."""

    def __init__(self, process, processes):
        self.process, self.processes = process, processes

    def own(self, size):
        return np.array_split(np.arange(size), self.processes)[self.process]

    def place(self, tree, axis, size):
        return tree


def dataset_of(out, own_rows=None, **settings):
    return ShardDataset(config_of(out, **settings), open_shards(out), max_length=None, own_rows=own_rows)


def tokens_of(shards, split):
    return np.concatenate([shards.map(shard) for shard in shards.of_split(split)]).tolist()


def predicted(batch):
    """The targets that count, row by row."""
    return [target_T[weight_T > 0].tolist() for target_T, weight_T in zip(batch.target, batch.weight, strict=True)]


def test_an_epoch_predicts_every_token_of_train_once_and_the_next_one_in_another_order(out):
    dataset = dataset_of(out, batch_size=1)
    n = dataset.examples
    batches = [dataset.batches(0, n), dataset.batches(n, n)]
    rows = [jax.tree.map(lambda x: np.asarray(x)[:, 0], batch) for batch in batches]
    first, second = map(predicted, rows)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(predicted(dataset.batch(np.arange(n))))
    in_order = [token for row in predicted(dataset.batch(np.arange(n))) for token in row]
    assert in_order == tokens_of(open_shards(out), "train")
    dev = [token for row in predicted(dataset.batch(np.array(dataset.rows["dev"]))) for token in row]
    assert dev == tokens_of(open_shards(out), "dev")


def test_rows_of_one_shard_are_those_of_a_stream_in_memory(tmp_path):
    text = "the king and the queen rule the land near the water"
    (tmp_path / "a.txt").write_text(text)
    prepare(
        [tmp_path / "a.txt"], tmp_path / "out", PrepareConfig(tokens="characters", held_out=0), 1, log=lambda line: None
    )
    ours = dataset_of(tmp_path / "out")
    data = jaxlm.DataConfig(path="a", kind="stream", example="sequence", max_length=T, split=(1.0, 0.0, 0.0))
    config = jaxlm.RunConfig(model=jaxlm.GptConfig(), data=data, steps=1, batch_size=3)
    corpus = from_stream(text, data, open_shards(tmp_path / "out").tokenizer)
    theirs = Dataset(config, corpus, context=None, max_length=None)
    whole = len(text) // T  # the next row also has the document's end, which a stream in memory does not have
    row_R = np.array([2, 0, whole - 1, -1, 5])
    for a, b in zip(map(np.asarray, ours.batch(row_R)), map(np.asarray, theirs.batch(row_R)), strict=True):
        np.testing.assert_array_equal(np.where(row_R[:, None] >= 0, a, 0), np.where(row_R[:, None] >= 0, b, 0))
    assert not np.asarray(ours.batch(row_R).weight)[3].any()


@pytest.mark.parametrize("order", ["shuffled", "replacement"])
def test_a_step_has_the_same_rows_in_whatever_chunk_and_after_whatever_was_read_before(out, order):
    def dataset():
        config = config_of(out)
        data = jaxlm.DataConfig(**{**vars(config.data), "order": order})
        return ShardDataset(jaxlm.RunConfig(**{**vars(config), "data": data}), open_shards(out), max_length=None)

    one, other = dataset(), dataset()
    singles = [other.batches(step, 1) for step in (5, 0, 1, 2, 3, 4, 5)][1:]
    for step, K in ((0, 2), (2, 2), (4, 1), (5, 1)):
        chunk = one.batches(step, K)
        for k in range(K):
            for a, b in zip(chunk, singles[step + k], strict=True):
                np.testing.assert_array_equal(a[k], b[0])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_rows_of_a_step_are_the_same_on_any_number_of_processes(out, processes):
    """Each process reads its own rows alone, of batches as of evaluations."""
    whole = dataset_of(out, batch_size=8)
    parts = [dataset_of(out, Share(process, processes), batch_size=8) for process in range(processes)]
    for axis, call in ((1, lambda dataset: dataset.batches(3, 2)), (0, lambda dataset: dataset.batch(np.arange(8)))):
        for array, *own in zip(call(whole), *map(call, parts), strict=True):
            assert {one.shape[axis] for one in own} == {8 // processes}
            np.testing.assert_array_equal(np.concatenate(own, axis=axis), array)


def test_a_batch_of_all_rows_is_refused(out):
    with pytest.raises(UserError, match="batch_size wants a number"):
        dataset_of(out, batch_size="full")


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="wants /proc")
def test_a_shard_is_not_loaded_whole(out):
    """A hole of 8 GB in a shard takes no memory, nor time, unless it is read."""
    tokens, tree = 2**32, json.loads((out / "manifest.json").read_text())
    with (out / "train-00000.bin").open("r+b") as file:
        file.truncate(2 * tokens)
    tree["shards"][0]["tokens"] = tokens
    (out / "manifest.json").write_text(json.dumps(tree))
    before = resident_bytes()
    dataset = dataset_of(out, batch_size=64)
    row_KB = dataset.row_numbers(0, 2)
    assert row_KB.max() > tokens // T // 2
    assert dataset.batches(0, 2).target.shape == (2, 64, T)
    assert resident_bytes() - before < 2**27


def resident_pages(mapped):
    """Which pages of a map are in memory, by mincore(2)."""
    pages = (ctypes.c_ubyte * -(-mapped.nbytes // mmap.PAGESIZE))()
    address = ctypes.c_void_p(mapped.ctypes.data)
    assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(mapped.nbytes), pages) == 0
    return np.array(pages) & 1


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="wants posix_fadvise and mincore")
def test_rows_are_asked_for_before_they_are_read_and_nothing_beside_them(tmp_path):
    with (tmp_path / "a.bin").open("wb") as file:
        np.ones(2**23, np.uint16).tofile(file)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = np.memmap(tmp_path / "a.bin", np.uint16, mode="r")
    if resident_pages(mapped).any():
        pytest.skip("this file system keeps its files in memory")
    tokens = mmap.PAGESIZE // 2
    start_N = np.array([0, 100 * tokens, len(mapped) - tokens])
    _read_ahead(mapped, start_N, tokens)
    wanted = [0, 99, 100, len(mapped) // tokens - 1]
    for _ in range(200):
        if resident_pages(mapped)[wanted].all():
            break
        time.sleep(0.05)
    found = np.flatnonzero(resident_pages(mapped))
    assert set(wanted) <= set(found.tolist()) and len(found) <= 6


def damage_manifest(out, **changes):
    tree = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**tree, **changes}))


DAMAGES = {
    "cut off": (
        lambda out: (out / "train-00001.bin").write_bytes(b"123"),
        r"'train-00001\.bin' wants 100 bytes, got 3",
    ),
    "missing": (lambda out: (out / "dev-00000.bin").unlink(), r"'dev-00000\.bin' is missing"),
    "foreign": (lambda out: (out / "train-00099.bin").write_bytes(b""), r"'train-00099\.bin' is not in manifest\.json"),
    "tokenizer": (lambda out: (out / "tokenizer.json").write_text("{}"), r"tokenizer\.json is not the one"),
    "unfinished": (lambda out: (out / "manifest.json").unlink(), "run the same python -m jaxlm.data prepare again"),
    "torn": (lambda out: (out / "manifest.json").write_text('{"format'), r"manifest\.json cannot be used"),
    "format": (lambda out: damage_manifest(out, format="other"), "format wants 'jaxlm token shards 1', got 'other'"),
    "dtype": (lambda out: damage_manifest(out, dtype="int8"), "dtype wants uint16 or uint32, got 'int8'"),
    "fields": (lambda out: damage_manifest(out, shards=[{"file": "x"}]), "cannot be used"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_directory_is_refused_by_name(name, out):
    damage, words = DAMAGES[name]
    damage(out)
    with pytest.raises(UserError, match=words):
        open_shards(out)


def test_a_directory_of_text_files_is_refused_with_the_command_that_makes_shards(tmp_path):
    with pytest.raises(UserError, match=r"is a directory without manifest\.json.*jaxlm\.data prepare"):
        open_shards(tmp_path)


def test_verify_finds_what_the_size_does_not_show(out):
    assert verify(out)[1] == []
    raw = bytearray((out / "train-00001.bin").read_bytes())
    raw[0] ^= 1
    (out / "train-00001.bin").write_bytes(raw)
    (out / "dev-00000.bin").write_bytes(b"\xff" * (out / "dev-00000.bin").stat().st_size)
    assert verify(out)[1] == ["train-00001.bin", "dev-00000.bin"]


def test_the_hash_of_the_data_is_that_of_the_shards_not_of_their_place(out):
    before = open_shards(out)
    moved = open_shards(out.rename(out.with_name("moved")))
    assert (moved.data_hash, moved.split_hash) == (before.data_hash, before.split_hash)
    tree = json.loads((moved.path / "manifest.json").read_text())
    tree["shards"][0]["sha256"] = "0" * 64
    (moved.path / "manifest.json").write_text(json.dumps(tree))
    assert open_shards(moved.path).data_hash != before.data_hash


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "lines"}, "data.kind wants stream"),
        ({"example": "window", "max_length": 256}, "data.example wants sequence"),
        ({"split": (0.9, 0.1, 0.0)}, "data.split .* has no effect"),
        ({"overlap": True}, "data.overlap True has no effect"),
        ({"tokens": jaxlm.ReanTokensConfig()}, "data.tokens wants PreparedTokensConfig"),
    ],
)
def test_settings_that_shards_have_decided_are_refused(settings, words, out):
    data = {"path": str(out), "kind": "stream", "example": "sequence", **settings}
    refuse_settings_of_text(jaxlm.DataConfig(path=str(out), kind="stream", example="sequence"))
    with pytest.raises(UserError, match=words):
        refuse_settings_of_text(jaxlm.DataConfig(**data))


def test_tokens_of_shards_are_refused_for_a_text(tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    data = jaxlm.DataConfig(path=str(tmp_path / "a.txt"), kind="stream", tokens=PreparedTokensConfig())
    config = jaxlm.RunConfig(model=jaxlm.CountsConfig(), data=data, run_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="to be a directory of shards"):
        jaxlm.train(config, log=lambda line: None)
