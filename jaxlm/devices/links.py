"""Links between devices, and how long they take to carry what a program's devices exchange."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxlm.devices.plan.collectives import Collective

G = 1e9


@dataclasses.dataclass(frozen=True)
class GpuLinks:
    """Bytes/s that an NVIDIA GPU sends while it receives as many."""

    within: float
    """To the other GPUs of its host."""
    between: float
    """To other hosts, by its share of the host's network."""


@dataclasses.dataclass(frozen=True)
class TpuLinks:
    """Bytes/s of the links (ICI) of a TPU with its neighbours in the slice."""

    link: float
    """That a device sends to one neighbour while it receives as many."""
    ring: int
    """The ends of an axis are linked if the slice has a multiple of so many chips along it."""
    cubes: bool
    """And only if that is so of every axis."""


LINKS: dict[str, GpuLinks | TpuLinks] = {
    "a100": GpuLinks(300 * G, 25 * G),
    "a100-40gb": GpuLinks(300 * G, 25 * G),
    "h100": GpuLinks(450 * G, 50 * G),
    "h100-pcie": GpuLinks(64 * G, 25 * G),
    "h200": GpuLinks(450 * G, 50 * G),
    "b200": GpuLinks(900 * G, 50 * G),
    "l4": GpuLinks(32 * G, 1.5625 * G),
    "rtx4090": GpuLinks(32 * G, 1.5625 * G),
    "rtx3090": GpuLinks(32 * G, 1.5625 * G),
    "v5e": TpuLinks(50 * G, 16, cubes=False),
    "v5p": TpuLinks(100 * G, 4, cubes=True),
    "v6e": TpuLinks(100 * G, 16, cubes=False),
    "v7": TpuLinks(50 * G, 4, cubes=True),
}
"""Links by the names of peaks.DEVICES. Half of what data sheets give for both directions together.

Within a host: NVLink 3, 4 and 5 of A100, H100/H200 and B200 by NVIDIA's data sheets (600, 900 and 1,800 GB/s); of the
others PCIe 5 (H100 PCIe) and PCIe 4, 16 lanes. Between hosts: a network card of a GPU's own, 200 Gbit/s in the DGX A100
and 400 Gbit/s in DGX H100, H200 and B200; 200 Gbit/s for H100 PCIe; of the others an eighth of 100 Gbit/s a host.
TPUs by Google Cloud's pages of each version: v5p 1,200 GB/s a chip over 6 links, v5e 400 and v6e 800 over 4, v7 1,200
over 6, half of it for each of a chip's two devices. Axes of v5e and v6e close to a ring at 16 chips, the three of v5p
and v7 where all are multiples of 4.
"""
DIES = 600 * G
"""Bytes/s between the two devices of a chip of v7: six links of ICI, by Google Cloud's page."""
PASSED_ON = "collective-permute", "collective-broadcast"
"""Kinds by which a device sends all of its array to another."""

Place = Sequence[int]
"""Where a device is: (host, GPU in it, 0), or a TPU chip's coordinates."""


class Exchange(NamedTuple):
    """The collectives of a program that are alike: of one kind, type, and size of groups."""

    kind: str
    """XLA's name: all-gather, reduce-scatter, all-reduce, all-to-all, ..."""
    dtype: str
    """XLA's name of the numbers' type."""
    devices: int
    """Devices of a group."""
    hosts: int
    """Hosts of NVIDIA's that the slowest group lies on; 1 for TPUs, whose links do not end at a host."""
    bytes: int
    """Bytes in a call of the program, of the whole array, or of each device's where it is reduced or sent on."""
    times: int
    """How often a call of the program runs one."""
    seconds: float
    """Least time in a call of the program, without the latency of each."""


def exchanges(
    collectives: Iterable[Collective], places: Sequence[Place], links: GpuLinks | TpuLinks
) -> tuple[Exchange, ...]:
    """The exchanges in a call of a program whose devices are at these places, the longest first.

    Groups exchange side by side, and a collective takes as long as the slowest of them.
    """

    @functools.cache
    def slowest(kind: str, groups: tuple[tuple[int, ...], ...]) -> list[Place]:
        at = [[places[device] for device in group] for group in groups]
        return max(at, key=lambda group: seconds(kind, 1.0, group, places, links))

    found: dict[tuple[str, str, int, int], Exchange] = {}
    for one in collectives:
        if len(one.groups[0]) < 2:
            continue
        group = slowest(one.kind, one.groups)
        hosts = len({place[0] for place in group}) if isinstance(links, GpuLinks) else 1
        key = one.kind, one.dtype, len(group), hosts
        before = found.get(key, Exchange(*key, 0, 0, 0.0))
        found[key] = before._replace(
            bytes=before.bytes + one.bytes,
            times=before.times + one.times,
            seconds=before.seconds + seconds(one.kind, one.bytes, group, places, links),
        )
    return tuple(sorted(found.values(), key=lambda one: -one.seconds))


def seconds(
    kind: str, size: float, group: Sequence[Place], places: Sequence[Place], links: GpuLinks | TpuLinks
) -> float:
    """Least seconds of a collective of an array of `size` bytes among a group of the devices at `places`.

    An all-gather or reduce-scatter sends (n - 1) / n of the array over each of n devices' links, an all-reduce does
    both. Between hosts, GPUs of one host share the array: a host that has k of them receives (n - k) / n of it, by k
    network cards, while the links within it work; the host with the fewest takes the longest. TPUs send over all axes
    along which the group lies, both ways round where an axis is a ring. An all-to-all is bound by the links across the
    group's middle.
    """
    if isinstance(links, GpuLinks):
        return _among_gpus(kind, size, group, links)
    return _among_tpus(kind, size, group, places, links)


def _among_gpus(kind: str, size: float, group: Sequence[Place], links: GpuLinks) -> float:
    n, in_hosts = len(group), Counter(place[0] for place in group).values()
    if kind in PASSED_ON:
        return size / (links.between if len(in_hosts) > 1 else links.within)
    rounds, fewest = 2 if kind == "all-reduce" else 1, min(in_hosts)
    cards = 1 if kind.endswith("all-to-all") else fewest
    within = size * (n - 1) / n / links.within if max(in_hosts) > 1 else 0.0
    return rounds * max(within, size * (n - fewest) / n / (cards * links.between))


def _among_tpus(kind: str, size: float, group: Sequence[Place], places: Sequence[Place], links: TpuLinks) -> float:
    n, own, slice = len(group), _extents(group), _extents(places)
    closed = [chips % links.ring == 0 for chips in slice]
    if links.cubes:
        closed = [all(closed)] * len(closed)
    ways = [1 + (mine == chips and ring) for mine, chips, ring in zip(own, slice, closed, strict=True)]
    rounds = 2 if kind == "all-reduce" else 1
    if max(own) == 1:
        return rounds * size * (n - 1) / n / DIES
    if kind in PASSED_ON:
        return size / links.link
    if kind.endswith("all-to-all"):
        return max(size * chips / (4 * way * links.link) for chips, way in zip(own, ways, strict=True) if chips > 1)
    used = sum(way for chips, way in zip(own, ways, strict=True) if chips > 1)
    return rounds * size * (n - 1) / n / (used * links.link)


def _extents(places: Sequence[Place]) -> list[int]:
    """Different coordinates along each axis."""
    return [len(set(along)) for along in zip(*places, strict=True)]
