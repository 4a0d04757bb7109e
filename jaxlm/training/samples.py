"""The samples of a finished run."""

import time

import jax
import numpy as np

from jaxlm.devices import compilation
from jaxlm.devices.mesh import replicated
from jaxlm.inference import formatting
from jaxlm.inference.generate import generate, tokens_of
from jaxlm.inference.novelty import classify
from jaxlm.models.initialization import abstract_params
from jaxlm.ops import prng
from jaxlm.runs.directory import RunDir
from jaxlm.runs.loading import Run
from jaxlm.training.setup import Job


def draw_samples(job: Job, run: RunDir, best: Run) -> tuple[str, float | None]:
    """What samples.txt says, and how many tokens a second all samples together have when they are drawn once more."""
    sample = job.config.sample
    if not sample.n:
        return "", None
    texts = _draw(job, best)
    began = time.monotonic()
    _draw(job, best)
    tokens = sum(len(tokens_of(best, text)) + 1 for text in texts)
    speed = tokens / max(time.monotonic() - began, 1e-9)
    if job.config.data.kind != "lines":
        return "\n---\n".join(texts) + "\n", speed
    return formatting.sorted_samples(texts, classify(run.read_seen(), texts)) + "\n", speed


def compile_samples(job: Job, run: RunDir) -> None:
    """Draw the samples of a small model once from zeros: their program is compiled when training ends."""
    params = abstract_params(job.model)
    if job.config.sample.n and job.mesh.size == 1 and not job.arrays and compilation.is_small(params):
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)
        zeros = jax.device_put(zeros, replicated(job.mesh))
        _draw(job, Run(run.path, job.config, job.corpus.tokenizer, job.model, zeros, 0))


def _draw(job: Job, run: Run) -> list[str]:
    sample, key = job.config.sample, prng.derive(job.config.seed, prng.SAMPLES)
    return generate(run, n=sample.n, temperature=sample.temperature, max_tokens=sample.max_tokens, key=key)
