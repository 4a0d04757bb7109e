"""The spellings of devices that are not there."""

import pytest

from jaxlm.devices.topology import HOST_GPUS, Slice, parse_slice
from jaxlm.errors import UserError


@pytest.mark.parametrize(
    ("text", "slice"),
    [
        ("h100", Slice("h100")),
        ("rtx4090", Slice("rtx4090")),
        ("v5p", Slice("v5p")),
        ("h100x1", Slice("h100", (1, 1))),
        ("h100x8", Slice("h100", (1, 8))),
        ("h100x32", Slice("h100", (4, 8))),
        ("h100-pciex2", Slice("h100-pcie", (1, 2))),
        ("rtx4090x4", Slice("rtx4090", (1, 4))),
        ("4x8 h100", Slice("h100", (4, 8))),
        ("3x4  h100", Slice("h100", (3, 4))),
        ("h100:4x8", Slice("h100", (4, 8))),
        ("v5p:2x2x2", Slice("v5p", (2, 2, 2))),
        ("v5e:4x4", Slice("v5e", (4, 4))),
        ("4x4 v5e", Slice("v5e", (4, 4))),
        ("v7:1x1x1", Slice("v7", (1, 1, 1))),
    ],
)
def test_a_text_names_devices(text, slice):
    assert parse_slice(text) == slice
    assert parse_slice(str(slice)) == slice
    assert HOST_GPUS == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h1000", r"^on wants one of a100, .*, v7, or several as h100x8 or v5p:2x2x2, got 'h1000'$"),
        ("", r"^on wants one of a100, .*, got ''$"),
        ("h1000x8", r"^on wants one of .*, got 'h1000'$"),
        ("4x8 h1000", r"^on wants one of .*, got 'h1000'$"),
        ("h100x12", r"^on wants hosts of 8 GPUs, or their number, as '3x4 h100', got 'h100x12'$"),
        ("h100x0", r"^on wants hosts of 8 GPUs, .*, got 'h100x0'$"),
        ("8 h100", r"^on wants 2 numbers for h100, as '4x8 h100', hosts x GPUs, got '8 h100'$"),
        ("h100:2x2x2", r"^on wants 2 numbers for h100, as '4x8 h100', hosts x GPUs, got 'h100:2x2x2'$"),
        ("v5p:2x2", r"^on wants 3 numbers for v5p, as v5p:2x2x2, got 'v5p:2x2'$"),
        ("v5e:2x0", r"^on wants 2 numbers for v5e, as v5e:2x4, got 'v5e:2x0'$"),
        ("v5e:", r"^on wants 2 numbers for v5e, as v5e:2x4, got 'v5e:'$"),
        ("v5ex16", r"^on wants the shape of a slice for v5e, as v5e:2x4, got 'v5ex16'$"),
    ],
)
def test_another_text_is_a_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_slice(text)
