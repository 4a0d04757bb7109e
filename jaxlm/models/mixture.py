"""A mixture of a network and counts: p = s p_network + (1 - s) p_counts.

Both err in different places, so that a mixture predicts better than the better of the two: by several per cent where a
small network is trained for minutes. With the share s fitted on dev it is never worse there than the counts alone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config.mixture import MixtureConfig
from jaxlm.errors import UserError
from jaxlm.models.base import BUFFERS, Axes, NatsFromLogits, Params, SequenceModel, needed, rolled_back
from jaxlm.models.counts import KneserNey
from jaxlm.ops import log_normalize

HALVINGS = 30
"""Steps of the bisection that finds the share: it is exact to 1e-9."""
CERTAIN = 1e-6
"""The share keeps this distance from 0 and 1, where one of the two would count for nothing."""


@dataclasses.dataclass(frozen=True)
class Mixture(NatsFromLogits):
    """A network's parameters are under "network", its share is "share", the counts are buffers."""

    network: SequenceModel
    counts: KneserNey

    @property
    def context(self) -> int | None:
        """Tokens that the network sees, or None."""
        return self.network.context

    @property
    def max_length(self) -> int | None:
        """Positions of the network, or None."""
        return self.network.max_length

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""
        return self.network.vocab_size

    @property
    def axes(self) -> Axes:
        """The network's; the share has none."""
        return {**{f"network/{name}": axes for name, axes in self.network.axes.items()}, "share": ()}

    def with_eos(self, eos: int) -> "Mixture":
        """The same model for tokens whose EOS is `eos`, with which the counts fill contexts."""
        return dataclasses.replace(self, counts=self.counts.with_eos(eos))

    def init(self, key: jax.Array, tok_BT: jax.Array) -> Params:
        """The network's untrained parameters, and a share of one half."""
        return {"network": self.network.init(key, tok_BT), "share": jnp.float32(0.5)}

    def apply(self, params: Params, tok_BT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The log-probabilities log p_BTV after each position."""
        network_BTV = self.network.apply(params["network"], tok_BT, key=key)
        return _mixed(params, log_normalize(network_BTV), self.counts.apply(params[BUFFERS], tok_BT))

    def next_logits(self, params: Params, ctx_BC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The log-probabilities log p_BV after each context."""
        return self.apply(params, ctx_BC, key=key)[:, -1]

    def sequence_nats(
        self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """-log p of the target after each position, nats_BT, and log_z_BT of zeros."""
        return -_mixed(params, *self._log_likelihoods(params, tok_BT, target_BT, key)), jnp.zeros(target_BT.shape)

    def init_cache(self, params: Params, batch: int, length: int) -> Any:
        """The network's cache, and the last tokens for the counts."""
        return (
            self.network.init_cache(params["network"], batch, length),
            self.counts.init_cache(params[BUFFERS], batch, length),
        )

    def extend(self, params: Params, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
        """Log p_BTV after each new token, and both caches with each row's tokens in them."""
        network_BTV, network_cache = self.network.extend(params["network"], cache[0], tok_BT, length_B)
        counts_BTV, counts_cache = self.counts.extend(params[BUFFERS], cache[1], tok_BT, length_B)
        return _mixed(params, log_normalize(network_BTV), counts_BTV), (network_cache, counts_cache)

    def rolled_back(self, params: Params, before: Any, after: Any, tok_BT: jax.Array, length_B: jax.Array) -> Any:
        """Both caches after each row's first length_B[b] tokens."""
        network = self.network.rolled_back(params["network"], before[0], after[0], tok_BT, length_B)
        return network, rolled_back(self.counts, params[BUFFERS], before[1], after[1], tok_BT, length_B)

    def calibrated(self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, weight_BT: jax.Array) -> Params:
        """The parameters with the share under which the targets are most likely.

        The log-likelihood is concave in s, with the slope sum of weight (p_network - p_counts) / p: it is bisected.
        """
        network_BT, counts_BT = self._log_likelihoods(params, tok_BT, target_BT)

        def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = bounds
            middle = (low + high) / 2
            p_BT = _mixed({"share": middle}, network_BT, counts_BT)
            rises = jnp.sum(weight_BT * (jnp.exp(network_BT - p_BT) - jnp.exp(counts_BT - p_BT))) > 0
            return jnp.where(rises, middle, low), jnp.where(rises, high, middle)

        low, high = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.float32(CERTAIN), jnp.float32(1 - CERTAIN)))
        return {**params, "share": (low + high) / 2}

    def _log_likelihoods(
        self, params: Params, tok_BT: jax.Array, target_BT: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Log p of each target by the network and by the counts."""
        network_BT, _ = self.network.sequence_nats(params["network"], tok_BT, target_BT, key=key)
        return -network_BT, -self.counts.sequence_nats(params[BUFFERS], tok_BT, target_BT)[0]


def build(config: MixtureConfig) -> Mixture:
    """The model of these settings."""
    network = config.network.build()
    if not isinstance(network, SequenceModel):
        raise UserError(
            f"model.network wants a network of sequences such as GptConfig(...), got {type(config.network).__name__}"
        )
    vocab_size = needed(config.vocab_size, "MixtureConfig.vocab_size")
    return Mixture(network, KneserNey(context=config.order - 1, vocab_size=vocab_size))


def _mixed(params: Params, network: jax.Array, counts: jax.Array) -> jax.Array:
    """log(s exp(network) + (1 - s) exp(counts)) of logarithms of probabilities."""
    share = params["share"]
    return jnp.logaddexp(jnp.log(share) + network, jnp.log1p(-share) + counts)
