"""The recurrent networks: Elman's with tanh (Mikolov et al. 2010), GRU (Cho et al. 2014), LSTM (Graves 2013)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.models import RnnConfig
from jaxlm.models.base import Axes, SequenceModel, needed
from jaxlm.ops import affine, project_lookup
from jaxlm.ops.ragged import after_length
from jaxlm.ops.recurrence import gru, lstm, rnn

INPUTS = {"rnn": 1, "gru": 3, "lstm": 4}
"""Widths of the state that a cell's input products have."""

State = dict[str, jax.Array]


def remembering(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Biases of an LSTM's i, f, o, g: 1 for the forget gate, which then keeps the cell at first (Jozefowicz 2015)."""
    F = shape[0] // 4
    return jnp.zeros(shape).at[F : 2 * F].set(1.0)


class Rnn(nn.Module):
    """state[t] = cell(state[t - 1], embed[tok[t]] W + b); logits = h[t] U + c. The start state is learned.

    The products with the inputs do not wait for the state: they are one product for the whole sequence.
    """

    vocab_size: int
    d_embed: int
    d_hidden: int
    cell: str

    def setup(self) -> None:
        V, E, F, G = self.vocab_size, self.d_embed, self.d_hidden, INPUTS[self.cell] * self.d_hidden
        normal, zeros = nn.initializers.normal, nn.initializers.zeros
        fan_in = (E + F) ** -0.5
        self.embed_VE = self.param("embed", normal(1.0), (V, E))
        self.input_EG = self.param("input", normal(fan_in), (E, G))
        self.input_bias_G = self.param("input_bias", remembering if self.cell == "lstm" else zeros, (G,))
        self.out_FV = self.param("out", normal(0.1 * F**-0.5), (F, V))
        self.out_bias_V = self.param("out_bias", zeros, (V,))
        self.start = {"h": self.param("start", zeros, (F,))}
        if self.cell == "lstm":
            self.start_cell_F = self.param("start_cell", zeros, (F,))
        if self.cell == "gru":
            self.gates_FG = self.param("gates", normal(fan_in), (F, 2 * F))
            self.candidate_FF = self.param("candidate", normal(fan_in), (F, F))
        else:
            self.recurrent_FG = self.param("recurrent", normal(fan_in), (F, G))

    @property
    def axes(self) -> Axes:
        own: Axes = {"recurrent": ("embed", "mlp")}
        if self.cell == "lstm":
            own = {**own, "start_cell": ("embed",)}
        if self.cell == "gru":
            own = {"gates": ("embed", "mlp"), "candidate": ("embed", "mlp")}
        return {
            "embed": ("vocab", "embed"),
            "input": ("embed", "mlp"),
            "input_bias": ("mlp",),
            "out": ("embed", "vocab"),
            "out_bias": ("vocab",),
            "start": ("embed",),
            **own,
        }

    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        return self._logits(self._states(self.init_cache(tok_BT.shape[0], tok_BT.shape[1]), tok_BT)["h"])

    def init_cache(self, batch: int, length: int) -> State:
        start = dict(self.start) | ({"cell": self.start_cell_F} if self.cell == "lstm" else {})
        return {name: jnp.broadcast_to(state_F, (batch, self.d_hidden)) for name, state_F in start.items()}

    def extend(self, cache: State, tok_BT: jax.Array, length_B: jax.Array) -> tuple[jax.Array, State]:
        each = self._states(cache, tok_BT)
        return self._logits(each["h"]), {name: after_length(cache[name], each[name], length_B) for name in cache}

    def _states(self, state: State, tok_BT: jax.Array) -> State:
        """State after each token, time first."""
        in_TBG = project_lookup(self.embed_VE, self.input_EG, tok_BT.T) + self.input_bias_G[None, None]
        if self.cell == "lstm":
            h_TBF, cell_TBF = lstm(state["h"], state["cell"], in_TBG, self.recurrent_FG)
            return {"h": h_TBF, "cell": cell_TBF}
        if self.cell == "gru":
            return {"h": gru(state["h"], in_TBG, self.gates_FG, self.candidate_FF)}
        return {"h": rnn(state["h"], in_TBG, self.recurrent_FG)}

    def _logits(self, h_TBF: jax.Array) -> jax.Array:
        return jnp.swapaxes(affine(h_TBF, self.out_FV, self.out_bias_V), 0, 1)


def build(config: RnnConfig) -> SequenceModel:
    """The model of these settings."""
    V = needed(config.vocab_size, "RnnConfig.vocab_size")
    module = Rnn(vocab_size=V, d_embed=config.d_embed, d_hidden=config.d_hidden, cell=config.cell)
    return SequenceModel(module, context=None, vocab_size=V)
