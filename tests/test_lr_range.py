"""The range test of the learning rate: its rates, its loop, its rule and its mistakes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from jaxlm import lr_range
from jaxlm.cli.train_command import parse_range
from jaxlm.config import (
    CharactersConfig,
    CountsConfig,
    DataConfig,
    MlpConfig,
    OptimConfig,
    RunConfig,
    Word2vecConfig,
    WordsConfig,
)
from jaxlm.errors import UserError
from jaxlm.lr_range import RangeCurve, curve_table, main, measure, smoothed, suggest
from jaxlm.plots import pictures
from jaxlm.training.setup import set_up
from jaxlm.training.step import language_loss, make_step
from tests.conftest import NAMES
from tests.processes import tree


@pytest.fixture
def config(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    return RunConfig(
        model=MlpConfig(context=2, d_embed=2, d_hidden=4),
        data=DataConfig(path=str(tmp_path / "text.txt")),
        optim=OptimConfig(momentum=0.9, clip=0.1),
        steps=7,
        batch_size=16,
        run_dir=str(tmp_path / "run"),
    )


@pytest.fixture
def path(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    path = tmp_path / "tiny.py"
    path.write_text(
        "from jaxlm import DataConfig, MlpConfig, RunConfig\n"
        "config = RunConfig(model=MlpConfig(context=2, d_embed=4, d_hidden=16), steps=7,\n"
        f"    data=DataConfig(path={str(tmp_path / 'text.txt')!r}))\n"
    )
    return str(path)


def curve(loss_of, low=1e-5, high=10.0, noise=0.0, stopped=True):
    """A curve whose loss depends on log10(rate) alone."""
    rate_K = np.geomspace(low, high, 1000)
    loss_K = loss_of(np.log10(rate_K)) + noise * np.random.default_rng(0).normal(size=1000)
    return RangeCurve(rate_K, loss_K, smoothed(loss_K, 1000), stopped)


def valley(x):
    """Flat at 3 up to 1e-4, down to 2 at 1e-2, flat to 1e-1, then up."""
    return np.interp(x, [-4, -2, -1, 0], [3, 2, 2, 8])


def test_the_rate_rises_geometrically_and_the_steps_are_those_of_training(config):
    found = measure(config, low=1e-3, high=1.0, steps=20)
    assert found.rate_K == pytest.approx([1e-3 * 1000 ** (s / 19) for s in range(20)])
    setup = set_up(dataclasses.replace(config, steps=20))
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.1), optax.sgd(lambda step: 1e-3 * 1000 ** (step / 19), momentum=0.9)
    )
    state, step = setup.initial_state(optimizer), make_step(setup.model, language_loss, optimizer)

    @jax.jit
    def one(state, batches):
        return step(state, jax.tree.map(lambda x: x[0], batches), jax.random.key(0))

    losses = []
    for number in range(20):
        state, (loss, _, _) = one(state, setup.dataset.batches(number, 1))
        losses.append(float(loss))
    assert found.loss_K == pytest.approx(losses, rel=1e-4)
    assert not found.stopped


def test_the_settings_own_rate_and_length_do_not_matter(config):
    settings = dataclasses.replace(config.optim, lr=7.0, schedule="cosine", warmup=500)
    other = dataclasses.replace(config, steps=None, epochs=3.0, optim=settings)
    a, b = (measure(one, low=1e-3, high=1.0, steps=20) for one in (config, other))
    np.testing.assert_array_equal(a.loss_K, b.loss_K)


def test_muons_rate_rises_in_proportion(config):
    """Twice the rate of the matrices gives other losses; half of both settings gives the same."""
    losses = []
    for lr, muon_lr in ((0.1, 0.02), (0.1, 0.04), (0.05, 0.01)):
        settings = OptimConfig("muon", lr=lr, muon_lr=muon_lr, schedule="wsd", warmup=0.1, cooldown=0.3)
        losses.append(measure(dataclasses.replace(config, optim=settings), low=1e-3, high=1.0, steps=20).loss_K)
    assert np.isfinite(losses).all()
    assert not np.allclose(losses[0], losses[1])
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-5)


def test_it_stops_where_the_loss_breaks(config):
    config = dataclasses.replace(config, optim=OptimConfig())
    found = measure(config, low=1.0, high=1e38, steps=100)
    assert found.stopped and 2 < len(found.loss_K) < 60
    assert len(found.rate_K) == len(found.loss_K) == len(found.smooth_K)
    assert np.isfinite(found.loss_K).all()
    assert found.smooth_K.max() <= 4 * found.smooth_K.min()


def test_one_huge_loss_does_not_hide_what_lies_before():
    loss_K = np.full(1000, 2.0)
    assert smoothed(loss_K, 1000) == pytest.approx(loss_K)
    loss_K[600:] = 2e4
    smooth_K = smoothed(loss_K, 1000)
    assert smooth_K[500] == pytest.approx(2.0, rel=1e-2)
    assert smooth_K[700] == pytest.approx(2e4, rel=1e-2)
    assert smooth_K[599] < smooth_K[600] and smooth_K[599] * smooth_K[600] == pytest.approx(4e4, rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_suggestion_is_where_the_valley_begins(noise):
    assert suggest(curve(valley, noise=noise)) == pytest.approx(0.0115, rel=0.2)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (curve(valley, high=0.005, stopped=False), r"--high 0\.005 is too low: .*try --high 0\.5"),
        (curve(valley, high=0.05, stopped=False), r"--high 0\.05 is too low"),
        (curve(valley, low=5e-3), r"--low 0\.005 is too high: .*try --low 5e-06"),
        (curve(valley, low=0.2), r"--low 0\.2 is too high"),
        (
            curve(lambda x: 2 + (valley(x) - 2) / 10, noise=0.4),
            r"--range-steps wants more steps: the loss falls by 0\.",
        ),
    ],
)
def test_a_curve_that_shows_no_valley_gives_no_suggestion(found, message):
    with pytest.raises(UserError, match=message):
        suggest(found)


def test_the_command_prints_and_draws_and_leaves_the_run_directory(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = [path, "--low", "1e-4", "--high", "1000", "--range-steps", "500", "--batch-size", "full"]
    drawn = []
    monkeypatch.setattr(pictures, "rate_curve", lambda *given: drawn.append(given))
    assert main(args) == 0
    shown = capsys.readouterr().out.splitlines()
    command = parse_range(args)
    assert command is not None
    found = measure(command.config, low=1e-4, high=1000, steps=500)
    assert shown[-2:] == [f"suggested: --optim.lr {suggest(found):.2g}", "curve: runs/tiny-lr-range.png"]
    assert curve_table(found).splitlines() == shown[2:-2]
    assert shown[3].split() == ["1.00e-04", f"{found.smooth_K[0]:.4f}"]
    assert shown[-3].split() == [f"{found.rate_K[-1]:.2e}", f"{found.smooth_K[-1]:.4f}"]
    assert [given[3:] for given in drawn] == [(suggest(found), Path("runs/tiny-lr-range.png"))]
    assert [entry.name for entry in Path("runs").iterdir()] == []


def test_without_a_suggestion_the_curve_is_drawn_all_the_same(path, tmp_path):
    out = tmp_path / "new" / "curve.png"
    with pytest.raises(UserError, match=r"--high 0\.001 is too low"):
        main([path, "--high", "0.001", "--range-steps", "50", "--batch-size", "full", "--out", str(out)])
    assert imread(out).shape[:2] == (500, 800)


def test_the_picture_has_a_logarithmic_axis_and_the_mark(tmp_path, monkeypatch):
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    found = curve(valley)
    pictures.rate_curve(found.rate_K, found.loss_K, found.smooth_K, 0.01, tmp_path / "a.png")
    assert imread(tmp_path / "a.png")[..., :3].std() > 0.01
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log"
    each, smooth, mark = axes.lines
    np.testing.assert_array_equal(each.get_ydata(), found.loss_K)
    np.testing.assert_array_equal(smooth.get_xdata(), found.rate_K)
    np.testing.assert_array_equal(smooth.get_ydata(), found.smooth_K)
    np.testing.assert_array_equal(mark.get_xdata(), [0.01, 0.01])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--low 0", r"^--low wants a number > 0, got 0\.0$"),
        ("--low 1e-45", r"^--low wants at least 2\.9e-38 where --high is 10, got 1e-45$"),
        ("--low 1 --high 0.1", r"^--high wants a number > 1\.0, got 0\.1$"),
        ("--range-steps 3", r"^--range-steps wants a number from 20 to 1000000, got 3$"),
        ("--range-stepz 3", r"^--range-stepz is not a setting \(did you mean --range-steps\?\)$"),
        ("--optim.momentun 3", r"did you mean --optim\.momentum\?"),
        ("--out x.zip", r"^--out wants a picture \(\.png, \.pdf, \.svg\), got 'x\.zip'$"),
        ("--data.path missing.txt", r"^data\.path 'missing\.txt' does not exist"),
        ("--optim.momentum 2", r"^optim\.momentum wants a number"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(path, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=message):
        main([path, *args.split()])
    assert tree(tmp_path) == before


def test_a_picture_that_cannot_be_written_is_a_line(path, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--out '.*x\.png' cannot be written: (Not a directory|File exists)$"):
        lr_range._draw(curve(valley), 0.01, tmp_path / "file" / "x.png")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        main([path, "--out", str(tmp_path / "d.png")])


@pytest.mark.parametrize("model", [CountsConfig(), Word2vecConfig()])
def test_counts_have_no_learning_rate_and_word2vec_another_training(config, model):
    tokens = CharactersConfig() if model.predicts_text else WordsConfig()
    data = dataclasses.replace(config.data, tokens=tokens)
    with pytest.raises(UserError, match=rf"wants a language model trained by steps, got {type(model).__name__}$"):
        measure(dataclasses.replace(config, model=model, data=data), low=1e-5, high=1, steps=20)


def test_help_says_how_to_call(capsys):
    assert main(["--help"]) == 0
    assert "usage: python -m jaxlm.lr_range CONFIG" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"config wants a file, as in: python -m jaxlm\.lr_range"):
        main([])
