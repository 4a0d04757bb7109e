"""word2vec: skip-gram and CBOW, negative sampling and hierarchical softmax (Mikolov et al. 2013a, 2013b).

A pair's loss, in nats: -log s(x . y) - k E_z[log s(-x . z)], with s the sigmoid, x an input vector, y the output
vector of what is predicted, and z those of words drawn by count ** exponent (2013b, equation 4); the mean over the M
words drawn for an update estimates the expectation. Or, for hierarchical softmax, -sum_n log s(sign_n x . y_n) over
the inner nodes n of the path to what is predicted (2013b, equation 3).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxlm.config import Word2vecConfig
from jaxlm.models.base import Axes, Params, needed
from jaxlm.word2vec.gradients import cbow, hierarchical_softmax, skip_gram


class RowChanges(NamedTuple):
    """Changes of one worker to the rows of both tables that it touches."""

    input_row_U: jax.Array
    """Rows of the input table."""
    input_UE: jax.Array
    """Amounts to add to these rows."""
    output_row_U: jax.Array
    """Rows of the output table."""
    output_UE: jax.Array
    """Amounts to add to these rows."""


@dataclasses.dataclass(frozen=True)
class Word2vec:
    """The model, which holds no arrays: tables `input` (V, E) of word vectors and `output` (V or V - 1 nodes, E)."""

    config: Word2vecConfig
    """The settings."""
    vocab_size: int
    """Words in the vocabulary, V."""

    @property
    def axes(self) -> Axes:
        """Logical axes of the two tables; a tree's inner nodes count as its vocabulary."""
        return {"input": ("vocab", "embed"), "output": ("vocab", "embed")}

    def init(self, key: jax.Array) -> Params:
        """Draw input vectors uniformly from (-1 / 2E, 1 / 2E) and set output vectors to 0."""
        V, E = self.vocab_size, self.config.d_embed
        outputs = V if self.config.output == "negative-sampling" else V - 1
        input_VE = jax.random.uniform(key, (V, E), minval=-0.5 / E, maxval=0.5 / E)
        return {"input": input_VE, "output": jnp.zeros((outputs, E))}

    def train(self, params: Params, batch: "DeviceBatch", rate: jax.Array) -> tuple[RowChanges, jax.Array]:
        """Run the updates of one worker, one after another, on a copy of the rows that it touches.

        Returns the changes, and loss_S, the summed loss in nats before each update, 0 for padding.
        """
        input_UE = params["input"].at[batch.input_row_U].get(mode="clip")
        output_UE = params["output"].at[batch.output_row_U].get(mode="clip")
        update = _update_of(self.config)

        def body(carry: Any) -> Any:
            s, in_UE, out_UE, loss_S = carry
            in_UE, out_UE, loss = update(self.config, in_UE, out_UE, batch, s, rate)
            return s + 1, in_UE, out_UE, loss_S.at[s].set(loss)

        S = batch.left_N.shape[0] // self.config.update_words
        start: Any = (jnp.int32(0), input_UE, output_UE, jnp.zeros(S))
        _, in_UE, out_UE, loss_S = lax.while_loop(lambda carry: carry[0] < batch.updates, body, start)
        return RowChanges(batch.input_row_U, in_UE - input_UE, batch.output_row_U, out_UE - output_UE), loss_S


def build(config: Word2vecConfig) -> Word2vec:
    """The model of these settings."""
    return Word2vec(config, needed(config.vocab_size, "Word2vecConfig.vocab_size"))


def add_changes(params: Params, changes: Sequence[RowChanges]) -> Params:
    """Add the workers' changes to the tables, in order, dropping rows that do not exist."""
    input_VE, output_VE = params["input"], params["output"]
    for change in changes:
        input_VE = input_VE.at[change.input_row_U].add(change.input_UE, mode="drop")
        output_VE = output_VE.at[change.output_row_U].add(change.output_UE, mode="drop")
    return {"input": input_VE, "output": output_VE}


class DeviceBatch(NamedTuple):
    """A WorkerBatch of reader.py on the device; its fields are documented there."""

    input_row_U: jax.Array
    output_row_U: jax.Array
    input_N: jax.Array
    output_N: jax.Array
    left_N: jax.Array
    right_N: jax.Array
    negative_SM: jax.Array
    node_UL: jax.Array
    sign_UL: jax.Array
    updates: jax.Array


UpdateFunction = Callable[
    [Word2vecConfig, jax.Array, jax.Array, DeviceBatch, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]
]
"""(config, input rows, output rows, batch, number of the update, rate) -> (input rows, output rows, loss)."""


def _update_of(config: Word2vecConfig) -> UpdateFunction:
    if config.output == "hierarchical-softmax":
        return _tree_update
    return _skip_gram_update if config.predict == "skip-gram" else _cbow_update


def _skip_gram_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, batch: DeviceBatch, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Update by skip-gram: word t predicts each neighbour. Windows of T words form a band of T x (T + 2 window)."""
    G, T, W = config.blocks, config.span, config.window
    H = T + 2 * W
    word_N, around_R = _words(config, batch.input_N, s), _around(config, batch.output_N, s)
    near_GH = jnp.stack([around_R[g * T : g * T + H] for g in range(G)])
    mask_GTH = _mask(config, batch, s, (jnp.arange(H)[None] - W - jnp.arange(T)[:, None])[None], (G, T))
    negative_M = batch.negative_SM[s]
    x_GTE = _rows(in_UE, word_N).reshape(G, T, -1)
    grads = skip_gram(x_GTE, _rows(out_UE, near_GH), _rows(out_UE, negative_M), mask_GTH, config.negatives)
    assert grads.negatives_ME is not None
    out_UE = _add(out_UE, rate, (near_GH, grads.output_rows), (negative_M, grads.negatives_ME))
    return _add(in_UE, rate, (word_N, grads.input_rows)), out_UE, grads.loss


def _cbow_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, batch: DeviceBatch, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Update by CBOW: the neighbours of word t together predict it."""
    word_N, around_R = _words(config, batch.output_N, s), _around(config, batch.input_N, s)
    mask_NC = _mask(config, batch, s, _offsets(config.window)[None], (config.update_words,))
    negative_M = batch.negative_SM[s]
    y_NE, z_ME = _rows(out_UE, word_N), _rows(out_UE, negative_M)
    mean = config.cbow_average == "mean"
    grads = cbow(_rows(in_UE, around_R), y_NE, z_ME, mask_NC, config.negatives, mean=mean)
    assert grads.negatives_ME is not None
    out_UE = _add(out_UE, rate, (word_N, grads.output_rows), (negative_M, grads.negatives_ME))
    return _add(in_UE, rate, (around_R, grads.input_rows)), out_UE, grads.loss


def _tree_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, batch: DeviceBatch, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Update by hierarchical softmax: neighbours of word t, each (skip-gram) or together (CBOW), predict its path."""
    N, offset_1C = config.update_words, _offsets(config.window)[None]
    near_NC = _around(config, batch.input_N, s)[jnp.arange(N)[:, None] + config.window + offset_1C]
    word_N, mask_NC = _words(config, batch.input_N, s), _mask(config, batch, s, offset_1C, (N,))
    node_NL, sign_NL = batch.node_UL[word_N], batch.sign_UL[word_N].astype(jnp.float32)
    average = None if config.predict == "skip-gram" else config.cbow_average
    grads = hierarchical_softmax(_rows(in_UE, near_NC), _rows(out_UE, node_NL), sign_NL, mask_NC, average=average)
    in_UE = _add(in_UE, rate, (near_NC, grads.input_rows))
    return in_UE, _add(out_UE, rate, (node_NL, grads.output_rows)), grads.loss


def _words(config: Word2vecConfig, index_N: jax.Array, s: jax.Array) -> jax.Array:
    """Indices of the words of update s, from a padded row of indices."""
    N = config.update_words
    return lax.dynamic_slice(index_N, (s * N + config.window,), (N,))


def _around(config: Word2vecConfig, index_N: jax.Array, s: jax.Array) -> jax.Array:
    """Indices of the words of update s and of `window` words before and after them."""
    N = config.update_words
    return lax.dynamic_slice(index_N, (s * N,), (N + 2 * config.window,))


def _offsets(window: int) -> jax.Array:
    """Offsets from a word to each neighbour: -window to window without 0."""
    return jnp.concatenate([jnp.arange(-window, 0), jnp.arange(1, window + 1)])


def _mask(
    config: Word2vecConfig, batch: DeviceBatch, s: jax.Array, offset: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Mask of the offsets within the windows of update s: (*shape, offsets), the words arranged in `shape`."""
    N = config.update_words
    left, right = (lax.dynamic_slice(n, (s * N,), (N,)).reshape(*shape, 1) for n in (batch.left_N, batch.right_N))
    return (offset != 0) & (offset >= -left) & (offset <= right)


def _rows(table_UE: jax.Array, index: jax.Array) -> jax.Array:
    return table_UE.at[index].get(mode="promise_in_bounds")


def _add(table_UE: jax.Array, rate: jax.Array, *changes: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Add rate * rows to the table at their indices in one scatter; for a second one XLA would copy the table."""
    E = table_UE.shape[1]
    index_N = jnp.concatenate([index.reshape(-1) for index, _ in changes])
    rows_NE = jnp.concatenate([rows.reshape(-1, E) for _, rows in changes])
    return table_UE.at[index_N].add(rate * rows_NE, mode="promise_in_bounds")
