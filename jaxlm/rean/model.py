"""REAN: a language model that predicts the next token's vector, and reads the token off a table of vectors.

After the Recurrent Embedding Approximation Network (github.com/marmust/REAN-architecture), which
jaxlm.models.rean_faithful keeps as it was published.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.rean import ReanConfig
from jaxlm.errors import UserError
from jaxlm.models.base import BUFFERS, Axes, Params, SequenceModel, needed
from jaxlm.models.spec import INIT
from jaxlm.models.transformer import Cache, Transformer
from jaxlm.ops import affine, alias_draw, along_last
from jaxlm.rean.table import VectorModel
from jaxlm.tokenizers.rean_tokens import FIRST_WORD

UNITS = {"softmax": "nats/token", "contrastive": "nats/choice", "vmf": "nats", "cosine": "1 - cos", "mse": "squared"}
"""The unit of each objective's training loss."""
DRAWN = 1
"""The purpose of a run's seed by which a table is drawn."""


class WordVectors(NamedTuple):
    """Words and their vectors: row i of row_VE is that of words[i]."""

    words: Sequence[str]
    row_VE: np.ndarray


class Rean(VectorModel, Transformer):
    """x = sqrt(E) vector[tok] W + c; the transformer; emb = h U + d."""

    def setup(self) -> None:
        E, D, normal, zeros = self.d_embed, self.config.d_model, nn.initializers.normal(INIT), nn.initializers.zeros
        self.setup_table()
        super().setup()
        self.in_ED, self.in_bias_D = self.param("in", normal, (E, D)), self.param("in_bias", zeros, (D,))
        self.out_DE, self.out_bias_E = self.param("out", normal, (D, E)), self.param("out_bias", zeros, (E,))

    @property
    def axes(self) -> Axes:
        own: Axes = {"in": (None, "embed"), "in_bias": ("embed",), "out": ("embed", None), "out_bias": (None,)}
        return {**super().axes, **self.table_axes(), **own}

    def emb(self, tok_BT: jax.Array) -> jax.Array:
        return affine(self.hidden(self._embedded(tok_BT)).astype(jnp.float32), self.out_DE, self.out_bias_E)

    def extend_emb(self, cache: Cache, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        h_BTD, cache = self.extend_hidden(cache, self._embedded(tok_BT), length_B)
        return affine(h_BTD.astype(jnp.float32), self.out_DE, self.out_bias_E), cache

    def _embedded(self, tok_BT: jax.Array) -> jax.Array:
        x_BTD = affine(self.rows(tok_BT), self.in_ED)
        return self.d_embed**0.5 * x_BTD + along_last(self.in_bias_D, x_BTD)


@dataclasses.dataclass(frozen=True)
class ReanModel(SequenceModel):
    """A VectorModel as a language model, with a training loss of its own and constants beside its parameters."""

    module: VectorModel
    treatment: str
    """The treatment of vectors that are read: see ReanConfig.rows."""
    negatives: int = 0
    """contrastive: tokens drawn for each step."""
    pads_left: bool = False
    """True if training fills short rows from the left, and counts what it fills in."""

    @property
    def loss_unit(self) -> str:
        """The unit of the training loss."""
        return UNITS[self.module.objective]

    def with_eos(self, eos: int) -> "ReanModel":
        """Raises UserError: the tables have EOS and bytes first, and token 0 means that no vector is close."""
        raise UserError(
            f"data.tokens wants tokens whose EOS is token 0 for REAN, got token {eos:,}: leave data.tokens.path out"
        )

    @property
    def is_calibrated(self) -> bool:
        """True if the likelihood has a theta, which training leaves alone."""
        return self.module.objective != "softmax"

    @property
    def marks_unknown(self) -> bool:
        """True if token 0 means "no vector is close": it has no vector itself, and cannot be nearest."""
        return self.module.nearest and self.pads_left

    def nearest(self) -> "ReanModel":
        """The same model, whose logits leave the nearest token alone."""
        return dataclasses.replace(self, module=self.module.clone(nearest=True))

    def embed(self, params: Params, tok_BT: jax.Array) -> jax.Array:
        """emb_BTE, the vector predicted after each position."""
        return self._apply(params, tok_BT, method="emb")

    def unembed(self, params: Params, emb_BTE: jax.Array) -> jax.Array:
        """logits_BTV of predicted vectors."""
        return self._apply(params, emb_BTE, method="logits")

    def train_loss(
        self, params: Params, tok: jax.Array, target: jax.Array, weight: jax.Array | None, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The objective's (sum, count) of a batch of windows or sequences."""
        target_BT, weight_BT = _columns(target, weight)
        if self.pads_left:
            if target.ndim == 1:
                target_BT = jnp.concatenate([tok[:, 1:], target_BT], axis=1)
            else:
                tok, target_BT = (_left(x_BT, weight_BT, self.context or 0) for x_BT in (tok, target_BT))
            weight_BT = jnp.ones(target_BT.shape)
        negative_M = self._drawn(params.get(BUFFERS, {}), key)
        return self._apply(params, tok, target_BT, weight_BT, negative_M, method="loss", rngs={"dropout": key})

    @property
    def row_table(self) -> str | None:
        """The trained table, where the objective reads some tokens of it alone."""
        if self.module.objective != "contrastive" or self.module.held is not None:
            return None
        return {"learned": "vectors", "tuned": "delta"}.get(self.module.table)

    def touched(self, buffers: Params, tok: jax.Array, target: jax.Array, key: jax.Array) -> jax.Array:
        """The rows of the table that `train_loss` of the batch reads: its tokens, its targets, the tokens drawn."""
        S, rows = self.module.specials, self.vocab_size - self.module.specials
        tok_K = jnp.concatenate([tok.reshape(-1), target.reshape(-1), self._drawn(buffers, key)])
        place_K = jnp.where(tok_K < S, rows, tok_K - S)
        return jnp.unique(place_K, size=min(place_K.size, rows), fill_value=rows)

    def on_rows(self, count: int) -> "ReanModel":
        """The model whose parameters hold so many rows of the table, those of the constant `touched`."""
        return dataclasses.replace(self, module=self.module.clone(held=count))

    def _drawn(self, buffers: Params, key: jax.Array) -> jax.Array:
        """negative_M of a step."""
        if not self.negatives:
            return jnp.zeros(0, jnp.int32)
        key = jax.random.fold_in(key, 1)
        return alias_draw(key, buffers["alias_keep"], buffers["alias"], self.negatives)

    def calibrated(self, params: Params, tok: jax.Array, target: jax.Array, weight: jax.Array | None) -> Params:
        """The parameters with theta fitted to a batch of train."""
        theta = self._apply(params, tok, *_columns(target, weight), method="calibrated_theta")
        return {**params, "theta": theta}

    def check_words(self, words: Sequence[str]) -> None:
        """Raise UserError where tokens that would have trained rows, as EOS and bytes have, are words.

        `words` are the last tokens of the vocabulary.
        """
        if self.module.specials > self.vocab_size - len(words):
            raise _all_words(self.module.table, self.module.objective)

    def buffers(
        self, words: Sequence[str], count_V: np.ndarray, vectors: WordVectors | None, seed: int
    ) -> dict[str, np.ndarray]:
        """The arrays that are not trained: vectors (unless they are learned), frequencies and draws of tokens.

        words are the last tokens of the vocabulary, count_V how often train has each token. A word that the file
        does not have, with the white space after it or without, is a row of zeros. Rows of EOS and of bytes
        are drawn, for where they are not trained; those of the faithful model are zeros. Raises UserError where tokens
        that would have trained rows, as EOS and bytes have, are words.
        """
        m = self.module
        self.check_words(words)
        made: dict[str, np.ndarray] = {}
        if m.table != "learned":
            made["vectors"] = self._vectors(words, vectors, np.random.default_rng([seed, DRAWN]))[m.specials :]
            if m.table != "tuned":
                norm_V = np.linalg.norm(made["vectors"], axis=1)
                made["inverse_norm"] = np.divide(1, norm_V, where=norm_V > 0, out=np.zeros_like(norm_V))
        if m.objective != "softmax":
            prior_V = (count_V + 1.0) / (count_V.sum() + len(count_V))
            made["log_prior"] = np.log(prior_V).astype(np.float32)
            if self.negatives:
                made["alias_keep"], made["alias"] = alias_table(prior_V)
        return made

    def _vectors(self, words: Sequence[str], vectors: WordVectors | None, rng: np.random.Generator) -> np.ndarray:
        V, E = self.vocab_size, self.module.d_embed
        no_word_V = np.arange(V) < V - len(words)
        drawn_VE = treated(rng.standard_normal((V, E)), "unit")
        if self.pads_left:
            drawn_VE[no_word_V] = 0
        if vectors is None:
            return drawn_VE
        if vectors.row_VE.shape[1] != E:
            raise UserError(f"model.d_embed wants {vectors.row_VE.shape[1]}, the width of model.vectors, got {E}")
        place = {word: i for i, word in enumerate(vectors.words)}
        found = [place.get(word, place.get(word.rstrip(), -1)) for word in words]
        found_V = np.array([-1] * (V - len(words)) + found)
        if not (found_V >= 0).any():
            raise UserError("model.vectors wants a file with words of the data, got none of them")
        known_V = found_V >= 0
        row_VE = np.zeros((V, E), np.float32)
        row_VE[known_V] = treated(vectors.row_VE[found_V[known_V]], self.treatment)
        row_VE[no_word_V] = drawn_VE[no_word_V]
        return row_VE


def build(config: ReanConfig) -> ReanModel:
    """The model of these settings. Raises UserError where a table with rows of EOS and of bytes has no words."""
    V = needed(config.vocab_size, "ReanConfig.vocab_size")
    trained = config.table != "learned" and config.objective in ("softmax", "contrastive")
    if trained and V <= FIRST_WORD:
        raise _all_words(config.table, config.objective)
    module = Rean(
        config=config,
        vocab_size=V,
        d_embed=config.d_embed,
        table=config.table,
        objective=config.objective,
        scale=config.scale,
        specials=FIRST_WORD if trained else 0,
        unit_rows=config.table == "random" or (config.table == "frozen" and config.rows != "raw"),
        cosine_likelihood=False,
        nearest=False,
        held=None,
    )
    negatives = config.negatives if config.objective == "contrastive" else 0
    return ReanModel(module, context=module.context, vocab_size=V, treatment=config.rows, negatives=negatives)


def _all_words(table: str, objective: str) -> UserError:
    return UserError(
        f"data.tokens wants ReanTokensConfig() for model.table {table} with model.objective {objective}, "
        "which trains rows of EOS and of bytes, got tokens that are all words: write "
        "data=DataConfig(tokens=ReanTokensConfig(), ...) in the config"
    )


def treated(row_VE: np.ndarray, treatment: str) -> np.ndarray:
    """Vectors as a model reads them: "raw" at a common scale with a mean squared length of 1, "unit" or "centered" with
    a length of 1 each, "original" as they are.
    """
    row_VE = row_VE.astype(np.float32)
    if treatment == "original":
        return row_VE
    if treatment == "raw":
        return row_VE / max(float(np.sqrt(np.mean(np.sum(row_VE**2, axis=1)))), 1e-20)
    if treatment == "centered":
        row_VE = row_VE - row_VE.mean(0)
    return row_VE / np.maximum(np.linalg.norm(row_VE, axis=1, keepdims=True), 1e-20)


def alias_table(p_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """keep_V (float32) and alias_V (int32) that `ops.alias_draw` draws by (Vose 1991): V places of equal probability,
    each shared by two outcomes at most.
    """
    V = len(p_V)
    share_V = p_V * V / p_V.sum()
    keep_V, alias_V = np.ones(V), np.arange(V)
    small, large = np.flatnonzero(share_V < 1).tolist(), np.flatnonzero(share_V >= 1).tolist()
    share = share_V.tolist()
    while small and large:
        low, high = small.pop(), large[-1]
        keep_V[low], alias_V[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    return keep_V.astype(np.float32), alias_V.astype(np.int32)


def _columns(target: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """target_BT and weight_BT: of windows one column."""
    weight = jnp.ones(target.shape) if weight is None else weight
    return (target, weight) if target.ndim == 2 else (target[:, None], weight[:, None])


def _left(x_BT: jax.Array, weight_BT: jax.Array, context: int) -> jax.Array:
    """Rows moved to the end of a context; EOS stands before them."""
    T = x_BT.shape[1]
    length_B1 = jnp.max(jnp.where(weight_BT > 0, jnp.arange(1, T + 1)[None], 0), axis=1, keepdims=True)
    place_BC = jnp.arange(max(context, T))[None] - (max(context, T) - length_B1)
    return jnp.where(place_BC >= 0, jnp.take_along_axis(x_BT, jnp.maximum(place_BC, 0), axis=1), 0)
