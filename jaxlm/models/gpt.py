"""GPT: a transformer from tokens to logits of the next one, in the form that its settings say."""

import jax
import jax.numpy as jnp

from jaxlm.config.transformer import GptConfig
from jaxlm.devices.layout import traced_for
from jaxlm.devices.vocabulary import table
from jaxlm.models.base import Axes, SequenceModel, needed
from jaxlm.models.spec import Spec, Specs, axes
from jaxlm.models.transformer import Cache, Transformer
from jaxlm.tokenizers import EOS


class Gpt(Transformer):
    """x = embed[tok]; the transformer; logits = h U, where U is the embedding or a matrix of its own."""

    config: GptConfig
    eos: int = EOS
    """The token that begins a document, if documents share rows."""

    def setup(self) -> None:
        first, last = self._embedding_specs
        made = {name: self.param(name, spec.init, spec.shape) for name, spec in first.items()}
        super().setup()
        made |= {name: self.param(name, spec.init, spec.shape) for name, spec in last.items()}
        dtype = self.config.dtype
        self.embed = table(made["embed"], dtype)
        self.out = table(made["out"], dtype) if "out" in made else self.embed
        self.value_LVI = made.get("value_embed")

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""
        return needed(self.config.vocab_size, "GptConfig.vocab_size")

    @property
    def axes(self) -> Axes:
        first, last = self._embedding_specs
        return {**super().axes, **axes(first), **axes(last)}

    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        return self._logits(self._hidden(tok_BT))

    def target_nats(self, tok_BT: jax.Array, target_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """-log p of the target after each position and the log of its normalizer, nats_BT and log_z_BT.

        A large batch's logits are never there at once: see ops.unembedding.
        """
        return self.out.nats(self._hidden(tok_BT), target_BT, self.config.logit_softcap)

    def init_cache(self, batch: int, length: int) -> Cache:
        cache = super().init_cache(batch, length)
        if self.config.documents:
            cache["start"] = jnp.zeros((batch, cache["k"].shape[3]), jnp.int32)
        return cache

    def extend(self, cache: Cache, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Cache]:
        h_BTD, cache = self.extend_hidden(
            cache, self.embed.lookup(tok_BT), length_B, value_LBTKH=self._value(tok_BT), begins_BT=self._begins(tok_BT)
        )
        return self._logits(h_BTD), cache

    @property
    def _embedding_specs(self) -> tuple[Specs, Specs]:
        """The parameters that are drawn before the transformer's and after them."""
        config, V = self.config, self.vocab_size
        first: Specs = {"embed": Spec((V, config.d_model), ("vocab", "embed"))}
        last: Specs = {} if config.tied else {"out": Spec((V, config.d_model), ("vocab", "embed"))}
        if config.value_embeds:
            shape = (sum(config.value_layers), V, config.kv_heads * config.head_width)
            last["value_embed"] = Spec(shape, ("layers", "vocab", "embed"))
        return first, last

    def _hidden(self, tok_BT: jax.Array) -> jax.Array:
        return self.hidden(self.embed.lookup(tok_BT), value_LBTKH=self._value(tok_BT), begins_BT=self._begins(tok_BT))

    def _logits(self, h_BTD: jax.Array) -> jax.Array:
        return self.out.logits(h_BTD, self.config.logit_softcap)

    def _value(self, tok_BT: jax.Array) -> jax.Array | None:
        """The value embeddings of tokens, value_LBTKH, for the layers that have them."""
        if self.value_LVI is None:
            return None
        if traced_for() is None:
            value_LBTI = self.value_LVI[:, tok_BT]
        else:
            value_LBTI = jnp.stack([table(value_VI, self.config.dtype).lookup(tok_BT) for value_VI in self.value_LVI])
        return value_LBTI.reshape(-1, *tok_BT.shape, self.config.kv_heads, self.config.head_width)

    def _begins(self, tok_BT: jax.Array) -> jax.Array | None:
        return tok_BT == self.eos if self.config.documents else None


def build(config: GptConfig) -> SequenceModel:
    """The model of these settings."""
    module = Gpt(config)
    return SequenceModel(module, context=module.context, vocab_size=module.vocab_size)
