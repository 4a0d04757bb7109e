"""word2vec: skip-gram and CBOW, negative sampling and hierarchical softmax (Mikolov et al. 2013a, 2013b).

A pair's loss, in nats: -log s(x . y) - k E_z[log s(-x . z)], with s the sigmoid, x an input vector, y the output
vector of what is predicted, and z those of words drawn by count ** exponent (2013b, equation 4); the mean over the M
words drawn for an update stands for the expectation. Or, for hierarchical softmax, -sum_n log s(sign_n x . y_n) over
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
from jaxlm.word2vec.gradients import cbow, skip_gram, tree


class Change(NamedTuple):
    """What one shard does to the rows it touches: row input_row_U of the model's table grows by input_UE."""

    input_row_U: jax.Array
    input_UE: jax.Array
    output_row_U: jax.Array
    output_UE: jax.Array


@dataclasses.dataclass(frozen=True)
class Word2vec:
    """Tables `input` (V, E), the vectors of words, and `output` (V, E; of a tree's nodes V - 1). Holds no arrays."""

    config: Word2vecConfig
    vocab_size: int

    @property
    def axes(self) -> Axes:
        """Logical axes of the two tables; a tree's inner nodes count as its vocabulary."""
        return {"input": ("vocab", "embed"), "output": ("vocab", "embed")}

    def init(self, key: jax.Array) -> Params:
        """Input vectors uniform in (-1 / 2E, 1 / 2E), output vectors 0."""
        V, E = self.vocab_size, self.config.d_embed
        outputs = V if self.config.output == "negative-sampling" else V - 1
        input_VE = jax.random.uniform(key, (V, E), minval=-0.5 / E, maxval=0.5 / E)
        return {"input": input_VE, "output": jnp.zeros((outputs, E))}

    def train(self, params: Params, part: "Arrays", rate: jax.Array) -> tuple[Change, jax.Array]:
        """The updates of one shard, one after another, in a copy of the rows it touches.

        `part` is a data.windows.Part. Returns what changed, and the summed loss before each update, loss_S, padding 0.
        """
        input_UE = params["input"].at[part.input_row_U].get(mode="clip")
        output_UE = params["output"].at[part.output_row_U].get(mode="clip")
        update = _update_of(self.config)

        def body(carry: Any) -> Any:
            s, in_UE, out_UE, loss_S = carry
            in_UE, out_UE, loss = update(self.config, in_UE, out_UE, part, s, rate)
            return s + 1, in_UE, out_UE, loss_S.at[s].set(loss)

        S = part.left_N.shape[0] // self.config.update_words
        start: Any = (jnp.int32(0), input_UE, output_UE, jnp.zeros(S))
        _, in_UE, out_UE, loss_S = lax.while_loop(lambda carry: carry[0] < part.updates, body, start)
        return Change(part.input_row_U, in_UE - input_UE, part.output_row_U, out_UE - output_UE), loss_S


def build(config: Word2vecConfig) -> Word2vec:
    """The model of these settings."""
    return Word2vec(config, needed(config.vocab_size, "Word2vecConfig.vocab_size"))


def add_changes(params: Params, changes: Sequence[Change]) -> Params:
    """The tables with the shards' changes added, in order; rows that do not exist are left out."""
    input_VE, output_VE = params["input"], params["output"]
    for change in changes:
        input_VE = input_VE.at[change.input_row_U].add(change.input_UE, mode="drop")
        output_VE = output_VE.at[change.output_row_U].add(change.output_UE, mode="drop")
    return {"input": input_VE, "output": output_VE}


class Arrays(NamedTuple):
    """A data.windows.Part as JAX sees it; see there."""

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


Update = Callable[
    [Word2vecConfig, jax.Array, jax.Array, Arrays, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]
]


def _update_of(config: Word2vecConfig) -> Update:
    if config.output == "hierarchical-softmax":
        return _tree_update
    return _skip_gram_update if config.predict == "skip-gram" else _cbow_update


def _skip_gram_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, part: Arrays, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Word t predicts each neighbour: the windows of a block of T words are one band of T x (T + 2 window)."""
    G, T, W = config.blocks, config.span, config.window
    H = T + 2 * W
    word_N, around_R = _words(config, part.input_N, s), _around(config, part.output_N, s)
    near_GH = jnp.stack([around_R[g * T : g * T + H] for g in range(G)])
    mask_GTH = _mask(config, part, s, jnp.arange(H) - W - jnp.arange(T)[:, None], (G, T))
    negative_M = part.negative_SM[s]
    x_GTE = _rows(in_UE, word_N).reshape(G, T, -1)
    grads = skip_gram(x_GTE, _rows(out_UE, near_GH), _rows(out_UE, negative_M), mask_GTH, config.negatives)
    assert grads.negatives_ME is not None
    out_UE = _add(out_UE, rate, (near_GH, grads.output_rows), (negative_M, grads.negatives_ME))
    return _add(in_UE, rate, (word_N, grads.input_rows)), out_UE, grads.loss


def _cbow_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, part: Arrays, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The neighbours of word t predict it."""
    word_N, around_R = _words(config, part.output_N, s), _around(config, part.input_N, s)
    mask_NC = _mask(config, part, s, _offsets(config.window), (config.update_words,))
    negative_M = part.negative_SM[s]
    y_NE, z_ME = _rows(out_UE, word_N), _rows(out_UE, negative_M)
    mean = config.cbow_average == "mean"
    grads = cbow(_rows(in_UE, around_R), y_NE, z_ME, mask_NC, config.negatives, mean=mean)
    assert grads.negatives_ME is not None
    out_UE = _add(out_UE, rate, (word_N, grads.output_rows), (negative_M, grads.negatives_ME))
    return _add(in_UE, rate, (around_R, grads.input_rows)), out_UE, grads.loss


def _tree_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, part: Arrays, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each neighbour of word t (skip-gram; the pairs are those of the window of t), or all together, find its path."""
    N, offset_C = config.update_words, _offsets(config.window)
    near_NC = _around(config, part.input_N, s)[jnp.arange(N)[:, None] + config.window + offset_C]
    word_N, mask_NC = _words(config, part.input_N, s), _mask(config, part, s, offset_C, (N,))
    node_NL, sign_NL = part.node_UL[word_N], part.sign_UL[word_N].astype(jnp.float32)
    average = None if config.predict == "skip-gram" else config.cbow_average
    grads = tree(_rows(in_UE, near_NC), _rows(out_UE, node_NL), sign_NL, mask_NC, average=average)
    in_UE = _add(in_UE, rate, (near_NC, grads.input_rows))
    return in_UE, _add(out_UE, rate, (node_NL, grads.output_rows)), grads.loss


def _words(config: Word2vecConfig, index_N: jax.Array, s: jax.Array) -> jax.Array:
    """Of a padded row of indices the words of update s."""
    N = config.update_words
    return lax.dynamic_slice(index_N, (s * N + config.window,), (N,))


def _around(config: Word2vecConfig, index_N: jax.Array, s: jax.Array) -> jax.Array:
    """The same with `window` words before and behind."""
    N = config.update_words
    return lax.dynamic_slice(index_N, (s * N,), (N + 2 * config.window,))


def _offsets(window: int) -> jax.Array:
    """From a word to each neighbour."""
    return jnp.concatenate([jnp.arange(-window, 0), jnp.arange(1, window + 1)])


def _mask(config: Word2vecConfig, part: Arrays, s: jax.Array, offset: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Which offsets lie in the windows of the words of update s: the words in `shape`, then the offsets of one."""
    N = config.update_words
    left, right = (lax.dynamic_slice(n, (s * N,), (N,)).reshape(*shape, 1) for n in (part.left_N, part.right_N))
    return (offset != 0) & (offset >= -left) & (offset <= right)


def _rows(table_UE: jax.Array, index: jax.Array) -> jax.Array:
    return table_UE.at[index].get(mode="promise_in_bounds")


def _add(table_UE: jax.Array, rate: jax.Array, *changes: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The table with rate * rows added at their indices, in one scatter: before a second one XLA copies the table."""
    E = table_UE.shape[1]
    index_N = jnp.concatenate([index.reshape(-1) for index, _ in changes])
    rows_NE = jnp.concatenate([rows.reshape(-1, E) for _, rows in changes])
    return table_UE.at[index_N].add(rate * rows_NE, mode="promise_in_bounds")
