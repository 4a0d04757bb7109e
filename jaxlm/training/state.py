"""The training state, which a step advances and a checkpoint holds, and the metrics of a chunk."""

from typing import Any

import flax.struct
import jax
import numpy as np
import optax

from jaxlm.models.base import Params


@flax.struct.dataclass
class TrainState:
    """The arrays that a training step advances."""

    step: jax.Array | np.ndarray
    """Number of updates made."""
    params: Params
    """The trained parameters."""
    opt_state: optax.OptState
    """Optax's state, such as moments."""
    ema: Params | None = None
    """Running average of the parameters; None where optim.ema is not asked for."""

    @property
    def kept(self) -> Params:
        """The parameters by which a run is judged and sampled: the average where there is one."""
        return self.params if self.ema is None else self.ema

    def items(self) -> dict[str, Any]:
        """Items of a checkpoint: parameters and their average apart from the rest, so that sampling can load one alone.

        Without an average there is no item for it.
        """
        average = {} if self.ema is None else {"ema": self.ema}
        return {"params": self.params, "training": {"step": self.step, "opt_state": self.opt_state}, **average}

    @classmethod
    def of_items(cls, items: dict[str, Any]) -> "TrainState":
        """Build the state from the items of a checkpoint."""
        return cls(params=items["params"], ema=items.get("ema"), **items["training"])


@flax.struct.dataclass
class Chunk:
    """The metrics of the K steps of a chunk."""

    loss_K: jax.Array | np.ndarray
    """Mean loss of each step."""
    count_K: jax.Array | np.ndarray
    """Predictions (word2vec: words) of each step."""
    lr: jax.Array | float
    """Learning rate of the last step."""
    weight_K: np.ndarray | None = None
    """Weight of each loss in a mean over steps; None weighs them equally."""
    grad_norm: jax.Array | None = None
    """Norm of the gradient of the last step, before clipping; None where it is not computed."""
    nonfinite_K: jax.Array | np.ndarray | None = None
    """Steps in a row, up to each step, whose gradient was not finite and was skipped; None without skip_nonfinite."""
