"""Projections to the plane preserve structure, and labels do not overlap."""

import itertools
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from jaxlm import Embeddings, UserError
from jaxlm.embeddings import maps
from jaxlm.plots import pictures
from jaxlm.plots.labels import labels_apart


def two_groups(n=20, width=12):
    """Words a0, a1, ... around one direction and b0, b1, ... around another, mixed."""
    rng = np.random.default_rng(0)
    vec_NE = 0.15 * rng.standard_normal((2 * n, width)) + np.eye(2, width)[np.arange(2 * n) % 2]
    return Embeddings(tuple(f"{'ab'[i % 2]}{i}" for i in range(2 * n)), 5 * vec_NE)


def test_pca_is_the_eigenvectors_of_the_covariance():
    x_NE = np.random.default_rng(1).standard_normal((50, 6)) * np.arange(1, 7)
    xy_N2 = maps.pca(x_NE)
    _, vector_EE = np.linalg.eigh(np.cov(x_NE.T))
    expected_N2 = (x_NE - x_NE.mean(0)) @ vector_EE[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(xy_N2), np.abs(expected_N2), atol=1e-9)
    far_2 = xy_N2[np.abs(xy_N2).argmax(0), [0, 1]]
    assert (far_2 > 0).all()
    np.testing.assert_allclose(maps.pca(-x_NE), xy_N2 * np.sign(far_2) * np.sign(maps.pca(-x_NE)[0] * xy_N2[0]))
    np.testing.assert_allclose(maps.pca(x_NE[:, :1])[:, 1], 0)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_words_of_a_kind_lie_together_and_the_same_seed_gives_the_same(method):
    table = two_groups()
    words, xy_N2 = maps.project_words(table, None, 30, method)
    assert words == list(table.words[:30]) and xy_N2.shape == (30, 2)
    a_2, b_2 = xy_N2[::2].mean(0), xy_N2[1::2].mean(0)
    nearer_a_N = np.linalg.norm(xy_N2 - a_2, axis=1) < np.linalg.norm(xy_N2 - b_2, axis=1)
    assert nearer_a_N.tolist() == [True, False] * 15
    np.testing.assert_array_equal(maps.project_words(table, None, 30, method)[1], xy_N2)


def test_given_words_are_placed_once_each_and_their_length_does_not_matter():
    table = two_groups()
    longer = Embeddings(table.words, table.vec_VE * np.arange(1, 41)[:, None])
    words, xy_N2 = maps.project_words(longer, ["b3", "a0", "b3", "b1", "a2"], 99)
    assert words == ["b3", "a0", "b1", "a2"]
    np.testing.assert_allclose(xy_N2, maps.project_words(table, words, 0)[1], atol=1e-6)
    with pytest.raises(UserError, match="wants at least 4 different ones, got 2"):
        maps.project_words(table, ["a0", "a2"], 9)
    with pytest.raises(UserError, match="word 'a1' is not among the 40 known"):
        maps.project_words(table, ["a0", "a1", "a2", "b1"], 9)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match=r't-SNE wants scikit-learn: pip install "jaxlm\[tsne\]"'):
        maps.project_words(two_groups(), None, 10, "tsne")


@pytest.mark.parametrize(("n", "room"), [(60, True), (600, False)])
def test_labels_lie_on_no_point_no_other_label_and_not_over_the_edge(n, room):
    rng = np.random.default_rng(2)
    point_N2, size_N2 = rng.uniform(0, 800, (n, 2)), rng.uniform((15, 8), (60, 12), (n, 2))
    corner_N2 = labels_apart(point_N2, size_N2, np.array([0, 0, 800, 800]))
    shown = np.flatnonzero(~np.isnan(corner_N2).any(1))
    assert (len(shown) == n) == room and 0 in shown
    assert (corner_N2[shown] >= 0).all() and (corner_N2[shown] + size_N2[shown] <= 800).all()
    boxes = [(corner_N2[i], corner_N2[i] + size_N2[i]) for i in shown]
    for low, high in boxes:
        assert not ((low < point_N2) & (point_N2 < high)).all(1).any()
    for (low, high), (other_low, other_high) in itertools.combinations(boxes, 2):
        assert (low >= other_high).any() or (other_low >= high).any()
    near = np.abs(np.clip(point_N2[shown], corner_N2[shown], corner_N2[shown] + size_N2[shown]) - point_N2[shown])
    assert near.max() <= 40


def test_a_map_shows_each_word_beside_its_point(tmp_path, monkeypatch):
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    words = ["king", "$x_1$", "\U00017000", "king ", " ", "king\n", *(f"crowded{i}" for i in range(60))]
    xy_N2 = np.array([[0, 0], [5, 1], [2, 3], [1, 1], [1, 2], [1, 3], *([4, 4] for _ in range(60))], float)
    pictures.word_map(words, xy_N2, tmp_path / "map.png", "Words")
    picture = imread(tmp_path / "map.png")
    assert picture.shape[:2] == (1000, 1400) and picture[..., :3].std() > 0.01
    (axes,) = figures[0].axes
    shown = [text.get_text() for text in axes.texts]
    assert shown[:6] == ["king", "$x_1$", "U+17000 ", "king␣", "␣", r"king\n"] and 0 < len(shown) - 6 < 60
    assert axes.get_title() == f"Words ({66 - len(shown)} of 66 names left out for want of room)"
    renderer = FigureCanvasAgg(figures[0]).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    for box, other in itertools.combinations(boxes, 2):
        assert not (box.x0 < other.x1 and other.x0 < box.x1 and box.y0 + 1 < other.y1 and other.y0 + 1 < box.y1)
    for box, point in zip(boxes, axes.transData.transform(xy_N2), strict=False):
        assert np.hypot(*(np.clip(point, box.min, box.max) - point)) < 48
    assert axes.lines  # the far names are tied to their point
