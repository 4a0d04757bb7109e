"""Files of safetensors, read and written tensor by tensor.

A file is a length (8 bytes, little-endian), a JSON object {name: {"dtype", "shape", "data_offsets"}} of that many
bytes, and the tensors' bytes, row by row. Nothing in it can be run. The library of the same name maps whole files into
memory and writes what is in memory all at once; here one tensor is, for models that barely fit.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlm.errors import UserError, reading

TYPES: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
"""NumPy's types of the types of floating-point numbers that models have."""
LONGEST_HEADER = 100_000_000
"""Bytes of the JSON object at most, as the library has it."""
ALIGNMENT = 8
"""The header's length is a multiple of it, so that readers can map numbers as they lie."""


class Entry(NamedTuple):
    """A tensor of a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Place of its first byte in the file."""

    @property
    def described(self) -> str:
        """Type and shape in words."""
        return f"{self.dtype} {' x '.join(map(str, self.shape)) or 'number'}"


def entries(paths: Iterable[Path]) -> dict[str, Entry]:
    """The tensors of files by name, without their numbers. Raises UserError for a damaged file and a name twice."""
    found: dict[str, Entry] = {}
    for path in paths:
        for name, entry in _entries(path):
            if name in found:
                raise UserError(
                    f"import wants each tensor once, got {name!r} in {found[name].path.name} and {path.name}"
                )
            found[name] = entry
    return found


def read(entry: Entry) -> np.ndarray:
    """The numbers of a tensor, in its shape, in float32. Raises UserError for another type than TYPES."""
    if entry.dtype not in TYPES:
        raise UserError(f"import wants weights of the types {', '.join(TYPES)}, got {entry.dtype} in {entry.path.name}")
    with reading(entry.path, "import", "a safetensors file"):
        count = math.prod(entry.shape)
        raw_N = np.fromfile(entry.path, TYPES[entry.dtype], count, offset=entry.start)
    if len(raw_N) != count:
        raise UserError(f"import wants whole files, got {str(entry.path)!r}, which ends too early")
    return raw_N.astype(np.float32, copy=False).reshape(entry.shape)


def write(path: Path, shapes: Mapping[str, Sequence[int]], values: Iterable[np.ndarray]) -> None:
    """Write float32 tensors of these shapes; `values` gives their numbers in the same order, one at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        end = place + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, shape), value in zip(shapes.items(), values, strict=True):
            assert value.shape == tuple(shape), (name, value.shape, shape)
            np.ascontiguousarray(value, "<f4").tofile(file)
        file.flush()
        os.fsync(file.fileno())


def _entries(path: Path) -> Iterator[tuple[str, Entry]]:
    with reading(path, "import", "a safetensors file"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, first = _header(path, file, size)
    for name, found in header.items():
        if name == "__metadata__":
            continue
        try:
            shape = tuple(int(extent) for extent in found["shape"])
            start, end = found["data_offsets"]
            dtype = str(found["dtype"])
            whole = 0 <= start <= end <= size - first and min(shape, default=0) >= 0
        except (KeyError, TypeError, ValueError):
            raise _damaged(path, f"its tensor {name!r} has no type, shape and place") from None
        if dtype in TYPES:
            whole = whole and end - start == math.prod(shape) * np.dtype(TYPES[dtype]).itemsize
        if not whole:
            raise _damaged(path, f"its tensor {name!r} lies outside the file, or has another size than its shape")
        yield name, Entry(path, dtype, shape, first + start)


def _header(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The JSON object, and the place after it."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        raise _damaged(path, "it is no safetensors file, or ends too early")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    return header, 8 + length


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"import wants whole safetensors files, got {str(path)!r}: {reason}; copy or download it again")
