"""Collectives and their bytes, read in the text of compiled programs: written by hand, and by XLA for eight devices."""

import os
import subprocess
import sys

import pytest

from jaxlm.devices.plan.collectives import Collective, collectives
from tests.conftest import QUICK_COMPILATION, REPOSITORY

ALL = (tuple(range(8)),)
HALVES = (0, 1, 2, 3), (4, 5, 6, 7)
EVERY_SECOND = (0, 2, 4, 6), (1, 3, 5, 7)
SCAN = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
layers = jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "b")))
x = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(("a", "b"))))

def loss(layers, x):
    return jnp.sum(jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, layers)[0])

print(jax.jit(loss, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(layers, x).compile().as_text())
"""
PROGRAM = """HloModule jit_f, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {{
  ROOT %sum = f32[] add(%x, %y)
}}

%wrapped (p: bf16[16,8]) -> bf16[2,8] {{
  ROOT %scatter = bf16[2,8]{{1,0}} reduce-scatter(%p), replica_groups=[1,8]<=[8], dimensions={{0}}, to_apply=%add
}}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %gather = bf16[64,8]{{1,0:T(8,128)(2,1)}} all-gather(%p), replica_groups={{{{0,2,4,6}},{{1,3,5,7}}}}, dimensions={{0}}
  %begun = ((bf16[16,8]), bf16[2,8], u32[]) async-start(%g), calls=%wrapped
  %ended = bf16[2,8] async-done(%begun), calls=%wrapped
}}

%condition (arg: (s32[], f32[8])) -> pred[] {{
  %end = s32[] constant(7)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}}

%few (p: f32[4]) -> f32[4] {{
  ROOT %a = f32[4] all-reduce(%p), replica_groups={{}}, to_apply=%add
}}

%many (p: f32[4]) -> f32[4] {{
  ROOT %a = f32[40] all-reduce(%p), replica_groups={{}}, to_apply=%add
}}

ENTRY %main (p: bf16[16,8]) -> f32[] {{
  {line}
}}
"""


def of_line(line: str) -> list[Collective]:
    return collectives(PROGRAM.format(line=line), 8)


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (
            "%w = (f32[2]{0}, bf16[3,4]{1,0}, f32[5]{0}) all-reduce(%a, %b, %c), replica_groups=[2,4]<=[4,2]T(1,0)",
            [
                Collective("all-reduce", "f32", 28, 1, EVERY_SECOND),
                Collective("all-reduce", "bf16", 24, 1, EVERY_SECOND),
            ],
        ),
        (
            "%w = (bf16[2,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%a), replica_groups=[1,8]<=[8], dimensions={0}",
            [Collective("all-gather", "bf16", 256, 1, ALL)],
        ),
        (
            "%w = (f32[4], f32[4], u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1},{1,0}}",
            [Collective("collective-permute", "f32", 16, 1, ((0, 1), (1, 0)))],
        ),
        (
            "%w = f8e4m3fn[2,8] reduce-scatter(%a), replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}",
            [Collective("reduce-scatter", "f8e4m3fn", 64, 1, HALVES)],
        ),
        (
            "%w = f32[8] all-to-all(%a), replica_groups=mesh['x'=8] {'x':(2)2}",
            [Collective("all-to-all", "f32", 32, 1, ((0, 2), (1, 3), (4, 6), (5, 7)))],
        ),
        (
            '%w = f32[] while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"12"}}',
            [
                Collective("all-gather", "bf16", 12 * 1024, 12, EVERY_SECOND),
                Collective("reduce-scatter", "bf16", 12 * 256, 12, ALL),
            ],
        ),
        (
            "%w = f32[] while(%t), condition=%condition, body=%body",
            [
                Collective("all-gather", "bf16", 7 * 1024, 7, EVERY_SECOND),
                Collective("reduce-scatter", "bf16", 7 * 256, 7, ALL),
            ],
        ),
        (
            "%w = f32[4] conditional(%p, %a, %b), branch_computations={%few, %many}",
            [Collective("all-reduce", "f32", 160, 1, ALL)],
        ),
        ("%w = f32[4] get-tuple-element(%all-gather.3), index=0", []),
    ],
)
def test_the_text_of_a_program_says_what_devices_exchange(line, want):
    assert of_line(line) == want


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="without an ENTRY"):
        collectives("nothing", 8)


def test_a_compiled_loop_counts_as_often_as_it_runs():
    """A layer's weights, split over b, are gathered in each of five layers; the loss is summed over all at the end."""
    env = os.environ | {"XLA_FLAGS": f"{QUICK_COMPILATION} --xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", SCAN], env=env, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    gathered, summed = collectives(done.stdout, 8)
    assert gathered == Collective("all-gather", "f32", 5 * 64 * 64 * 4, 5, HALVES)
    assert summed == Collective("all-reduce", "f32", 4, 1, ALL)
