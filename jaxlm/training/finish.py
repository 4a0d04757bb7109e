"""The end of a language model's run: evaluation of all splits, samples and plots."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from jaxlm.config import SampleConfig
from jaxlm.data.bigrams import count_bigrams, save_bigrams
from jaxlm.data.corpus import Corpus
from jaxlm.devices import platform, processes
from jaxlm.devices.mesh import state_sharding
from jaxlm.devices.placing import local
from jaxlm.errors import one_line
from jaxlm.inference.formatting import sorted_samples
from jaxlm.inference.generate import generate
from jaxlm.inference.novelty import classify
from jaxlm.models.base import BUFFERS, Params, axes_of, with_buffers, without_buffers
from jaxlm.models.mixture import Mixture
from jaxlm.ops import prng
from jaxlm.runs.directory import RunDir, write_bytes
from jaxlm.runs.loading import Run, load_parameters
from jaxlm.training import optim
from jaxlm.training.baselines import baselines
from jaxlm.training.setup import Setup, some_rows


def finish(
    setup: Setup, run: RunDir, seconds: float, log: Callable[[str], None], counted: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Evaluate the best parameters on every split, write samples.txt and the plots; returns the content of eval.json.

    Train is evaluated on at most eval.max_tokens of its predictions, as is dev where the data is in shards; those have
    no counts to compare with, and no pictures of them. `counted` are the losses of counts, where they are known.
    Several processes evaluate together; the first one samples and draws.
    """
    config, corpus = setup.config, setup.corpus
    lies = partial(state_sharding, setup.mesh, axes=axes_of(setup.model))
    params, step = load_parameters(run, log=log, lies=lies)
    best = Run(run.path, config, corpus.tokenizer, setup.model, with_buffers(params, setup.placed_buffers), step)
    entries: dict[str, Any] = {}
    for split, row_R in setup.dataset.rows.items():
        is_whole = split != "train" and isinstance(corpus, Corpus)
        most = len(row_R) if is_whole else max(1, config.eval.max_tokens // setup.dataset.targets_per_row)
        entries[split] = setup.evaluator(best.params, some_rows(row_R, most)).to_json() if len(row_R) else None
    if config.sample.n and processes.count() > 1:
        if _fits_a_device(best.params):
            best = dataclasses.replace(best, params=local(best.params))
        else:
            log("no samples: process 0 draws them on one device, which cannot hold the model; sample.py --mesh.* can")
            best = dataclasses.replace(best, config=dataclasses.replace(config, sample=SampleConfig(n=0)))
    if not processes.is_first():
        return {}
    write_bytes(run.samples, _samples(best, run).encode("utf-8", "surrogatepass"))
    if config.plots:
        run.plots.mkdir(exist_ok=True)
        if isinstance(corpus, Corpus):
            save_bigrams(count_bigrams(corpus), run.bigrams)
        draw_pictures(run, log)
    beside: dict[str, Any] = {}
    if BUFFERS in best.params:
        beside["buffers"] = optim.count_parameters(best.params[BUFFERS])
    if isinstance(setup.model, Mixture):
        beside["network_share"] = float(best.params["share"])
    return {
        **entries,
        "baselines": counted or (baselines(corpus) if isinstance(corpus, Corpus) else None),
        "params": optim.count_parameters(without_buffers(best.params)),
        **beside,
        "step": step,
        "steps": config.last_step,
        "train_time_s": seconds,
    }


def _fits_a_device(params: Params) -> bool:
    """True if a device can hold all of the parameters, or its memory is unknown."""
    there = platform.memory()
    return there is None or sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params)) < there


def draw_pictures(run: RunDir, log: Callable[[str], None]) -> None:
    """Draw a run's plots; an error while drawing is logged and not raised."""
    try:
        from jaxlm.plots.run_pictures import draw_run  # matplotlib takes as long to import as thousands of small steps

        draw_run(run)
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        log(f"the pictures were not all drawn ({reason}): python -m jaxlm.plots {run.path} draws them")


def _samples(best: Run, run: RunDir) -> str:
    """Draw the content of samples.txt; samples of line data are sorted by the split that contains them."""
    sample, key = best.config.sample, prng.derive(best.config.seed, prng.SAMPLES)
    if not sample.n:
        return ""
    texts = generate(best, n=sample.n, temperature=sample.temperature, max_tokens=sample.max_tokens, key=key)
    if best.config.data.kind != "lines":
        return "\n---\n".join(texts) + "\n"
    return sorted_samples(texts, classify(run.read_seen(), texts)) + "\n"
