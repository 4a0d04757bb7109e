"""python -m jaxlm.devices.plan: its options, and what it prints of planted figures."""

import dataclasses

import pytest

from jaxlm.cli.plan import cost, lines
from jaxlm.cli.train_command import PlanCommand, parse_plan
from jaxlm.devices import peaks
from jaxlm.devices.links import Exchange
from jaxlm.errors import UserError
from jaxlm.training.plan import Compiled, Plan
from tests.conftest import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "gpt2_124m.py")
GIB = 2**30
H100 = peaks.DEVICES["h100"]
STEP = Compiled(
    arguments=2 * GIB,
    outputs=0,
    temporaries=8 * GIB,
    code=0,
    flops=8 * 989e12,  # a second of eight
    kernels=(),
    seconds=1.0,
    exchanges=(Exchange("all-gather", "bf16", 8, 1, 3 * GIB, 12, 0.5), Exchange("all-reduce", "f32", 4, 4, 9, 1, 1.5)),
)
PLAN = Plan(
    device=H100,
    devices=8,
    mesh={"data": 1, "fsdp": 8, "tensor": 1},
    room=60 * GIB,
    steps=3600,
    parameters=1,
    state=1,
    rows=100,
    length=10,
    flops=4 * 989e12,
    dtype="bfloat16",
    step=STEP,
    decode=dataclasses.replace(STEP, exchanges=()),
    decode_rows=1,
)


def command(*args: str) -> PlanCommand:
    parsed = parse_plan([CONFIG, *args])
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("args", "on"),
    [
        ([], "h100"),
        (["--on", "h100x8"], "h100x8"),
        (["--on", "4x8", "h100"], "4x8 h100"),
        (["--on", "4x8 h100", "--search"], "4x8 h100"),
        (["--steps", "5", "--on", "4x8", "h100", "--mesh.fsdp", "8"], "4x8 h100"),
        (["--on=v5p:2x2x2"], "v5p:2x2x2"),
    ],
)
def test_devices_may_be_two_words(args, on):
    assert command(*args).on == on


def test_settings_of_the_run_are_taken_with_it():
    parsed = command("--on", "h100x8", "--mesh.fsdp", "8", "--tokens", "1e9", "--price-per-hour", "2.5", "--search")
    assert parsed.config.mesh.fsdp == 8 and parsed.config.tokens == 1e9 and parsed.config.steps is None
    assert parsed.price_per_hour == 2.5 and parsed.search and not command().search


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--price-per-hour", "0"], r"^--price-per-hour wants a number > 0, got 0.0$"),
        (["--mfu", "40"], r"^--mfu wants a number above 0 and at most 1, got 40.0$"),
        (["--topology", "4x8"], r"--topology"),
        (["--decode-rows", "0"], r"^--decode-rows wants a number >= 1, got 0$"),
    ],
)
def test_a_wrong_option_is_a_line(args, message):
    with pytest.raises(UserError, match=message):
        command(*args)


def test_what_devices_exchange_and_both_bounds_are_told():
    text = "\n".join(lines(PLAN, "h100x8"))
    assert text.startswith("devices: h100x8, 8 of 80 GiB, 9.89e+14 operations/s in bfloat16, 3.35 TB/s, mesh fsdp 8\n")
    assert "10 GiB: fits\n" in text
    assert "  between devices, at the links' peak 2 s:\n" in text
    assert "    all-gather bf16: 3 GiB in 12 over 8 devices, 500 ms\n" in text
    assert "    all-reduce f32: 8.58e-06 MiB in 1 over 4 devices on 4 hosts, 1.5 s\n" in text
    assert "  with communication: 2 s overlapped (500 predictions/s), 3 s in turn (333 predictions/s)\n" in text
    assert text.count("between devices") == 1  # decoding runs on one


def test_a_step_that_jax_has_no_room_for_by_default_names_the_setting():
    step = dataclasses.replace(STEP, temporaries=70 * GIB)
    told = "\n".join(lines(dataclasses.replace(PLAN, step=step), "h100x8"))
    assert "72 GiB: fits, but not in the 60 GiB that JAX takes: give --gpu-memory 0.95" in told
    large = dataclasses.replace(STEP, temporaries=80 * GIB)
    assert "82 GiB: does not fit\n" in "\n".join(lines(dataclasses.replace(PLAN, step=large), "h100x8"))


def test_a_run_is_told_in_hours_and_in_money():
    plain = "run of 3,600 steps, 3.6e+06 predictions: at least 2 hours overlapped, at least 3 hours in turn"
    assert cost(PLAN, command()) == [plain]
    (line,) = cost(PLAN, command("--price-per-hour", "2.5", "--mfu", "0.25"))
    assert "at least 2 hours (price 40) overlapped, at least 3 hours (price 60) in turn" in line
    assert line.endswith(", 2 hours (price 40) at an MFU of 25%")
    alone = dataclasses.replace(PLAN, step=dataclasses.replace(STEP, exchanges=()))
    assert cost(alone, command())[0].endswith("predictions: at least 1 hours")


def test_a_length_in_epochs_or_a_step_that_does_not_fit_has_no_price():
    assert cost(dataclasses.replace(PLAN, steps=None), command()) == []
    assert cost(dataclasses.replace(PLAN, step="RESOURCE_EXHAUSTED"), command()) == []
