"""The exercises agree with independent computations, draw their plots, and refuse mistakes in one line."""

import math
import os
import sys
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from jaxlm.config import DataConfig
from jaxlm.data.corpus import SPLITS, load
from jaxlm.errors import UserError
from jaxlm.exercises import EXERCISES, cross_entropy, indexing, kneser_ney, lab, smoothing, softmax, trigram
from jaxlm.exercises.__main__ import main
from jaxlm.plots import pictures
from tests import processes
from tests.conftest import NAMES
from tests.models.test_counts import grams
from tests.models.test_counts import kneser_ney as by_definition
from tests.test_imports import MODULES, imported_by, own


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n".join(NAMES))
    return DataConfig(path=str(path), split=(0.6, 0.2, 0.2))


@pytest.fixture
def here(names, tmp_path):
    """A lab on NAMES; its log is in `here.logged`."""
    logged: list[str] = []
    return SimpleNamespace(lab=lab.Lab(names, tmp_path, log=logged.append), logged=logged)


def padded(lines, order):
    """All n-grams of some lines as strings, '.' around each."""
    for line in lines:
        text = "." * (order - 1) + line + "."
        yield from (text[i : i + order] for i in range(len(line) + 1))


def add_k_loss(fitted, scored, order, k, vocab_size):
    """Nats per token by a Counter of strings; infinite if a token has probability 0."""
    count = Counter(padded(fitted, order))
    total: Counter[str] = Counter()
    for gram, n in count.items():
        total[gram[:-1]] += n
    ps = [(count[gram] + k) / ((total[gram[:-1]] + k * vocab_size) or 1) for gram in padded(scored, order)]
    return math.inf if 0 in ps else -sum(map(math.log, ps)) / len(ps)


def vocab_size():
    return len(set("".join(NAMES))) + 1


def assert_answered(here, exercise):
    assert here.logged[-1].startswith("answer: ") and len(here.logged) > 1
    assert imread(here.lab.picture(exercise)).shape[0] >= 400


@pytest.mark.slow
def test_e01_both_models_come_to_the_counts_of_all_lines(here):
    found = trigram.beat_the_bigram(here.lab, steps=300)
    for order in (2, 3):
        want = add_k_loss(NAMES, NAMES, order, 0, 0)
        assert found.counts[order] == pytest.approx(want, rel=1e-5)
        assert want < found.neural[order] < want + 0.05
    assert here.logged[-1].startswith("answer: yes")
    assert_answered(here, "E01")


def test_e02_scores_each_split_by_counts_of_train(here):
    corpus = load(here.lab.data)
    found = trigram.held_out_losses(here.lab)
    for order in (2, 3):
        for split in SPLITS:
            want = add_k_loss(corpus.lines["train"], corpus.lines[split], order, 1, vocab_size())
            assert found.losses[order][split] == pytest.approx(want, rel=1e-5)
        seen = set(padded(corpus.lines["train"], order))
        assert found.impossible[order] == sum(gram not in seen for gram in padded(corpus.lines["dev"], order))
    assert_answered(here, "E02")


def test_e03_takes_the_least_of_the_grid_on_dev_and_scores_it_on_test(here):
    lines = load(here.lab.data).lines
    grid = (0.01, 0.1, 1.0, 10.0)
    found = smoothing.tune_smoothing(here.lab, grid=grid)

    def want(k, split):
        return add_k_loss(lines["train"], lines[split], 3, k, vocab_size())

    np.testing.assert_allclose(found.train, [want(k, "train") for k in grid], rtol=1e-5)
    np.testing.assert_allclose(found.dev, [want(k, "dev") for k in grid], rtol=1e-5)
    assert found.best == min(grid, key=lambda k: want(k, "dev")) not in (grid[0], grid[-1])
    assert found.test == pytest.approx(want(found.best, "test"), rel=1e-5)
    assert f"k = {found.best:g} is best on dev" in here.logged[-1] and f"{found.test:.4f}" in here.logged[-1]
    assert_answered(here, "E03")


def test_e03_reports_a_best_k_at_the_end_of_its_grid(here):
    smoothing.tune_smoothing(here.lab, grid=(1.0, 10.0))
    assert "end of the grid" in here.logged[-1]


@pytest.mark.slow
def test_e04_the_two_ways_agree_and_are_timed(here, monkeypatch):
    monkeypatch.setattr(indexing, "TABLE_ORDERS", (2, 3))
    found = indexing.compare_indexing(here.lab, rounds=1)
    V = vocab_size()
    assert [one.rows for one in found] == [V, V**2]
    for one in found:
        assert max(one.differ) < 1e-6
        assert set(one.seconds) == {f"{way} {of}" for way in ("index", "product") for of in ("forward", "backward")}
        assert min(one.seconds.values()) > 0
    assert_answered(here, "E04")


def test_e04_sees_two_ways_that_differ(here, monkeypatch):
    monkeypatch.setattr(indexing, "TABLE_ORDERS", (2,))
    monkeypatch.setattr(indexing, "context_index", lambda ctx, size: (ctx[:, 0] + 1) % size)
    (found,) = indexing.compare_indexing(here.lab, rounds=1)
    assert min(found.differ) > 1e-3


@pytest.mark.slow
def test_e05_the_ways_agree_until_float32_ends(here):
    found = cross_entropy.compare_losses(here.lab, rounds=1, large=(4, 50))
    losses = list(found.losses.values())
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    assert max(found.gradients_differ.values()) < 1e-9
    largest = np.finfo(np.float32)
    assert math.log(largest.max) / 2 - 1 < found.last_shift["by hand"] <= math.log(largest.max)
    for way in ("by hand", "by softmax"):
        assert math.floor(-math.log(largest.tiny)) <= found.last_gap[way] <= -math.log(largest.smallest_subnormal)
    top = cross_entropy.STEPS[-1]
    assert found.last_shift["by softmax"] == found.last_shift["from logits"] == found.last_gap["from logits"] == top
    assert {size for size, _ in found.seconds} == {vocab_size(), 50}
    assert_answered(here, "E05")


@pytest.mark.parametrize("way", softmax.WAYS)
def test_e05_each_way_is_the_definition(way):
    logits_NV = jax.random.normal(jax.random.key(0), (5, 7))
    target_N = jnp.array([0, 6, 3, 3, 1])
    z_NV = np.asarray(logits_NV, np.float64)
    want_N = np.log(np.exp(z_NV).sum(1)) - z_NV[np.arange(5), np.asarray(target_N)]
    assert float(softmax.WAYS[way](logits_NV, target_N)) == pytest.approx(want_N.mean(), rel=1e-6)


def test_e06_scores_each_order_under_both_smoothings(here):
    corpus = load(here.lab.data)
    found = kneser_ney.compare_orders(here.lab, orders=(1, 3), added=(0.1, 1.0))

    def want(order, split):
        train, other = (
            grams(corpus.tokens(part), order, corpus.age_N[slice(*corpus.bounds[part])]) for part in ("train", split)
        )
        after = {ctx: by_definition(train, ctx, vocab_size()) for ctx in {tuple(g[:-1].tolist()) for g in other}}
        return -np.mean([np.log(after[tuple(gram[:-1].tolist())][gram[-1]]) for gram in other])

    dev = {order: want(order, "dev") for order in (1, 3)}
    assert found.kneser_ney == pytest.approx(dev, rel=1e-4)
    assert found.best == min(dev, key=dev.__getitem__)
    assert found.test == pytest.approx(want(found.best, "test"), rel=1e-4)
    for k in (0.1, 1.0):
        for order in (1, 3):
            plain = add_k_loss(corpus.lines["train"], corpus.lines["dev"], order, k, vocab_size())
            assert found.add_k[k][order] == pytest.approx(plain, rel=1e-5)
    assert_answered(here, "E06")
    heading, row = here.logged[1:3]
    assert len(heading) == len(row) and heading == heading.rstrip()


def test_calls_are_timed_in_turn_and_the_median_is_taken(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(lab, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    lengths = {"a": iter([9.0, 1.0, 1.0, 1.0, 5.0, 2.0, 3.0]), "b": iter([9.0, 1.0, 1.0, 1.0, 7.0, 7.0, 8.0])}

    def call(name):
        order.append(name)
        clock[0] += next(lengths[name])

    assert lab.median_seconds({name: partial(call, name) for name in lengths}, 3) == {"a": 3.0, "b": 7.0}
    assert "".join(order) == "aaaabbbb" + "ab" * 3


@pytest.mark.parametrize(
    ("ours", "other", "words"),
    [
        (1, 3, "3.0 times as fast as by hand"),
        (3, 1, "slower than by hand (3.0 times as long)"),
        (1, 1.05, "as fast as by hand (1.05 times)"),
    ],
)
def test_two_times_in_words(ours, other, words):
    assert lab.speed_against(ours, other, "by hand") == words


def test_curves_and_bars_show_their_numbers(tmp_path, monkeypatch):
    figures: list[Any] = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    pictures.curves({"one": ([1, 10], [2, 3])}, tmp_path / "c.png", title="t", xlabel="x", ylabel="y", log="x")
    pictures.bars({"dev": {"a": 1.5, "b": 2.5}, "test": {"a": 3, "b": 4}}, tmp_path / "b.png", title="t", ylabel="y")
    (lines,), (axes,) = figures[0].axes, figures[1].axes
    (curve,) = lines.lines
    assert (list(curve.get_xdata()), list(curve.get_ydata()), curve.get_label()) == ([1, 10], [2, 3], "one")
    assert (lines.get_xscale(), lines.get_yscale()) == ("log", "linear")
    assert [bar.get_height() for bar in axes.patches] == [1.5, 3, 2.5, 4]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["dev", "test"]
    assert axes.get_legend().get_window_extent().y1 < axes.bbox.y0


def test_the_command_prints_answers_and_lists_what_there_is(names, tmp_path, capsys):
    args = ["--data.path", names.path, "--data.split", "0.6", "0.2", "0.2", "--out", str(tmp_path / "out")]
    assert main(["e02", *args]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"E02: {EXERCISES['E02']}\n") and "answer: " in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["E02.png"]
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}  {title}" in listed for name, title in EXERCISES.items())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["E09"], "wants one of E01, E02, E03, E04, E05, E06 or all, got 'E09'"),
        (["--out", "x"], "the first argument wants one of"),
        (["E02", "--outt", "x"], "--outt is not a setting (did you mean --out?)"),
        (["E02", "--out", "{names}/x"], "--out wants a place in a directory, got "),
        (["E02", "--data.path", "{names}x"], "does not exist (did you mean"),
        (["E02", "--data.path", "{names}", "--data.split", "1", "0", "0"], "data.split wants lines in dev"),
        (["E02", "--seed", "-1"], "seed wants a number from 0"),
    ],
)
def test_a_mistake_is_one_line(names, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    before = processes.tree(tmp_path)
    with pytest.raises(UserError) as error:
        main([arg.format(names=names.path) for arg in args])
    assert words in str(error.value) and "\n" not in str(error.value)
    assert processes.tree(tmp_path) == before


def test_a_place_that_may_not_be_written_to_is_refused_before_the_work(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=r"^--out wants a place that may be written to, got 'new/place'$"):
        main(["E02", "--data.path", str(names.path), "--out", "new/place"])
    assert list(tmp_path.glob("new*")) == []


def test_the_process_exits_with_code_2(tmp_path_factory):
    processes.refused(processes.cli(tmp_path_factory).python("-m", "jaxlm.exercises", "E07"), "got 'E07'")


def test_nothing_imports_the_exercises():
    theirs = {module for module in MODULES if module.startswith("jaxlm.exercises")}
    assert not {m for m in MODULES if m not in theirs and own(imported_by(m)) & theirs}
    assert "jaxlm.exercises.indexing" in sys.modules
