"""E04: logits of a context by indexing a row of W against multiplying a one-hot vector with W."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.config import NgramConfig
from jaxlm.devices import platform
from jaxlm.exercises.lab import Lab, median_seconds, speed_against
from jaxlm.models.base import Params
from jaxlm.models.initialization import untrained_params
from jaxlm.ops import context_index
from jaxlm.ops.losses import cross_entropy
from jaxlm.plots import pictures

TABLE_ORDERS = (2, 3, 4)
"""Orders of the n-gram tables W that are timed."""
MOST_ENTRIES, BATCH = 2**20, 2048
"""Most numbers in W, beyond the first order; contexts in a batch."""


class Differences(NamedTuple):
    """Largest absolute differences between indexing and the product."""

    logits: float
    """Difference of the logits."""
    loss: float
    """Difference of the loss in nats."""
    gradient: float
    """Difference of the gradient of W."""


class IndexingComparison(NamedTuple):
    """Differences and times of indexing and the one-hot product for one size of W."""

    rows: int
    """Rows of W."""
    differ: Differences
    """Differences between the two ways."""
    seconds: dict[str, float]
    """Median seconds by "index" or "product" and "forward" (logits) or "backward" (loss and gradient)."""


def product_logits(params: Params, ctx_BC: jax.Array, vocab_size: int) -> jax.Array:
    """Logits as one-hot(context) @ W, the lecture's first version."""
    w_RV = params["logits"]
    return jax.nn.one_hot(context_index(ctx_BC, vocab_size), w_RV.shape[0], dtype=w_RV.dtype) @ w_RV


def compare_indexing(lab: Lab, *, rounds: int = 9) -> list[IndexingComparison]:
    """Compare results and times of indexing and the product on one batch, for tables of growing size."""
    lab.log("times in ms, medians of calls in turn; backward: loss and gradient")
    lab.log("      rows  one-hot  forward: index  product   backward: index  product   largest difference")
    found = []
    for order in TABLE_ORDERS:
        setup = lab.setup(NgramConfig(order=order))
        if order > TABLE_ORDERS[0] and setup.model.vocab_size**order > MOST_ENTRIES:
            break
        found.append(_compare(setup, rounds))
        one, ms = found[-1], {name: 1000 * value for name, value in found[-1].seconds.items()}
        differ = max(one.differ)
        lab.log(
            f"{one.rows:10,}  {platform.bytes_in_words(4 * BATCH * one.rows):>7}  {ms['index forward']:14.3f}  "
            f"{ms['product forward']:7.3f}   {ms['index backward']:15.3f}  {ms['product backward']:7.3f}   {differ:.1e}"
        )
    speeds = [
        f"at {one.rows:,} rows {_against(one, 'forward')} forward and {_against(one, 'backward')} with its gradient"
        for one in found
    ]
    worst = Differences(*map(max, zip(*(one.differ for one in found), strict=True)))
    lab.log(
        f"answer: the numbers are the same: logits to within {worst.logits:.1e}, the loss {worst.loss:.1e}, gradients "
        f"{worst.gradient:.1e}. Indexing was {'; '.join(speeds)}. The one-hot matrix has a "
        "column for each row of W, and the product reads all of them to keep one."
    )
    rows = [one.rows for one in found]
    pictures.curves(
        {name: (rows, [1000 * one.seconds[name] for one in found]) for name in found[0].seconds},
        lab.picture("E04"),
        title=f"Logits of {BATCH:,} contexts: rows of W by index, and by a one-hot product",
        xlabel="rows of W",
        ylabel="ms",
        log="xy",
    )
    return found


def _compare(setup: Any, rounds: int) -> IndexingComparison:
    model, V = setup.model, setup.model.vocab_size
    params = untrained_params(setup.config, model)
    places = np.resize(setup.dataset.rows["train"], BATCH)
    batch = setup.dataset.batch(places)
    ways = {
        "index": lambda params: model.next_logits(params, batch.tok),
        "product": lambda params: product_logits(params, batch.tok, V),
    }
    calls, got = {}, {}
    for name, logits in ways.items():

        def loss(params: Params, logits: Any = logits) -> jax.Array:
            total, count = cross_entropy(logits(params), batch.target)
            return total / count

        forward, backward = jax.jit(logits), jax.jit(jax.value_and_grad(loss))
        got[name] = (forward(params), *backward(params))
        calls[f"{name} forward"] = lambda call=forward: call(params)
        calls[f"{name} backward"] = lambda call=backward: call(params)
    differ = [
        max(
            float(np.abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        )
        for one, other in zip(got["index"], got["product"], strict=True)
    ]
    return IndexingComparison(V**model.context, Differences(*differ), median_seconds(calls, rounds))


def _against(one: IndexingComparison, way: str) -> str:
    return speed_against(one.seconds[f"index {way}"], one.seconds[f"product {way}"], "the product")
