"""How many devices share the work, and in which of three ways."""

import dataclasses

from jaxlm.config import check
from jaxlm.config.settings import Settings
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class MeshConfig(Settings, group="mesh."):
    """A mesh of data x fsdp x tensor devices, whose product is the number of devices.

    One size of -1 takes the devices that the other two leave.
    """

    data: int = -1
    """Copies of the model, each with its own rows of a batch. -1: all devices that the other two leave."""
    fsdp: int = 1
    """Devices that share the parameters of a copy and gather them as needed, each with its own rows of a batch."""
    tensor: int = 1
    """Devices that share the heads, hidden units and vocabulary of each layer."""

    def __post_init__(self) -> None:
        for name, size in self.sizes.items():
            if size != -1:
                check.at_least(f"mesh.{name}", size, 1)
        left = [f"mesh.{name}" for name, size in self.sizes.items() if size == -1]
        if len(left) > 1:
            raise UserError(f"{left[1]} wants a number of devices, got -1, which {left[0]} has already; take 1")

    @property
    def sizes(self) -> dict[str, int]:
        """The three sizes by the names of the mesh's axes, -1 where a size is left to the devices."""
        return {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
