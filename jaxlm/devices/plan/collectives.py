"""The collectives of a compiled program: what devices send each other in a call of it, read in its text."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "ragged-all-to-all",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""XLA's operations by which devices exchange arrays."""
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
"""The line that begins a computation, with its name."""
COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]")
"""An array's type and shape, in a result's type."""
CALLED = re.compile(
    r"\b(calls|body|to_apply|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%[\w.\-]+)"
)
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CONDITION = re.compile(r"\bcondition=%([\w.\-]+)")
CONSTANT = re.compile(r" = s32\[\][^=]* constant\((\d+)\)")
AGAIN = (" async-update(", " async-done(")
"""Lines that name the computation of an asynchronous operation again, which its start has named."""
LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,]+\}(?:,\{[\d,]+\})*)\}")
IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")


class Collective(NamedTuple):
    """A collective of a program."""

    kind: str
    """One of KINDS."""
    dtype: str
    """The type of its numbers, by XLA's name: bf16, f32, ..."""
    bytes: int
    """Bytes in a call of the program, of all times: of the whole array, as it is after it was gathered, before it was
    scattered, or as each device has it where it is reduced, exchanged or sent on."""
    times: int
    """How often a call of the program runs it."""
    groups: tuple[tuple[int, ...], ...]
    """The groups that exchange at the same time, each without the others: their devices' places in the program's."""


def collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a program for so many devices, from `compiled.as_text()`, in the order of the text.

    What a loop runs counts as often as the loop runs: by the count that the compiler knows, else by the only constant
    of its condition, else once. Of a condition's branches the one with the most bytes counts. A collective of arrays
    of several types gives an entry for each type.
    """
    computations, entry = _computations(text)
    return _of_computation(entry, computations, devices, {})


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of the one that is called."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if head := HEAD.match(line):
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif " = " in line:
            lines.append(line)
    if not entry:
        raise ValueError("collectives wants the text of a compiled program, got one without an ENTRY")
    return computations, entry


def _of_computation(
    name: str, computations: Mapping[str, list[str]], devices: int, known: dict[str, list[Collective]]
) -> list[Collective]:
    if name not in known:
        found: list[Collective] = []
        for line in computations[name]:
            if match := COLLECTIVE.search(line):
                found += _of_line(line, match, devices)
            elif not any(word in line for word in AGAIN):
                found += _called(line, computations, devices, known)
        known[name] = found
    return known[name]


def _called(
    line: str, computations: Mapping[str, list[str]], devices: int, known: dict[str, list[Collective]]
) -> list[Collective]:
    """The collectives of what a line calls: a loop's body, the branches of a condition, or another computation."""
    branches, found = [], []
    for how, names in CALLED.findall(line):
        parts = [_of_computation(one.strip(" %"), computations, devices, known) for one in names.strip("{}").split(",")]
        if how == "body":
            trips = _trips(line, computations)
            found += [one._replace(bytes=one.bytes * trips, times=one.times * trips) for one in parts[0]]
        elif how in ("calls", "to_apply"):
            scatters = "all-reduce-scatter" in names  # a TPU's: an all-reduce of which each device keeps a part
            kept = [one for part in parts for one in part]
            found += [one._replace(kind="reduce-scatter") if scatters else one for one in kept]
        else:
            branches += parts
    return found + max(branches, key=lambda part: sum(one.bytes for one in part), default=[])


def _trips(line: str, computations: Mapping[str, list[str]]) -> int:
    """How often a loop runs, as far as the text says it."""
    if known := TRIPS.search(line):
        return int(known[1])
    condition = CONDITION.search(line)
    ends = [int(end[1]) for one in computations[condition[1]] if (end := CONSTANT.search(one))] if condition else []
    return ends[0] if len(ends) == 1 else 1


def _of_line(line: str, match: re.Match[str], devices: int) -> Iterator[Collective]:
    """The collective of a line, for each type of its arrays."""
    result, kind, start = match.groups()
    groups = _groups(line, devices)
    shapes = ARRAY.findall(result)
    if start and kind != "all-reduce":  # both what it takes and what it gives, and perhaps scalars of its own
        shapes = [one for one in shapes if one[1]]
    arrays = [(dtype, _bytes(dtype, shape)) for dtype, shape in shapes]
    if start and kind != "all-reduce":
        half = len(arrays) // 2
        taken, given = arrays[:half], arrays[half:]
        arrays = taken if kind == "reduce-scatter" else given
    elif kind == "reduce-scatter":
        arrays = [(dtype, size * len(groups[0])) for dtype, size in arrays]
    for dtype in dict.fromkeys(dtype for dtype, _ in arrays):
        yield Collective(kind, dtype, sum(size for own, size in arrays if own == dtype), 1, groups)


def _bytes(dtype: str, shape: str) -> int:
    """Bytes of an array, by XLA's name of its type and its sizes with commas between them."""
    bits = int(number[0]) if (number := re.search(r"\d+", dtype)) else 8  # pred has a byte
    return int(np.prod(_numbers(shape), dtype=np.int64)) * bits // 8


def _groups(line: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """The groups of a collective, in each of the forms in which XLA writes them; pairs are groups of two."""
    if listed := LISTED.search(line):
        return tuple(tuple(_numbers(group)) for group in listed[1][1:-1].split("},{"))
    if iota := IOTA.search(line):
        groups, size, shape, order = iota.groups()
        return _rows(_reordered(shape, order).reshape(int(groups), int(size)))
    if mesh := MESH.search(line):
        axes, shape, order, own = mesh.groups()
        sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", axes)}
        places = _reordered(shape, order) if shape else np.arange(devices)
        return _along(places.reshape(tuple(sizes.values())), list(sizes), own)
    return (tuple(range(devices)),)


def _along(places: np.ndarray, names: list[str], own: str) -> tuple[tuple[int, ...], ...]:
    """The groups of places that lie along some axes of a mesh.

    An axis may be a part of one, as 'a':(2)4: four places, the axes within it having 2 before and the rest behind.
    """
    shape, taken = list[int](), list[int]()
    wanted = {name: (before, size) for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", own)}
    for name, whole in zip(names, places.shape, strict=True):
        before, size = wanted.get(name, ("", ""))
        parts = [int(before), int(size), whole // (int(before) * int(size))] if size else [1, whole, 1]
        if name in wanted:
            taken.append(len(shape) + 1)
        shape += parts
    places = places.reshape(shape)
    others = [axis for axis in range(places.ndim) if axis not in taken]
    return _rows(places.transpose(others + taken).reshape(-1, math.prod(places.shape[axis] for axis in taken)))


def _rows(places: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in places.tolist())


def _reordered(shape: str, order: str | None) -> np.ndarray:
    """The numbers from 0 on, in an array of a shape whose axes are put in another order."""
    sizes = _numbers(shape)
    places = np.arange(int(np.prod(sizes))).reshape(sizes)
    return places.transpose(_numbers(order)) if order else places


def _numbers(text: str) -> list[int]:
    return [int(number.strip("<=")) for number in text.split(",") if number]
