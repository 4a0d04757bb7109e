"""A table of token vectors, and what a predicted vector means by it: losses, likelihoods, the nearest token."""

import abc
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.models.base import Axes
from jaxlm.ops import along_last, inverse_norms, unit
from jaxlm.ops.losses import contrastive, cosine_distance, cross_entropy, squared_error, von_mises_fisher
from jaxlm.tokenizers import EOS

TOUCHED = "touched"
"""The name of the buffer that holds the rows of a table which a step updates."""
NO_WORD = 0.01
"""Cosine up to which no vector counts as near: the published model prints [NIV]."""
FIT_HALVINGS, FIT_RANGE = 24, 8.0
"""theta is found by so many halvings of the range from e^-8 to e^8, in units of one over the feature's deviation."""


class VectorModel(nn.Module):
    """A module that predicts the vector of the next token: a subclass gives `emb`, `init_cache` and `extend_emb`.

    The likelihood of every objective is normalised over the table. softmax: p(v) is proportional to
    exp(s cos(e, v) + b_v), trained as it is. The others: to pi_v exp(theta f(e, v)), where pi is how often train has v
    (and one more), and f is cos(e, v) for the contrastive and the cosine objective and the faithful model, e . v / |v|
    for von Mises-Fisher, and minus the mean squared difference for mse, so that 1 / theta is twice a variance. theta is
    fitted on train by maximum likelihood (`calibrated_theta`). A token of zeros has cosine 0 with everything.

    Vectors that are not trained are constants, in a collection of that name, not parameters; the first `specials` rows
    (EOS, bytes) are trained even so.

    `held` is for a step that updates the rows it touches alone: the trained table's parameter then has so many rows,
    those that the constant TOUCHED numbers in ascending order, and no other token can be asked for.
    """

    vocab_size: int
    d_embed: int
    table: str
    objective: str
    scale: float
    specials: int
    unit_rows: bool
    """True if the rows that are not trained have length 1 (or 0)."""
    cosine_likelihood: bool
    """True if mse is scored by cosines."""
    nearest: bool
    """True if the logits leave the nearest token alone, or EOS where none has a cosine above NO_WORD."""
    held: int | None
    """Rows of the trained table in the parameters. None: all."""

    @abc.abstractmethod
    def emb(self, tok_BT: jax.Array) -> jax.Array:
        """emb_BTE, the vector predicted after each position."""

    @abc.abstractmethod
    def extend_emb(self, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
        """emb_BTE after each new token, and the cache with each row's first length_B[b] tokens in it."""

    def setup_table(self) -> None:
        """Declare the table, and what the objective needs beside it."""
        V, S, E = self.vocab_size, self.specials, self.d_embed
        drawn = nn.initializers.normal(E**-0.5)
        rows = V - S if self.held is None else self.held
        if self.table == "learned":
            self.trained_UE = self.row_VE = self.param("vectors", drawn, (rows, E))
        else:
            self.fixed_VE = self.row_VE = self._buffer("vectors", (V - S, E))
            if self.table == "tuned":
                self.trained_UE = self.param("delta", nn.initializers.zeros, (rows, E))
                if self.held is None:
                    self.row_VE = self.fixed_VE + self.trained_UE
            else:
                self.inverse_norm_V = self._buffer("inverse_norm", (V - S,))
            if S:
                self.special_SE = self.param("special", drawn, (S, E))
        if self.objective in ("softmax", "contrastive"):
            self.log_scale = self.param("log_scale", nn.initializers.constant(jnp.log(self.scale)), ())
        if self.objective == "softmax":
            self.bias_V = self.param("bias", nn.initializers.zeros, (V,))
        else:
            first = self.scale if self.objective == "contrastive" else 1.0
            self.theta = self.param("theta", nn.initializers.constant(first), ())
            self.log_prior_V = self._buffer("log_prior", (V,))
        if self.held is not None:
            self.touched_U = self._buffer(TOUCHED, (rows,))

    def table_axes(self) -> Axes:
        """Logical axes of the parameters that `setup_table` declares."""
        axes: dict[str, tuple[str | None, ...]] = {}
        if self.table == "learned":
            axes["vectors"] = ("vocab", "embed")
        else:
            if self.table == "tuned":
                axes["delta"] = ("vocab", "embed")
            if self.specials:
                axes["special"] = ("vocab", "embed")
        if self.objective in ("softmax", "contrastive"):
            axes["log_scale"] = ()
        axes |= {"bias": ("vocab",)} if self.objective == "softmax" else {"theta": ()}
        return axes

    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        return self.logits(self.emb(tok_BT))

    def extend(self, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
        emb_BTE, cache = self.extend_emb(cache, tok_BT, length_B)
        return self.logits(emb_BTE), cache

    def rows(self, tok: jax.Array) -> jax.Array:
        """The vectors of tokens of any shape."""
        S = self.specials
        if not S:
            return self._table_rows(tok)
        special = self.special_SE[jnp.minimum(tok, S - 1)]
        return jnp.where((tok < S)[..., None], special, self._table_rows(jnp.maximum(tok - S, 0)))

    def logits(self, emb: jax.Array) -> jax.Array:
        """Logits of every token for predicted vectors of any leading shape."""
        if self.nearest:
            cosine = self._cosines(emb)
            best = jnp.where(jnp.max(cosine, axis=-1) > NO_WORD, jnp.argmax(cosine, axis=-1), EOS)
            return jnp.where(along_last(jnp.arange(self.vocab_size), cosine) == best[..., None], 0.0, -jnp.inf)
        if self.objective == "softmax":
            return self._cosines(emb, jnp.exp(self.log_scale)) + along_last(self.bias_V, emb)
        return self.theta * self._features(emb) + along_last(self.log_prior_V, emb)

    def loss(
        self, tok_BT: jax.Array, target_BT: jax.Array, weight_BT: jax.Array, negative_M: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The objective's (sum, count) over the targets that weigh, which are those of the last positions."""
        emb_NE = self._last(tok_BT, target_BT.shape[1])
        return self.objective_of(emb_NE, target_BT.reshape(-1), weight_BT.reshape(-1), negative_M)

    def objective_of(
        self, emb_NE: jax.Array, target_N: jax.Array, weight_N: jax.Array, negative_M: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The objective's (sum, count) for predicted vectors. Distances leave out targets without a vector; the
        contrastive objective alone reads tokens that are not there, negative_M.
        """
        if self.objective == "softmax":
            return cross_entropy(self.logits(emb_NE), target_N, weight_N)
        row_NE = self.rows(target_N)
        if self.objective == "contrastive":
            candidate_KE = unit(jnp.concatenate([row_NE, self.rows(negative_M)]))
            score_NK = jnp.exp(self.log_scale) * (unit(emb_NE) @ candidate_KE.T)
            return contrastive(score_NK, weight_N)
        row_NE = jax.lax.stop_gradient(row_NE)
        weight_N = weight_N * jnp.any(row_NE != 0, axis=-1)
        if self.objective == "vmf":
            return von_mises_fisher(emb_NE, unit(row_NE), weight_N)
        distance = cosine_distance if self.objective == "cosine" else squared_error
        return distance(emb_NE, unit(row_NE) if self.objective == "cosine" else row_NE, weight_N)

    def calibrated_theta(self, tok_BT: jax.Array, target_BT: jax.Array, weight_BT: jax.Array) -> jax.Array:
        """The theta under which the targets are most likely: where the mean of f over them is its mean under the model.

        The log-likelihood is concave in theta (an exponential family), so that halving its range finds the top.
        """
        target_N, weight_N = target_BT.reshape(-1), weight_BT.reshape(-1)
        feature_NV = self._features(self._last(tok_BT, target_BT.shape[1]))
        feature_NV -= jnp.max(feature_NV, axis=-1, keepdims=True)
        got_N = jnp.take_along_axis(feature_NV, target_N[:, None], axis=-1)[:, 0]
        size = jnp.std(feature_NV) + 1e-20

        def halve(bounds: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
            low, high = bounds
            middle = (low + high) / 2
            p_NV = jax.nn.softmax(jnp.exp(middle) / size * feature_NV + self.log_prior_V[None], axis=-1)
            rises = jnp.sum((got_N - jnp.sum(p_NV * feature_NV, axis=-1)) * weight_N) > 0
            return (jnp.where(rises, middle, low), jnp.where(rises, high, middle)), None

        bounds = jnp.float32(-FIT_RANGE), jnp.float32(FIT_RANGE)
        (low, high), _ = jax.lax.scan(halve, bounds, length=FIT_HALVINGS)
        return jnp.exp((low + high) / 2) / size

    def _last(self, tok_BT: jax.Array, count: int) -> jax.Array:
        """The predicted vectors of the last `count` positions, emb_NE."""
        return self.emb(tok_BT)[:, tok_BT.shape[1] - count :].reshape(-1, self.d_embed)

    def _table_rows(self, place: jax.Array) -> jax.Array:
        """Rows of the table without the specials, by their numbers."""
        if self.held is None:
            return self.row_VE[place]
        row = self.trained_UE[jnp.searchsorted(self.touched_U, place)]
        return row + self.fixed_VE[place] if self.table == "tuned" else row

    def _features(self, emb: jax.Array) -> jax.Array:
        """f(e, v) of every token."""
        if self.objective == "mse" and not self.cosine_likelihood:
            inverse_V = self._inverse_norms()
            square_V = jnp.where(inverse_V > 0, 1 / jnp.square(jnp.maximum(inverse_V, 1e-30)), 0.0)
            square = jnp.sum(jnp.square(emb), axis=-1, keepdims=True)
            product = self._products(emb, jax.lax.Precision.HIGHEST)
            return (2 * product - along_last(square_V, emb) - square) / self.d_embed
        if self.objective == "vmf":
            return self._products(emb) * along_last(self._inverse_norms(), emb)
        return self._cosines(emb)

    def _cosines(self, emb: jax.Array, scale: jax.Array | float = 1.0) -> jax.Array:
        """The scaled cosines of every token. Rows of length 1 spare a pass over the logits, forward and backward."""
        query = scale * unit(emb)
        if not self.unit_rows:
            return self._products(query) * along_last(self._inverse_norms(), query)
        product = query @ self.row_VE.T
        special = [query @ unit(self.special_SE).T] if self.specials else []
        return jnp.concatenate([*special, product], axis=-1)

    def _products(self, query: jax.Array, precision: jax.lax.Precision | None = None) -> jax.Array:
        """The product of vectors with every row. A distance is a difference of such sums: it needs full precision."""
        product = jnp.matmul(query, self.row_VE.T, precision=precision)
        if not self.specials:
            return product
        return jnp.concatenate([jnp.matmul(query, self.special_SE.T, precision=precision), product], axis=-1)

    def _inverse_norms(self) -> jax.Array:
        trained = self.table in ("learned", "tuned")
        inverse_V = inverse_norms(self.row_VE) if trained else self.inverse_norm_V
        return jnp.concatenate([inverse_norms(self.special_SE), inverse_V]) if self.specials else inverse_V

    def _buffer(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        return self.variable("buffers", name, jnp.zeros, shape).value
