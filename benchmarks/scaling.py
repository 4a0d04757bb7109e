"""Measure and compute how cost grows: `python benchmarks/scaling.py virtual|links|disk|start`.

    virtual  weak scaling of a small GPT on 1 to 8 virtual devices of this CPU, and what of it is the shared cores
    links    bytes over links of data, fsdp and tensor parallelism against products, by the tables of peaks and links
    disk     tokens/s that the reader of shards gives
    start    seconds in which many processes meet at the coordinator, as threads of one process on loopback

docs/scale.md says what they printed. JAX_PLATFORMS=cpu keeps `virtual` from the devices of an accelerator.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ROWS, LENGTH, WIDTH, BLOCKS, VOCAB = 4, 128, 128, 4, 256
"""Rows a device, predictions a row, width, blocks and vocabulary of the GPT of `virtual`."""
STEPS = 10
"""Steps in a timing, the best of ROUNDS."""
ROUNDS = 3
FACTS = {f"setting {number}": "x" * 10 for number in range(80)}
"""About as many bytes as the settings and versions that processes compare."""


def main() -> None:
    """Run one of the measurements and print its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", choices=["virtual", "links", "disk", "start"])
    parser.add_argument("--most", type=int, help="virtual: devices at most (8); start: processes at most (1000)")
    parser.add_argument("--directory", type=Path, help="disk: where the shards are written (a temporary directory)")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="disk: their size")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # of `virtual`: axis, devices, rows
    args = parser.parse_args()
    if args.one:
        print(json.dumps(step_seconds(args.one[0], *map(int, args.one[1:]))))
    elif args.what == "virtual":
        virtual(args.most or 8)
    elif args.what == "links":
        links()
    elif args.what == "disk":
        disk(args.directory, args.gigabytes)
    else:
        start(args.most or 1000)


def virtual(most: int) -> None:
    """Print milliseconds of a step of ROWS rows a device, and of all the rows on one device."""
    counts = [n for n in (1, 2, 4, 8) if n <= most]
    print("devices  rows  one device ms  data ms  fsdp ms  efficiency  without shared cores (data, fsdp)")
    first = None
    for n in counts:
        alone = measured("data", 1, ROWS * n)
        data = measured("data", n, ROWS * n) if n > 1 else alone
        fsdp = measured("fsdp", n, ROWS * n) if n > 1 else alone
        first = first or data
        print(
            f"{n:7}  {ROWS * n:4}  {alone:13.1f}  {data:7.1f}  {fsdp:7.1f}  {first / data:10.0%}  "
            f"{alone / data:.0%}, {alone / fsdp:.0%}",
            flush=True,
        )


def measured(axis: str, devices: int, rows: int) -> float:
    """Milliseconds of a step in a process of its own, which has so many virtual devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "virtual", "--one", axis, str(devices), str(rows)]
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return 1000 * float(json.loads(done.stdout.splitlines()[-1]))


def step_seconds(axis: str, devices: int, rows: int) -> float:
    """Seconds of a training step on a mesh of all devices along one axis, the best of ROUNDS times STEPS."""
    import jax

    from jaxlm import DataConfig, GptConfig, MeshConfig, OptimConfig, RunConfig
    from jaxlm.devices.mesh import make_mesh
    from jaxlm.training import optim
    from jaxlm.training.plan import program

    config = RunConfig(
        model=GptConfig(vocab_size=VOCAB, context=LENGTH, n_layers=BLOCKS, n_heads=4, d_model=WIDTH),
        data=DataConfig(kind="stream", example="sequence", max_length=LENGTH),
        optim=OptimConfig(name="adamw", lr=1e-3),
        mesh=MeshConfig(data=devices) if axis == "data" else MeshConfig(data=1, fsdp=devices),
        steps=STEPS,
        batch_size=rows,
    )
    made, _, length = program(config, make_mesh(config.mesh))
    optimizer = optim.transformation(made.config.optim, STEPS, {})
    chunk: Any = made.compiled_chunk(optimizer, optim.schedule(made.config.optim, STEPS))
    state = made.initial_state(optimizer)
    batch = jax.tree.map(lambda x: np.ones((1, *x.shape), x.dtype), made.abstract_batch(rows, length))
    state, _ = jax.block_until_ready(chunk(state, batch, {}, 1))
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(STEPS):
            state, _ = jax.block_until_ready(chunk(state, batch, {}, 1))
        best = min(best, (time.perf_counter() - began) / STEPS)
    return best


def links() -> None:
    """Print the tokens a device from which on products take longer than what they exchange, and the widest tensor."""
    from jaxlm.devices.links import LINKS, GpuLinks, seconds
    from jaxlm.devices.peaks import DEVICES

    hosts = [(host, gpu, 0) for host in range(4) for gpu in range(8)]
    cube = [(x, y, z) for x in range(2) for y in range(2) for z in range(2)]
    print("bytes/s of a device for an all-gather, and tokens a device at which products take as long (bfloat16):")
    print("devices            GB/s  data  fsdp  fsdp, remat  tensor at width 4,096, 8,192")
    for name, places in (("h100", hosts[:8]), ("h100", hosts), ("h100", hosts[::8]), ("v5p", cube)):
        rate = 1 / (seconds("all-gather", 1.0, places, places if name == "v5p" else hosts, LINKS[name]))
        peak = DEVICES[name].bfloat16
        n = len({place[0] for place in places}) if isinstance(LINKS[name], GpuLinks) else 1
        label = f"{len(places)} x {name}" + (f" on {n} hosts" if n > 1 else "")
        tokens = [round(count * 2 * peak / (rate * products)) for count, products in ((2, 6), (3, 6), (3, 8))]
        widest = [6 * 12 * width * rate / (16 * peak) for width in (4096, 8192)]
        print(
            f"{label:17} {rate / 1e9:5.0f}  {tokens[0]:4}  {tokens[1]:4}  {tokens[2]:11}  "
            f"{', '.join(f'{size:.1f}' for size in widest)}"
        )


def disk(directory: Path | None, gigabytes: float) -> None:
    """Print what ShardDataset reads a second, in order and shuffled, from the disk and from the page cache."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        shards = written(Path(place), gigabytes)
        for order in ("replacement", "shuffled"):
            for cold in (True, False):
                tokens, elapsed, busy = read(Path(place), shards, order, cold)
                where, rate = "disk" if cold else "page cache", f"{2 * tokens / elapsed / 1e6:7.0f} MB/s"
                each = f"{tokens / elapsed:11,.0f} tokens/s, {tokens / busy:11,.0f} for a second of a core"
                print(f"{order:11}  {where:10}  {rate}  {each}")


def written(place: Path, gigabytes: float) -> Any:
    """Shards of random tokens, of 256 MB each."""
    from jaxlm.data.shards import Shard, Shards

    tokens = 2**27
    found = []
    rng = np.random.default_rng(0)
    for number in range(max(1, round(gigabytes * 1e9 / (2 * tokens)))):
        with (place / f"{number}.bin").open("wb") as file:
            rng.integers(0, 50_000, tokens, np.uint16).tofile(file)
            file.flush()
            os.fsync(file.fileno())
        found.append(Shard(f"{number}.bin", "train", tokens, 1, 4 * tokens, ""))
    return Shards(place, Any, np.dtype("<u2"), 0, tuple(found), "", "")  # type: ignore[arg-type]


def read(place: Path, shards: Any, order: str, cold: bool) -> tuple[int, float, float]:
    """Tokens read in rows of 1,025, the seconds for them, and those that a core was busy."""
    from jaxlm import DataConfig, GptConfig, OptimConfig, RunConfig
    from jaxlm.data.shard_dataset import ShardDataset

    if cold:
        for path in place.glob("*.bin"):
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
    data = DataConfig(kind="stream", example="sequence", max_length=1024, order=order)  # type: ignore[arg-type]
    config = RunConfig(GptConfig(), data, OptimConfig(), steps=1, batch_size=512)
    dataset = ShardDataset(config, shards, max_length=None)
    tokens, step, began, worked = 0, 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - began) < 5 and (step + 1) * 512 <= dataset.examples:
        tokens += dataset.read(dataset.row_numbers(step, 1).reshape(-1)).token_NS.size
        step += 1
    return tokens, elapsed, time.process_time() - worked


def start(most: int) -> None:
    """Print the seconds in which so many processes meet, each in a thread: in the preflight and at JAX's service."""
    from jax._src.lib import _jax  # type: ignore[attr-defined]

    for n in (count for count in (8, 32, 128, 512, 1000) if count <= most):
        address = f"127.0.0.1:{20000 + n}"
        service = _jax.get_distributed_runtime_service(address, n, heartbeat_timeout=100, shutdown_timeout=60)
        clients = [_jax.get_distributed_runtime_client(address, i, init_timeout=120) for i in range(n)]
        connected = at_once([client.connect for client in clients])
        barrier = at_once([lambda client=client: client.wait_at_barrier("all", 60_000) for client in clients])  # type: ignore[misc]
        channels: list[Any] = []
        met = at_once([partial(meet, n, i, channels) for i in range(n)])
        compared = at_once([partial(channel.gather, FACTS) for channel in channels])
        print(f"{n:5} processes: met in {met:.2f} s, compared facts in {compared:.2f} s", flush=True)
        print(f"{n:5} processes: connected in {connected:.2f} s, a barrier in {barrier:.3f} s", flush=True)
        at_once([client.shutdown for client in clients])
        service.shutdown()
        for channel in channels:
            channel.leave()


def meet(processes: int, process: int, channels: list[Any]) -> None:
    """Add a process's channel, once all have met."""
    from jaxlm.config import DistributedConfig
    from jaxlm.devices.processes import preflight

    address = f"127.0.0.1:{22000 + processes}"
    settings = DistributedConfig(coordinator=address, processes=processes, process=process, timeout=120)
    channels.append(preflight.meet(settings, FACTS))


def at_once(calls: list[Callable[[], Any]]) -> float:
    """Seconds from the start of the first of these calls, each in a thread, to the end of the last."""
    threads = [threading.Thread(target=call) for call in calls]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
