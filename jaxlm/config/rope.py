"""Settings of rotary positions that were stretched to a longer context than that of the first training."""

import dataclasses
import math
from typing import Literal

from jaxlm.config import check
from jaxlm.config.settings import Settings, refuse_unused
from jaxlm.errors import UserError

ALL = ("factor", "original_context", "low", "high", "beta_fast", "beta_slow", "attention_factor")
USED = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "original_context", "low", "high"),
    "yarn": ("factor", "original_context", "beta_fast", "beta_slow", "attention_factor"),
}
"""The settings that each scaling reads."""


@dataclasses.dataclass(frozen=True)
class RopeConfig(Settings, group="model.rope."):
    """How the rates of rotary positions are scaled, so that a model trained on short texts takes longer ones."""

    scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
    """linear: all rates divided by factor (Chen et al. 2023). llama3: the slow rates alone, as Llama 3.1.
    yarn: the slow rates alone, and sharper attention (Peng et al. 2023)."""
    factor: float = 1.0
    """Divides the rates: the longer context over the one of the first training."""
    original_context: int | None = None
    """llama3, yarn: positions of the first training."""
    low: float = 1.0
    """llama3: rates that turn fewer times than this within original_context are divided by factor."""
    high: float = 4.0
    """llama3: rates that turn more often than this within original_context stay as they are."""
    beta_fast: float = 32.0
    """yarn: rates that turn more often than this within original_context stay as they are."""
    beta_slow: float = 1.0
    """yarn: rates that turn fewer times than this within original_context are divided by factor."""
    attention_factor: float | None = None
    """yarn: multiplies queries and keys. None: 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        check.at_least("model.rope.factor", self.factor, 1)
        check.at_least("model.rope.original_context", self.original_context, 1)
        check.more_than("model.rope.low", self.low, 0)
        check.more_than("model.rope.high", self.high, self.low)
        check.more_than("model.rope.beta_slow", self.beta_slow, 0)
        check.more_than("model.rope.beta_fast", self.beta_fast, self.beta_slow)
        check.more_than("model.rope.attention_factor", self.attention_factor, 0)
        used = USED[self.scaling]
        others = [name for name in USED if name != "none"] if self.scaling == "none" else ["another one"]
        unused = [name for name in ALL if name not in used]
        refuse_unused(self, unused, f"model.rope.scaling {self.scaling}", f"model.rope.scaling {' or '.join(others)}")
        if "original_context" in used and self.original_context is None:
            raise UserError(
                f"model.rope.original_context wants the positions of the first training for model.rope.scaling "
                f"{self.scaling}, got None"
            )

    @property
    def amplitude(self) -> float:
        """The factor of rotated queries and keys."""
        if self.scaling != "yarn":
            return 1.0
        return yarn_amplitude(self.factor) if self.attention_factor is None else self.attention_factor


def yarn_amplitude(factor: float, scale: float = 1.0) -> float:
    """YaRN's factor of rotated queries and keys, 0.1 s ln(factor) + 1 (Peng et al. 2023, equation 22)."""
    return 0.1 * scale * math.log(factor) + 1
