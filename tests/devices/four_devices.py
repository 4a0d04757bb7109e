"""Run by test_sharding.py in a process with four virtual devices: every model on meshes of them, beside one device.

python -m tests.devices.four_devices OUTPUT.json
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config.mesh import MeshConfig
from jaxlm.data.rows import Batch
from jaxlm.devices.mesh import make_mesh, replicated, split_rows, state_sharding
from jaxlm.models.base import BUFFERS, axes_of, with_buffers, without_buffers
from jaxlm.rean.model import ReanModel
from jaxlm.rean.training import objective_of
from jaxlm.training.state import TrainState
from jaxlm.training.step import language_loss
from tests.models.test_models import MODELS
from tests.rean import test_rean as rean

MESHES = {"data": MeshConfig(), "fsdp-tensor": MeshConfig(data=1, fsdp=2, tensor=2)}
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


def batch_of(name: str, model: Any) -> Batch:
    """Random windows or sequences, some of their targets padding."""
    rng = np.random.default_rng(1)
    if name in WINDOWS:
        tok, target = rng.integers(0, V, (ROWS, model.context)), rng.integers(0, V, ROWS)
    else:
        tok_BT = rng.integers(0, model.vocab_size, (ROWS, 7))
        tok, target = tok_BT[:, :-1], tok_BT[:, 1:]
    weight = (rng.random(target.shape) < 0.8).astype(np.float32)
    return Batch(jnp.asarray(tok, jnp.int32), jnp.asarray(target, jnp.int32), jnp.asarray(weight))


def step_of(model: Any, mesh: Any, optimizer: Any) -> Callable[..., tuple[TrainState, jax.Array]]:
    """(state, buffers, batch) -> (state after one step, loss)."""
    key = jax.random.key(2)
    loss = objective_of(model).loss if isinstance(model, ReanModel) else language_loss

    def step(state: TrainState, buffers: Any, batch: Batch) -> tuple[TrainState, jax.Array]:
        batch = split_rows(mesh, batch, axis=0)

        def objective(params: Any) -> jax.Array:
            total, count = loss(model, with_buffers(params, buffers), batch, key)
            return total / count

        mean, grads = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), mean

    return step


def shares(tree: Any) -> dict[str, float]:
    """The part of each array that one device holds, by the array's path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.addressable_shards[0].data.nbytes / leaf.nbytes
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if leaf.ndim
    }


def trained(name: str, model: Any, params: Any, mesh: Any) -> tuple[Any, float, dict[str, float]]:
    """The state after a step on a mesh, its loss, and what a device holds of it."""
    optimizer = optax.sgd(0.5, momentum=0.9)
    step = step_of(model, mesh, optimizer)
    own, buffers = without_buffers(params), params.get(BUFFERS)
    state = TrainState(step=jnp.int32(0), params=own, opt_state=optimizer.init(own))
    lies = state_sharding(mesh, state, axes_of(model))
    everywhere = replicated(mesh)
    state, buffers, batch = jax.device_put((state, buffers, batch_of(name, model)), (lies, everywhere, everywhere))
    state, loss = jax.block_until_ready(jax.jit(step, out_shardings=(lies, everywhere))(state, buffers, batch))
    return jax.device_get(state), float(loss), shares(state)


def scored(name: str, model: Any, params: Any, mesh: Any) -> tuple[Any, float, dict[str, float]]:
    """The nats of contexts on a mesh, for a model that is counted."""
    rng = np.random.default_rng(1)
    ctx_BC, target_B = rng.integers(0, V, (ROWS, model.context)), rng.integers(0, V, ROWS)
    params = jax.device_put(params, state_sharding(mesh, params, axes_of(model)))

    def score(params: Any, ctx_BC: jax.Array, target_B: jax.Array) -> jax.Array:
        return model.next_nats(params, *split_rows(mesh, (ctx_BC, target_B), axis=0))

    nats_B = jax.block_until_ready(jax.jit(score)(params, jnp.asarray(ctx_BC), jnp.asarray(target_B)))
    return jax.device_get(nats_B), float(np.mean(nats_B)), shares(params)


def main() -> None:
    """Write, for each model and mesh, the losses and the largest difference of a step's state from one device's."""
    result: dict[str, Any] = {}
    one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
    for name in NAMES:
        model, params = model_and_params(name)
        run = scored if name in COUNTED else trained
        expected, loss, _ = run(name, model, params, one)
        for mesh, config in MESHES.items():
            got, got_loss, held = run(name, model, params, make_mesh(config))
            far = jax.tree.map(lambda a, b: float(np.max(np.abs(np.subtract(a, b)), initial=0)), got, expected)
            result[f"{name}/{mesh}"] = {
                "one": loss,
                "four": got_loss,
                "far": max(jax.tree.leaves(far)),
                "held": held,
            }
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
