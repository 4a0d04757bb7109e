"""Settings of the optimiser and its learning-rate schedule."""

import dataclasses
from typing import Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings, refuse_unused
from jaxlm.errors import UserError

WITH_WARMUP = ("cosine", "linear", "wsd")
"""The schedules that may begin with a rise and that end at end_factor * lr."""


@dataclasses.dataclass(frozen=True)
class OptimConfig(Settings, group="optim."):
    """The optimiser and its learning-rate schedule."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    """The update rule. muon: Muon for the matrices between hidden layers, AdamW for all other parameters."""
    lr: float = 0.1
    """Learning rate before the schedule's factors; with muon that of AdamW's parameters."""
    schedule: Literal["constant", "piecewise", "cosine", "linear", "wsd"] = "constant"
    """piecewise: lr times each factor whose boundary has passed. cosine, linear: down to end_factor * lr.
    wsd: lr until the cooldown, which is linear."""
    boundaries: tuple[float, ...] = ()
    """piecewise: where each factor sets in; below 1 a fraction of the run, else a step."""
    factors: tuple[float, ...] = ()
    """piecewise: one factor for each boundary."""
    warmup: float = 0.0
    """cosine, linear, wsd: linear rise from 0; below 1 a fraction of the run, else steps, at most a fifth of it."""
    cooldown: float = 0.2
    """wsd: the fall at the end of the run; below 1 a fraction of the run, else steps. 0: none."""
    end_factor: float = 0.0
    """cosine, linear, wsd: the last learning rate as a share of lr."""
    momentum: float = 0.0
    """sgd: decay of the velocity; 0 is plain descent."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw, muon: decay of AdamW's first and second moments."""
    eps: float = 1e-8
    """adamw, muon: added to the root of AdamW's second moment."""
    muon_lr: float = 0.02
    """muon: learning rate of the matrices; the schedule's factors are those of lr."""
    muon_momentum: float = 0.95
    """muon: decay of the momentum, which is Nesterov's."""
    muon_rms: float | None = None
    """muon: root mean square of an update at a rate of 1, whatever its shape; AdamW's is about 0.2.
    None: updates are scaled by sqrt(max(1, outputs / inputs))."""
    weight_decay: float = 0.0
    """adamw, muon: decoupled decay of the parameters that `decay` names, as a share of the learning rate."""
    decay: Literal["all", "matrices"] = "all"
    """adamw, muon: what decays. matrices: no embeddings, unembeddings, positions, norms, biases and scalars."""
    clip: float | None = None
    """Largest global norm of a gradient, which is then in the metrics. None: no clipping."""
    l2: float = 0.0
    """Adds l2 * mean(w ** 2) of each parameter array to the loss."""
    z_loss: float = 0.0
    """Adds z_loss * log(Z) ** 2 of each prediction to the loss, Z being the softmax's sum; 1e-4 keeps logits small."""
    accumulate: int = 1
    """Micro-batches of a step, whose gradients are summed; batch_size, a multiple of it, is the whole batch."""
    ema: float | None = None
    """Decay of a running average of the parameters, which is evaluated, kept and sampled in their place. None: none."""
    skip_nonfinite: int | None = None
    """Skip a step whose gradient is not finite, and stop after so many in a row. None: stop at a loss that is not."""

    def __post_init__(self) -> None:
        check.more_than("optim.lr", self.lr, 0)
        check.between("optim.momentum", self.momentum, 0, 1)
        for beta in self.betas:
            check.below("optim.betas", beta, 0, 1)
        check.more_than("optim.eps", self.eps, 0)
        check.more_than("optim.muon_lr", self.muon_lr, 0)
        check.below("optim.muon_momentum", self.muon_momentum, 0, 1)
        check.more_than("optim.muon_rms", self.muon_rms, 0)
        check.at_least("optim.weight_decay", self.weight_decay, 0)
        check.more_than("optim.clip", self.clip, 0)
        check.at_least("optim.l2", self.l2, 0)
        check.at_least("optim.z_loss", self.z_loss, 0)
        check.between("optim.accumulate", self.accumulate, 1, 2**24)
        check.below("optim.ema", self.ema, 0, 1)
        check.at_least("optim.skip_nonfinite", self.skip_nonfinite, 1)
        check.at_least("optim.warmup", self.warmup, 0)
        check.at_least("optim.cooldown", self.cooldown, 0)
        check.between("optim.end_factor", self.end_factor, 0, 1)
        self._check_piecewise()
        name, schedule = f"optim.name {self.name}", f"optim.schedule {self.schedule}"
        if self.name != "sgd":
            refuse_unused(self, ("momentum",), name, "optim.name sgd")
        if self.name == "sgd":
            refuse_unused(self, ("betas", "eps", "weight_decay", "decay"), name, "optim.name adamw or muon")
        if self.name != "muon":
            refuse_unused(self, ("muon_lr", "muon_momentum", "muon_rms"), name, "optim.name muon")
        if not self.weight_decay:
            refuse_unused(self, ("decay",), f"optim.weight_decay {self.weight_decay}", "optim.weight_decay above 0")
        if self.schedule != "piecewise":
            refuse_unused(self, ("boundaries", "factors"), schedule, "optim.schedule piecewise")
        if self.schedule not in WITH_WARMUP:
            refuse_unused(self, ("warmup", "end_factor"), schedule, "optim.schedule cosine, linear or wsd")
        if self.schedule != "wsd":
            refuse_unused(self, ("cooldown",), schedule, "optim.schedule wsd")
        elif not self.cooldown:
            refuse_unused(self, ("end_factor",), f"optim.cooldown {self.cooldown}", "optim.cooldown above 0")

    def _check_piecewise(self) -> None:
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

    def at_constant_rate(self) -> "OptimConfig":
        """Return the same optimiser with the constant rate lr, without what belongs to a schedule."""
        return dataclasses.replace(
            self,
            schedule="constant",
            boundaries=(),
            factors=(),
            warmup=0.0,
            cooldown=OptimConfig.cooldown,
            end_factor=0.0,
        )
