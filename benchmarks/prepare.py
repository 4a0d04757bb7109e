"""Measure the preparation of token shards: MB/s and the peak memory of a process, by size of the text and processes.

    python benchmarks/prepare.py book.txt --megabytes 10 100 1000 --processes 1 2 [--tokens bytes]

The text is repeated to each size as one file, which is one document; each preparation is a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxlm.config import PrepareConfig
from jaxlm.data.prepare import prepare


def main() -> None:
    """Print a line for each size and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", default="bytes")
    parser.add_argument("--document", default="file")
    parser.add_argument("--one", nargs=2, metavar=("OUT", "PROCESSES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.text, Path(args.one[0]), int(args.one[1]), args.tokens, args.document)
        return
    raw = args.text.read_bytes()
    for megabytes in args.megabytes:
        with tempfile.TemporaryDirectory() as scratch:
            text = Path(scratch) / "text.txt"
            with text.open("wb") as file:
                for left in range(megabytes * 10**6, 0, -len(raw)):
                    file.write(raw[:left])
            for processes in args.processes:
                options = ["--tokens", args.tokens, "--document", args.document]
                one = ["--one", str(Path(scratch) / str(processes)), str(processes)]
                command = [sys.executable, __file__, str(text), *options, *one]
                found = json.loads(subprocess.run(command, check=True, stdout=-1, stderr=-3).stdout)
                print(
                    f"{megabytes:,} MB, {processes} processes, {args.tokens}: {megabytes / found['seconds']:.1f} MB/s, "
                    f"{found['cpu']:.1f} s of CPU; peak {found['own']:.0f} MB, of a worker {found['worker']:.0f} MB",
                    flush=True,
                )


def measure(text: Path, out: Path, processes: int, tokens: str, document: str) -> None:
    """Prepare once; print seconds, CPU seconds and peaks of resident memory in MB as JSON."""
    config = PrepareConfig(tokens=tokens, document=document, held_out=0.0)  # type: ignore[arg-type]
    began = time.monotonic()
    prepare([text], out, config, processes, log=lambda line: None)
    seconds = time.monotonic() - began
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, workers))
    peaks = {"own": own.ru_maxrss / 1024, "worker": workers.ru_maxrss / 1024}
    print(json.dumps({"seconds": seconds, "cpu": cpu, **peaks}))


if __name__ == "__main__":
    main()
