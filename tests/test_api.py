"""The Python contract: public names that load late, models without files, runs opened and used."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

import jaxlm
from tests.conftest import REPOSITORY


def python(code: str, cwd: Path) -> str:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_jaxlm_and_its_settings_imports_no_jax(tmp_path):
    code = """
import jaxlm
heavy = {"jax", "jaxlib", "flax", "optax", "orbax", "numpy", "matplotlib", "tyro"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
jaxlm.RunConfig(model=jaxlm.MlpConfig(), steps=1), jaxlm.CountsConfig(), jaxlm.NgramConfig(), jaxlm.UserError
assert not heavy & set(sys.modules), heavy & set(sys.modules)
jaxlm.generate
assert "jax" in sys.modules
print("loaded")
"""
    assert python(code, tmp_path) == "loaded\n"


def test_every_public_name_is_there():
    for name in jaxlm.__all__:
        assert getattr(jaxlm, name).__name__ == name
    assert set(jaxlm.__all__) <= set(dir(jaxlm))
    assert {"load_run", "generate", "score", "train", "RunConfig", "MlpConfig", "CountsConfig"} <= set(jaxlm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Mlpconfig'"):
        jaxlm.Mlpconfig  # noqa: B018


@pytest.mark.slow
def test_a_model_wants_no_flags_no_files_and_no_globals(tmp_path):
    code = """
import jax, jaxlm
model = jaxlm.MlpConfig(vocab_size=27, context=16).build()
tok_BT = jax.numpy.zeros((2, 5), int)
params = model.init(jax.random.key(0), tok_BT)
print(model.apply(params, tok_BT).shape)
"""
    assert python(code, tmp_path) == "(2, 5, 27)\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [jaxlm.MlpConfig(vocab_size=27), jaxlm.NgramConfig(vocab_size=27), jaxlm.CountsConfig(vocab_size=27)]
)
def test_settings_build_a_model_that_init_and_apply_use(config):
    model = config.build()
    tok_BT = jax.random.randint(jax.random.key(0), (2, 6), 0, 27)
    params = model.init(jax.random.key(1), tok_BT)
    chex.assert_shape(model.apply(params, tok_BT), (2, 6, 27))


@pytest.mark.parametrize("config", [jaxlm.MlpConfig(), jaxlm.NgramConfig(), jaxlm.CountsConfig()])
def test_a_model_without_a_vocabulary_says_what_it_wants(config):
    with pytest.raises(ValueError, match="vocab_size"):
        config.build()


def test_a_table_that_cannot_fit_is_refused():
    with pytest.raises(jaxlm.UserError, match=r"model.order 7 with 27 tokens"):
        jaxlm.NgramConfig(order=7, vocab_size=27).build()


def test_a_run_is_opened_sampled_and_scored(mlp_run):
    run = jaxlm.load_run(str(mlp_run.path))
    assert isinstance(run, jaxlm.Run)
    tok_BT = jnp.asarray(run.tokenizer.encode("emma"))[None]
    assert run.config.model.vocab_size is not None
    chex.assert_shape(run.model.apply(run.params, tok_BT), (1, 4, run.config.model.vocab_size))
    texts = jaxlm.generate(run, n=5, prompt="em", temperature=0.8, key=jax.random.key(0))
    assert len(texts) == 5 and all(text.startswith("em") for text in texts)
    score = jaxlm.score(run, "emma")
    assert len(score.tokens) == len(score.nats) == 5
    assert score.nats_per_token == pytest.approx(float(score.nats.mean()), rel=1e-6)
