"""python -m jaxlm.devices.plan: what compilers say of a run on devices that are not there."""

from typing import TYPE_CHECKING

from jaxlm.cli.process import show
from jaxlm.cli.train_command import parse_plan

if TYPE_CHECKING:
    from jaxlm.training.plan import Compiled, Plan


def main(args: list[str]) -> int:
    """Compile a config's programs for the device that --on names, and print what they take."""
    command = parse_plan(args)
    if command is None:
        return 0
    from jaxlm.devices.platform import choose_device
    from jaxlm.training.plan import plan

    choose_device("cpu")
    made = plan(command.config, command.on, command.topology, decode_rows=command.decode_rows)
    for line in lines(made, command.on):
        show(line)
    return 0


def lines(plan: "Plan", on: str) -> list[str]:
    """The lines of a plan."""
    tokens = plan.rows * plan.length
    return [
        f"devices: {plan.devices} x {on}, each {_gib(plan.device.memory)}, {getattr(plan.device, plan.dtype):.3g} "
        f"operations/s in {plan.dtype}, {plan.device.bandwidth / 1e12:.3g} TB/s",
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


def _program(name: str, plan: "Plan", program: "Compiled | str", devices: int, made: int, unit: str) -> list[str]:
    """The lines of a compiled program that makes so many predictions or tokens in a call."""
    if isinstance(program, str):
        return [f"{name}: does not fit: {program}"]
    fits = "fits" if program.memory <= plan.device.memory else "does not fit"
    products, memory = program.seconds_at_peak(plan.device, devices, plan.dtype)
    slowest = max(products, memory)
    utilization = plan.flops / devices / getattr(plan.device, plan.dtype) / slowest
    speed = f"at most {made / slowest:,.0f} {unit}/s, bound by {'products' if products > memory else 'memory'}"
    return [
        f"{name}, compiled in {program.seconds:.1f} s{_kernels(program)}:",
        f"  on each device: arguments {_gib(program.arguments)} + temporaries {_gib(program.temporaries)} + outputs "
        f"{_gib(program.outputs)} + code {_gib(program.code)} = {_gib(program.memory)}: {fits}",
        f"  at its peak: {products * 1e3:.3g} ms for {program.flops:.3g} operations, {memory * 1e3:.3g} ms for memory; "
        + speed
        + (f", MFU {utilization:.0%}" if program is plan.step else ""),
    ]


def _kernels(program: "Compiled") -> str:
    return f", with {', '.join(program.kernels)}" if program.kernels else ""


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
