"""Tables with a row for each token on several devices: the lookup of embeddings and the loss of an unembedding.

The compiler would gather a table again for each use, or for each chunk of the loss, and sum as often. Here a table is
gathered along fsdp once in a step, in the type of the products, and so are its gradients: each device adds up those of
all uses, and then all of them are summed and scattered once. Along tensor each device has its part of the vocabulary.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxlm.devices.layout import exchanged, traced_for
from jaxlm.devices.mesh import RULES, spec_of
from jaxlm.ops.unembedding import chunk_rows, chunked_gradients, chunked_values, project_logits, target_nats

ROWS = RULES["batch"]
"""The mesh axes along which rows of a batch, and the copies of a table, lie."""


class Table(NamedTuple):
    """A table on one device, w_VD in float32."""

    w_VD: jax.Array

    def lookup(self, tok_BT: jax.Array) -> jax.Array:
        """The rows of tokens, x_BTD in float32."""
        return self.w_VD[tok_BT]

    def logits(self, h_BTD: jax.Array, softcap: float | None) -> jax.Array:
        """See `project_logits`."""
        return project_logits(h_BTD, self.w_VD, softcap)

    def nats(self, h_BTD: jax.Array, target_BT: jax.Array, softcap: float | None) -> tuple[jax.Array, jax.Array]:
        """nats_BT and log_z_BT, see `target_nats`."""
        nats_N, log_z_N = target_nats(h_BTD.reshape(-1, h_BTD.shape[-1]), self.w_VD, target_BT.reshape(-1), softcap)
        return nats_N.reshape(target_BT.shape), log_z_N.reshape(target_BT.shape)


class SplitTable(NamedTuple):
    """A table on the devices of a mesh, with the methods of `Table`; rows of a batch lie along data and fsdp."""

    mesh: Mesh
    w_RVD: jax.Array
    """A copy for each of the R places along data and fsdp, in the type of the products; V lies along tensor, where that
    divides the vocabulary."""

    def lookup(self, tok_BT: jax.Array) -> jax.Array:
        """The rows of tokens, x_BTD in float32; their gradients are added up in float32 on each device."""
        axis = self._axis

        def of_device(w_1VD: jax.Array, tok_BT: jax.Array) -> jax.Array:
            w_VD = w_1VD[0].astype(jnp.float32)
            if axis is None:
                return w_VD[tok_BT]
            place_BT = tok_BT - jax.lax.axis_index(axis) * w_VD.shape[0]
            own_BT1 = ((place_BT >= 0) & (place_BT < w_VD.shape[0]))[..., None]
            x_BTD = jnp.where(own_BT1, w_VD[jnp.clip(place_BT, 0, w_VD.shape[0] - 1)], 0)
            return jax.lax.psum(x_BTD.astype(w_1VD.dtype), axis).astype(jnp.float32)

        specs = self._spec, PartitionSpec(ROWS)
        return jax.shard_map(of_device, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(ROWS))(
            self.w_RVD, tok_BT
        )

    def logits(self, h_BTD: jax.Array, softcap: float | None) -> jax.Array:
        """See `project_logits`."""
        return project_logits(h_BTD, self.w_RVD[0], softcap)

    def nats(self, h_BTD: jax.Array, target_BT: jax.Array, softcap: float | None) -> tuple[jax.Array, jax.Array]:
        """nats_BT and log_z_BT, see `target_nats`: each device takes its own rows, in chunks."""
        return _nats(h_BTD, self.w_RVD, target_BT, self.mesh, self._axis, softcap)

    @property
    def _spec(self) -> PartitionSpec:
        return PartitionSpec(ROWS, self._axis)

    @property
    def _axis(self) -> Any:
        """The mesh axis along which the vocabulary lies, or None."""
        return spec_of(self.mesh, self.w_RVD.shape[1:], ("vocab", None))[0]


def table(w_VD: jax.Array, dtype: Any) -> Table | SplitTable:
    """A table with the logical axes vocab and embed, for products in a type."""
    mesh = traced_for()
    if mesh is None:
        return Table(w_VD)
    vocab, embed = spec_of(mesh, w_VD.shape, ("vocab", "embed"))

    def of_device(w_VE: jax.Array) -> jax.Array:
        w_VD = jax.lax.pcast(w_VE, tuple({*ROWS} - {embed}), to="varying")
        return (w_VD if embed is None else jax.lax.all_gather(w_VD, embed, axis=1, tiled=True))[None]

    copies = jax.shard_map(
        of_device, mesh=mesh, in_specs=PartitionSpec(vocab, embed), out_specs=PartitionSpec(ROWS, vocab)
    )
    return SplitTable(mesh, copies(exchanged(w_VD.astype(dtype))))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _nats(
    h_BTD: jax.Array, w_RVD: jax.Array, target_BT: jax.Array, mesh: Mesh, axis: str | None, softcap: float | None
) -> tuple[jax.Array, jax.Array]:
    return _nats_forward(h_BTD, w_RVD, target_BT, mesh, axis, softcap)[0]


Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _nats_forward(
    h_BTD: jax.Array, w_RVD: jax.Array, target_BT: jax.Array, mesh: Mesh, axis: str | None, softcap: float | None
) -> tuple[tuple[jax.Array, jax.Array], Saved]:
    def of_device(h_BTD: jax.Array, w_1VD: jax.Array, target_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        h_ND, target_N, rows = _flat(h_BTD), target_BT.reshape(-1), chunk_rows(target_BT.size, w_1VD.shape[1])
        nats_N, log_z_N = chunked_values(h_ND, w_1VD[0], target_N, rows, softcap, axis)
        return nats_N.reshape(target_BT.shape), log_z_N.reshape(target_BT.shape)

    specs = PartitionSpec(ROWS), PartitionSpec(ROWS, axis), PartitionSpec(ROWS)
    values = jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(ROWS), check_vma=False)
    nats_BT, log_z_BT = values(h_BTD, w_RVD, target_BT)
    return (nats_BT, log_z_BT), (h_BTD, w_RVD, target_BT, log_z_BT)


def _nats_backward(
    mesh: Mesh, axis: str | None, softcap: float | None, saved: Saved, gradients: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    def of_device(h_BTD: jax.Array, w_1VD: jax.Array, *numbers_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = chunk_rows(numbers_BT[0].size, w_1VD.shape[1])
        flat = [x_BT.reshape(-1) for x_BT in numbers_BT]
        target_N, log_z_N, dnats_N, dlog_z_N = flat
        dh_ND, dw_VD = chunked_gradients(
            _flat(h_BTD), w_1VD[0], target_N, log_z_N, dnats_N, dlog_z_N, rows, softcap, axis
        )
        return dh_ND.reshape(h_BTD.shape), dw_VD[None]

    h_BTD, w_RVD, target_BT, log_z_BT = saved
    row, copy = PartitionSpec(ROWS), PartitionSpec(ROWS, axis)
    values = jax.shard_map(
        of_device, mesh=mesh, in_specs=(row, copy, row, row, row, row), out_specs=(row, copy), check_vma=False
    )
    return *values(h_BTD, w_RVD, target_BT, log_z_BT, *gradients), None


_nats.defvjp(_nats_forward, _nats_backward)


def _flat(h_BTD: jax.Array) -> jax.Array:
    return h_BTD.reshape(-1, h_BTD.shape[-1])
