"""word2vec's updates against gradients of the plain objective and against a plain NumPy implementation."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.word2vec import gradients
from jaxlm.word2vec.huffman import huffman_paths
from jaxlm.word2vec.model import DeviceBatch, add_changes
from jaxlm.word2vec.reader import Reader, keep_probabilities, window_extents

G, T, W, E, M, K = 2, 5, 2, 4, 6, 3
H = T + 2 * W
CONFIG = jaxlm.Word2vecConfig(
    vocab_size=7, d_embed=E, window=W, negatives=K, shared_negatives=M, span=4, blocks=2, workers=2, subsample=0.0
)
ID_N = np.array([1, 2, 3, 0, 4, 1, 1, 5, 6, 7, 2, 3, 1, 0, 2, 4, 6, 1, 3, 5, 0, 7, 1, 2, 2, 0], np.uint16)
COUNTS = tuple(np.bincount(ID_N, minlength=8)[1:].tolist())


def mask_of_windows():
    """Mask of windows of random sizes, one of them empty."""
    rng = np.random.default_rng(0)
    left_GT1, right_GT1 = rng.integers(0, W + 1, (2, G, T, 1))
    left_GT1[0, 1] = right_GT1[0, 1] = 0
    offset_TH = np.arange(H) - W - np.arange(T)[:, None]
    return (offset_TH != 0) & (offset_TH >= -left_GT1) & (offset_TH <= right_GT1)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def plain_skip_gram(x_GTE, y_GHE, z_ME, mask_GTH):
    """-log s(x . y) - K mean over M of log s(-x . z), for every pair."""
    near_GTH = jax.nn.log_sigmoid(jnp.einsum("gte,ghe->gth", x_GTE, y_GHE))
    drawn_GT = K * jnp.mean(jax.nn.log_sigmoid(-(x_GTE @ z_ME.T)), axis=2)
    return -jnp.sum(jnp.where(mask_GTH, near_GTH + drawn_GT[:, :, None], 0.0))


def plain_cbow(x_GHE, y_GTE, z_ME, mask_GTH, mean):
    """The CBOW loss of words with neighbours, with gradients distributed as in word2vec's program."""
    n_GT1 = jnp.maximum(mask_GTH.sum(2, keepdims=True), 1)
    sum_GTE = jnp.einsum("gth,ghe->gte", mask_GTH, x_GHE)
    h_GTE, shared_GTE = (sum_GTE / n_GT1, sum_GTE) if mean else (sum_GTE, sum_GTE / n_GT1)
    h_GTE = shared_GTE + jax.lax.stop_gradient(h_GTE - shared_GTE)
    right_GT = jax.nn.log_sigmoid(jnp.sum(h_GTE * y_GTE, axis=2))
    drawn_GT = K * jnp.mean(jax.nn.log_sigmoid(-(h_GTE @ z_ME.T)), axis=2)
    return -jnp.sum(jnp.where(mask_GTH.any(2), right_GT + drawn_GT, 0.0))


@pytest.mark.parametrize("scale", [0.5, 12.0])  # logits in the hundreds: neither overflow nor a cut loss
def test_skip_gram_is_the_gradient_of_the_plain_objective(scale):
    mask_GTH = mask_of_windows()
    x, y, z = (scale * normal(seed, *shape) for seed, shape in enumerate([(G, T, E), (G, H, E), (M, E)]))
    got = jax.jit(gradients.skip_gram, static_argnums=4)(x, y, z, mask_GTH, K)
    loss, grads = jax.jit(jax.value_and_grad(plain_skip_gram, (0, 1, 2)))(x, y, z, mask_GTH)
    np.testing.assert_allclose(got.loss, loss, rtol=1e-5)
    assert got.negatives_ME is not None
    for rows, grad in zip((got.input_rows, got.output_rows, got.negatives_ME), grads, strict=True):
        np.testing.assert_allclose(rows, -grad.reshape(rows.shape), rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("mean", [True, False])
def test_cbow_is_the_gradient_of_the_plain_objective_distributed_as_in_word2vec(mean):
    mask_TH = mask_of_windows()[0]
    x, y, z = (normal(seed, *shape) for seed, shape in enumerate([(H, E), (T, E), (M, E)]))
    mask_TC = np.stack([np.delete(mask_TH[t, t : t + 2 * W + 1], W) for t in range(T)])
    got = jax.jit(partial(gradients.cbow, negatives=K, mean=mean))(x, y, z, mask_TC)
    plain = jax.value_and_grad(partial(plain_cbow, mean=mean), (0, 1, 2))
    loss, grads = jax.jit(plain)(x[None], y[None], z, mask_TH[None])
    np.testing.assert_allclose(got.loss, loss, rtol=1e-5)
    assert got.negatives_ME is not None
    for rows, grad in zip((got.input_rows, got.output_rows, got.negatives_ME), grads, strict=True):
        np.testing.assert_allclose(rows, -grad.reshape(rows.shape), rtol=1e-4, atol=1e-6)


def numpy_tree(x_NCE, y_NLE, sign_NL, mask_NC, average):
    """Loss and changes of hierarchical softmax, one word, neighbour and node at a time."""
    loss, dx, dy = 0.0, np.zeros_like(x_NCE), np.zeros_like(y_NLE)
    for n in range(len(x_NCE)):
        near = np.flatnonzero(mask_NC[n])
        groups = [[c] for c in near] if average is None else [near] if len(near) else []
        for group in groups:
            h = x_NCE[n, group].sum(0) / (len(group) if average == "mean" else 1)
            error = np.zeros(x_NCE.shape[-1])
            for node in np.flatnonzero(sign_NL[n]):
                p = 1 / (1 + np.exp(-sign_NL[n, node] * (h @ y_NLE[n, node])))
                loss -= np.log(p)
                error += (1 - p) * sign_NL[n, node] * y_NLE[n, node]
                dy[n, node] += (1 - p) * sign_NL[n, node] * h
            dx[n, group] += error / (len(group) if average == "sum" else 1)
    return loss, dx, dy


@pytest.mark.parametrize("average", [None, "mean", "sum"])
def test_hierarchical_softmax_is_the_plain_one(average):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 4, E)), rng.normal(size=(5, 3, E))
    sign_NL = np.array([[1, -1, 0], [1, 1, 1], [-1, 0, 0], [1, -1, -1], [-1, 1, 0]], np.float64)
    mask_NC = rng.random((5, 4)) < 0.6
    mask_NC[2] = False
    loss, dx, dy = numpy_tree(x, y, sign_NL, mask_NC, average)
    x_NCE, y_NLE, sign = (jnp.asarray(a, jnp.float32) for a in (x, y, sign_NL))
    got = jax.jit(partial(gradients.hierarchical_softmax, average=average))(x_NCE, y_NLE, sign, mask_NC)
    np.testing.assert_allclose(got.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(got.input_rows, dx, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.output_rows, dy, rtol=1e-4, atol=1e-6)


def test_huffman_paths_are_prefix_codes_of_the_least_length():
    counts = [45, 13, 12, 16, 9, 5]
    node_VL, sign_VL = huffman_paths(counts)
    lengths = (sign_VL != 0).sum(1)
    assert lengths.tolist() == [1, 3, 3, 3, 4, 4]
    assert ((node_VL >= 0) == (sign_VL != 0)).all()
    codes = {tuple(sign[:n]) for sign, n in zip(sign_VL.tolist(), lengths, strict=True)}
    assert not any(a != b and b[: len(a)] == a for a in codes for b in codes)
    assert len({node for node in node_VL.reshape(-1).tolist() if node >= 0}) == len(counts) - 1


def plain_pairs(batch, config):
    """List the (word, neighbour) pairs of a batch as input rows."""
    W, pairs = config.window, []
    for n, (left, right) in enumerate(zip(batch.left_N, batch.right_N, strict=True)):
        for offset in [*range(-left, 0), *range(1, right + 1)]:
            pairs.append((batch.input_N[W + n], batch.input_N[W + n + offset]))
    return pairs


def test_pairs_of_a_batch_are_those_of_the_sentences():
    config = dataclasses.replace(CONFIG, shrink=False, workers=1)
    reader = Reader(config, ID_N, COUNTS, 32, 0)
    batch, counts = reader.worker_batch(0, 0)
    got = sorted((int(batch.input_row_U[a]), int(batch.input_row_U[b])) for a, b in plain_pairs(batch, config))
    want = []
    for sentence in " ".join(map(str, ID_N)).split(" 0"):
        words = [int(word) - 1 for word in sentence.split()]
        want += [(a, b) for i, a in enumerate(words) for j, b in enumerate(words) if 0 < abs(i - j) <= W]
    assert got == sorted(want)
    assert counts.pairs == len(want) and counts.words == np.count_nonzero(ID_N)


@pytest.mark.parametrize(("predict", "pairs"), [("skip-gram", (0, 2, 6)), ("cbow", (0, 2, 3))])
def test_a_word_without_neighbours_is_no_prediction(predict, pairs):
    config = dataclasses.replace(CONFIG, predict=predict, shrink=False, workers=1)
    for length, expected in enumerate(pairs, 1):
        _, counts = Reader(config, np.array([*range(1, length + 1), 0], np.uint16), COUNTS, 8, 0).worker_batch(0, 0)
        assert (counts.words, counts.pairs) == (length, expected)


def test_every_worker_of_every_step_draws_its_own_negatives():
    config = dataclasses.replace(CONFIG, shared_negatives=64)
    reader = Reader(config, ID_N, COUNTS, 16, 0)
    drawn = set()
    for step in range(3):
        for worker in range(2):
            batch, _ = reader.worker_batch(step, worker)
            drawn.add(tuple(batch.output_row_U[batch.negative_SM[0]].tolist()))
    assert len(drawn) == 6


@pytest.mark.slow
@pytest.mark.parametrize("predict", ["skip-gram", "cbow"])
def test_a_worker_is_updates_one_after_another_in_the_whole_tables(predict):
    """Three updates against plain gradients, and negatives and words that occur several times."""
    config = dataclasses.replace(CONFIG, predict=predict, span=4, blocks=2, workers=1)
    model = config.build()
    params = {"input": normal(1, 7, E), "output": normal(2, 7, E)}
    batch, _ = Reader(config, ID_N, COUNTS, len(ID_N), 3).worker_batch(0, 0)
    assert batch.updates == 3
    rate = 0.1
    change, loss_S = jax.jit(model.train)(params, DeviceBatch(*map(jnp.asarray, batch)), rate)
    got = add_changes(params, [change])

    def objective(tables, s):
        total: Any = 0.0
        in_VE, out_VE = tables
        negative_M = batch.output_row_U[batch.negative_SM[s]]
        for n in range(s * 8, s * 8 + 8):
            near = [*range(n - batch.left_N[n], n), *range(n + 1, n + batch.right_N[n] + 1)]
            word, *near = (int(batch.input_row_U[batch.input_N[W + i]]) for i in (n, *near))
            if predict == "skip-gram":
                for other in near:
                    total -= jax.nn.log_sigmoid(in_VE[word] @ out_VE[other])
                    total -= K * jnp.mean(jax.nn.log_sigmoid(-(out_VE[negative_M] @ in_VE[word])))
            elif near:
                rows = in_VE[jnp.array(near)]
                # all of the error to each neighbour: the gradient of the sum whose value is the mean
                h = rows.sum(0) + jax.lax.stop_gradient(rows.mean(0) - rows.sum(0))
                total -= jax.nn.log_sigmoid(h @ out_VE[word])
                total -= K * jnp.mean(jax.nn.log_sigmoid(-(out_VE[negative_M] @ h)))
        return total

    tables, losses = (params["input"], params["output"]), []
    for s in range(3):
        loss, grads = jax.value_and_grad(objective)(tables, s)
        losses.append(loss)
        tables = tuple(table - rate * grad for table, grad in zip(tables, grads, strict=True))
    np.testing.assert_allclose(loss_S[:3], losses, rtol=1e-5)
    np.testing.assert_allclose(got["input"], tables[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["output"], tables[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("predict", ["skip-gram", "cbow"])
def test_a_worker_of_hierarchical_softmax_is_the_plain_one_on_the_whole_tables(predict):
    sizes: dict[str, Any] = {"vocab_size": 7, "d_embed": E, "window": W, "span": 32, "blocks": 1, "workers": 1}
    config = jaxlm.Word2vecConfig(**sizes, subsample=0.0, predict=predict, output="hierarchical-softmax")
    params = {"input": normal(1, 7, E), "output": normal(2, 6, E)}
    batch, _ = Reader(config, ID_N, COUNTS, len(ID_N), 3).worker_batch(0, 0)
    change, loss_S = jax.jit(config.build().train)(params, DeviceBatch(*map(jnp.asarray, batch)), 1.0)
    got = add_changes(params, [change])
    node_VL, sign_VL = huffman_paths(list(COUNTS))
    word_N = [int(batch.input_row_U[row]) for row in batch.input_N]
    want = {name: np.array(table, np.float64) for name, table in params.items()}
    loss = 0.0
    for n, (left, right) in enumerate(zip(batch.left_N, batch.right_N, strict=True)):
        near = [word_N[W + n + offset] for offset in [*range(-left, 0), *range(1, right + 1)]]
        word = word_N[W + n]
        nodes = node_VL[word][node_VL[word] >= 0]
        if near:
            x, y = np.array(params["input"], np.float64)[near], np.array(params["output"], np.float64)[nodes]
            average = None if predict == "skip-gram" else "mean"
            sign = sign_VL[word][None, : len(nodes)]
            nats, dx, dy = numpy_tree(x[None], y[None], sign, np.ones((1, len(near)), bool), average)
            loss += nats
            np.add.at(want["input"], near, dx[0])
            np.add.at(want["output"], nodes, dy[0])
    np.testing.assert_allclose(loss_S.sum(), loss, rtol=1e-5)
    np.testing.assert_allclose(got["input"], want["input"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["output"], want["output"], rtol=1e-4, atol=1e-5)


def test_draws_have_the_distributions_of_the_settings():
    counts = (5000, 300, 40, 2)
    config = dataclasses.replace(CONFIG, vocab_size=4, subsample=0.05, exponent=0.75, shared_negatives=64, workers=1)
    rng = np.random.default_rng(0)
    id_N = rng.choice(np.arange(1, 5), 20_000, p=np.array(counts) / sum(counts))
    batch, _ = Reader(config, id_N, counts, len(id_N), 0).worker_batch(0, 0)
    kept_N = batch.input_row_U[batch.input_N[W : W + int(batch.updates) * 8]]
    f = counts[0] / sum(counts)
    expected = (id_N == 1).sum() * (np.sqrt(0.05 / f) + 0.05 / f)
    assert abs((kept_N == 0).sum() - expected) < 4 * np.sqrt(expected)
    share_V = np.array(counts) ** 0.75 / (np.array(counts) ** 0.75).sum()
    drawn_V = np.bincount(batch.output_row_U[batch.negative_SM[: int(batch.updates)]].reshape(-1), minlength=4)
    total = drawn_V.sum()
    assert (np.abs(drawn_V - total * share_V) < 4 * np.sqrt(total * share_V * (1 - share_V)) + 1).all()
    assert keep_probabilities(np.array(counts, float), 0.0).tolist() == [1, 1, 1, 1]


def test_windows_end_with_the_sentence():
    left_N, right_N = window_extents(np.array([0, 0, 0, 1, 2, 2]), np.array([2, 1, 2, 2, 1, 2]))
    assert left_N.tolist() == [0, 1, 2, 0, 0, 1]
    assert right_N.tolist() == [2, 1, 0, 0, 1, 0]
