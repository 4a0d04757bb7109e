"""A run's programs compiled for devices that are not there: their memory, operations, and the time that peaks allow."""

import dataclasses
import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.config import RunConfig
from jaxlm.config.models import ModelConfig
from jaxlm.devices import peaks, topology
from jaxlm.devices.flops import of_jaxpr
from jaxlm.devices.links import LINKS, Exchange, exchanges
from jaxlm.devices.mesh import abstract_rows, check_batch, make_mesh, replicated, rows_multiple
from jaxlm.devices.plan.collectives import collectives
from jaxlm.errors import UserError
from jaxlm.models.base import axes_of
from jaxlm.models.check import build
from jaxlm.models.initialization import abstract_state
from jaxlm.training import optim
from jaxlm.training.program import Program
from jaxlm.training.setup import attention_note

PLANNED_STEPS = 1000
"""Steps of a run that is as long as some epochs of data that a plan does not read."""
WORDS = 200
"""Characters of a compiler's message that are shown."""
KERNELS = re.compile(
    r'custom_call_target="(?:__cudnn\$)?(fmha\w+)"|kernel_name\W+(\w*(?:attention|splash|flash|mha)\w*)'
)
"""Attention's kernels in the text of a program: cuDNN's once it is compiled, and those in Pallas before."""


class Roofline(NamedTuple):
    """The least seconds of a call of a program by each of a device's peaks."""

    products: float
    """By its operations/s."""
    memory: float
    """By its memory's bytes/s."""
    links: float
    """By the bytes/s of the links between devices."""

    @property
    def overlapped(self) -> float:
        """Seconds where devices exchange all while they compute."""
        return max(self)

    @property
    def in_turn(self) -> float:
        """Seconds where devices exchange all before and after they compute."""
        return max(self.products, self.memory) + self.links

    @property
    def bound(self) -> str:
        """The peak that takes the longest: products, memory or links."""
        return max(zip(self, self._fields, strict=True))[1]


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

    exchanges: tuple[Exchange, ...] = ()
    """The collectives of a call, the longest first."""

    @property
    def memory(self) -> int:
        """Bytes of memory that it wants."""
        return self.arguments + self.outputs + self.temporaries + self.code

    def at_peak(self, device: peaks.Device, devices: int, dtype: str) -> Roofline:
        """The least seconds of a call. Arguments and outputs cross the memory once, temporaries twice."""
        crossing = self.arguments + self.outputs + 2 * self.temporaries
        return Roofline(
            products=self.flops / devices / getattr(device, dtype),
            memory=crossing / device.bandwidth,
            links=sum(one.seconds for one in self.exchanges),
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """The compiled programs of a run on some devices, as their compilers describe them."""

    device: peaks.Device
    devices: int
    mesh: dict[str, int]
    """The size of each axis of the mesh that the train step is compiled for."""
    room: float
    """Bytes of a device's memory that JAX takes for programs: of a GPU, the share gpu_memory."""
    steps: int | None
    """Steps of the run; None where its length is one in epochs, which takes data."""
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


def plan(config: RunConfig, on: str, *, decode_rows: int = 1) -> Plan:
    """Compile the train step and a decoding step of a run for devices that are not there.

    `on` names them as `topology.parse_slice` reads it; the mesh is the config's. Raises UserError for settings that
    cannot be planned and for a compiler that is not installed.
    """
    slice = topology.parse_slice(on)
    devices = topology.devices_of(slice)
    training, rows, length, step = planned_step(config, slice.name, devices)
    with topology.tracing_for(slice.name):
        alone = dataclasses.replace(training, mesh=make_mesh(absent=devices[:1]))
        decode = _compiled(lambda: traced_decode(alone, decode_rows, length), slice.name, devices[:1])
        notes = tuple(attention_note(training.config.model))
        flops = training.flops(rows, length)
    state = training.abstract_state(_optimizer(training))
    return Plan(
        device=peaks.DEVICES[slice.name],
        devices=len(devices),
        mesh=dict(training.mesh.shape),
        room=room(config, slice.name),
        steps=training.config.steps if config.epochs is None else None,
        parameters=training.parameters,
        state=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        rows=rows,
        length=length,
        flops=flops,
        dtype=dtype_of(training),
        step=step,
        decode=decode,
        decode_rows=decode_rows,
        notes=notes,
    )


def planned_step(config: RunConfig, name: str, devices: Sequence[Any]) -> tuple[Program, int, int, Compiled | str]:
    """The program of a run on absent devices, its rows and predictions a row, and its train step (see Plan)."""
    with topology.tracing_for(name):
        training, rows, length = program(config, make_mesh(config.mesh, devices))
        in_order = training.mesh.devices.flat  # of the numbers by which the program's text names them
        return training, rows, length, _compiled(lambda: traced_step(training, rows, length), name, list(in_order))


def room(config: RunConfig, name: str) -> float:
    """Bytes of a device's memory that programs may take: JAX reserves the share gpu_memory of a GPU's at the start."""
    share = config.gpu_memory or 1.0 if topology.platform_of(name) == "cuda" else 1.0
    return share * peaks.DEVICES[name].memory


def dtype_of(program: Program) -> str:
    """The type that a program's products are computed in."""
    return getattr(program.config.model, "dtype", "float32")


def _optimizer(program: Program) -> Any:
    return optim.transformation(program.config.optim, program.config.last_step, axes_of(program.model))


def _compiled(trace: Callable[[], Any], name: str, devices: Sequence[Any]) -> Compiled | str:
    """Trace and compile a program; the compiler's words where the device has no place for it.

    Raises UserError with them where the compiler fails in another way.
    """
    began = time.monotonic()
    traced = trace()
    lowered = traced.lower()
    try:
        compiled = _by_compiler(lowered, topology.platform_of(name))
    except jax.errors.JaxRuntimeError as error:
        words = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in words:
            raise UserError(f"on {name}, the compiler fails: {words[:WORDS]}") from error
        return words
    seconds = time.monotonic() - began
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    kernels = {found[1] or found[2] for found in KERNELS.finditer(lowered.as_text() + text)}
    exchanged = collectives(text, len(devices)) if len(devices) > 1 else []
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=of_jaxpr(traced.jaxpr.jaxpr),
        kernels=tuple(sorted(kernels)),
        seconds=seconds,
        exchanges=exchanges(exchanged, [device.coords for device in devices], LINKS[name]),
    )


def _by_compiler(lowered: Any, platform: str) -> Any:
    """Compile a lowered program. Without autotuning, XLA's products by Triton fail on CUDA for some sizes, as 96."""
    with warnings.catch_warnings():  # a program for an absent device cannot be read back from JAX's cache
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
        try:
            return lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if platform != "cuda" or "tile sizes" not in str(error):
                raise
        return lowered.compile(compiler_options={"xla_gpu_enable_triton_gemm": False})
