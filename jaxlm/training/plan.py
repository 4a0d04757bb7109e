"""A run's programs compiled for devices that are not there: their memory, operations, and the time that peaks allow."""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import RunConfig
from jaxlm.config.models import ModelConfig
from jaxlm.devices import peaks, topology
from jaxlm.devices.flops import of_jaxpr
from jaxlm.devices.mesh import abstract_rows, check_batch, make_mesh, replicated, rows_multiple
from jaxlm.errors import UserError
from jaxlm.models.base import axes_of
from jaxlm.models.check import build
from jaxlm.models.initialization import abstract_state
from jaxlm.training import optim
from jaxlm.training.setup import Program, attention_note

PLANNED_STEPS = 1000
"""Steps of a run that is as long as some epochs of data that a plan does not read."""
KERNELS = re.compile(
    r'custom_call_target="(?:__cudnn\$)?(fmha\w+)"|kernel_name\W+(\w*(?:attention|splash|flash|mha)\w*)'
)
"""Attention's kernels in the text of a program: cuDNN's once it is compiled, and those in Pallas before."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program compiled for one kind of device. Bytes are those on each device."""

    arguments: int
    """Bytes of what it is given: state and batch."""
    outputs: int
    """Bytes of what it returns, those in the place of arguments left out."""
    temporaries: int
    """Bytes that it holds beside them while it runs."""
    code: int
    """Bytes of the program."""
    flops: float
    """Operations on all devices, with what is computed again backward."""
    kernels: tuple[str, ...]
    """Fused kernels of attention in it; none for the plain form."""
    seconds: float
    """Seconds that it took to compile."""

    @property
    def memory(self) -> int:
        """Bytes of memory that it wants."""
        return self.arguments + self.outputs + self.temporaries + self.code

    def seconds_at_peak(self, device: peaks.Device, devices: int, dtype: str) -> tuple[float, float]:
        """Least seconds of a call by the device's operations/s, and by its memory's bytes/s: (products, memory).

        Arguments and outputs cross the memory once, temporaries twice.
        """
        crossing = self.arguments + self.outputs + 2 * self.temporaries
        return self.flops / devices / getattr(device, dtype), crossing / device.bandwidth


@dataclasses.dataclass(frozen=True)
class Plan:
    """The compiled programs of a run on some devices, as their compilers describe them."""

    device: peaks.Device
    devices: int
    parameters: int
    state: int
    """Bytes of parameters and moments, on all devices together."""
    rows: int
    """Rows of a batch."""
    length: int
    """Predictions of a row."""
    flops: float
    """Operations of a step on all devices, without what is computed again backward."""
    dtype: str
    """The type that products are computed in."""
    step: Compiled | str
    """The train step; the compiler's words where it does not fit."""
    decode: Compiled | str
    """One new token of each row, on one device, with a cache of `length` tokens."""
    decode_rows: int
    notes: tuple[str, ...] = ()
    """Lines about the form of attention in the train step; none for models without."""


def program(config: RunConfig, mesh: Any) -> tuple[Program, int, int]:
    """The program of a run without its data, the rows of a batch, and the predictions of a row.

    Vocabulary and length are those of the settings. Raises UserError for a setting that only data could fill in.
    """
    model = config.model
    if not model.trained_by_steps or type(model).prepare is not ModelConfig.prepare:
        raise UserError(f"model wants a language model that is trained by plain steps, got {type(model).__name__}")
    if model.vocab_size is None:
        raise UserError(
            "model.vocab_size wants a number for a plan, which reads no data, got None; give --model.vocab-size 50304"
        )
    filled = model.filled(model.vocab_size, config.data.max_length)
    built = build(filled)
    length = 1 if config.data.example == "window" else config.data.max_length
    if built.max_length is not None:
        length = min(length, built.max_length)
    parts = config.optim.accumulate
    config = dataclasses.replace(config, model=filled).in_rows(length, parts * rows_multiple(mesh))
    rows = config.batch_size
    if rows == "full":
        raise UserError("batch_size wants a number for a plan, which reads no data, got full; give --batch-size 32")
    check_batch(rows, mesh, parts)
    optim.check_matrices(config.optim, axes_of(built), lambda: abstract_state(built)[0])
    if config.epochs is not None:
        config = dataclasses.replace(config, steps=PLANNED_STEPS, epochs=None)
    return Program(config=config.in_steps(0, rows, length), model=built, mesh=mesh), rows, length


def traced_step(program: Program, rows: int, length: int) -> Any:
    """The train step traced for `program.mesh` (jax.stages.Traced), without values."""
    config, optimizer = program.config, _optimizer(program)
    chunk: Any = program.compiled_chunk(optimizer, optim.schedule(config.optim, config.last_step))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), program.abstract_batch(rows, length))
    return chunk.trace(program.abstract_state(optimizer), abstract_rows(program.mesh, batch, 1), {}, 1)


def traced_decode(program: Program, rows: int, length: int) -> Any:
    """One new token of each row traced for one device (jax.stages.Traced), without values."""
    model = program.model
    params = abstract_state(model)[0]
    cache = jax.eval_shape(lambda params: model.init_cache(params, rows, length), params)
    tok_B1, length_B = jax.ShapeDtypeStruct((rows, 1), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.int32)
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(program.mesh)),
        (params, cache, tok_B1, length_B),
    )
    return jax.jit(lambda *args: model.extend(*args), donate_argnums=1).trace(*placed)


def plan(config: RunConfig, on: str, shape: str | None = None, *, decode_rows: int = 1) -> Plan:
    """Compile the train step and a decoding step of a run for devices that are not there.

    `on` is one of topology.NAMES, `shape` a topology of several. Raises UserError for settings that cannot be planned
    and for a compiler that is not installed.
    """
    if on not in topology.NAMES:
        raise UserError(f"on wants one of {', '.join(topology.NAMES)}, got {on!r}")
    devices = topology.devices_of(on, shape)
    with topology.tracing_for(on, len(devices)):
        training, rows, length = program(config, make_mesh(config.mesh, devices))
        step = _compiled(lambda: traced_step(training, rows, length))
        flops = training.flops(rows, length)
        notes = tuple(attention_note(training.config.model))
    with topology.tracing_for(on):
        alone = dataclasses.replace(training, mesh=make_mesh(absent=devices[:1]))
        decode = _compiled(lambda: traced_decode(alone, decode_rows, length))
    state = training.abstract_state(_optimizer(training))
    return Plan(
        device=peaks.DEVICES[on],
        devices=len(devices),
        parameters=training.parameters,
        state=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        rows=rows,
        length=length,
        flops=flops,
        dtype=getattr(training.config.model, "dtype", "float32"),
        step=step,
        decode=decode,
        decode_rows=decode_rows,
        notes=notes,
    )


def _optimizer(program: Program) -> Any:
    return optim.transformation(program.config.optim, program.config.last_step, axes_of(program.model))


def _compiled(trace: Callable[[], Any]) -> Compiled | str:
    """Trace and compile a program; the compiler's words where the device has no place for it."""
    began = time.monotonic()
    traced = trace()
    try:
        lowered = traced.lower()
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0]
    seconds = time.monotonic() - began
    memory = compiled.memory_analysis()
    kernels = {found[1] or found[2] for found in KERNELS.finditer(lowered.as_text() + compiled.as_text())}
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=of_jaxpr(traced.jaxpr.jaxpr),
        kernels=tuple(sorted(kernels)),
        seconds=seconds,
    )
