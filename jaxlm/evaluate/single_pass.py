"""The loss of a text under a model without a limit of its context: piece after piece, the state carried along."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.data.corpus import Corpus
from jaxlm.inference.evaluation import EVAL_LOGITS, EVAL_TOKENS, Score, sums_of
from jaxlm.models.base import LanguageModel, Params
from jaxlm.models.check import check_decodes
from jaxlm.ops.losses import nats_per_target
from jaxlm.runs.loading import Run

LONGEST_PIECE = 1024
"""Predictions of a piece at most, where several lines are read side by side."""


def score_in_one_pass(run: Run, corpus: Corpus) -> Score:
    """The score of each line, dialogue or running text, read once from its start with all that stands before a token.

    Lines of like length are read side by side, in pieces of one shape, so that one program is compiled and no more than
    a piece's logits are held. Raises UserError for a user's own model that cannot go on from a cache.
    """
    check_decodes(run.config.model, run.model)
    token_N, bos = corpus.tokens_N, run.tokenizer.bos
    first_L = np.flatnonzero(corpus.age_N == 0)
    length_L = np.diff(np.append(first_L, len(token_N)))
    most = max(1, min(EVAL_TOKENS, EVAL_LOGITS // run.model.vocab_size))
    longest = int(length_L.max())
    B = min(len(first_L), max(1, most // min(longest, LONGEST_PIECE)))
    T = min(longest, max(1, most // B))
    order_L = np.argsort(-length_L, kind="stable")
    bytes_V = run.tokenizer.bytes_of_token.astype(np.float32)
    total_4 = np.zeros(4)
    for group_B in np.array_split(order_L, range(B, len(order_L), B)):
        cache = _start(run.model, run.params, B)
        for start in range(0, int(length_L[group_B].max()), T):
            tok_BT, target_BT = np.full((2, B, T), bos, np.int32)
            left_B = np.zeros(B, np.int32)
            for b, line in enumerate(group_B.tolist()):
                left = int(np.clip(length_L[line] - start, 0, T))
                place = int(first_L[line]) + start
                left_B[b], target_BT[b, :left] = left, token_N[place : place + left]
                tok_BT[b, 1:left] = target_BT[b, : max(left - 1, 0)]
                tok_BT[b, 0] = token_N[place - 1] if start and left else bos
            sums, cache = _read(run.model, run.params, cache, tok_BT, target_BT, left_B, bytes_V)
            total_4 += np.array(jax.device_get(sums), np.float64)
    return Score(float(total_4[0]), *(int(value) for value in total_4[1:]))


@functools.partial(jax.jit, static_argnames=("model", "batch"))
def _start(model: LanguageModel[Any], params: Params, batch: int) -> Any:
    return model.init_cache(params, batch, LONGEST_PIECE)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="cache")
def _read(
    model: LanguageModel[Any],
    params: Params,
    cache: Any,
    tok_BT: jax.Array,
    target_BT: jax.Array,
    length_B: jax.Array,
    bytes_V: jax.Array,
) -> tuple[tuple[jax.Array, ...], Any]:
    """The sums of a piece's first length_B[b] predictions, and the cache after them."""
    logits_BTV, cache = model.extend(params, cache, tok_BT, length_B)
    nats_N = nats_per_target(logits_BTV.reshape(-1, logits_BTV.shape[-1]), target_BT.reshape(-1))
    counts_BT = jnp.arange(tok_BT.shape[1])[None] < length_B[:, None]
    return sums_of(nats_N, target_BT.reshape(-1), counts_BT.reshape(-1), bytes_V), cache
