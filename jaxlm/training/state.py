"""The training state: what a step moves on and a checkpoint holds."""

from typing import Any

import flax.struct
import jax
import numpy as np
import optax

from jaxlm.models.base import Params


@flax.struct.dataclass
class TrainState:
    """Arrays only. `step` counts the updates made."""

    step: jax.Array | np.ndarray
    params: Params
    opt_state: optax.OptState

    def items(self) -> dict[str, Any]:
        """The state as a checkpoint holds it: parameters apart, so that sampling reads them alone."""
        return {"params": self.params, "training": {"step": self.step, "opt_state": self.opt_state}}

    @classmethod
    def of_items(cls, items: dict[str, Any]) -> "TrainState":
        """The state from the items of a checkpoint."""
        return cls(params=items["params"], **items["training"])


@flax.struct.dataclass
class Chunk:
    """The metrics of K steps."""

    loss_K: jax.Array | np.ndarray
    """Mean loss of each step."""
    count_K: jax.Array | np.ndarray
    """Predictions (word2vec: words) of each step."""
    lr: jax.Array | float
    """Learning rate of the last step."""
    weight_K: np.ndarray | None = None
    """Weight of each loss in a mean over steps. None: all alike."""
