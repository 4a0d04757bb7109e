"""A user's own model class is checked before it trains: a mistake is a line that says what is wanted and what came."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxlm
from jaxlm.cli.train_command import load_config
from jaxlm.errors import UserError
from jaxlm.models import check
from jaxlm.models.base import SequenceModel, WindowModel
from jaxlm.training import train


@pytest.fixture(scope="module", autouse=True)
def as_users_write():
    """A user's own file may let ranks be promoted, as JAX does by default."""
    with jax.numpy_rank_promotion("allow"):
        yield


V = 11


class Bilinear(nn.Module):
    """logits of a context; a fault changes what it returns."""

    fault: str = ""

    @nn.compact
    def __call__(self, ctx_NC: jax.Array) -> Any:
        x_NCE = nn.Embed(V, 8)(ctx_NC)
        x_NV = nn.Dense(V)(x_NCE.sum(1))
        if self.fault == "dropout":
            return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x_NV)
        if self.fault == "branch" and x_NV.sum() > 0:
            return x_NV
        if self.fault == "whole parameter":
            x_NV = x_NV + self.param("steps", lambda key: jnp.zeros((V,), jnp.int32)).astype(jnp.float32)
        faults = {
            "width": x_NCE.sum(1),
            "sum": x_NV.sum(1),
            "pair": (x_NV, x_NV),
            "nothing": None,
            "whole": x_NV.astype(jnp.int32),
        }
        return faults.get(self.fault, x_NV)


class Constant(nn.Module):
    """logits without parameters."""

    def __call__(self, ctx_NC: jax.Array) -> jax.Array:
        return jnp.zeros((len(ctx_NC), V))


class Cumulative(nn.Module):
    """A sequence's logits from the sum of its embeddings; a fault changes its cache."""

    fault: str = ""

    def setup(self) -> None:
        self.embed, self.out = nn.Embed(V, 8), nn.Dense(V)

    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        return self.out(jnp.cumsum(self.embed(tok_BT), axis=1))

    def init_cache(self, batch: int, length: int) -> Any:
        return jnp.zeros((batch, 8))

    def extend(self, cache: Any, tok_BT: jax.Array, length_B: jax.Array) -> Any:
        x_BTE = cache[:, None] + jnp.cumsum(self.embed(tok_BT), axis=1)
        logits_BTV = self.out(x_BTE)
        if self.fault == "alone":
            return logits_BTV
        if self.fault == "last":
            return logits_BTV[:, -1], x_BTE[:, -1]
        return logits_BTV, x_BTE if self.fault == "grows" else x_BTE[:, -1]


class NoCache(nn.Module):
    """A sequence's logits, without a way to go on from some tokens."""

    @nn.compact
    def __call__(self, tok_BT: jax.Array) -> jax.Array:
        return nn.Dense(V)(jnp.cumsum(nn.Embed(V, 8)(tok_BT), axis=1))


def window(module: nn.Module, **sizes: Any) -> WindowModel:
    return WindowModel(**{"context": 4, "vocab_size": V, **sizes}, module=module)


def sequence(module: nn.Module) -> SequenceModel:
    return SequenceModel(module=module, context=None, vocab_size=V)


@dataclasses.dataclass(frozen=True)
class OwnConfig(jaxlm.ModelConfig):
    """Settings whose build() gives what a test says."""

    def build(self) -> Any:
        if isinstance(MADE, Exception):
            raise MADE
        return MADE


MADE: Any = None


def built(made: Any, **options: bool) -> Any:
    global MADE
    MADE = made
    return check.build(OwnConfig(vocab_size=V), **options)


@pytest.mark.parametrize(
    "made", [window(Bilinear()), window(Bilinear("dropout")), window(Bilinear(), context=0), sequence(Cumulative())]
)
def test_a_model_that_keeps_its_promises_is_built(made):
    assert built(made) is made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            window(Bilinear("width")),
            r"next_logits of 3 contexts of 4 tokens wants logits of shape \(3, 11\), got \(3, 8\)",
        ),
        (window(Bilinear("sum")), r"next_logits of .* wants logits of shape \(3, 11\), got \(3,\)"),
        (window(Bilinear("pair")), r"next_logits of .* wants logits of shape \(3, 11\), got a tuple"),
        (window(Bilinear("nothing")), r"next_logits of .* wants logits of shape \(3, 11\), got nothing"),
        (window(Bilinear("whole")), "next_logits wants logits as floating numbers, got int32"),
        (window(Bilinear("branch")), r"fails in init: .*test_check\.py, line \d+: Attempted boolean conversion"),
        (
            window(Bilinear("whole parameter")),
            "parameter 'steps' wants floating numbers, which can be trained, got int32",
        ),
        (window(Constant()), "init gives no parameters to train"),
        (sequence(Cumulative("alone")), r"extend wants to return \(logits, cache\), got \(3, \d+, 11\)"),
        (
            sequence(Cumulative("last")),
            r"extend of 3 rows of \d+ tokens wants logits of shape \(3, \d+, 11\), got \(3, 11\)",
        ),
        (
            sequence(Cumulative("grows")),
            r"extend wants to return a cache of the shapes it came with, float32\[3, 8\], got",
        ),
        (sequence(NoCache()), "its NoCache has no init_cache and no extend, .* --sample.n 0"),
        (Bilinear(), r"build\(\) wants a language model, got a Bilinear without context, .*WindowModel"),
        (None, r"build\(\) wants a language model, got nothing"),
        (KeyError("width"), r"fails in build\(\): .*test_check\.py, line \d+: KeyError: 'width'"),
    ],
)
def test_a_broken_promise_is_named_before_anything_is_computed(made, message):
    with pytest.raises(UserError, match=f"^model class OwnConfig:? {message}[^\n]*$") as caught:
        built(made)
    assert not [word for word in ("Tracer", "flax", "jax.", "https") if word in str(caught.value)]


def test_what_nothing_samples_from_needs_no_cache():
    made = sequence(NoCache())
    assert built(made, decodes=False) is made


OWN = """
import dataclasses
import flax.linen as nn
from jaxlm import DataConfig, ModelConfig, RunConfig, SampleConfig

class Bilinear(nn.Module):
    vocab_size: int

    @nn.compact
    def __call__(self, ctx_NC):
        x_NCE = nn.Embed(self.vocab_size, 4)(ctx_NC)
        x_NE = (x_NCE * self.param("place", nn.initializers.normal(0.3), (ctx_NC.shape[1], 4))).sum(1)
        return nn.Dense(self.vocab_size)(x_NE)

@dataclasses.dataclass(frozen=True)
class OwnConfig(ModelConfig):
    context: int = 3

    def build(self):
        from jaxlm.models.base import WindowModel

        return WindowModel(context=self.context, vocab_size=self.vocab_size, module=Bilinear(self.vocab_size))

config = RunConfig(
    model=OwnConfig(), data=DataConfig(path={text!r}), steps=4, batch_size=4, sample=SampleConfig(n=1), plots=False
)
"""


PLACE = 'self.param("place", nn.initializers.normal(0.3), (ctx_NC.shape[1], 4))'


def quietly(line: str) -> None:
    """Log nothing."""


def trained(path: Path, source: str) -> Path:
    """Write an own file, and train what it describes beside it."""
    path.write_text(source)
    run = train(dataclasses.replace(load_config(path), run_dir=str(path.with_name("run"))), log=quietly)
    assert run is not None
    return run


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Path]:
    """A user's own file, its text, and a run of it that has a checkpoint and no end."""
    place = tmp_path_factory.mktemp("own")
    (place / "text.txt").write_text("emma\nava\nmia\nolivia\nsophia\namelia\n")
    source = OWN.format(text=str(place / "text.txt"))
    run = trained(place / "own.py", source)
    (run / "eval.json").unlink()
    return place / "own.py", source, run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ('"place"', '"position"', r"parameter 'place' \(3 x 4\) is named 'position' now"),
        ("ctx_NC.shape[1], 4)", "1, 4)", r"parameter 'place' was 3 x 4, now 1 x 4"),
        (
            'self.param("place", nn.initializers.normal(0.3), (ctx_NC.shape[1], 4))',
            "1.0",
            r"parameter 'place' .3 x 4. is gone",
        ),
    ],
    ids=["renamed", "reshaped", "removed"],
)
def test_a_parameter_that_changed_in_the_middle_of_a_run_is_named(own, old, new, change):
    file, source, run = own
    with pytest.raises(UserError, match=rf"^[^\n]*cannot be loaded: {change}[^\n]*put the model back[^\n]*$"):
        trained(file, source.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"^[^\n]*other parameters than its model's class has now: {change}[^\n]*$"):
        jaxlm.load_run(run, trust_code=file)


def test_a_line_of_the_users_file_that_fails_is_named_before_the_first_step(tmp_path):
    (tmp_path / "text.txt").write_text("emma\nava\nmia\n")
    source = OWN.format(text=str(tmp_path / "text.txt"))
    line = source[: source.index("return nn.Dense")].count("\n") + 1
    with pytest.raises(UserError, match=rf"fails in init: .*own\.py, line {line}: TypeError: "):
        trained(tmp_path / "own.py", source.replace("(x_NE)", "(x_NE + 'a')"))
    assert not (tmp_path / "run").exists()
