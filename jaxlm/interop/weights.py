"""A model's parameters out of a Hugging Face folder's tensors, one parameter at a time onto the devices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.config import GptConfig
from jaxlm.config.mesh import MeshConfig
from jaxlm.devices.mesh import make_mesh, state_sharding
from jaxlm.devices.placing import place
from jaxlm.errors import UserError
from jaxlm.interop import tensors
from jaxlm.interop.folder import weight_files
from jaxlm.interop.mapping import Place, ignored, places, shapes_of, sources
from jaxlm.interop.tensors import Entry
from jaxlm.models.base import Params, axes_of
from jaxlm.models.initialization import abstract_state

BASES = ("transformer.", "model.")
"""What the names of a model without its unembedding lack."""
LISTED = 8
"""Most tensors of a kind that an error lists."""


def read_params(folder: Path, config: GptConfig, mesh: MeshConfig) -> Params:
    """The parameters of a model, in float32, from the folder's safetensors files.

    The largest parameter is read first, so that beside them no more is in memory at once than one that is read. Raises
    UserError listing the tensors that are missing, too many, or of another shape or type.
    """
    model = config.build()
    abstract = abstract_state(model)[0]
    shapes = shapes_of(abstract)
    there = _entries(folder, config, places(config, shapes))
    lies = state_sharding(make_mesh(mesh), abstract, axes_of(model))
    by_size = sorted(shapes, key=lambda name: -np.prod(shapes[name], dtype=np.int64))
    found = {name: place(_parameter(config, name, shapes[name], there), lies[name]) for name in by_size}
    return {name: found[name] for name in abstract}


def _parameter(config: GptConfig, name: str, shape: tuple[int, ...], there: Mapping[str, Entry]) -> np.ndarray:
    """One parameter on the host, all layers of it."""
    source = sources(config)[name]
    if "{}" not in source.tensor:
        return source.ours(tensors.read(there[source.tensor]), shape)
    stack = np.empty(shape, np.float32)
    for layer in range(shape[0]):
        stack[layer] = source.ours(tensors.read(there[source.tensor.format(layer)]), shape[1:])
    return stack


def _entries(folder: Path, config: GptConfig, wanted: Mapping[str, Sequence[Place]]) -> dict[str, Entry]:
    """The tensors of the folder under the names that are wanted. Raises UserError where they are not all these."""
    files, index = weight_files(folder)
    there = tensors.entries(files)
    if lost := [name for name in index if name not in there]:
        raise UserError(f"import wants all tensors of the index in {str(folder)!r}, but lacks {_listed(lost)}")
    base = next(base for base in BASES if any(name.startswith(base) for name in wanted))
    if not any(name.startswith(base) for name in there):
        there = {name if name == "lm_head.weight" else base + name: entry for name, entry in there.items()}
    missing = [name for name in wanted if name not in there]
    surplus = [name for name in there if name not in wanted and not ignored(name)]
    if config.tied:
        surplus = [name for name in surplus if name != "lm_head.weight"]
    shaped = []
    for name in set(wanted) & set(there):
        first = wanted[name][0]
        shape = first.source.their_shape(first.shape)
        if there[name].shape != shape or there[name].dtype not in tensors.TYPES:
            shaped.append(f"{name} is {there[name].described}, not {' x '.join(map(str, shape))}")
    reasons = {"missing": missing, "unknown": surplus, "of another shape or type": sorted(shaped)}
    if any(reasons.values()):
        told = "; ".join(f"{what}: {_listed(names)}" for what, names in reasons.items() if names)
        raise UserError(f"import wants the tensors that config.json describes, got others in {str(folder)!r}: {told}")
    return there


def _listed(names: Sequence[Any]) -> str:
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*names[:LISTED], *more])
