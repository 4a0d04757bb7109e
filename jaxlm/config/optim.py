"""Settings of the optimiser and its learning-rate schedule."""

import dataclasses
from typing import Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings, refuse_unused
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimConfig(Settings, group="optim."):
    """The optimiser and its learning-rate schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    """The update rule."""
    lr: float = 0.1
    """Learning rate before the schedule's factors."""
    schedule: Literal["constant", "piecewise", "cosine", "linear"] = "constant"
    """piecewise: lr times each factor whose boundary has passed. cosine, linear: down to end_factor * lr."""
    boundaries: tuple[float, ...] = ()
    """piecewise: where each factor sets in; below 1 a fraction of the run, else a step."""
    factors: tuple[float, ...] = ()
    """piecewise: one factor for each boundary."""
    warmup: float = 0.0
    """cosine: linear rise from 0; below 1 a fraction of the run, else steps, at most a fifth of the run."""
    end_factor: float = 0.0
    """cosine, linear: the last learning rate as a share of lr."""
    momentum: float = 0.0
    """sgd: decay of the velocity; 0 is plain descent."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw: decay of the first and second moments."""
    eps: float = 1e-8
    """adamw: added to the root of the second moment."""
    weight_decay: float = 0.0
    """adamw: decoupled decay of every parameter, as a share of the learning rate."""
    clip: float | None = None
    """Largest global norm of a gradient. None: no clipping."""
    l2: float = 0.0
    """Adds l2 * mean(w ** 2) of each parameter array to the loss."""

    def __post_init__(self) -> None:
        check.more_than("optim.lr", self.lr, 0)
        check.between("optim.momentum", self.momentum, 0, 1)
        for beta in self.betas:
            check.below("optim.betas", beta, 0, 1)
        check.more_than("optim.eps", self.eps, 0)
        check.at_least("optim.weight_decay", self.weight_decay, 0)
        check.more_than("optim.clip", self.clip, 0)
        check.at_least("optim.l2", self.l2, 0)
        check.at_least("optim.warmup", self.warmup, 0)
        check.between("optim.end_factor", self.end_factor, 0, 1)
        if len(self.boundaries) != len(self.factors):
            raise UserError(
                f"optim.factors wants one factor for each of the {len(self.boundaries)} boundaries, "
                f"got {len(self.factors)}"
            )
        if self.schedule == "piecewise" and not self.boundaries:
            raise UserError("optim.boundaries wants at least one boundary for schedule piecewise, got none")
        for boundary in self.boundaries:
            check.between("optim.boundaries", boundary, 0, check.MOST)
        for factor in self.factors:
            check.between("optim.factors", factor, 0, check.LARGEST)
        name, schedule = f"optim.name {self.name}", f"optim.schedule {self.schedule}"
        if self.name != "sgd":
            refuse_unused(self, ("momentum",), name, "optim.name sgd")
        if self.name != "adamw":
            refuse_unused(self, ("betas", "eps", "weight_decay"), name, "optim.name adamw")
        if self.schedule != "piecewise":
            refuse_unused(self, ("boundaries", "factors"), schedule, "optim.schedule piecewise")
        if self.schedule != "cosine":
            refuse_unused(self, ("warmup",), schedule, "optim.schedule cosine")
        if self.schedule not in ("cosine", "linear"):
            refuse_unused(self, ("end_factor",), schedule, "optim.schedule cosine or linear")

    def at_constant_rate(self) -> "OptimConfig":
        """Return the same optimiser with the constant rate lr, without what belongs to a schedule."""
        return dataclasses.replace(self, schedule="constant", boundaries=(), factors=(), warmup=0.0, end_factor=0.0)
