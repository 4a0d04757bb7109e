"""python -m jaxlm.devices.plan: what compilers say of a run on devices that are not there."""

import sys
from typing import TYPE_CHECKING

from jaxlm.cli.process import show
from jaxlm.cli.train_command import PlanCommand, parse_plan

if TYPE_CHECKING:
    from jaxlm.training.mesh_search import Candidate
    from jaxlm.training.plan import Compiled, Plan, Roofline


def main(args: list[str]) -> int:
    """Compile a config's programs for the devices that --on names, and print what they take."""
    command = parse_plan(args)
    if command is None:
        return 0
    from jaxlm.devices.platform import choose_device
    from jaxlm.training.mesh_search import search
    from jaxlm.training.plan import plan

    choose_device("cpu")
    if command.search:
        for line in table(search(command.config, command.on, _progress)):
            show(line)
        return 0
    made = plan(command.config, command.on, decode_rows=command.decode_rows)
    for line in [*lines(made, command.on), *cost(made, command)]:
        show(line)
    return 0


def lines(plan: "Plan", on: str) -> list[str]:
    """The lines of a plan."""
    tokens = plan.rows * plan.length
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items() if size > 1)
    return [
        f"devices: {on}, {plan.devices} of {_gib(plan.device.memory)}, {getattr(plan.device, plan.dtype):.3g} "
        f"operations/s in {plan.dtype}, {plan.device.bandwidth / 1e12:.3g} TB/s" + (f", mesh {mesh}" if mesh else ""),
        f"parameters: {plan.parameters:,}, with their moments {_gib(plan.state)}",
        f"operations: {plan.flops:.3g} a step of {plan.rows:,} rows x {plan.length:,} = {tokens:,} predictions",
        *plan.notes,
        *_program("train step", plan, plan.step, plan.devices, tokens, "predictions"),
        *_program(
            f"decoding step on one device ({plan.decode_rows:,} x {plan.length:,} tokens of cache)",
            plan,
            plan.decode,
            1,
            plan.decode_rows,
            "tokens",
        ),
    ]


def cost(plan: "Plan", command: PlanCommand) -> list[str]:
    """The lines about the whole run: its hours, and its price where a device has one. None for a length in epochs."""
    if plan.steps is None or isinstance(plan.step, str):
        return []
    roofline = plan.step.at_peak(plan.device, plan.devices, plan.dtype)
    bounds = {"overlapped": roofline.overlapped, "in turn": roofline.in_turn}
    if not roofline.links:
        bounds = {"": roofline.overlapped}
    told = [f"at least {_price(plan, seconds, command)} {name}".rstrip() for name, seconds in bounds.items()]
    if command.mfu is not None:
        seconds = plan.flops / plan.devices / getattr(plan.device, plan.dtype) / command.mfu
        told.append(f"{_price(plan, seconds, command)} at an MFU of {command.mfu:.0%}")
    predictions = plan.steps * plan.rows * plan.length
    return [f"run of {plan.steps:,} steps, {predictions:.3g} predictions: {', '.join(told)}"]


def _price(plan: "Plan", step_seconds: float, command: PlanCommand) -> str:
    """The hours of a run with such steps, and what they cost."""
    assert plan.steps is not None
    hours = plan.steps * step_seconds / 3600
    price = command.price_per_hour
    return f"{hours:,.3g} hours" + ("" if price is None else f" (price {hours * plan.devices * price:,.0f})")


def table(found: "list[Candidate]") -> list[str]:
    """A line for each mesh, the fastest first, and the settings of the first one that fits."""
    rows = [
        ("data x fsdp x tensor", "a device", "products", "memory", "links", "overlapped", "in turn", "predictions/s"),
        *(_row(one) for one in found if one.roofline),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    told = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    refused = [f"{_sizes(one):>{widths[0]}}  {one.step}" for one in found if not one.roofline]
    best = found[0]
    if best.roofline and best.fits:
        settings = " ".join(f"--mesh.{name} {size}" for name, size in best.mesh.sizes.items())
        return [*told, *refused, f"fastest that fits: {settings}"]
    return [*told, *refused, "none of them fits"]


def _row(one: "Candidate") -> tuple[str, ...]:
    assert one.roofline and not isinstance(one.step, str)
    times = (*one.roofline, one.roofline.overlapped, one.roofline.in_turn)
    memory = _gib(one.step.memory) + ("" if one.fits else ", does not fit")
    return _sizes(one), memory, *map(_ms, times), f"{one.predictions / one.roofline.in_turn:,.0f}"


def _sizes(one: "Candidate") -> str:
    return " x ".join(str(size) for size in one.mesh.sizes.values())


def _progress(one: "Candidate") -> None:
    """Tell on stderr that a mesh is done: a search takes minutes."""
    how = "refused" if isinstance(one.step, str) else f"compiled in {one.step.seconds:.0f} s"
    print(f"mesh {_sizes(one)}: {how}", file=sys.stderr, flush=True)


def _program(name: str, plan: "Plan", program: "Compiled | str", devices: int, made: int, unit: str) -> list[str]:
    """The lines of a compiled program that makes so many predictions or tokens in a call."""
    if isinstance(program, str):
        return [f"{name}: does not fit: {program}"]
    roofline = program.at_peak(plan.device, devices, plan.dtype)
    slowest = max(roofline.products, roofline.memory)
    utilization = plan.flops / devices / getattr(plan.device, plan.dtype) / slowest
    speed = f"at most {made / slowest:,.0f} {unit}/s, bound by {roofline._replace(links=0).bound}"
    return [
        f"{name}, compiled in {program.seconds:.1f} s{_kernels(program)}:",
        f"  on each device: arguments {_gib(program.arguments)} + temporaries {_gib(program.temporaries)} + outputs "
        f"{_gib(program.outputs)} + code {_gib(program.code)} = {_gib(program.memory)}: {_fits(program, plan)}",
        f"  at its peak: {_ms(roofline.products)} for {program.flops:.3g} operations, {_ms(roofline.memory)} for "
        f"memory; {speed}" + (f", MFU {utilization:.0%}" if program is plan.step else ""),
        *_exchanges(program, roofline, made, unit),
    ]


def _fits(program: "Compiled", plan: "Plan") -> str:
    """How a program lies in a device's memory, of which JAX may take a share alone."""
    if program.memory > plan.device.memory:
        return "does not fit"
    if program.memory > plan.room:
        return f"fits, but not in the {_gib(plan.room)} that JAX takes: give --gpu-memory 0.95"
    return "fits"


def _exchanges(program: "Compiled", roofline: "Roofline", made: int, unit: str) -> list[str]:
    """The lines of what the devices exchange; none for one device."""
    if not program.exchanges:
        return []
    told = [f"  between devices, at the links' peak {_ms(roofline.links)}:"]
    for one in program.exchanges:
        hosts = f" on {one.hosts} hosts" if one.hosts > 1 else ""
        told.append(
            f"    {one.kind} {one.dtype}: {_gib(one.bytes)} in {one.times:,} over {one.devices} devices{hosts}, "
            f"{_ms(one.seconds)}"
        )
    both = {"overlapped": roofline.overlapped, "in turn": roofline.in_turn}
    speeds = [f"{_ms(seconds)} {name} ({made / seconds:,.0f} {unit}/s)" for name, seconds in both.items()]
    return [*told, f"  with communication: {', '.join(speeds)}"]


def _kernels(program: "Compiled") -> str:
    return f", with {', '.join(program.kernels)}" if program.kernels else ""


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds < 0.9995 else f"{seconds:,.3g} s"


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
