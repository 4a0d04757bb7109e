"""Samples of every model, scored by the model, agree with its entropy: a sampler that is off by one does not pass.

Of a token drawn from p(. | what stands before it), -log p is the entropy H of that distribution on average, and varies
by its varentropy. So over all drawn tokens, ends included, the sum of -log p - H has mean 0 and the sum of the
varentropies as its variance (a martingale: that samples end at random changes nothing). The three come by three ways:
drawn through `extend`, scored through the evaluator, and H from `apply`.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import Corpus, line_ages
from jaxlm.data.dataset import Dataset
from jaxlm.inference.evaluation import Evaluator
from jaxlm.inference.generate import generate
from jaxlm.runs.loading import Run
from jaxlm.tokenizers import CharTokenizer
from tests.models.test_models import MODELS, WINDOWED, V

N, MOST = 4000, 12
"""Samples, and the tokens of one at most: as many as the models with a table of positions have."""
SCALES: dict[type, float] = {jaxlm.NgramConfig: 1.5, jaxlm.RnnConfig: 0.8, jaxlm.MlpConfig: 0.6, jaxlm.GptConfig: 0.4}
"""Of the weights, by the kind of model."""
SEEDS = {"gpt-tied": 4}
"""Of the weights; 2 where none is named. With others hardly a line ends, or goes on."""
TOKENIZER = CharTokenizer("abcdef")
DIFFERENT = [name for name in MODELS if not name.endswith("-normal")]
"""An MLP whose parameters are ours is the same function whatever its initialisation."""


@pytest.fixture(autouse=True, scope="module")
def quick_compiler() -> Iterator[None]:
    """Programs that run for a tenth of a second are not worth a second of optimisation."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def steep_params(model: Any, config: jaxlm.ModelConfig, seed: int) -> Any:
    """Parameters whose distributions depend on their contexts and are far from uniform.

    Normal weights without biases, which would outweigh the tokens, or counts of unlike tokens.
    """
    rng = np.random.default_rng(seed)
    if config.trained_by_steps:
        scale = SCALES.get(type(config), 0.4)

        def leaf(path: Any, like: Any) -> jax.Array:
            name = jax.tree_util.keystr(path)
            if "bias" in name or "scale" in name:
                return jnp.full(like.shape, float("scale" in name), like.dtype)
            return jnp.asarray(scale * rng.standard_normal(like.shape), like.dtype)

        shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8), jnp.int32))
        return jax.tree_util.tree_map_with_path(leaf, shapes)
    after_VV = rng.dirichlet(0.7 ** np.arange(V), V)
    stream = [0]
    for _ in range(3000):
        stream.append(int(rng.choice(V, p=0.8 * after_VV[stream[-1]] + 0.2 / V)))
    tokens_N = np.array(stream, np.int32)
    return model.fit(tokens_N, line_ages(tokens_N))[0]


def run_of(name: str) -> Run:
    """A run that never had a directory. Models that see all tokens so far are scored by sequences."""
    config, _ = MODELS[name]
    example: Any = "window" if name in WINDOWED else "sequence"
    settings = jaxlm.RunConfig(model=config, data=jaxlm.DataConfig(example=example), steps=1, batch_size=1)
    model = config.build()
    return Run(Path("nowhere"), settings, TOKENIZER, model, steep_params(model, config, SEEDS.get(name, 2)), 0)


def scored(run: Run, texts: list[str]) -> np.ndarray:
    """-log p of each character of each text and of each text's end, by the evaluator. Empty texts count."""
    tokens_N = TOKENIZER.encode_lines(texts)
    bounds = {"train": (0, len(tokens_N)), "dev": (len(tokens_N),) * 2, "test": (len(tokens_N),) * 2}
    corpus = Corpus(TOKENIZER, tokens_N, line_ages(tokens_N), bounds, "lines", "", "")
    dataset = Dataset(run.config, corpus, context=run.model.context, max_length=run.model.max_length)
    return Evaluator(run.model, dataset, TOKENIZER.bytes_of_token).per_token(run.params, dataset.rows["train"])


@functools.partial(jax.jit, static_argnums=0)
def entropies(model: Any, params: Any, tok_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Entropy H_BT and varentropy_BT of the distribution after each position, in nats and nats squared."""
    logp_BTV = jax.nn.log_softmax(model.apply(params, tok_BT), axis=-1)
    p_BTV = jnp.exp(logp_BTV)
    entropy_BT = -jnp.sum(p_BTV * logp_BTV, axis=-1)
    return entropy_BT, jnp.sum(p_BTV * logp_BTV**2, axis=-1) - entropy_BT**2


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
def test_samples_cost_their_entropy(name):
    run = run_of(name)
    texts = generate(run, n=N, max_tokens=MOST, key=jax.random.key(1))
    length_B = np.array([len(text) for text in texts])
    text_M = np.repeat(np.arange(N), length_B + 1)  # M: characters and ends
    place_M = np.concatenate([np.arange(length + 1) for length in length_B])
    drawn_M = place_M < MOST  # a text of MOST characters was cut off before its end
    tok_BT = np.zeros((N, MOST + 2), np.int32)
    tok_BT[text_M, place_M + 1] = TOKENIZER.encode_lines(texts)
    entropy_BT, varentropy_BT = entropies(run.model, run.params, tok_BT[:, :MOST])
    at_N = text_M[drawn_M], place_M[drawn_M]
    entropy_N, varentropy_N = (np.asarray(x_BT, np.float64)[at_N] for x_BT in (entropy_BT, varentropy_BT))
    nats_N = scored(run, texts)[drawn_M].astype(np.float64)

    assert np.mean(length_B < MOST) > 0.2 and length_B.mean() > 2, "blind: lines do not go on and end"
    assert varentropy_N.mean() > 0.15, "blind: a uniform distribution stays what it is at any temperature"
    error = varentropy_N.sum() ** 0.5 / len(nats_N)
    assert nats_N.mean() == pytest.approx(entropy_N.mean(), abs=4 * error)
    for place in range(MOST):  # where the errors of one place could make up for those of another
        here_N = at_N[1] == place
        difference = np.sum(nats_N[here_N] - entropy_N[here_N])
        assert abs(difference) < 5 * varentropy_N[here_N].sum() ** 0.5, place
