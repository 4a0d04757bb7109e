"""Which processes share one run, and how they find each other."""

import dataclasses

from jaxlm.config import check
from jaxlm.config.settings import Settings, refuse_unused
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class DistributedConfig(Settings, group="distributed."):
    """Several processes that train one run together, each with devices of its own.

    Without settings the environment decides: SLURM, Open MPI, Kubernetes and TPU pods, as JAX detects them.
    """

    coordinator: str | None = None
    """HOST:PORT at which process 0 listens, the same for all processes."""
    processes: int | None = None
    """Number of processes. 1: this process trains alone, whatever the environment says."""
    process: int | None = None
    """Number of this process, from 0."""
    timeout: float = 300.0
    """Seconds in which all processes have to be there, and then to have read the same data."""

    def __post_init__(self) -> None:
        check.more_than("distributed.timeout", self.timeout, 0)
        check.at_least("distributed.processes", self.processes, 1)
        given = {name: getattr(self, name) for name in ("coordinator", "processes", "process")}
        if self.processes == 1:
            refuse_unused(
                self, ("coordinator", "process"), "distributed.processes 1", "two or more distributed.processes"
            )
            return
        missing = [f"distributed.{name}" for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            got = ", ".join(f"distributed.{name} {value}" for name, value in given.items() if value is not None)
            raise UserError(
                f"{' and '.join(missing)} must be given where {got} is: --distributed.coordinator HOST:PORT "
                "--distributed.processes N --distributed.process I"
            )
        if self.coordinator is not None and self.processes is not None and self.process is not None:
            check.between("distributed.process", self.process, 0, self.processes - 1)
            _, colon, port = self.coordinator.rpartition(":")
            if not (colon and port.isdecimal() and 0 < int(port) < 2**16 and self.host):
                raise UserError(f"distributed.coordinator wants HOST:PORT, as 10.0.0.1:1234, got {self.coordinator!r}")

    @property
    def host(self) -> str:
        """The coordinator's name or address, without the brackets of IPv6."""
        return (self.coordinator or "").rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """The coordinator's port."""
        return int((self.coordinator or ":0").rpartition(":")[2])
