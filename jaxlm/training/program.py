"""A language model's program: model, objective, devices and the compiled chunk of steps, without data."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config import RunConfig
from jaxlm.data.rows import Batch
from jaxlm.devices import compilation
from jaxlm.devices.flops import flops
from jaxlm.devices.layout import on_mesh
from jaxlm.devices.mesh import replicated, state_sharding
from jaxlm.devices.placing import place
from jaxlm.inference.evaluation import NATS_PER_TOKEN
from jaxlm.models.base import LanguageModel, Params, axes_of
from jaxlm.models.initialization import abstract_state, init_state
from jaxlm.ops import prng
from jaxlm.training import optim
from jaxlm.training.init_from import Start
from jaxlm.training.state import Chunk, TrainState
from jaxlm.training.step import Loss, MakeStep, language_loss, make_chunk, make_step


class Objective(NamedTuple):
    """The loss and step of a model: REAN brings its own, every other model uses these defaults."""

    loss: Loss = language_loss
    unit: str = NATS_PER_TOKEN
    """The unit of the loss."""
    make_step: MakeStep = make_step
    calibrate: Callable[[LanguageModel[Any], Params, Any], Params] | None = None
    """(model, params, batch) -> params with those calibrated that steps do not train; None without such."""
    calibrated_on: Literal["train", "dev"] = "train"
    """The split that they are calibrated on; of a text without dev, they stay as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A language model, its objective and its devices: all that the compiled step is made of, without data."""

    config: RunConfig
    """The settings, with those filled in that depend on the data."""
    model: LanguageModel[Any]
    mesh: Any
    start: Start | None = None
    """The run that init_from names; None without it."""
    objective: Objective = dataclasses.field(default_factory=Objective)

    @cached_property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return optim.count_parameters(abstract_state(self.model)[0])

    def abstract_batch(self, rows: int, length: int) -> Batch:
        """Shapes and types of a batch: windows of the model's context, or sequences of `length` predictions."""
        window = self.config.data.example == "window"
        tok = (rows, self.model.context or length) if window else (rows, length)
        target = tok[:1] if window else tok
        shapes = (tok, jnp.int32), (target, jnp.int32), (target, jnp.float32)
        return Batch(*(cast(jax.Array, jax.ShapeDtypeStruct(*shape)) for shape in shapes))

    def flops(self, rows: int, length: int) -> float:
        """Operations of a step's products, thrice those of the loss: what is computed again backward is left out.

        They are the numerator of MFU (Chowdhery et al. 2022, appendix B).
        """

        def loss(params: Params, batch: Batch) -> jax.Array:
            return self.objective.loss(self.model, params, batch, None)[0]

        return 3 * flops(loss, abstract_state(self.model)[0], self.abstract_batch(rows, length))

    def abstract_state(self, optimizer: optax.GradientTransformation) -> TrainState:
        """Shapes, types and shardings of the training state."""
        params, opt_state = abstract_state(self.model, optimizer.init)
        state = TrainState(
            step=cast(jax.Array, jax.ShapeDtypeStruct((), jnp.int32)),
            params=params,
            opt_state=opt_state,
            ema=None if self.config.optim.ema is None else params,
        )
        lies = state_sharding(self.mesh, state, axes_of(self.model))
        return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, lies)

    def initial_state(self, optimizer: optax.GradientTransformation) -> TrainState:
        """The state at step 0 on the mesh, with parameters from the seed or from init_from."""
        lies = jax.tree.map(lambda x: x.sharding, self.abstract_state(optimizer))
        if self.start is None or self.start.params is None:
            key = prng.derive(self.config.seed, prng.PARAMETERS)
            params, opt_state = init_state(self.model, optimizer.init, key, (lies.params, lies.opt_state))
        else:
            params = place(self.start.params, lies.params)
            opt_state = jax.jit(optimizer.init, out_shardings=lies.opt_state)(params)
        average = None if self.config.optim.ema is None else jax.tree.map(jnp.copy, params)
        step = place(np.int32(0), lies.step)
        return TrainState(step=step, params=params, opt_state=opt_state, ema=average)

    def compiled_chunk(
        self, optimizer: optax.GradientTransformation, rate: optax.Schedule
    ) -> Callable[[TrainState, Batch, Params, int], tuple[TrainState, Chunk]]:
        """Build the compiled chunk: (state, K batches, buffers, K) -> (state after K steps, metrics).

        The state is donated.
        """
        lies = jax.tree.map(lambda x: x.sharding, self.abstract_state(optimizer))
        return jax.jit(
            on_mesh(self.mesh, self.chunk(optimizer, rate)),
            donate_argnums=0,
            static_argnums=3,
            out_shardings=(lies, replicated(self.mesh)),
            compiler_options=compilation.step_options(self.mesh),
        )

    def chunk(
        self, optimizer: optax.GradientTransformation, rate: optax.Schedule
    ) -> Callable[..., tuple[TrainState, Chunk]]:
        """The chunk as a function to be compiled; see `make_chunk`.

        The metrics have the gradient's norm where clipping computes it anyway.
        """
        settings = self.config.optim
        loss: Any = self.objective.loss
        step = self.objective.make_step(
            self.model,
            partial(loss, z_loss=settings.z_loss) if settings.z_loss else loss,
            optimizer,
            settings.l2,
            accumulate=settings.accumulate,
            grad_norm=settings.clip is not None,
        )
        return make_chunk(step, rate, self.config.seed, settings.ema)
