"""The neural n-gram: a table of logits, one row for each context."""

import flax.linen as nn
import jax

from jaxlm.config.models import MAX_ENTRIES, NgramConfig
from jaxlm.errors import UserError
from jaxlm.models.base import Axes, WindowModel, needed
from jaxlm.ops import context_index


class NgramTable(nn.Module):
    """logits[n] = W[row of context n], which is what one-hot(context) @ W selects, without forming the product."""

    context: int
    vocab_size: int
    init_scale: float

    @property
    def axes(self) -> Axes:
        return {"logits": (None, "vocab")}

    @nn.compact
    def __call__(self, ctx_NC: jax.Array) -> jax.Array:
        V = self.vocab_size
        logits_RV = self.param("logits", nn.initializers.normal(self.init_scale), (V**self.context, V))
        return logits_RV[context_index(ctx_NC, V)]


def build(config: NgramConfig) -> WindowModel:
    """The model of these settings. Raises UserError where the table would not fit."""
    V = needed(config.vocab_size, "NgramConfig.vocab_size")
    if V**config.order > MAX_ENTRIES:
        raise UserError(
            f"model.order {config.order} with {V} tokens wants a table of {V**config.order:.3g} entries, "
            f"at most {MAX_ENTRIES:,} are allowed; take a lower order or counts"
        )
    module = NgramTable(context=config.order - 1, vocab_size=V, init_scale=config.init_scale)
    return WindowModel(context=config.order - 1, vocab_size=V, module=module)
