"""Jobs of several processes that the environment describes, as JAX detects them."""

import os
import warnings
from collections.abc import Mapping
from typing import NamedTuple

from jaxlm.config.distributed import DistributedConfig
from jaxlm.errors import UserError, one_line


class Place(NamedTuple):
    """A process's place in a job."""

    settings: DistributedConfig
    """Coordinator, number of processes and number of this one."""
    devices: list[int] | None = None
    """The devices of its host that it has to itself; None: all of them."""


def place(settings: DistributedConfig) -> Place | None:
    """The place of this process, by the settings or the environment; None where it is alone.

    Raises UserError where the environment describes several processes and JAX cannot find their coordinator.
    """
    if settings.processes is not None:
        return None if settings.processes == 1 else Place(settings)
    launcher = launched_by(os.environ)
    return None if launcher is None else _detected(settings, launcher)


def launched_by(environment: Mapping[str, str]) -> str | None:
    """The launcher of a job that may have several processes; None for a process that was started alone."""
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in environment:
        return "SLURM"
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1 and "OMPI_MCA_orte_hnp_uri" in environment:
        return "Open MPI"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "Kubernetes"
    from jax._src import cloud_tpu_init  # set while jax is imported

    return "a TPU pod" if cloud_tpu_init.running_in_cloud_tpu_vm else None


def _detected(settings: DistributedConfig, launcher: str) -> Place | None:
    """The place that JAX's own detection gives, which `jax.distributed.initialize` has only as it starts."""
    from jax._src.clusters import ClusterEnv

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            coordinator, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
                None, None, None, None, None, int(settings.timeout)
            )
        except Exception as error:  # of a library that asks the cluster
            raise _not_found(launcher, one_line(f"{type(error).__name__}: {error}")) from error
    if processes == 1 or (launcher == "a TPU pod" and coordinator is None):
        return None
    if coordinator is None or processes is None or process is None:
        extra = "it wants pip install 'jax[k8s]'" if launcher == "Kubernetes" else "its variables are not complete"
        raise _not_found(launcher, extra)
    found = DistributedConfig(coordinator=coordinator, processes=processes, process=process, timeout=settings.timeout)
    return Place(found, None if devices is None else list(devices))


def _not_found(launcher: str, reason: str) -> UserError:
    return UserError(
        f"{launcher} has started several processes, but JAX cannot find their coordinator ({reason}): give "
        "--distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I, or "
        "--distributed.processes 1 to train in this process alone"
    )
