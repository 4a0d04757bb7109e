"""Batches of a corpus on the device: against plain Python loops, and as functions of (seed, step)."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import DataConfig, NgramConfig, RunConfig
from jaxlm.config.check import MOST
from jaxlm.data.corpus import SPLITS, from_dialogues, from_lines, from_stream
from jaxlm.data.dataset import Dataset, check_positions
from jaxlm.errors import UserError

NAMES = "emma\nolivia\nava\nisabella\nsophia\nava\nmia\nzoë\no'brien\nmary ann\na\n"
DISTINCT = "".join(chr(0x100 + i) for i in range(100))
READ = {"lines": from_lines, "stream": from_stream, "dialogues": from_dialogues}


def dataset_of(text, context=None, batch_size=4, seed=0, row_multiple=1, **data):
    config = RunConfig(model=NgramConfig(), data=DataConfig(**data), steps=1, batch_size=batch_size, seed=seed)
    corpus = READ[config.data.kind](text, config.data)
    return corpus, Dataset(config, corpus, context=context, max_length=None, row_multiple=row_multiple)


def rows_of(dataset, step, K=1):
    """What the rows of K steps read, as hashable tuples: [step][row]."""
    tok, target, weight = map(np.asarray, dataset.batches(step, K)._replace(weight=0))
    assert weight == 0
    return [
        [(tuple(np.ravel(tok[k, b]).tolist()), tuple(np.ravel(target[k, b]).tolist())) for b in range(tok.shape[1])]
        for k in range(tok.shape[0])
    ]


@pytest.mark.parametrize("context", [0, 1, 3, 12])
def test_windows_of_lines_are_the_lectures_loop(context):
    corpus, dataset = dataset_of(NAMES, context)
    for split in SPLITS:
        expected_x, expected_y = [], []
        for line in corpus.lines[split]:
            seen = [0] * context
            for token in [*corpus.tokenizer.encode(line).tolist(), 0]:
                expected_x.append(list(seen))
                expected_y.append(token)
                seen = [*seen, token][1:] if context else []
        batch = dataset.batch(dataset.rows[split])
        chex.assert_type([batch.tok, batch.target], jnp.int32)
        np.testing.assert_array_equal(batch.tok, np.array(expected_x).reshape(len(expected_y), context))
        np.testing.assert_array_equal(batch.target, expected_y)
        np.testing.assert_array_equal(batch.weight, np.ones(len(expected_y)))


def test_windows_of_a_stream_see_their_own_split_only():
    corpus, dataset = dataset_of(DISTINCT, context=3, kind="stream")
    for split in SPLITS:
        part = corpus.tokens(split).tolist()
        padded = [0, 0, 0, *part]
        batch = dataset.batch(dataset.rows[split])
        np.testing.assert_array_equal(batch.tok, [padded[i : i + 3] for i in range(len(part))])
        np.testing.assert_array_equal(batch.target, part)


def test_sequences_of_lines_predict_every_token_and_the_end():
    corpus, dataset = dataset_of(NAMES, example="sequence")
    width = dataset.targets_per_row
    assert width == corpus.longest
    for split in SPLITS:
        batch = dataset.batch(dataset.rows[split])
        assert len(dataset.rows[split]) == len(corpus.lines[split])
        for row, line in enumerate(corpus.lines[split]):
            spelled, rest = corpus.tokenizer.encode(line).tolist(), [0] * (width - len(line) - 1)
            assert batch.tok[row].tolist() == [0, *spelled, *rest]
            assert batch.target[row].tolist() == [*spelled, 0, *rest]
            assert batch.weight[row].tolist() == [1] * (len(line) + 1) + rest


def test_a_row_of_minus_one_weighs_nothing():
    rows = np.array([2, -1, 0, -1])
    _, windows = dataset_of(NAMES, context=3)
    assert windows.batch(rows).weight.tolist() == [1, 0, 1, 0]
    _, sequences = dataset_of(NAMES, example="sequence")
    weight_BT = sequences.batch(rows).weight
    assert (weight_BT.sum(1) > 0).tolist() == [True, False, True, False]
    np.testing.assert_array_equal(weight_BT[::2], sequences.batch(rows[::2]).weight)


KINDS = [
    {"example": "window", "kind": "lines"},
    {"example": "window", "kind": "stream"},
    {"example": "sequence", "kind": "lines", "max_length": 5},
    {"example": "sequence", "kind": "dialogues", "max_length": 5},
    {"example": "sequence", "kind": "stream", "max_length": 5},
]
every_kind = pytest.mark.parametrize("data", KINDS, ids=lambda data: f"{data['example']}-{data['kind']}")
every_order = pytest.mark.parametrize("order", ["shuffled", "replacement"])


@every_kind
@every_order
def test_a_batch_is_a_function_of_seed_and_step(data, order):
    _, dataset = dataset_of(NAMES * 3, context=3, batch_size=8, order=order, **data)
    _, again = dataset_of(NAMES * 3, context=3, batch_size=8, order=order, **data)
    _, other = dataset_of(NAMES * 3, context=3, batch_size=8, order=order, seed=1, **data)
    chex.assert_trees_all_equal(dataset.batches(7, 1), again.batches(7, 1))
    together = dataset.batches(5, 4)
    for i, step in enumerate(range(5, 9)):
        alone = again.batches(step, 1)
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together), alone)
    assert together.tok.shape[:2] == together.target.shape[:2] == (4, 8)
    if (data["example"], data["kind"]) != ("sequence", "dialogues"):  # of one line, the same rows in any order
        assert rows_of(dataset, 7) != rows_of(dataset, 8)
        assert rows_of(dataset, 7) != rows_of(other, 7)


@every_kind
def test_an_epoch_has_every_row_of_train_once(data):
    text = "\n\n".join(["\n".join(NAMES.split())] * 3)
    corpus, dataset = dataset_of(text, context=3, batch_size=1, **data)
    n = dataset.examples
    epochs = [dataset.row_numbers(epoch * n, n).reshape(-1).tolist() for epoch in range(3)]
    assert epochs[0] != epochs[1]
    for rows in epochs:
        if data["example"] == "sequence" and data["kind"] == "stream":
            assert n == corpus.size("train") // 5
            assert (np.diff(np.sort(rows))[1:-1] == 5).all()
        else:
            assert sorted(rows) == dataset.rows["train"].tolist()


@every_kind
@every_order
def test_rows_do_not_depend_on_how_many_devices_share_them(data, order):
    _, alone = dataset_of(NAMES, context=3, batch_size=8, order=order, **data)
    _, shared = dataset_of(NAMES, context=3, batch_size=8, order=order, row_multiple=4, **data)
    chex.assert_trees_all_equal(alone.batches(3, 2), shared.batches(3, 2))
    assert (shared.batch_size, shared.rows_per_step, shared.examples) == (8, 8, alone.examples)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 5))
def test_an_epoch_of_a_stream_reads_about_every_token_once_and_moves_its_cuts(size, width, seed):
    text = "".join(chr(0x100 + i) for i in range(size))
    _, dataset = dataset_of(
        text, batch_size=1, seed=seed, kind="stream", example="sequence", max_length=width, split=(1, 0, 0)
    )
    n, width = dataset.examples, min(width, size)
    assert n == size // width
    for epoch in range(4):
        first_N = np.sort(dataset.row_numbers(epoch * n, n).reshape(-1))
        assert first_N[0] >= 0 and first_N[-1] + width <= size
        reads = Counter((first_N[:, None] + np.arange(width)).reshape(-1).tolist())
        missed, again = size - len(reads), sum(reads.values()) - len(reads)
        assert max(missed, again) < 2 * width and sum(reads.values()) == n * width
        inner = range(width, size - width)
        assert all(reads[place] == 1 for place in inner)
    if width > 1 and n > 2:
        cuts = {int(place) % width for place in np.median(dataset.row_numbers(0, 40 * n).reshape(40, n), axis=1)}
        assert len(cuts) > 1


@pytest.mark.parametrize("example", ["window", "sequence"])
@every_order
def test_every_prediction_of_train_is_drawn_and_none_of_the_others(example, order):
    length = {"max_length": 9} if example == "sequence" else {}
    _, dataset = dataset_of(DISTINCT, context=3, batch_size=64, kind="stream", example=example, order=order, **length)
    batch = dataset.batches(0, 30)
    train = set(range(1, 81))
    assert set(np.unique(batch.target).tolist()) == train
    assert set(np.unique(batch.tok).tolist()) == (train | {0}) - {80}
    assert batch.weight is None or (np.asarray(batch.weight) == 1).all()


@every_order
def test_sequences_of_a_stream_begin_with_the_token_before_them(order):
    _, dataset = dataset_of(DISTINCT, batch_size=64, kind="stream", example="sequence", max_length=9, order=order)
    batch = dataset.batches(0, 1)
    np.testing.assert_array_equal(batch.tok + 1, batch.target)


@pytest.mark.parametrize(("order", "most"), [("shuffled", 1e-9), ("replacement", 79 + 5 * np.sqrt(2 * 79))])
def test_lines_are_drawn_evenly_from_train(order, most):
    corpus, dataset = dataset_of("\n".join(DISTINCT), batch_size=100, example="sequence", order=order)
    drawn = Counter(np.asarray(dataset.batches(0, 200).target)[..., 0].reshape(-1).tolist())
    assert set(drawn) == {int(corpus.tokenizer.encode(line)[0]) for line in corpus.lines["train"]}
    expected = 200 * 100 / 80
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert chi_square < most
    assert order == "shuffled" or chi_square > 79 - 5 * np.sqrt(2 * 79)


@every_kind
@pytest.mark.parametrize("row_multiple", [1, 4, 7])
def test_a_full_batch_is_all_of_train_at_every_step(data, row_multiple):
    corpus, dataset = dataset_of(NAMES, context=3, batch_size="full", row_multiple=row_multiple, **data)
    batch, again = dataset.batches(4, 2), dataset.batches(9, 3)
    chex.assert_trees_all_equal(batch, again)
    assert dataset.full and batch.tok.shape[:2] == (1, dataset.batch_size)
    assert dataset.batch_size % row_multiple == 0 and 0 <= dataset.batch_size - dataset.examples < row_multiple
    assert dataset.rows_per_step == dataset.examples == len(dataset.rows["train"])
    everything = dataset.batch(dataset.rows["train"])
    chex.assert_trees_all_equal([leaf[0, : dataset.examples] for leaf in batch[:2]], list(everything[:2]))
    weights = np.ones(batch.target.shape) if batch.weight is None else np.asarray(batch.weight)
    assert weights[0, : dataset.examples].sum() == corpus.size("train")
    assert not weights[0, dataset.examples :].any()
    assert (batch.weight is None) == (data["example"] == "window" and dataset.batch_size == dataset.examples)


@every_order
def test_a_stream_shorter_than_the_width_is_padded(order):
    _, dataset = dataset_of("abcdef", batch_size=3, kind="stream", example="sequence", max_length=8, order=order)
    batch = jax.tree.map(lambda leaf: leaf[0], dataset.batches(0, 1))
    assert batch.target.tolist() == [[1, 2, 3, 4, 0, 0, 0, 0]] * 3
    assert batch.tok.tolist() == [[0, 1, 2, 3, 0, 0, 0, 0]] * 3
    assert batch.weight.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 3
    assert dataset.examples == 1


def test_train_offers_its_windows_and_its_lines():
    corpus, windows = dataset_of(NAMES, context=3)
    _, sequences = dataset_of(NAMES, example="sequence")
    assert windows.examples == corpus.size("train")
    assert sequences.examples == len(corpus.lines["train"])


def test_training_counts_every_prediction_of_a_dialogues_row_and_evaluation_each_once():
    text = "\n\n".join(f"human: what is {i}?\nnetwork: it is {'so ' * (i % 5)}{i}." for i in range(30))
    corpus, dataset = dataset_of(text, batch_size=64, kind="dialogues", example="sequence", max_length=16, overlap=True)
    row_B = dataset.row_numbers(0, 1)[0]
    trained, evaluated = dataset.batches(0, 1).weight[0], dataset.batch(row_B).weight
    assert (trained >= evaluated).all() and trained.sum() > evaluated.sum()
    np.testing.assert_array_equal(trained, np.flip(np.maximum.accumulate(np.flip(evaluated, 1), axis=1), 1))
    assert dataset.batch(dataset.rows["train"]).weight.sum() == corpus.size("train")


def test_max_length_of_the_model_bounds_a_sequence():
    config = RunConfig(model=NgramConfig(), data=DataConfig(example="sequence"), steps=1)
    dataset = Dataset(config, from_lines(NAMES, config.data), context=None, max_length=4)
    assert dataset.targets_per_row == dataset.batches(0, 1).tok.shape[-1] == 4


def test_batches_are_laid_over_devices_by_their_axis_of_rows():
    """The function is called as the program is traced, with the axis that counts rows."""
    axes = []

    def shard_rows(tree, axis):
        axes.append(axis)
        return jax.tree.map(lambda leaf: leaf + 1, tree)

    for batch_size in (4, "full"):
        config = RunConfig(model=NgramConfig(), data=DataConfig(example="sequence"), steps=1, batch_size=batch_size)
        corpus = from_lines(NAMES, config.data)
        plain = Dataset(config, corpus, context=None, max_length=None)
        laid = Dataset(config, corpus, context=None, max_length=None, shard_rows=shard_rows)
        chex.assert_trees_all_equal(laid.batches(0, 2), jax.tree.map(lambda leaf: leaf + 1, plain.batches(0, 2)))
        chex.assert_trees_all_equal(laid.batch(plain.rows["dev"]).tok, plain.batch(plain.rows["dev"]).tok + 1)
    assert axes == [1, 0, 1]


ON_DEVICES = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxlm.config import DataConfig, NgramConfig, RunConfig
from jaxlm.data.corpus import from_lines
from jaxlm.data.dataset import Dataset

mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

def shard_rows(tree, axis):
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), tree)

made, text = {}, sys.stdin.read()
for size in (8, "full"):
    config = RunConfig(model=NgramConfig(), data=DataConfig(example="sequence"), steps=1, batch_size=size)
    corpus = from_lines(text, config.data)
    dataset = Dataset(
        config, corpus, context=None, max_length=None, row_multiple=mesh.size, shard_rows=shard_rows,
        replicated=NamedSharding(mesh, PartitionSpec()),
    )
    batch = dataset.batches(3, 2)
    assert all(len(leaf.sharding.device_set) == mesh.size for leaf in batch)
    rows = dataset.examples if size == "full" else dataset.batch_size
    made |= {f"{size}-{name}": np.asarray(leaf)[:, :rows] for name, leaf in batch._asdict().items()}
np.savez(sys.argv[1], devices=mesh.size, **made)
"""


@pytest.mark.slow
def test_four_devices_share_the_rows_of_one(tmp_path):
    started = []
    for devices in (1, 4):
        env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-W", "error", "-c", ON_DEVICES, str(tmp_path / f"{devices}.npz")]
        started.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(NAMES, timeout=300)
        assert process.returncode == 0, errors
    one, four = (dict(np.load(tmp_path / f"{devices}.npz")) for devices in (1, 4))
    assert (one.pop("devices"), four.pop("devices")) == (1, 4)
    assert len(one) == 6
    chex.assert_trees_all_equal(one, four)


def test_the_corpus_goes_where_it_is_sent_once(monkeypatch):
    put, original = [], jax.device_put

    def device_put(tree, where):
        put.append(where)
        return original(tree, where)

    monkeypatch.setattr(jax, "device_put", device_put)
    config = RunConfig(model=NgramConfig(), data=DataConfig(example="sequence"), steps=1)
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    dataset = Dataset(config, from_lines(NAMES, config.data), context=None, max_length=None, replicated=where)
    dataset.batches(0, 2), dataset.batch(dataset.rows["dev"])
    assert put == [where]


def test_data_sets_of_one_shape_share_their_programs():
    traced = []

    def shard_rows(tree, axis):
        traced.append(axis)
        return tree

    for seed in (0, 1):
        config = RunConfig(model=NgramConfig(), steps=1, seed=seed)
        corpus = from_lines(NAMES, config.data)
        dataset = Dataset(config, corpus, context=3, max_length=None, shard_rows=shard_rows)
        dataset.batches(0, 2), dataset.batch(np.arange(4))
    assert traced == [1, 0]


def test_more_positions_than_int32_counts_are_refused():
    check_positions(MOST)
    with pytest.raises(UserError, match=r"^data\.path wants a text of at most 2,147,483,647 tokens.* split the file"):
        check_positions(MOST + 1)


def test_replacement_has_no_effect_on_full_batches_and_is_refused():
    config = RunConfig(model=NgramConfig(), steps=1, batch_size="full")
    with pytest.raises(UserError, match=r"^data\.order wants shuffled with batch_size full"):
        dataclasses.replace(config, data=DataConfig(order="replacement"))
