"""E06: n-grams of any order with Kneser-Ney smoothing, against add-k."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxlm.config import CountsConfig
from jaxlm.exercises.lab import CountedModel, Lab
from jaxlm.plots import pictures

ORDERS = tuple(range(1, 9))
"""Orders of the n-grams compared."""
ADDED = (0.01, 0.1, 1.0)
"""Values of k in add-k smoothing."""


class OrderComparison(NamedTuple):
    """Dev losses in nats per token by order, and the test loss of the best order."""

    kneser_ney: dict[int, float]
    """Dev losses of Kneser-Ney by order."""
    add_k: dict[float, dict[int, float]]
    """Dev losses by k, then by order."""
    best: int
    """Order with the lowest dev loss of Kneser-Ney."""
    test: float
    """Test loss of Kneser-Ney at the best order."""


def compare_orders(lab: Lab, *, orders: Sequence[int] = ORDERS, added: Sequence[float] = ADDED) -> OrderComparison:
    """Compare orders under both smoothings, counted on train; test is evaluated once, with the best order on dev."""
    smooth: dict[int, float] = {}
    plain: dict[float, dict[int, float]] = {k: {} for k in added}
    best: CountedModel | None = None
    lab.log("dev loss in nats per token, counts of train:")
    lab.log("  order  Kneser-Ney  " + "  ".join(f"{f'add-{k:g}':>9}" for k in added))
    for order in orders:
        model = CountedModel.of(lab.setup(CountsConfig(order=order, smoothing="kneser-ney"), "dev", "test"))
        smooth[order] = model.loss("dev")
        counts = CountedModel.of(lab.setup(CountsConfig(order=order)))
        for k in added:
            plain[k][order] = counts.with_k(k).loss("dev")
        lab.log(f"  {order:5}  {smooth[order]:10.4f}  " + "  ".join(f"{plain[k][order]:9.4f}" for k in added))
        if best is None or smooth[order] < min(loss for o, loss in smooth.items() if o != order):
            best, top = model, order
    assert best is not None
    for note in best.notes:
        lab.log(f"  order {top}: {note}")
    score = best.score("test")
    test = score.nats_per_token or math.inf
    loss, k, order = min((plain[k][order], k, order) for k in added for order in orders)
    longest = max(orders)
    lab.log(
        f"answer: Kneser-Ney is best at order {top}, dev {smooth[top]:.4f}; scored once, test is {test:.4f} "
        f"({score.bits_per_byte:.4f} bits per byte): that is what a GPT has to beat. The best add-k is order {order} "
        f"with k = {k:g}, dev {loss:.4f}, {loss - smooth[top]:+.4f} from it. At order {longest} Kneser-Ney has "
        f"{smooth[longest]:.4f} and the best add-k {min(plain[k][longest] for k in added):.4f}: where a long context "
        "is rare, Kneser-Ney falls back on shorter ones, add-k on the uniform distribution."
    )
    lines = {"Kneser-Ney": (orders, [smooth[order] for order in orders])}
    lines |= {f"add-k, k = {k:g}": (orders, [plain[k][order] for order in orders]) for k in added}
    pictures.curves(
        lines,
        lab.picture("E06"),
        title=f"Smoothing and order: Kneser-Ney at order {top} has dev {smooth[top]:.4f}, test {test:.4f}",
        xlabel="order (tokens in an n-gram)",
        ylabel="dev loss in nats per token",
    )
    return OrderComparison(smooth, plain, top, test)
