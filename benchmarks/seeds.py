"""Several seeds in one program against one run of the same config: whole commands and steps, in turns, as ratios.

    python benchmarks/seeds.py configs/names_mlp.py --seeds 8 --rounds 3

Every command has compiled its programs before it is timed. Of two cores it wants both idle.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed(config: str, seeds: int, run_dir: Path, rest: list[str]) -> tuple[float, float]:
    """Seconds of a whole train.py, and milliseconds of one of its steps (median over its train lines)."""
    command = [sys.executable, "train.py", config, "--seeds", str(seeds), "--run-dir", str(run_dir), "--restart", *rest]
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    points = [(line["step"], line["time_s"]) for line in lines if line["split"] == "train"]
    return seconds, statistics.median(1e3 * (t - s) / (b - a) for (a, s), (b, t) in itertools.pairwise(points))


def main() -> None:
    """Time both in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options, rest = parser.parse_known_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], options.seeds: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            for seeds, times in found.items():
                times.append(timed(options.config, seeds, Path(folder) / f"{seeds}", rest))
                print(f"round {number}, {seeds} seeds: {times[-1][0]:.1f} s, a step {times[-1][1]:.3f} ms", flush=True)
    middle = {
        seeds: [statistics.median(column) for column in zip(*times[1:], strict=True)] for seeds, times in found.items()
    }
    (one, step), (many, steps) = middle[1], middle[options.seeds]
    print(f"whole commands: {many:.1f} / {one:.1f} s = {many / one:.2f}")
    print(f"steps: {steps:.3f} / {step:.3f} ms = {steps / step:.2f}")


if __name__ == "__main__":
    main()
