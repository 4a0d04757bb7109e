"""Benchmark the recipe of configs/names_mlp.py against eager PyTorch, as whole processes in alternation.

    pip install -e ".[bench]" && python benchmarks/mlp.py names.txt [--steps 100000] [--rounds 3]

Our times include start-up and compilation. PyTorch's process trains, and evaluates dev once at its end; "the same work"
does only that, with one checkpoint and the losses of all splits in addition. "ours" is the command as a user runs it,
with ten dev losses and checkpoints, plots and samples. Both use the compilation cache of an untimed run, as a second
run on a machine does; with "nothing compiled" the cache is empty each time, as for a first run. Ratios are taken within
a round, since a machine's speed may vary by half between rounds.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Root of the repository."""
FLOPS_PER_STEP = 3 * 2 * 32 * (30 * 200 + 200 * 27)
"""Operations of a step in the products of two layers: forward and two gradients, two operations each."""


def main() -> None:
    """Run the processes in alternation, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a list of names")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch_script = str(ROOT / "benchmarks" / "torch_mlp.py")
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{scratch}/cache"}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, a package would be compiled by every process
        steps = str(args.steps)
        ours = [str(ROOT / "train.py"), str(ROOT / "configs/names_mlp.py"), "--data.path", args.data, "--steps", steps]
        same_work = [*ours, "--eval.every", steps, "--checkpoint.every", steps, "--no-plots", "--sample.n", "0"]
        commands = {
            "ours": [*ours, "--run-dir", f"{scratch}/run", "--restart"],
            "torch, 1 thread": [torch_script, args.data, steps, "1"],
            "ours, nothing compiled": [*ours, "--run-dir", f"{scratch}/first", "--restart"],
            "torch, 2 threads": [torch_script, args.data, steps, "2"],
            "the same work": [*same_work, "--run-dir", f"{scratch}/same", "--restart"],
            "the same work, nothing compiled": [*same_work, "--run-dir", f"{scratch}/first-same", "--restart"],
        }
        empty = Path(scratch, "empty")
        cold = {**environment, "XDG_CACHE_HOME": str(empty)}
        environments = {name: cold if "nothing compiled" in name else environment for name in commands}
        for name in ("ours", "the same work"):
            seconds(commands[name], environment)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                shutil.rmtree(empty, ignore_errors=True)
                times[name].append(seconds(command, environments[name]))
        result = json.loads(Path(scratch, "run", "eval.json").read_text())
        lines = [json.loads(line) for line in Path(scratch, "run", "metrics.jsonl").read_text().splitlines()]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for name, values in times.items():
        shown = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:31} median {statistics.median(values):6.1f} s of {shown}")
    peer = min((name for name in times if name.startswith("torch")), key=lambda name: statistics.median(times[name]))
    for name in (name for name in times if not name.startswith("torch")):
        ratios = [theirs / own for theirs, own in zip(times[peer], times[name], strict=True)]
        print(
            f"{name}: {statistics.median(ratios):.1f} times as fast as {peer} ({min(ratios):.1f} to {max(ratios):.1f})"
        )
    rate = statistics.median(line["tokens_per_s"] / 32 for line in lines if line["split"] == "train")
    limit = one_core_flops()
    print(f"ours: dev {result['dev']['nats_per_token']:.4f}, {rate:,.0f} steps/s between losses (median)")
    print(
        f"limit: {FLOPS_PER_STEP / 1e6:.2f} Mflop a step, {limit / 1e9:.0f} Gflop/s of large products on one "
        f"core give {limit / FLOPS_PER_STEP:,.0f} steps/s; ours is at {rate * FLOPS_PER_STEP / limit:.0%} of it"
    )
    print(f"largest process: {peak / 1e6:.2f} GB")


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of a whole Python process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, env=environment, capture_output=True)
    return time.perf_counter() - began


def one_core_flops(size: int = 768, repeats: int = 20) -> float:
    """Floating-point operations a second of a large float32 product on one core, by XLA or NumPy, whichever is faster.

    NumPy's own BLAS uses half the vector width of a Zen 5. Where a process cannot be pinned to one core (only Linux
    can), XLA may use several.
    """
    code = (
        "import os, time\n"
        "if hasattr(os, 'sched_setaffinity'):\n"
        "    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "import jax, numpy as np\n"
        f"a = np.ones(({size}, {size}), np.float32)\n"
        "x, product = jax.device_put(a, jax.devices('cpu')[0]), jax.jit(lambda x: x @ x)\n"
        "ways = lambda: product(x).block_until_ready(), lambda: a @ a\n"
        "times = []\n"
        "for way in ways:\n"
        "    way()\n"
        f"    for _ in range({repeats}):\n"
        "        began = time.perf_counter(); way(); times.append(time.perf_counter() - began)\n"
        f"print(2 * {size} ** 3 / min(times))\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    printed = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    return float(printed.stdout)


if __name__ == "__main__":
    main()
