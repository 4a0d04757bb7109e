"""Memory of opening a checkpoint: how much a process holds at its peak, beside the bytes that it keeps.

    python benchmarks/restore.py [--mib 512]

Each opening has a process of its own with 8 virtual CPU devices. The checkpoint's state, parameters and two moments in
float32, is written under fsdp 8 and on one device.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

DEVICES = 8
CASES = {
    "all of it, fsdp 8": ("training", 8),
    "all of it, one device": ("training", 1),
    "parameters alone, fsdp 8": ("params", 8),
    "parameters alone, one device": ("params", 1),
}


def state_of(mib: int, fsdp: int, real: bool) -> Any:
    """A state of so many MiB along fsdp: eight matrices of parameters, and their moments."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh

    from jaxlm.devices.mesh import state_sharding
    from jaxlm.training.state import TrainState

    mesh = Mesh(np.array(jax.devices()[:fsdp]).reshape(1, fsdp, 1), ("data", "fsdp", "tensor"))
    rows = mib * 2**20 // 4 // 3 // 8 // 1024
    shapes = {f"w{i}": jax.ShapeDtypeStruct((rows // 8 * 8, 1024), jnp.float32) for i in range(8)}
    step = cast(jax.Array, jax.ShapeDtypeStruct((), jnp.int32))
    state = TrainState(step=step, params=shapes, opt_state={"mu": shapes, "nu": shapes})
    lies = state_sharding(mesh, state, dict.fromkeys(shapes, ("embed", "mlp")))
    if real:
        draw = jax.jit(
            lambda: jax.tree.map(lambda x: jax.random.uniform(jax.random.key(0), x.shape).astype(x.dtype), state),
            out_shardings=lies,
        )
        return jax.block_until_ready(draw()).items()
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, lies).items()


def peak_mib() -> float:
    """MiB that this process has held at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def opened(place: Path, item: str, mib: int, fsdp: int) -> None:
    """Print the MiB that are kept, and by how much the process's peak has grown."""
    import jax

    from jaxlm.runs import checkpoints, quiet_orbax

    abstract = state_of(mib, fsdp, real=False)
    wanted = abstract if item == "training" else {"params": abstract["params"]}
    quiet_orbax.api()
    jax.block_until_ready(jax.numpy.zeros(8) + 1)
    before = peak_mib()
    items = checkpoints.load(place, checkpoints.saved(place)[0], wanted)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(items)) / 2**20
    print(json.dumps({"kept": kept, "grown": peak_mib() - before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="size of the state")
    parser.add_argument("--open", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        place, item, fsdp = args.open
        if item == "save":
            from jaxlm.runs import checkpoints

            with checkpoints.CheckpointWriter(Path(place), 1) as writer:
                writer.save(1, state_of(args.mib, int(fsdp), real=True), dev_loss=None, metadata={})
        else:
            opened(Path(place), item, args.mib, int(fsdp))
        return
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        for saved in (8, 1):
            place = Path(folder) / str(saved)
            run = [sys.executable, __file__, "--mib", str(args.mib), "--open", str(place)]
            subprocess.run([*run, "save", str(saved)], env=env, check=True)
            for name, (item, fsdp) in CASES.items():
                done = subprocess.run([*run, item, str(fsdp)], env=env, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                print(
                    f"saved on {saved}, opened {name}: keeps {found['kept']:,.0f} MiB, "
                    f"grows by {found['grown']:,.0f} MiB at its peak ({found['grown'] / found['kept']:.2f} times)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
