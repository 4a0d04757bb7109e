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
from jaxlm.models.base import Params, needed

LARGE = 20.0
"""Beyond it softplus(x) is x to the last bit."""
FACTORS = 4
"""Numbers up to 1 + exp(LARGE) whose product a float32 holds."""


class Change(NamedTuple):
    """What one shard does to the rows it touches: row input_row_U of the model's table grows by input_UE."""

    input_row_U: jax.Array
    input_UE: jax.Array
    output_row_U: jax.Array
    output_UE: jax.Array


class Gradients(NamedTuple):
    """Descent directions (the negative gradients) of an update's summed loss, and that loss."""

    loss: jax.Array
    input_rows: jax.Array
    output_rows: jax.Array
    negatives_ME: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Word2vec:
    """Tables `input` (V, E), the vectors of words, and `output` (V, E; of a tree's nodes V - 1). Holds no arrays."""

    config: Word2vecConfig
    vocab_size: int

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
    """Word t predicts each neighbour."""
    G, T = config.blocks, config.span
    word_N, near_GH, mask_GTH = _block(config, part.input_N, part.output_N, part, s)
    x_GTE = _rows(in_UE, word_N).reshape(G, T, -1)
    negative_M = part.negative_SM[s]
    grads = skip_gram(x_GTE, _rows(out_UE, near_GH), _rows(out_UE, negative_M), mask_GTH, config.negatives)
    assert grads.negatives_ME is not None
    out_UE = _add(out_UE, rate, (near_GH, grads.output_rows), (negative_M, grads.negatives_ME))
    return _add(in_UE, rate, (word_N, grads.input_rows)), out_UE, grads.loss


def _cbow_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, part: Arrays, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The neighbours of word t predict it."""
    G, T = config.blocks, config.span
    word_N, near_GH, mask_GTH = _block(config, part.output_N, part.input_N, part, s)
    y_GTE = _rows(out_UE, word_N).reshape(G, T, -1)
    negative_M = part.negative_SM[s]
    mean = config.cbow_average == "mean"
    grads = cbow(_rows(in_UE, near_GH), y_GTE, _rows(out_UE, negative_M), mask_GTH, config.negatives, mean=mean)
    assert grads.negatives_ME is not None
    out_UE = _add(out_UE, rate, (word_N, grads.output_rows), (negative_M, grads.negatives_ME))
    return _add(in_UE, rate, (near_GH, grads.input_rows)), out_UE, grads.loss


def _tree_update(
    config: Word2vecConfig, in_UE: jax.Array, out_UE: jax.Array, part: Arrays, s: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each neighbour of word t (skip-gram; the pairs are those of the window of t), or all together, find its path."""
    N, W = config.update_words, config.window
    place = s * N + jnp.arange(N)
    offset_C = jnp.concatenate([jnp.arange(-W, 0), jnp.arange(1, W + 1)])
    near_NC = part.input_N[place[:, None] + W + offset_C]
    left_N, right_N = part.left_N[place], part.right_N[place]
    mask_NC = (offset_C >= -left_N[:, None]) & (offset_C <= right_N[:, None])
    word_N = part.input_N[place + W]
    node_NL, sign_NL = part.node_UL[word_N], part.sign_UL[word_N].astype(jnp.float32)
    average = None if config.predict == "skip-gram" else config.cbow_average
    grads = tree(_rows(in_UE, near_NC), _rows(out_UE, node_NL), sign_NL, mask_NC, average=average)
    in_UE = _add(in_UE, rate, (near_NC, grads.input_rows))
    return in_UE, _add(out_UE, rate, (node_NL, grads.output_rows)), grads.loss


def skip_gram(x_GTE: jax.Array, y_GHE: jax.Array, z_ME: jax.Array, mask_GTH: jax.Array, negatives: int) -> Gradients:
    """Input vectors x of words against output vectors y of their surroundings, where the mask says, and z of negatives.

    The loss is summed over the pairs of the mask, each with `negatives` words, which the M negatives stand for.
    """
    G, T, E = x_GTE.shape
    M = z_ME.shape[0]
    x_NE = x_GTE.reshape(G * T, E)
    pairs_N = jnp.sum(mask_GTH, axis=2).reshape(G * T).astype(jnp.float32)
    logit_GTH = jnp.einsum("gte,ghe->gth", x_GTE, y_GHE)
    q_GTH = jnp.where(mask_GTH, _one_plus_exp(logit_GTH), 1.0)
    pull_GTH = jnp.where(mask_GTH, 1 / q_GTH, 0.0)
    away_MN, loss_N = _negatives(x_NE, z_ME, pairs_N * (negatives / M))
    linear_GTH = jnp.where(mask_GTH, jnp.maximum(logit_GTH - LARGE, 0.0) - logit_GTH, 0.0)
    loss = jnp.sum(_log_products(q_GTH)) + jnp.sum(linear_GTH) + jnp.sum(loss_N)
    return Gradients(
        loss,
        jnp.einsum("gth,ghe->gte", pull_GTH, y_GHE).reshape(G * T, E) - away_MN.T @ z_ME,
        jnp.einsum("gth,gte->ghe", pull_GTH, x_GTE),
        -away_MN @ x_NE,
    )


def cbow(
    x_GHE: jax.Array, y_GTE: jax.Array, z_ME: jax.Array, mask_GTH: jax.Array, negatives: int, *, mean: bool
) -> Gradients:
    """The mean or sum of input vectors x of a word's surroundings against its output vector y and those of negatives.

    As in word2vec's program, every neighbour gets the whole error of a mean, which is the gradient times the number of
    neighbours, and of a sum the gradient divided by it: else one of the two learns too slowly or blows up.
    """
    G, T, E = y_GTE.shape
    M = z_ME.shape[0]
    count_GT1 = jnp.sum(mask_GTH, axis=2, keepdims=True).astype(jnp.float32)
    share_GT1 = 1 / jnp.maximum(count_GT1, 1.0)
    mask_GTH = mask_GTH.astype(jnp.float32)
    sum_GTE = jnp.einsum("gth,ghe->gte", mask_GTH, x_GHE)
    h_NE = (sum_GTE * share_GT1 if mean else sum_GTE).reshape(G * T, E)
    y_NE = y_GTE.reshape(G * T, E)
    counts_N = (count_GT1 > 0).reshape(G * T).astype(jnp.float32)
    logit_N = jnp.sum(h_NE * y_NE, axis=1)
    q_N = _one_plus_exp(logit_N)
    pull_N1 = (counts_N / q_N)[:, None]
    away_MN, loss_N = _negatives(h_NE, z_ME, counts_N * (negatives / M))
    positive_N = jnp.log(q_N) + jnp.maximum(logit_N - LARGE, 0.0) - logit_N
    error_GTE = (pull_N1 * y_NE - away_MN.T @ z_ME).reshape(G, T, E)
    error_GTE = error_GTE if mean else error_GTE * share_GT1
    return Gradients(
        jnp.sum(counts_N * positive_N) + jnp.sum(loss_N),
        jnp.einsum("gth,gte->ghe", mask_GTH, error_GTE),
        pull_N1 * h_NE,
        -away_MN @ h_NE,
    )


def tree(
    x_NCE: jax.Array, y_NLE: jax.Array, sign_NL: jax.Array, mask_NC: jax.Array, *, average: str | None
) -> Gradients:
    """Input vectors x of a word's C neighbours, one by one or averaged, against output vectors y of its path's nodes.

    A sign of 0 is behind the path's end. `average` is None, "mean" or "sum", errors shared out as in `cbow`.
    """
    mask_NC1 = mask_NC[:, :, None].astype(jnp.float32)
    count_N11 = jnp.maximum(jnp.sum(mask_NC1, axis=1, keepdims=True), 1.0)
    if average is None:
        h_NCE, counts_NC1 = x_NCE, mask_NC1
    else:
        h_NCE = jnp.sum(x_NCE * mask_NC1, axis=1, keepdims=True) / (count_N11 if average == "mean" else 1.0)
        counts_NC1 = jnp.max(mask_NC1, axis=1, keepdims=True)
    sign_N1L = sign_NL[:, None, :]
    logit_NCL = jnp.einsum("nce,nle->ncl", h_NCE, y_NLE) * sign_N1L
    counts_NCL = counts_NC1 * jnp.abs(sign_N1L)
    pull_NCL = counts_NCL * sign_N1L * jax.nn.sigmoid(-logit_NCL)
    error_NCE = jnp.einsum("ncl,nle->nce", pull_NCL, y_NLE)
    if average is not None:
        error_NCE = mask_NC1 * (error_NCE if average == "mean" else error_NCE / count_N11)
    return Gradients(
        jnp.sum(counts_NCL * jax.nn.softplus(-logit_NCL)),
        error_NCE,
        jnp.einsum("ncl,nce->nle", pull_NCL, h_NCE),
        None,
    )


def _negatives(x_NE: jax.Array, z_ME: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns weight * s(x . z) of each, (M, N), and weight * sum over M of -log s(-x . z), loss_N."""
    logit_MN = z_ME @ x_NE.T
    q_MN = _one_plus_exp(logit_MN)
    loss_N = jnp.sum(_log_products(q_MN), axis=0) + jnp.sum(jnp.maximum(logit_MN - LARGE, 0.0), axis=0)
    return (1 - 1 / q_MN) * weight_N, weight_N * loss_N


def _one_plus_exp(x: jax.Array) -> jax.Array:
    """1 + exp(min(x, LARGE)): softplus(x) is its logarithm + max(x - LARGE, 0), and s(-x) its inverse."""
    return 1 + jnp.exp(jnp.minimum(x, LARGE))


def _log_products(q: jax.Array) -> jax.Array:
    """Logarithms of products of FACTORS numbers along the first axis: their sum is that of all logarithms, for less."""
    whole = q.shape[0] // FACTORS * FACTORS
    products = jnp.log(jnp.prod(q[:whole].reshape(FACTORS, whole // FACTORS, *q.shape[1:]), axis=0))
    return jnp.concatenate([products, jnp.log(q[whole:])]) if whole < q.shape[0] else products


def _block(
    config: Word2vecConfig, word_N: jax.Array, near_N: jax.Array, part: Arrays, s: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of update s its words, the surroundings of each block (span + 2 window words), and the mask of the windows."""
    G, T, W = config.blocks, config.span, config.window
    H = T + 2 * W
    start = s * G * T
    word_N = lax.dynamic_slice(word_N, (start + W,), (G * T,))
    near_GH = jnp.stack([lax.dynamic_slice(near_N, (start + g * T,), (H,)) for g in range(G)])
    left_GT1, right_GT1 = (
        lax.dynamic_slice(size_N, (start,), (G * T,)).reshape(G, T, 1) for size_N in (part.left_N, part.right_N)
    )
    offset_TH = jnp.arange(H) - W - jnp.arange(T)[:, None]
    return word_N, near_GH, (offset_TH != 0) & (offset_TH >= -left_GT1) & (offset_TH <= right_GT1)


def _rows(table_UE: jax.Array, index: jax.Array) -> jax.Array:
    return table_UE.at[index].get(mode="promise_in_bounds")


def _add(table_UE: jax.Array, rate: jax.Array, *changes: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The table with rate * rows added at their indices, in one scatter: before a second one XLA copies the table."""
    E = table_UE.shape[1]
    index_N = jnp.concatenate([index.reshape(-1) for index, _ in changes])
    rows_NE = jnp.concatenate([rows.reshape(-1, E) for _, rows in changes])
    return table_UE.at[index_N].add(rate * rows_NE, mode="promise_in_bounds")
