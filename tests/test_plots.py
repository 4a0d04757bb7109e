"""Plots are written and show the right numbers."""

import itertools
from collections import Counter
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

import jaxlm
from jaxlm.config import DataConfig, ReanTokensConfig
from jaxlm.data.bigrams import BigramCounts, count_bigrams, load_bigrams, save_bigrams
from jaxlm.data.corpus import from_dialogues, from_lines, from_stream
from jaxlm.plots import __main__ as plots_command
from jaxlm.plots import pictures, run_pictures
from jaxlm.plots.pictures import LISTED_PAIRS, TABLE_TOKENS, bigram_table, frequent_pairs, loss_curve
from jaxlm.runs.directory import RunDir
from jaxlm.training.finish import draw_pictures
from tests.conftest import write_run

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
NAMES = "\n".join(["emma", "olivia", "ava", "sophia", "mia", "ava", ALPHABET])


def corpus_of(text):
    return from_lines(text, DataConfig(split=(1, 0, 0)))


@pytest.fixture
def drawn(monkeypatch):
    """List of the figures that the code under test creates."""
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    return figures


def table_of(corpus, path, kind="lines"):
    bigram_table(count_bigrams(corpus), path, corpus.tokenizer, kind)


def bars_of(corpus, path):
    frequent_pairs(count_bigrams(corpus), path)


def assert_picture(path):
    picture = imread(path)
    assert min(picture.shape[:2]) >= 400
    assert picture[..., :3].std() > 0.01


def counted_pairs(corpus):
    """Counts of spelled pairs by a plain loop over lines with '.' around them."""
    pairs: Counter[tuple[str, str]] = Counter()
    for line in corpus.lines["train"]:
        spelled = [".", *(corpus.tokenizer.spell(token) for token in corpus.tokenizer.encode(line)), "."]
        pairs.update(itertools.pairwise(spelled))
    return pairs


def test_pairs_are_counted_as_in_a_plain_loop():
    corpus = from_lines(NAMES, DataConfig(split=(0.5, 0.25, 0.25)))
    (count_VV, spelled), spell = count_bigrams(corpus), corpus.tokenizer.spell
    assert spelled == [spell(token) for token in range(27)]
    assert count_VV.shape == (27, 27)
    counted = {(spell(a), spell(b)): int(count_VV[a, b]) for a, b in zip(*np.nonzero(count_VV), strict=True)}
    assert counted == counted_pairs(corpus)
    assert count_VV.sum() == corpus.size("train")


def test_the_first_token_of_a_stream_follows_eos():
    pairs = count_bigrams(from_stream("ab", DataConfig(kind="stream", split=(1, 0, 0))))
    assert (pairs.spelled, pairs.count_VV.tolist()) == ([".", "a", "b"], [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_pairs_come_back_from_their_file(tmp_path):
    pairs = count_bigrams(corpus_of("a\u0000b\n😀\nz\ud800"))
    save_bigrams(pairs, tmp_path / "pairs.npz")
    again = load_bigrams(tmp_path / "pairs.npz")
    assert (again.count_VV == pairs.count_VV).all() and again.spelled == pairs.spelled


def test_the_table_shows_every_pair_of_27_tokens_with_its_count(tmp_path, drawn):
    corpus = corpus_of(NAMES)
    table_of(corpus, tmp_path / "table.png")
    assert_picture(tmp_path / "table.png")
    (axes,) = drawn[0].axes
    pairs = counted_pairs(corpus)
    texts = [text.get_text() for text in axes.texts]
    shown = {pair: int(count) for pair, _, count in (text.partition("\n") for text in texts)}
    assert shown == {a + b: pairs[a, b] for a, b in itertools.product("." + ALPHABET, repeat=2)}
    places = {text.get_text().partition("\n")[0]: text.get_position() for text in axes.texts}
    assert (places[".a"], places["a."], places["zz"]) == ((1, 0), (0, 1), (26, 26))
    shades = np.asarray(axes.images[0].get_array())
    assert shades[0, 1] == pytest.approx(pairs[".", "a"] ** 0.5)
    assert "most frequent" not in axes.get_title()


def test_of_more_tokens_the_table_shows_the_most_frequent(tmp_path, drawn):
    frequent, rare = ALPHABET, "0123456789éß"
    corpus = corpus_of("\n".join([*(frequent * 2), *rare]))
    table_of(corpus, tmp_path / "table.png")
    assert_picture(tmp_path / "table.png")
    (axes,) = drawn[0].axes
    assert len(axes.texts) == TABLE_TOKENS**2
    assert {char for text in axes.texts for char in text.get_text().partition("\n")[0]} == set(frequent) | {"."}
    assert f"the {TABLE_TOKENS} most frequent of {1 + 26 + 12} tokens" in axes.get_title()


@pytest.mark.slow
def test_the_title_of_the_table_has_the_size_of_the_vocabulary_and_the_meaning_of_eos(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr("jaxlm.data.bigrams.KEPT_TOKENS", 30)
    text = "human: how are you.\nnetwork: well.\n\n" * 20 + "human: " + ALPHABET
    dialogues = DataConfig(kind="dialogues", tokens=ReanTokensConfig(min_count=1), split=(1, 0, 0))
    corpus = from_dialogues(text, dialogues)
    table_of(corpus, tmp_path / "table.png", "dialogues")
    title = drawn[0].axes[0].get_title()
    assert f"most frequent of {corpus.tokenizer.vocab_size} tokens" in title and corpus.tokenizer.vocab_size > 256
    assert title.endswith("; '⏎' is a turn's start or end")
    table_of(from_stream("to be " * 9, DataConfig(kind="stream")), tmp_path / "table.png", "stream")
    assert drawn[1].axes[0].get_title().endswith("; '.' is the text's start")


@pytest.mark.slow
def test_no_label_of_the_table_leaves_its_cell(tmp_path, drawn):
    long = ["pneumonoultramicroscopicsilicovolcanoconiosis", "network", "reservation", "日本語日本語日本語"]
    text = "\n".join(" ".join([*long, *ALPHABET]) for _ in range(3))
    corpus = from_lines(text, DataConfig(tokens=ReanTokensConfig(min_count=1), split=(1, 0, 0)))
    table_of(corpus, tmp_path / "table.png")
    (axes,) = drawn[0].axes
    cell = np.ptp(axes.transData.transform([(0, 0), (1, 0)])[:, 0])
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert max(box.width for box in boxes.values()) <= cell and max(box.height for box in boxes.values()) <= cell
    assert any("…" in text for text in boxes) and "network␣\nnetwork␣\n0" in boxes
    assert {text.get_fontsize() for text in axes.texts if len(text.get_text()) <= 6} == {pictures.TABLE_FONT}


def test_the_numbers_under_the_bars_stand_apart(tmp_path, drawn):
    bars_of(corpus_of("\n".join(["ab" * 50] * 340)), tmp_path / "pairs.png")
    axes = drawn[0].axes[0]
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [tick.label1.get_window_extent() for tick in shown]
    assert len(boxes) > 2
    assert all(left.x1 + 5 < right.x0 for left, right in itertools.pairwise(boxes))


TEXTS = {
    "dollars": "$$\n$a$\n$^$\n$_{\n^_x\n\\frac$\n$\\b$\n{}%#&",
    "accents": "zoë\nnaïve\nÅsa\nßø",
    "white space": "mary ann\na\tb\nx\u00a0y\u2003z\n\u200bq\x07",
    "one character": "a",
    "printable": "".join(map(chr, range(32, 127))),
    "greek and arabic": "αβγ\nабв\nابت\nשלום",
    "cjk": "日本語\n한국\n中文",
    "many cjk": "".join(map(chr, range(0x4E00, 0x4E40))),
    "emoji": "😀a\n👍🏽",
    "surrogate": "a\ud800",
}


@pytest.mark.slow
@pytest.mark.parametrize("draw", [table_of, bars_of])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_characters_can_be_drawn(tmp_path, draw, text):
    draw(corpus_of(text), tmp_path / "plot.png")
    assert_picture(tmp_path / "plot.png")


def test_no_pair_is_read_as_a_formula(tmp_path, drawn):
    for draw in (table_of, bars_of):
        draw(corpus_of(TEXTS["dollars"]), tmp_path / "plot.png")
    texts = [*drawn[0].axes[0].texts, *(label for axes in drawn[1].axes for label in axes.get_yticklabels())]
    assert "$$" in {text.get_text() for text in texts}
    assert not any(text.get_parse_math() for text in texts)


def test_running_text_with_line_ends_can_be_drawn(tmp_path):
    corpus = from_stream("to be,\nor not\n\nto be\t!\n" * 3, DataConfig(kind="stream"))
    for draw in (table_of, bars_of):
        draw(corpus, tmp_path / "plot.png")
        assert_picture(tmp_path / "plot.png")


def test_the_bars_are_the_most_and_the_least_frequent_pairs(tmp_path, drawn):
    corpus = corpus_of(NAMES)
    frequent_pairs(count_bigrams(corpus), tmp_path / "pairs.png")
    assert_picture(tmp_path / "pairs.png")
    pairs = {a + b: count for (a, b), count in counted_pairs(corpus).items()}
    counts = sorted(pairs.values(), reverse=True)
    most, least = drawn[0].axes
    for axes, expected in ((most, counts[:LISTED_PAIRS]), (least, counts[-LISTED_PAIRS:])):
        labels = [label.get_text() for label in axes.get_yticklabels()]
        widths = [int(bar.get_width()) for bar in axes.patches]
        assert widths == expected == [pairs[label] for label in labels]
    assert (most.get_title(), least.get_title()) == ("most frequent pairs", "least frequent pairs that occur")


def line(step, split, loss, unit="nats/token"):
    return {"step": step, "split": split, "loss": loss, "unit": unit}


def test_the_loss_curve_shows_train_and_dev_against_the_step(tmp_path, drawn):
    lines = [line(0, "dev", 3.3), line(10, "train", 2.9), line(20, "train", 2.5), line(20, "dev", 2.6)]
    loss_curve([*lines, line(30, "train", None), line(30, "test", 9.9)], tmp_path / "loss.png")
    assert_picture(tmp_path / "loss.png")
    (axes,) = drawn[0].axes
    curves = {curve.get_label().partition(" ")[0].rstrip(":"): curve for curve in axes.lines}
    assert [curves["train"].get_xdata().tolist(), curves["train"].get_ydata().tolist()] == [[10, 20], [2.9, 2.5]]
    assert [curves["dev"].get_xdata().tolist(), curves["dev"].get_ydata().tolist()] == [[0, 20], [3.3, 2.6]]
    assert curves["train"].get_label().endswith("2.5000 at the end")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "nats per token")


def test_the_loss_curve_is_framed_by_what_it_shows(tmp_path, drawn):
    shown = [line(10, "train", 2.5), line(20, "dev", 2.6)]
    loss_curve([*shown, line(20, "train_sample", 0.1), line(20, "test", 9.9)], tmp_path / "loss.png")
    loss_curve(shown, tmp_path / "loss.png")
    both, alone = (figure.axes[0].get_ylim() for figure in drawn)
    assert both == alone
    assert alone[0] < 2.5 < 2.6 < alone[1]


@pytest.mark.parametrize("points, marker", [(1, "o"), (2, "None")])
def test_a_train_loss_of_one_point_is_marked(tmp_path, drawn, points, marker):
    loss_curve([line(1 + i, "train", 2.5) for i in range(points)], tmp_path / "loss.png")
    (train,) = drawn[0].axes[0].lines
    assert train.get_marker() == marker


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [line(0, "dev", 3.3)],
        [line(1, "train", 2.0)],
        [line(1, "train", None)],
        [line(i, "train", 2.0) for i in range(1, 5)],
        [line(i, "train", 1e30 / i) for i in range(1, 5)],
    ],
    ids=["nothing", "only the start", "one point", "no number", "flat", "huge"],
)
def test_a_loss_curve_of_little_or_odd_is_drawn_too(tmp_path, lines):
    loss_curve(lines, tmp_path / "loss.png")
    assert_picture(tmp_path / "loss.png")


def test_bars_have_room_for_their_labels_and_long_ones_are_cut(tmp_path, drawn):
    spelled = ["extraordinarily " + "x" * i for i in range(12)]
    frequent_pairs(BigramCounts(np.arange(144).reshape(12, 12), spelled), tmp_path / "pairs.png")
    canvas = FigureCanvasAgg(drawn[-1])
    canvas.draw()
    left, right = drawn[-1].axes
    for axes, edge in ((left, 0), (right, left.bbox.x1)):
        labels = axes.get_yticklabels()
        assert {label.get_text()[-1] for label in labels} == {"…"}
        assert min(label.get_window_extent(canvas.get_renderer()).x0 for label in labels) > edge
    frequent_pairs(BigramCounts(np.zeros((2, 2), int), ["a", "b"]), tmp_path / "none.png")
    assert_picture(tmp_path / "none.png")


@pytest.mark.slow
def test_a_file_where_training_is_called_does_not_stand_in_for_a_library(make_run, monkeypatch, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)
    path = make_run(steps=1, plots=True)
    assert {picture.stem for picture in (path / "plots").glob("*.png")} == {"bigrams", "pairs", "loss"}


@pytest.mark.slow
def test_the_plots_of_a_run_are_drawn_again(make_run):
    path = make_run(steps=1, plots=True)
    drawn = list((path / "plots").glob("*.png"))
    for picture in drawn:
        picture.unlink()
    assert plots_command.main([str(path)]) == 0
    assert {picture.stem for picture in drawn} == {"bigrams", "pairs", "loss"}
    for picture in drawn:
        assert_picture(picture)


@pytest.mark.slow
def test_a_plot_that_cannot_be_drawn_costs_nothing_else(make_run, monkeypatch):
    """Training has ended well: its results are there, and a line says how to draw again."""
    broken = Mock(side_effect=RuntimeError("no\nfonts"))
    monkeypatch.setattr(pictures, "loss_curve", broken)
    path = make_run(steps=1, plots=True)
    assert (path / "eval.json").exists() and broken.called
    said: list[str] = []
    draw_pictures(RunDir(path), said.append)
    assert said == [
        f"the pictures were not all drawn (RuntimeError: no fonts): python -m jaxlm.plots {path} draws them"
    ]


WORD2VEC = {
    "model": jaxlm.Word2vecConfig(),
    "data": {"tokens": jaxlm.WordsConfig(min_count=1)},
    "steps": 2,
    "sample": jaxlm.SampleConfig(),
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"steps": 2}, WORD2VEC], ids=["language model", "word2vec"])
def test_a_run_is_not_done_before_its_plots_are_drawn(tmp_path, monkeypatch, settings):
    given: dict[str, Any] = {"text": "\n".join(["the cat saw a dog", "a dog saw the cat"] * 20), "plots": True}
    monkeypatch.setattr(run_pictures, "draw_run", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path, **given, **settings)
    assert not (tmp_path / "run" / "eval.json").exists()
    monkeypatch.undo()
    path = write_run(tmp_path, **given, **settings)
    assert (path / "eval.json").exists() and list((path / "plots").glob("*.png"))
