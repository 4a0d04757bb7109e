"""How XLA compiles: with which options for which program, and where what it compiled is kept."""

import functools
import warnings
from pathlib import Path
from typing import Any

import jax

Options = dict[str, int | bool]
"""XLA's own, by name, as `jax.jit` takes them for one program."""

DROPPED = {"xla_cpu_use_fusion_emitters": (0, 11, 1)}
"""Options that XLA has no more, and since which JAX."""

UNTESTED = (0, 12, 1)
"""The JAX from which on XLA is asked for its options, which takes 0.05 s: a patch may drop one."""

TINY_FLOPS = 1e7
"""Operations in a step below which copying its weights takes a part of its time that is felt."""

SMALL = 2_000_000
"""Parameters below which drawing them without optimisation costs less than compiling it well."""

FEW_SAMPLES = 32
"""Samples at once up to which a small model has made them before a better program of their loop would be compiled."""


def keep_compiled(directory: Path) -> None:
    """Keep compiled programs between runs, in the given directory unless JAX_COMPILATION_CACHE_DIR names another.

    Where that cannot be read or written they are compiled each time, without a word.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def step_options(flops: float) -> Options:
    """For the steps of a language model, each of so many operations: on a CPU, LLVM's level 3 makes a recurrent step
    half as slow again as level 2 does, and takes a fifth longer to get there; word2vec's updates are the faster for it.
    Where a step is tiny, XLA's region analysis spares the loop two copies of weight matrices, 4 % of the step of
    names_mlp, and vectors of 512 bits, from which LLVM holds back where a CPU has them, another 4 % on AMD's Zen 5
    (nothing on Intel's Emerald Rapids). On Zen 5 they are good for larger steps too (0.88 to 1.0 of their time), but
    change their rounding.
    """
    if jax.default_backend() != "cpu":
        return {}
    if flops >= TINY_FLOPS:
        return _known(xla_backend_optimization_level=2)
    return _known(
        xla_backend_optimization_level=2,
        xla_cpu_copy_insertion_use_region_analysis=True,
        xla_cpu_prefer_vector_width=512,
    )


def drawing_options(params: Any) -> Options:
    """For the program that draws a tree of parameters, once: on a CPU, optimising it takes seconds, and saves 0.4 µs
    a number. Compiled in one part instead of XLA's 32, it leaves more of two cores to the chunk beside it.
    """
    if jax.default_backend() != "cpu" or not is_small(params):
        return {}
    return _known(
        xla_backend_optimization_level=0, xla_cpu_use_fusion_emitters=False, xla_cpu_parallel_codegen_split_count=1
    )


def sampling_options(params: Any, rows: int) -> Options:
    """For the loop that continues so many rows: a bigram's for 50 rows takes a CPU 7.6 s of work to compile at LLVM's
    level 3, 3.2 at level 2 and 2.4 at level 1, and is no faster for it; few rows of a small model take level 1.
    """
    if jax.default_backend() != "cpu":
        return {}
    if is_small(params) and rows <= FEW_SAMPLES:
        return _known(xla_backend_optimization_level=1, xla_cpu_use_fusion_emitters=False)
    return _known(xla_backend_optimization_level=2)


def is_small(params: Any) -> bool:
    """Whether a model is so small that compiling what runs once takes longer than running it."""
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
