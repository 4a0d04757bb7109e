"""How XLA compiles: the options of each kind of program, and the bounded cache of compiled programs."""

import contextlib
import functools
import os
import warnings
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

Options = dict[str, int | bool]
"""XLA's own, by name, as `jax.jit` takes them for one program."""

DROPPED = {"xla_cpu_use_fusion_emitters": (0, 11, 1)}
"""Options that XLA has no more, and since which JAX."""

UNTESTED = (0, 12, 1)
"""The JAX from which on XLA is asked for its options, which takes 0.05 s: a patch may drop one."""

CACHE_BYTES = 2 * 2**30
"""Bytes of compiled programs kept between processes."""

CACHE_SUFFIX = "-cache"
"""The end of the name of each program that JAX keeps."""

SMALL = 2_000_000
"""Parameters below which drawing them without optimisation costs less than compiling it well."""

FEW_SAMPLES = 32
"""Samples at once up to which a small model has made them before a better program of their loop would be compiled."""


def enable_cache(directory: Path | None) -> None:
    """Keep compiled programs between processes in directory/compiled, at most CACHE_BYTES of them at each start.

    JAX_COMPILATION_CACHE_DIR names another place, which is left to its owner and not bounded. Where the cache cannot be
    read or written, or there is no directory (None), programs are compiled each time, without a warning.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None and directory is not None:
        place = directory / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(place))
        remove_least_recent(place, CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def remove_least_recent(directory: Path, most_bytes: int) -> None:
    """Remove the compiled programs that were read or written longest ago, until those left have at most `most_bytes`.

    A file that another process removes meanwhile, or that may not be removed, is passed over. JAX's own bound
    (jax_compilation_cache_max_size) needs a further package, locks the cache for each program that it reads, and lists
    it for each that it writes.
    """
    programs: list[tuple[float, int, str]] = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(CACHE_SUFFIX):
                with contextlib.suppress(OSError):
                    stat = entry.stat()
                    programs.append((max(stat.st_atime, stat.st_mtime), stat.st_size, entry.path))
    total = sum(size for _, size, _ in programs)
    for _, size, path in sorted(programs):
        if total <= most_bytes:
            return
        with contextlib.suppress(OSError):
            Path(path).unlink()
        total -= size


def step_options(mesh: Mesh) -> Options:
    """Options for the training steps of a language model on these devices: LLVM's level 2 on a CPU, none elsewhere.

    LLVM's level 3 makes the step of a GRU 1.45 times as long and that of an LSTM 1.3 times (benchmarks/makemore.py's
    sizes, jax 0.10.2); other models' steps are as fast. word2vec's updates are faster with level 3.
    """
    return _known(xla_backend_optimization_level=2) if mesh.devices.flat[0].platform == "cpu" else {}


def drawing_options(params: Any) -> Options:
    """Options for the program that draws a tree of parameters, once: on a CPU, it is not optimised if they are few.

    That takes a third of the time to compile, seconds less on two cores for makemore's models, and 20 ms more to run.
    """
    if jax.default_backend() != "cpu" or not is_small(params):
        return {}
    return _known(
        xla_backend_optimization_level=0, xla_cpu_use_fusion_emitters=False, xla_cpu_parallel_codegen_split_count=1
    )


def sampling_options(params: Any, rows: int) -> Options:
    """Options for the loop that continues so many rows.

    A bigram's for 50 rows takes a CPU 7.6 s of work to compile at LLVM's level 3, 3.2 at level 2 and 2.4 at level 1,
    and is no faster for it; few rows of a small model take level 1.
    """
    if jax.default_backend() != "cpu":
        return {}
    if is_small(params) and rows <= FEW_SAMPLES:
        return _known(xla_backend_optimization_level=1, xla_cpu_use_fusion_emitters=False)
    return _known(xla_backend_optimization_level=2)


def is_small(params: Any) -> bool:
    """True if a model is so small that compiling what runs once takes longer than running it."""
    return sum(leaf.size for leaf in jax.tree.leaves(params)) < SMALL


def _known(**options: int | bool) -> Options:
    """The options without those that this XLA does not have: releases drop some, and without them it is only slower."""
    version = jax.__version_info__
    known = {name: value for name, value in options.items() if name not in DROPPED or version < DROPPED[name]}
    return known if version < UNTESTED else _accepted(**known)


@functools.cache
def _accepted(**options: int | bool) -> Options:
    """Those of the options that XLA takes."""
    try:
        jax.jit(lambda: None, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        accepted = {name: value for name, value in options.items() if f"'{name}'" not in str(error)}
        if accepted == options:
            raise
        return _accepted(**accepted)
    return options
