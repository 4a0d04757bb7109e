"""Time per step of two processes with one device each, beside one process with two: python benchmarks/processes.py.

Both train the same GPT on virtual CPU devices of this machine, over the same mesh, whose losses must be equal bit for
bit. The time is that of whole chunks of steps after the first two, evaluations left out.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = """\
from jaxlm import *

config = RunConfig(
    model=GptConfig(n_layers={layers}, n_heads=4, d_model={width}),
    data=DataConfig(example="sequence", max_length=32),
    optim=OptimConfig(lr=0.001),
    eval=EvalConfig(every=10**6, log_every={every}),
    checkpoint=CheckpointConfig(every=10**6),
    sample=SampleConfig(n=0),
    plots=False,
    steps={steps},
    batch_size={batch},
)
"""
ROOT = Path(__file__).resolve().parents[1]


def losses_and_time(directory: Path, config: Path, processes: int, mesh: str) -> tuple[list[float], float]:
    """Train losses, and milliseconds of a step, of so many processes with two devices in all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = directory / f"{processes}-{mesh}"
    flags = f"--xla_force_host_platform_device_count={2 // processes}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "train.py", str(config), "--run-dir", str(run), f"--mesh.{mesh}", "2"]
    started = []
    for number in range(processes):
        where = ["--distributed.coordinator", f"127.0.0.1:{port}", "--distributed.processes", str(processes)]
        place = [*where, "--distributed.process", str(number)] if processes > 1 else []
        started.append(subprocess.Popen([*command, *place], cwd=ROOT, env=env, stdout=subprocess.DEVNULL))
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"{processes} processes failed")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["split"] == "train"]
    first, last = lines[0], lines[-2]  # a line is written when the chunk after it has ended, the last one at once
    milliseconds = 1000 * (last["time_s"] - first["time_s"]) / (last["step"] - first["step"])
    return [line["loss"] for line in lines], milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print("layers x width, batch, mesh   1 process (ms)  2 processes (ms)  ratio")
    with tempfile.TemporaryDirectory() as name:
        for layers, width, batch, mesh in ((2, 64, 16, "data"), (4, 128, 32, "data"), (4, 128, 32, "fsdp")):
            config = Path(name) / f"gpt{layers}.py"
            settings = {"layers": layers, "width": width, "batch": batch, "steps": args.steps}
            config.write_text(CONFIG.format(**settings, every=args.steps // 8))
            best = {1: float("inf"), 2: float("inf")}
            for repeat in range(args.repeats):
                found = {
                    processes: losses_and_time(Path(name) / f"{layers}-{repeat}", config, processes, mesh)
                    for processes in (1, 2)
                }
                if found[1][0] != found[2][0]:
                    raise SystemExit(f"the losses differ: {found[1][0]} and {found[2][0]}")
                best = {processes: min(best[processes], found[processes][1]) for processes in best}
            shape = f"{layers} x {width}, {batch}, {mesh} 2"
            print(f"{shape:<29} {best[1]:>14.1f} {best[2]:>17.1f} {best[2] / best[1]:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
