"""E03: tune the add-k smoothing of a trigram on dev."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxlm.config import CountsConfig
from jaxlm.exercises.lab import CountedModel, Lab
from jaxlm.plots import pictures

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Values of k, which is added to every count."""


class TunedSmoothing(NamedTuple):
    """Losses in nats per token for each k, the best k on dev, and its test loss."""

    k: list[float]
    """Values of k."""
    train: list[float]
    """Train loss for each k."""
    dev: list[float]
    """Dev loss for each k."""
    best: float
    """The k with the lowest dev loss."""
    test: float
    """Test loss with the best k."""


def tune_smoothing(lab: Lab, *, grid: Sequence[float] = GRID) -> TunedSmoothing:
    """Evaluate train and dev over a grid of k; test is evaluated once, with the best k on dev."""
    counted = CountedModel.of(lab.setup(CountsConfig(order=3), "dev", "test"))
    lab.log("nats per token of the trigram counts of train, with k added to each:")
    train, dev = [], []
    for k in grid:
        model = counted.with_k(k)
        train.append(model.loss("train"))
        dev.append(model.loss("dev"))
        lab.log(f"  k = {k:<7g} train {train[-1]:.4f}, dev {dev[-1]:.4f}")
    at = min(range(len(grid)), key=dev.__getitem__)
    best, test = grid[at], counted.with_k(grid[at]).loss("test")
    edge = "; it stands at the end of the grid, so a wider one may do better" if at in (0, len(grid) - 1) else ""
    lab.log(
        f"answer: k = {best:g} is best on dev, {dev[at]:.4f} (train {train[at]:.4f}){edge}; scored once, test is "
        f"{test:.4f}. Train's loss is least at k = {grid[min(range(len(grid)), key=train.__getitem__)]:g}: what was "
        f"counted needs no smoothing, what was not does. k = {grid[0]:g} costs {dev[0] - dev[at]:.4f} nats more on "
        f"dev, k = {grid[-1]:g} {dev[-1] - dev[at]:.4f}."
    )
    pictures.curves(
        {"train": (grid, train), "dev": (grid, dev), f"test at k = {best:g}: {test:.4f}": ([best], [test])},
        lab.picture("E03"),
        title=f"A trigram's smoothing: k = {best:g} is best on dev, {dev[at]:.4f}",
        xlabel="k, added to each count",
        ylabel="nats per token",
        log="x",
    )
    return TunedSmoothing(list(grid), train, dev, best, test)
