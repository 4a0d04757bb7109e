"""Seconds of collectives by formulas that are worked out here by hand, in gigabytes and GB/s."""

import itertools

import pytest

from jaxlm.devices.links import GpuLinks, TpuLinks, exchanges, seconds
from jaxlm.devices.plan.collectives import Collective

GPUS = GpuLinks(within=450e9, between=50e9)
TPUS = TpuLinks(link=100e9, ring=4, cubes=True)
FLAT = TpuLinks(link=50e9, ring=16, cubes=False)
HOSTS = [(host, gpu, 0) for host in range(4) for gpu in range(8)]


def slice_of(*sizes):
    return list(itertools.product(*map(range, (*sizes, *[1] * (3 - len(sizes))))))


@pytest.mark.parametrize(
    ("kind", "group", "expected"),
    [
        ("all-gather", HOSTS[:8], 9e9 * 7 / 8 / 450e9),
        ("reduce-scatter", HOSTS[:8], 9e9 * 7 / 8 / 450e9),
        ("all-reduce", HOSTS[:8], 2 * 9e9 * 7 / 8 / 450e9),
        ("all-reduce", HOSTS[:2], 9e9 / 450e9),
        ("all-gather", HOSTS[::8], 9e9 * 3 / 4 / 50e9),  # one GPU of each host, by its own network card
        ("all-gather", [HOSTS[n] for n in (0, 1, 8, 9)], 9e9 / 2 / 100e9),  # two cards of each host
        ("all-gather", HOSTS, 9e9 * 31 / 32 / 450e9),  # eight cards a host, together faster than a GPU's own links
        ("all-to-all", HOSTS, 9e9 * 3 / 4 / 50e9),
        ("collective-permute", HOSTS[:2], 9e9 / 450e9),
        ("collective-permute", HOSTS[7:9], 9e9 / 50e9),
    ],
)
def test_gpus_use_nvlink_within_a_host_and_their_cards_between(kind, group, expected):
    assert seconds(kind, 9e9, group, HOSTS, GPUS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "sizes", "group", "expected"),
    [
        ("all-gather", (2, 2, 2), slice_of(2, 2, 2), 8e9 * 7 / 8 / 300e9),  # three axes, one link in each
        ("all-gather", (2, 2, 2), slice_of(2, 1, 1), 8e9 / 2 / 100e9),
        ("all-reduce", (2, 2, 2), slice_of(2, 2, 1), 2 * 8e9 * 3 / 4 / 200e9),
        ("all-gather", (4, 4, 4), slice_of(4, 1, 1), 8e9 * 3 / 4 / 200e9),  # a ring: both ways round
        ("all-gather", (4, 4, 4), slice_of(2, 1, 1), 8e9 / 2 / 100e9),  # half of a ring is a line
        ("all-gather", (2, 4, 4), slice_of(1, 4, 1), 8e9 * 3 / 4 / 100e9),  # no cubes, no rings
        ("all-to-all", (4, 4, 4), slice_of(4, 1, 1), 8e9 * 4 / 8 / 100e9),
        ("all-to-all", (2, 2, 2), slice_of(2, 2, 2), 8e9 / 2 / 100e9),
        ("collective-permute", (2, 2, 2), slice_of(2, 1, 1), 8e9 / 100e9),
    ],
)
def test_tpus_use_the_links_of_the_axes_along_which_a_group_lies(kind, sizes, group, expected):
    assert seconds(kind, 8e9, group, slice_of(*sizes), TPUS) == pytest.approx(expected)


def test_a_plane_of_tpus_has_rings_from_16_chips_on():
    assert seconds("all-gather", 8e9, slice_of(16), slice_of(16, 4), FLAT) == pytest.approx(8e9 * 15 / 16 / 100e9)
    assert seconds("all-gather", 8e9, slice_of(8), slice_of(8, 8), FLAT) == pytest.approx(8e9 * 7 / 8 / 50e9)


def test_two_devices_of_one_chip_have_a_link_of_their_own():
    assert seconds("all-gather", 6e9, [(0, 0, 0)] * 2, [(0, 0, 0)] * 2, TPUS) == pytest.approx(6e9 / 2 / 600e9)


def test_collectives_that_are_alike_are_summed_and_the_longest_comes_first():
    near, far = (tuple(range(8)),), (tuple(range(0, 32, 8)),)
    found = exchanges(
        [
            Collective("all-gather", "bf16", 100, 2, near),
            Collective("all-gather", "bf16", 50, 1, near),
            Collective("all-gather", "bf16", 100, 2, far),
            Collective("all-reduce", "f32", 8, 1, ((3,),)),  # alone: nothing is sent
        ],
        HOSTS,
        GPUS,
    )
    assert [(one.devices, one.hosts, one.bytes, one.times) for one in found] == [(4, 4, 100, 2), (8, 1, 150, 3)]
    assert found[1].seconds == pytest.approx(150 * 7 / 8 / 450e9)


def test_a_collective_takes_as_long_as_its_slowest_group():
    """Three hosts of eight GPUs and groups of three: the third has two GPUs of one host and one of the next."""
    hosts = [(host, gpu, 0) for host in range(3) for gpu in range(8)]
    groups = tuple((n, n + 1, n + 2) for n in range(0, 24, 3))
    (found,) = exchanges([Collective("all-gather", "bf16", 9, 1, groups)], hosts, GPUS)
    assert (found.devices, found.hosts) == (3, 2)
    assert found.seconds == pytest.approx(9 * 2 / 3 / 50e9)  # the one GPU takes in both others' parts by its own card
