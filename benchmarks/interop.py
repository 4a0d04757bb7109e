"""Seconds and memory that import and export of a 124M GPT-2 with random weights take, beside the size of its weights.

python benchmarks/interop.py [--layers 12]. Each runs in a process of its own; memory is the largest resident size less
that after the imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MIB = 2**20


def write_folder(folder: Path, layers: int) -> int:
    """A folder of GPT-2 with random weights and the tokens of bytes; returns the bytes of its weights."""
    from jaxlm.config import GptConfig
    from jaxlm.interop import tensors
    from jaxlm.interop.mapping import places, shapes_of
    from jaxlm.interop.targets import settings_of
    from jaxlm.interop.tokenizer_export import files_of
    from jaxlm.models.initialization import abstract_state
    from jaxlm.tokenizers import ByteTokenizer

    config = GptConfig.gpt2(vocab_size=50_257, context=1024, n_layers=layers, n_heads=12, d_model=768)
    there = places(config, shapes_of(abstract_state(config.build())[0]))
    shapes = {name: parts[0].source.their_shape(parts[0].shape) for name, parts in there.items()}
    rng = np.random.default_rng(0)
    folder.mkdir()
    values = (0.02 * rng.standard_normal(shape, np.float32) for shape in shapes.values())
    tensors.write(folder / "model.safetensors", shapes, values)
    files = {
        **files_of(ByteTokenizer(), config.context, begins=False),
        "config.json": settings_of(config, "GPT2LMHeadModel"),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def measure(what: str, source: Path, out: Path) -> None:
    """Import or export in this process, and print seconds and bytes as JSON."""
    import jax
    import orbax.checkpoint

    from jaxlm.interop.exporting import export_folder
    from jaxlm.interop.importing import import_folder

    jax.block_until_ready(jax.numpy.zeros(1))
    assert orbax.checkpoint
    before, began = _resident(), time.monotonic()
    (import_folder if what == "import" else export_folder)(source, out)
    took = time.monotonic() - began
    print(json.dumps({"seconds": took, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before}))


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, source, out = options.measure
        measure(what, Path(source), Path(out))
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        size = write_folder(place / "folder", options.layers)
        print(f"weights: {size / MIB:,.0f} MiB")
        for what, source, out in (("import", "folder", "run"), ("export", "run", "out")):
            command = [sys.executable, __file__, "--measure", what, str(place / source), str(place / out)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            copies = done["bytes"] / size
            print(f"{what}: {done['seconds']:.1f} s, {done['bytes'] / MIB:,.0f} MiB, {copies:.2f} times the weights")


if __name__ == "__main__":
    main()
