"""Run by test_meshes.py in a process with eight virtual devices: every model on meshes of them, beside one device.

python -m tests.devices.eight_devices PART OUTPUT.json
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.devices import layout
from jaxlm.devices.layout import on_mesh
from jaxlm.devices.mesh import bytes_of_a_device, replicated, split_rows, state_sharding
from jaxlm.devices.plan.collectives import ARRAY, COLLECTIVE, collectives
from jaxlm.models.base import BUFFERS, axes_of, without_buffers
from jaxlm.ops import causal_attention, flash
from jaxlm.ops.orthogonal import newton_schulz
from jaxlm.rean.model import ReanModel
from jaxlm.rean.training import objective_of
from jaxlm.runs import checkpoints
from jaxlm.training import muon, optim
from jaxlm.training.program import Objective, Program
from jaxlm.training.state import TrainState
from tests.models.test_models import MODELS
from tests.rean import test_rean as rean

STEPS = 20
AXES = ("data", "fsdp", "tensor")
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (4, 1, 2), "tensor-4": (2, 1, 4), "all": (2, 2, 2)}
FEW_MESHES = ("data", "all")
V, ROWS = 8, 8
COUNTED = ("counts-3", "kneser-ney-4")
WINDOWS = ("ngram-2", "mlp-3-scaled", "wavenet-fusion", "wavenet-gated")
SEQUENCES = (
    "bow",
    "rnn",
    "gru",
    "lstm",
    "gpt",
    "gpt-tied",
    *(f"rean-{name}" for name in rean.MODELS if name not in ("softmax-frozen", "faithful-3")),
)
NAMES = (*COUNTED, *WINDOWS, *SEQUENCES)
SIZES: dict[str, Any] = {"vocab_size": 32, "context": 16, "n_layers": 3, "n_heads": 8, "d_model": 64}
ADAM = jaxlm.OptimConfig("adamw", lr=3e-3, clip=1.0)
FORMS: dict[str, tuple[jaxlm.GptConfig, jaxlm.OptimConfig]] = {
    "gpt2": (jaxlm.GptConfig.gpt2(**SIZES), ADAM),
    "llama": (jaxlm.GptConfig.llama(**SIZES, n_kv_heads=4, scan=True), ADAM),
    "modern": (
        jaxlm.GptConfig.modern(**SIZES, window_pattern="SL", scan=True),
        jaxlm.OptimConfig("muon", lr=3e-3, muon_lr=0.02),
    ),
}
"""The forms of a GPT, large enough for all meshes, with the optimisers of their recipes."""


def mesh_of(*sizes: int) -> Any:
    """A mesh of the first devices."""
    devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
    return jax.sharding.Mesh(devices, AXES)


def model_and_params(name: str) -> tuple[Any, dict[str, Any]]:
    """A model with random parameters, or fitted to random tokens, and its buffers."""
    if name.startswith("rean-"):
        return rean.model_and_params(name.removeprefix("rean-"))
    model: Any = dataclasses.replace(MODELS[name][0], vocab_size=V).build()
    rng = np.random.default_rng(0)
    if name in COUNTED:
        text_N = rng.integers(0, V, 5000)
        return model, model.fit(text_N, np.arange(len(text_N)))[0]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    return model, {key: rng.normal(0, 0.3, leaf.shape).astype(np.float32) for key, leaf in shapes.items()}


def batches(model: Any, mesh: Any, *, windows: bool = False, rows: int = ROWS, length: int = 6) -> Batch:
    """Random windows or sequences for each step, some of their targets padding; every second token repeats another."""
    rng = np.random.default_rng(1)
    if windows:
        tok, target = rng.integers(0, V, (STEPS, rows, model.context)), rng.integers(0, V, (STEPS, rows))
    else:
        tok_SBT = rng.integers(0, model.vocab_size, (STEPS, rows, length + 1))
        tok_SBT[..., 1::2] = tok_SBT[..., ::2][..., : (length + 1) // 2]
        tok, target = tok_SBT[..., :-1], tok_SBT[..., 1:]
    weight = (rng.random(target.shape) < 0.8).astype(np.float32)
    batch = Batch(jnp.asarray(tok, jnp.int32), jnp.asarray(target, jnp.int32), jnp.asarray(weight))
    everywhere = jax.device_put(batch, replicated(mesh))
    return jax.block_until_ready(jax.jit(lambda batch: split_rows(mesh, batch, 1))(everywhere))


def shares(tree: Any) -> dict[str, float]:
    """The part of each array that one device holds, by the array's path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.addressable_shards[0].data.nbytes / leaf.nbytes
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if leaf.ndim
    }


def far(a: Any, b: Any) -> float:
    """The largest difference between numbers of two trees."""
    differences = jax.tree.map(lambda a, b: float(np.max(np.abs(np.subtract(a, b)), initial=0)), a, b)
    return max(jax.tree.leaves(differences))


Chunk = Callable[[TrainState, Batch], tuple[TrainState, np.ndarray]]


def program_of(model: Any, settings: jaxlm.OptimConfig, mesh: Any, buffers: Any = None) -> tuple[Program, Any, Chunk]:
    """The program of a run on a mesh, its optimiser, and the compiled chunk: (state, batches) -> (state, losses)."""
    config = jaxlm.RunConfig(model=jaxlm.MlpConfig(), optim=settings, steps=STEPS, batch_size=ROWS)
    objective = objective_of(model) if isinstance(model, ReanModel) else Objective()
    program = Program(config=config, model=model, mesh=mesh, objective=objective)
    optimizer = optim.transformation(settings, STEPS, axes_of(model))
    compiled = program.compiled_chunk(optimizer, optim.schedule(settings, STEPS))

    def chunk(state: TrainState, batch: Batch) -> tuple[TrainState, np.ndarray]:
        K = batch.target.shape[0]
        state, metrics = jax.block_until_ready(compiled(state, batch, buffers or {}, K))
        return state, np.asarray(metrics.loss_K)

    return program, optimizer, chunk


def trained(name: str, model: Any, params: Any, mesh: Any) -> tuple[Any, list[float], dict[str, float]]:
    """The state after some steps on a mesh, their losses, and what a device holds of it."""
    params = jax.device_get(params)  # copies: the state is donated
    own, buffers = without_buffers(params), jax.device_put(params.get(BUFFERS), replicated(mesh))
    settings = jaxlm.OptimConfig("sgd", lr=0.05, momentum=0.9)
    program, optimizer, chunk = program_of(model, settings, mesh, buffers)
    lies = jax.tree.map(lambda x: x.sharding, program.abstract_state(optimizer))
    state = jax.device_put(TrainState(step=jnp.int32(0), params=own, opt_state=optimizer.init(own)), lies)
    state, loss_K = chunk(state, batches(model, mesh, windows=name in WINDOWS))
    return jax.device_get(state), loss_K.tolist(), shares(state)


def scored(name: str, model: Any, params: Any, mesh: Any) -> tuple[Any, list[float], dict[str, float]]:
    """The nats of contexts on a mesh, for a model that is counted."""
    rng = np.random.default_rng(1)
    ctx_BC, target_B = rng.integers(0, V, (ROWS, model.context)), rng.integers(0, V, ROWS)
    params = jax.device_put(params, state_sharding(mesh, params, axes_of(model)))

    def score(params: Any, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        return model.next_nats(params, *split_rows(mesh, (ctx_BC, target_B), axis=0))

    nats_B = jax.block_until_ready(jax.jit(score)(params, jnp.asarray(ctx_BC), jnp.asarray(target_B)))
    return jax.device_get(nats_B), [float(np.mean(nats_B))], shares(params)


def models() -> dict[str, Any]:
    """For each model and mesh, the losses, and the largest difference of the state from one device's."""
    result: dict[str, Any] = {}
    for name in NAMES:
        model, params = model_and_params(name)
        run = scored if name in COUNTED else trained
        expected, loss_K, _ = run(name, model, params, mesh_of(1, 1, 1))
        for mesh in FEW_MESHES:
            got, got_K, held = run(name, model, params, mesh_of(*MESHES[mesh]))
            result[f"{name}/{mesh}"] = {"one": loss_K, "got": got_K, "far": far(got, expected), "held": held}
    return result


def form(name: str) -> dict[str, Any]:
    """For each mesh, the losses of a form of the GPT from its untrained parameters on, and what a device holds."""
    config, settings = FORMS[name]
    model: Any = config.build()
    result: dict[str, Any] = {}
    for mesh, sizes in {"one": (1, 1, 1), **MESHES}.items():
        program, optimizer, chunk = program_of(model, settings, mesh_of(*sizes))
        state, loss_K = chunk(program.initial_state(optimizer), batches(model, program.mesh, rows=16, length=16))
        result[mesh] = {"losses": loss_K.tolist(), "held": shares(state)}
    return result


def memory() -> dict[str, Any]:
    """Bytes on each device of the arguments of a compiled step, the batch left out, by the devices along fsdp."""
    result: dict[str, Any] = {"state": 0}
    for fsdp in (1, 2, 4, 8):
        mesh = mesh_of(8 // fsdp, fsdp, 1)
        config = dataclasses.replace(FORMS["gpt2"][0], n_layers=1)
        program, optimizer, _ = program_of(config.build(), ADAM, mesh)
        state, batch = program.abstract_state(optimizer), batches(program.model, mesh)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), batch)
        chunk: Any = program.compiled_chunk(optimizer, optim.schedule(ADAM, STEPS))
        compiled = chunk.lower(state, batch, {}, STEPS).compile()
        rows = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batch)) // 8
        result[f"fsdp {fsdp}"] = compiled.memory_analysis().argument_size_in_bytes - rows
        result[f"counted {fsdp}"] = bytes_of_a_device(mesh, state, axes_of(program.model))
        result["state"] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return result


def exchanged_by_muon() -> dict[str, Any]:
    """For each mesh, bytes that devices exchange for Muon's update, by the number of its iterations."""
    model: Any = FORMS["modern"][0].build()
    matrices = {name: axes for name, axes in model.axes.items() if name in ("q", "k", "v", "attend", "up", "down")}
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    rule = muon.scale_by_muon(0.95, matrices)
    grads = {name: shapes[name] for name in matrices}
    state = jax.eval_shape(rule.init, grads)
    result: dict[str, Any] = {"matrices": sum(x.size * x.dtype.itemsize for x in grads.values())}
    for mesh in ("data", "fsdp", "all"):
        on = mesh_of(*MESHES[mesh])
        lies = state_sharding(on, (grads, state), matrices)
        given = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), (grads, state), lies)
        for iterations in (1, 5):
            with mock.patch.object(muon, "newton_schulz", partial(newton_schulz, iterations=iterations)):
                compiled = jax.jit(on_mesh(on, rule.update), out_shardings=lies).lower(*given).compile()
            sent = sum(one.bytes for one in collectives(compiled.as_text() or "", 8))
            result[f"{mesh}/{iterations}"] = sent
    return result


def accumulated() -> dict[str, Any]:
    """For each mesh and number of micro-batches, the collectives of a step by kind, those with a matrix, and losses."""
    result: dict[str, Any] = {}
    config = dataclasses.replace(FORMS["llama"][0], n_layers=2)
    for mesh, sizes in {"one": (1, 1, 1), **{name: MESHES[name] for name in ("data", "fsdp")}}.items():
        for parts in (1, 4):
            settings = dataclasses.replace(ADAM, accumulate=parts)
            program, optimizer, chunk = program_of(config.build(), settings, mesh_of(*sizes))
            batch = batches(program.model, program.mesh, rows=32, length=16)
            abstract = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype, sharding=x.sharding), batch
            )
            compiled: Any = program.compiled_chunk(optimizer, optim.schedule(settings, STEPS))
            text = compiled.lower(program.abstract_state(optimizer), abstract, {}, 1).compile().as_text()
            arrays = [len(ARRAY.findall(found[1])) for found in COLLECTIVE.finditer(text)]
            sent: dict[str, int] = {}
            for one in collectives(text, 8) if mesh != "one" else ():
                sent[one.kind] = sent.get(one.kind, 0) + one.bytes
            _, loss_K = chunk(program.initial_state(optimizer), batch)
            result[f"{mesh}/{parts}"] = {"sent": sent, "arrays": arrays, "losses": loss_K.tolist()}
    return result


def heads() -> dict[str, Any]:
    """A TPU's kernel by each device's rows and heads, with documents: the difference from one device's attention."""
    mesh, shape = mesh_of(2, 2, 2), (4, 128, 4, 16)
    q, k, v = (jax.random.normal(jax.random.key(i), (*shape[:2], n, 16)) for i, n in enumerate((4, 2, 2)))
    start_BT = jnp.where(jnp.arange(128) < 50, 0, 50)[None] + jnp.zeros((4, 1), jnp.int32)
    shapes: list[tuple[int, ...]] = []

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, *start: jax.Array) -> jax.Array:
        shapes.append(q.shape)
        return flash.splash(q, k, v, None, start[0] if start else None, interpret=True)

    result: dict[str, Any] = {}
    for name, given in {"rows": (q, k, v), "documents": (q, k, v, start_BT)}.items():
        y_BTNH = jax.block_until_ready(jax.jit(on_mesh(mesh, partial(layout.by_heads, attend)))(*given))
        expected = causal_attention(q, k, v, start_BT=start_BT if name == "documents" else None)[0]
        result[name] = float(jnp.abs(y_BTNH - expected).max())
    return {**result, "shapes": shapes}


def moved() -> dict[str, Any]:
    """Checkpoints of some meshes opened on others: differences of parameters, and the losses of the next steps."""
    config, settings = FORMS["modern"]
    model: Any = dataclasses.replace(config, n_layers=1, value_embeds=False).build()
    meshes = {"8": (2, 2, 2), "4": (1, 2, 2), "2": (1, 2, 1), "1": (1, 1, 1)}
    programs = {name: program_of(model, settings, mesh_of(*sizes)) for name, sizes in meshes.items()}
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for saved in ("8", "1"):
            program, optimizer, chunk = programs[saved]
            first = jax.tree.map(lambda x: x[:5], batches(model, program.mesh, rows=16, length=16))
            state, _ = chunk(program.initial_state(optimizer), first)
            place = Path(folder) / saved
            with checkpoints.CheckpointWriter(place, 1) as writer:
                writer.save(5, state.items(), dev_loss=None, metadata={})
            params = jax.device_get(state.params)
            for opened, (program, optimizer, chunk) in programs.items():
                items = checkpoints.load(place, checkpoints.saved(place)[0], program.abstract_state(optimizer).items())
                assert items is not None
                again = TrainState.of_items(items)
                held = shares(again)
                difference = far(jax.device_get(again.params), params)
                rest = jax.tree.map(lambda x: x[5:], batches(model, program.mesh, rows=16, length=16))
                _, loss_K = chunk(again, rest)
                result[f"{saved} to {opened}"] = {"far": difference, "losses": loss_K.tolist(), "held": held}
    return result


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "models": models,
    **{name: partial(form, name) for name in FORMS},
    "memory": memory,
    "muon": exchanged_by_muon,
    "accumulated": accumulated,
    "heads": heads,
    "moved": moved,
}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(PARTS[sys.argv[1]]()))
