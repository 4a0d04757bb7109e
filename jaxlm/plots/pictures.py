"""Plots from arrays to PNG files, with matplotlib and without JAX."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxlm.data.bigrams import BigramCounts
from jaxlm.plots.labels import LABEL_GAP, labels_apart
from jaxlm.tokenizers import Tokenizer, visible

FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Hiragino Sans", "PingFang SC", "Noto Sans", "Noto Emoji", "Symbola")
"""Fonts tried in turn for each character, if installed; the first comes with matplotlib."""

STYLE: Any = {"text.hinting": "no_hinting"}
"""Hinting is off: fitting letters to pixels takes a fifth of the time of a bigram table."""

LOSS_UNITS = ("nats/token", "nats/pair")
"""Units of a loss curve; the first that a run has is shown."""
TABLE_TOKENS = 27
"""Most rows and columns of the bigram table."""
TABLE_FONT, LEAST_FONT = 8.0, 5.0
"""Font size of the bigram table in points, and the least size of long tokens."""
TABLE_ROOM = 0.87
"""Share of a cell or a margin that text may take; at some font sizes letters are an eighth wider than in proportion."""
MEANING_OF_EOS = {
    "lines": "a line's start or end",
    "dialogues": "a turn's start or end",
    "stream": "the text's start",
}
"""Meaning of the token EOS in a bigram table, by data.kind."""
LISTED_PAIRS = 20
"""Bars in each half of the plot of frequent pairs."""
LABEL_ROOM, MOST_LABEL_ROOM = 0.015, 0.22
"""Free room beside the longest label of a bar, and that label's greatest width, as shares of the figure's width."""
LABEL_MARGIN = np.array([3.0, 0.5])
"""Pixels of free room around a label of a word map: on each side, and above and below."""


def bigram_table(pairs: BigramCounts, path: Path, tokenizer: Tokenizer, kind: str) -> None:
    """Plot train's bigram counts as a table whose cells hold a pair and its count, darker for larger counts.

    Only the TABLE_TOKENS most frequent tokens are shown. `kind` is data.kind, on which the meaning of EOS depends. A
    pair wider than its cell is set in two lines, in a smaller font if needed, and cut at LEAST_FONT.
    """
    count_VV = pairs.count_VV
    V = len(count_VV)
    shown = np.arange(V)
    if V > TABLE_TOKENS:
        shown = np.sort(np.argsort(-count_VV.sum(0), kind="stable")[:TABLE_TOKENS])
    fonts = _fonts(pairs.spelled)
    spelled = [_drawable(pairs.spelled[token], fonts) for token in shown]
    table = count_VV[np.ix_(shown, shown)]
    figure = Figure(figsize=(16, 16), dpi=90)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.96))
    axes.imshow(np.sqrt(table), cmap="Blues")
    dark = np.sqrt(table.max()) * 0.5
    style: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False, "fontfamily": fonts}
    room = TABLE_ROOM * axes.bbox.height / len(shown)
    widths = [_width(text, figure, fontsize=TABLE_FONT, **style) for text in spelled]
    most = room * TABLE_FONT / LEAST_FONT
    short = [_cut(text, width, most) for text, width in zip(spelled, widths, strict=True)]
    for i, j in itertools.product(range(len(shown)), repeat=2):
        before, after, size = spelled[i], spelled[j], TABLE_FONT
        if widths[i] + widths[j] > room:
            before, after = f"{short[i]}\n", short[j]
            size *= min(1.0, room / min(most, max(widths[i], widths[j])))
        color = "white" if np.sqrt(table[i, j]) > dark else "black"
        axes.text(j, i, f"{before}{after}\n{table[i, j]}", color=color, fontsize=size, **style)
    axes.set_axis_off()
    title = "Pairs of tokens in train: the first is the row"
    if tokenizer.vocab_size > TABLE_TOKENS:
        title += f", the {TABLE_TOKENS} most frequent of {tokenizer.vocab_size:,} tokens"
    end = tokenizer.spell(tokenizer.eos)
    if end in (pairs.spelled[token] for token in shown):
        title += f"; '{end}' is {MEANING_OF_EOS[kind]}"
    axes.set_title(title, fontfamily=_fonts([title]))
    figure.savefig(path)


def frequent_pairs(pairs: BigramCounts, path: Path) -> None:
    """Plot the most frequent bigrams of train, and the least frequent ones that occur, as bars."""
    count_VV = pairs.count_VV
    order = np.argsort(-count_VV, axis=None, kind="stable")
    order = order[count_VV.reshape(-1)[order] > 0]
    fonts = _fonts(pairs.spelled)
    figure = Figure(figsize=(10, 6), dpi=90)
    shown = {"most frequent pairs": order[:LISTED_PAIRS], "least frequent pairs that occur": order[-LISTED_PAIRS:]}
    for place, (title, places) in enumerate(shown.items()):
        before, after = np.unravel_index(places, count_VV.shape)
        labels = [_drawable(pairs.spelled[a] + pairs.spelled[b], fonts) for a, b in zip(before, after, strict=True)]
        style: dict[str, Any] = {"parse_math": False, "fontfamily": fonts}
        widths = [_width(label, figure, fontsize="medium", **style) / figure.bbox.width for label in labels]
        labels = [_cut(label, width, TABLE_ROOM * MOST_LABEL_ROOM) for label, width in zip(labels, widths, strict=True)]
        # placed by hand: a layout would draw the figure twice
        left = min(max(widths, default=0.0), MOST_LABEL_ROOM) + LABEL_ROOM
        axes = figure.add_axes((place / 2 + left, 0.09, 0.49 - left, 0.86))
        bars = axes.barh(range(len(labels)), count_VV[before, after], color="steelblue")
        axes.bar_label(bars, padding=2, fontsize=8)
        for tick in axes.set_yticks(range(len(labels)), labels, fontfamily=fonts):
            tick.label1.set_parse_math(False)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.set_xlabel("count in train")
        axes.set_title(title)
    figure.savefig(path)


def loss_curve(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot train and dev loss against the step, from the lines of metrics.jsonl.

    Losses are in nats per token, or in nats per pair if the run has none of those; other units are left out.
    """
    units = {line["unit"] for line in lines}
    unit = next((unit for unit in LOSS_UNITS if unit in units), LOSS_UNITS[0])
    styles = {"train": ("train (mean since the last point)", 0.8, None), "dev": ("dev", 1.8, "o")}
    shown = [line for line in lines if line["loss"] is not None and line["unit"] == unit and line["split"] in styles]
    figure = Figure(figsize=(8, 5), dpi=100)
    axes = figure.add_axes((0.1, 0.11, 0.88, 0.86))  # placed by hand: a layout would draw the figure twice
    for split, (label, width, marker) in styles.items():
        points = [(line["step"], line["loss"]) for line in shown if line["split"] == split]
        if points:
            steps, losses = zip(*points, strict=True)
            end = f": {losses[-1]:.4f} at the end"
            marker = marker or ("o" if len(points) == 1 else None)  # a line through one point is invisible
            axes.plot(steps, losses, label=label + end, linewidth=width, marker=marker, markersize=3)
    after_start = [line["loss"] for line in shown if line["step"] > 0]
    if after_start:
        low, high = min(after_start), float(np.quantile(after_start, 0.95))
        axes.set_ylim(low - 0.05 * (high - low + 0.01), high + 0.5 * (high - low + 0.01))
        axes.legend()
    axes.set_xlabel("step")
    axes.set_ylabel(unit.replace("/", " per "))
    axes.grid(alpha=0.3)
    figure.savefig(path)


def rate_curve(
    rate_K: np.ndarray, loss_K: np.ndarray, smooth_K: np.ndarray, suggested: float | None, path: Path
) -> None:
    """Plot a range test: loss and smoothed loss against the learning rate, with the suggested rate marked."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(rate_K, loss_K, linewidth=0.5, alpha=0.4, label="each step")
    axes.semilogx(rate_K, smooth_K, linewidth=1.8, label="smoothed")
    if suggested is not None:
        axes.axvline(suggested, color="black", linestyle="--", linewidth=1, label=f"suggested: {suggested:.2g}")
    low, high = float(smooth_K.min()), float(np.quantile(loss_K, 0.95))
    axes.set_ylim(low - 0.1 * (high - low + 0.01), high + 0.1 * (high - low + 0.01))
    _label(axes, "Range test", "learning rate", "training loss")
    figure.savefig(path)


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: Path,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log: str = "",
) -> None:
    """Plot a line through points (x, y) for each name; `log` names the logarithmic axes: "", "x", "y" or "xy"."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot(xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, marker="o", markersize=4)
    _label(axes, title, xlabel, ylabel)
    figure.savefig(path)


def bars(groups: Mapping[str, Mapping[str, float]], path: Path, *, title: str, ylabel: str) -> None:
    """Plot grouped bars with their values: groups[name on the axis][name in the legend]."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [at + (i - (len(names) - 1) / 2) * width for at in range(len(groups))]
        drawn = axes.bar(places, [group[name] for group in groups.values()], width, label=name)
        axes.bar_label(drawn, fmt="%.5g", padding=2, fontsize=8)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.margins(y=0.15)
    _label(axes, title, "", ylabel, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(names))
    figure.savefig(path)


def word_map(words: Sequence[str], xy_N2: np.ndarray, path: Path, title: str) -> None:
    """Plot words as labelled points without overlapping labels, spaces shown as '␣'.

    Labels are placed in the order given. One that fits only at some distance is tied to its point by a line; one that
    fits nowhere is left out, its point stays, and the title counts such labels.
    """
    names = [visible(word) for word in words]
    fonts = _fonts(names)
    figure = Figure(figsize=(14, 10), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(xy_N2[:, 0], xy_N2[:, 1], s=9, color="steelblue", zorder=3)
    axes.margins(0.04)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # fixes the positions of points in pixels
    style: dict[str, Any] = {"fontsize": 9, "parse_math": False, "fontfamily": fonts}
    point_N2 = axes.transData.transform(xy_N2)
    labels = [axes.text(x, y, _drawable(name, fonts), **style) for name, (x, y) in zip(names, xy_N2, strict=True)]
    sizes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    size_N2 = np.array([(box.width, box.height) for box in sizes])
    corner_N2 = labels_apart(point_N2, size_N2 + 2 * LABEL_MARGIN, np.array(axes.bbox.extents)) + LABEL_MARGIN
    back = axes.transData.inverted()
    for label, size_2, point_2, corner_2 in zip(labels, size_N2, point_N2, corner_N2, strict=True):
        if np.isnan(corner_2).any():
            label.remove()
            continue
        label.set_position(tuple(back.transform(corner_2)))
        label.set_verticalalignment("bottom")
        edge_2 = np.clip(point_2, corner_2, corner_2 + size_2)
        if np.hypot(*(edge_2 - point_2)) > 3 * LABEL_GAP:
            axes.plot(*back.transform([point_2, edge_2]).T, color="gray", linewidth=0.5, zorder=1)
    hidden = int(np.isnan(corner_N2).any(axis=1).sum())
    if hidden:
        axes.set_title(f"{title} ({hidden} of {len(words)} names left out for want of room)")
    figure.savefig(path)


def map_title(source: str, words: int, projection: str) -> str:
    """Compose the title of a word map."""
    method = {"pca": "principal components", "tsne": "t-SNE"}[projection]
    return f"{words} words of {source} by {method} of their directions"


def _label(axes: Any, title: str, xlabel: str, ylabel: str, **legend: Any) -> None:
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.legend(**legend)


def _width(text: str, figure: Figure, **style: Any) -> float:
    """Width of a text in pixels."""
    drawn = figure.text(0, 0, text, **style)
    width = drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width
    drawn.remove()
    return float(width)


def _cut(text: str, width: float, most: float) -> str:
    """Shorten a text of the given width to at most `most` pixels, with an ellipsis at its end."""
    return text if width <= most else text[: int(len(text) * most / width) - 1] + "…"


def _fonts(texts: Sequence[str]) -> list[str]:
    """List the installed fonts of FONTS, or the first alone if it can draw all texts."""
    face = font_manager.get_font(font_manager.findfont(FONTS[0]))
    if all(face.get_char_index(ord(char)) for char in set("".join(texts))):
        return [FONTS[0]]
    installed = set(font_manager.get_font_names())
    return [name for name in FONTS if name in installed]


def _drawable(text: str, fonts: Sequence[str]) -> str:
    """Replace each character that none of the fonts can draw by its code point, U+XXXX."""
    faces = [font_manager.get_font(font_manager.findfont(name)) for name in fonts]
    return "".join(c if any(face.get_char_index(ord(c)) for face in faces) else f"U+{ord(c):X} " for c in text)
