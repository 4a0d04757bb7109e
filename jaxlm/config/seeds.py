"""Which settings go together with several seeds in one program."""

from typing import TYPE_CHECKING

from jaxlm.config.models import ModelConfig
from jaxlm.config.settings import refuse_unused
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.config.run import RunConfig


def check_seeds(config: "RunConfig") -> None:
    """Raise UserError for settings that runs of several seeds cannot have while one program trains them."""
    if config.seeds == 1:
        return
    model, many = type(config.model), f"seeds {config.seeds}"
    if not config.model.trained_by_steps:
        raise UserError(
            f"seeds wants a model that is trained by steps, got {config.seeds} for a {model.__name__}: leave it out"
        )
    if model.prepare is not ModelConfig.prepare:
        raise UserError(
            f"seeds wants a model whose training is steps on text alone, got {config.seeds} for a {model.__name__}: "
            f"train the seeds one after another, by --sweep.seed {config.seed} {config.seed + 1} ..."
        )
    if getattr(config.model, "attention", "auto") == "flash":
        raise UserError(
            f"model.attention flash cannot be with {many}, whose attention is plain: give --model.attention plain"
        )
    refuse_unused(config, ("wandb", "profile"), many, "seeds 1")
    refuse_unused(config.eval, ("patience",), many, "seeds 1")
    refuse_unused(config.mesh, ("fsdp", "tensor"), many, "seeds 1")
