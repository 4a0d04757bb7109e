"""Models with a table of positions: what happens at its end."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import from_stream
from jaxlm.inference.generate import decode, generate, stream
from jaxlm.inference.sampling import Strategy
from jaxlm.runs.loading import load_run
from jaxlm.tokenizers import EOS, CharTokenizer
from tests.conftest import opened

SMALL: dict[str, Any] = {"n_layers": 1, "n_heads": 2, "d_model": 16}
SEQUENCES: dict[str, Any] = {"example": "sequence", "split": (0.8, 0.2, 0)}


@pytest.fixture(scope="module")
def text() -> str:
    return "\n".join("abcdefg"[i % 5 :] * (1 + i % 3) for i in range(40))


@pytest.mark.slow
def test_running_text_goes_on_past_the_positions(make_run, text):
    path = make_run(jaxlm.GptConfig(context=8, **SMALL), text=text, data={**SEQUENCES, "kind": "stream"}, steps=20)
    run = load_run(path)
    assert run.model.max_length == 8
    (short,) = generate(run, prompt="ab", max_tokens=7, key=jax.random.key(0))
    (long,) = generate(run, prompt="ab" * 9, max_tokens=50, key=jax.random.key(0))
    assert (len(short), len(long)) == (9, 18 + 50)
    assert long.startswith("ab" * 9)


def test_past_the_positions_each_part_is_drawn_anew():
    """A model without preferences sees 8 tokens and goes on from the last 4 of them: it draws 5 at a time."""
    data = jaxlm.DataConfig(kind="stream")
    run = opened(jaxlm.GptConfig(**SMALL), data, from_stream("abcdefg" * 9, data), context=8)
    flat = {**run.params, "out": jnp.zeros_like(run.params["out"])}
    (made,) = generate(run, prompt="abcd", max_tokens=30, params=flat, key=jax.random.key(0))
    parts = [made[start : start + 5] for start in range(4, 34, 5)]
    assert [len(part) for part in parts] == [5] * 6
    assert len(set(parts)) == 6


@pytest.mark.slow
def test_past_the_positions_no_two_texts_are_drawn_alike():
    """A model without preferences: whatever their prompts' lengths, two texts agree in a seventh of their letters."""
    data = jaxlm.DataConfig(kind="stream")
    run = opened(jaxlm.GptConfig(**SMALL), data, from_stream("abcdefg" * 9, data), context=8)
    flat = {**run.params, "out": jnp.zeros_like(run.params["out"])}
    prompts = ["a" * length for length in (1, 2, 5, 6, 7, 8, 9)]
    texts = generate(run, n=2, prompt=prompts, max_tokens=40, params=flat, key=jax.random.key(0))
    made = [text[-40:] for text in texts]
    agreeing = [np.mean([a == b for a, b in zip(*pair, strict=True)]) for pair in itertools.combinations(made, 2)]
    assert np.mean(agreeing) == pytest.approx(1 / 7, abs=0.02) and max(agreeing) < 0.5


@pytest.mark.slow
def test_past_the_positions_the_last_half_is_what_is_seen(make_run, text):
    """The first token after the positions are full is the most likely after their last half alone."""
    path = make_run(jaxlm.GptConfig(context=8, **SMALL), text=text, data={**SEQUENCES, "kind": "stream"}, steps=20)
    run = load_run(path)
    (made,) = generate(run, prompt="abc", max_tokens=7, temperature=0, key=jax.random.key(0))
    seen = run.tokenizer.encode(made[:9])[-4:]
    logits_V = np.array(run.model.apply(run.params, jnp.asarray(seen)[None]))[0, -1]
    logits_V[0] = -np.inf
    assert made[9] == run.tokenizer.decode([int(logits_V.argmax())])


@pytest.mark.slow
@pytest.mark.parametrize("model", [jaxlm.BowConfig(), jaxlm.GptConfig(**SMALL)])
def test_lines_end_with_the_positions(make_run, text, model):
    path = make_run(dataclasses.replace(model, context=8), text=text, data=SEQUENCES, steps=20)
    run = load_run(path)
    texts = generate(run, n=50, max_tokens=100, key=jax.random.key(0))
    assert max(map(len, texts)) <= 8
    (cropped,) = generate(run, prompt="abcdefg" * 3, max_tokens=100, key=jax.random.key(0))
    assert len(cropped) <= 21 + 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "stream", "dialogues"])
def test_a_text_is_the_same_beside_longer_prompts(make_run, text, kind):
    data = {**SEQUENCES, "kind": kind} | ({"labels": ("a", "b")} if kind == "dialogues" else {})
    talks = "\n\n".join(f"a: {line}\nb: {line}\na: c" for line in text.split("\n"))
    model, sample = jaxlm.GptConfig(context=12, **SMALL), jaxlm.SampleConfig(n=0)
    run = load_run(make_run(model, text=talks if kind == "dialogues" else text, data=data, steps=20, sample=sample))
    settings: dict[str, Any] = {"n": 5, "max_tokens": 40, "key": jax.random.key(0)}
    alone = generate(run, prompt="ab", **settings)
    together = generate(run, prompt=["ab", "abcdefgabcd", "abcde"], **settings)
    assert together[:5] == alone
    streamed = ["".join(stream(run, prompt="ab", place=i, max_tokens=40, key=settings["key"])) for i in range(3)]
    assert [f"ab{text}" for text in streamed] == alone[:3]
    assert max(map(len, alone)) > (4 if kind == "lines" else 12 + 2), "blind: none goes on past the 12 positions"
    after = generate(run, prompt=["abcdefgabcd", "c", "ab"], **settings)
    assert after[10:] == generate(run, prompt=["ab"] * 3, **settings)[10:]


@dataclasses.dataclass(frozen=True)
class Counter:
    """A model of 16 positions that says "a", but at one position the boundary, which ends the text with "[NIV]"."""

    marks_unknown: bool
    boundary_at: int
    max_length: int = 16
    vocab_size: int = 2

    def nearest(self) -> "Counter":
        return self

    def init_cache(self, params: Any, batch: int, length: int) -> jax.Array:
        return jnp.zeros(batch, jnp.int32)

    def extend(
        self, params: Any, cache: jax.Array, tok_BT: jax.Array, length_B: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        position_BT = cache[:, None] + jnp.arange(tok_BT.shape[1])[None]
        drawn_BT1 = jnp.where(position_BT == self.boundary_at, EOS, 1)[:, :, None]
        return jnp.where(jnp.arange(2)[None, None] == drawn_BT1, 0.0, -jnp.inf), cache + length_B


def counter_run(kind: Any, model: Any) -> jaxlm.Run:
    config = jaxlm.RunConfig(model=jaxlm.CountsConfig(), data=jaxlm.DataConfig(kind=kind), steps=1)
    return jaxlm.Run(Path(), config, CharTokenizer("a"), model, {}, 0)


@pytest.mark.parametrize("kind", ["dialogues", "stream"])
def test_a_text_ends_where_no_vector_is_near_however_many_tokens_were_asked_for(kind):
    run = counter_run(kind, Counter(marks_unknown=True, boundary_at=5))
    for most in (10, 40):
        assert generate(run, prompt="", max_tokens=most, key=jax.random.key(0)) == ["a" * 5 + "[NIV]"]
    short, long = generate(run, prompt=["", "a" * 9], max_tokens=40, key=jax.random.key(0))
    assert short == "aaaaa[NIV]"
    assert long.startswith("a" * 17)


@pytest.mark.slow
def test_passes_end_with_the_positions_and_what_has_ended_is_not_continued():
    """16 positions: 16 tokens after the first, then 9 at a time after the last 8; a row that ended brings none."""
    run = counter_run("stream", Counter(marks_unknown=False, boundary_at=-1))
    strategy, key = Strategy(), jax.random.key(0)
    parts = list(decode(run, [[1], [1]], [0, 1], strategy, 60, key))
    assert [list(map(len, part)) for part in parts] == [[n, n] for n in (16, 9, 9, 9, 9, 8)]
    stopped = list(decode(run, [[1] * 16, [1]], [0, 1], strategy, 20, key, stop="a" * 11))
    assert [list(map(len, part)) for part in stopped] == [[1, 11], [9, 0], [1, 0]]
    assert generate(run, prompt="a", stop="aaa", max_tokens=60, key=key) == ["a"]
    assert generate(run, prompt="a", max_tokens=60, key=key) == ["a" * 61]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [jaxlm.BowConfig(), jaxlm.GptConfig(**SMALL), jaxlm.RnnConfig(), jaxlm.WavenetConfig()]
)
def test_every_sequence_model_learns_from_lines(make_run, text, model):
    path = make_run(model, text=text, data=SEQUENCES, steps=60, optim=jaxlm.OptimConfig(name="adamw", lr=0.01))
    losses = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    dev = [line["loss"] for line in losses if line["split"] == "dev"]
    assert dev[-1] < dev[0] - 0.5
    longest = max(map(len, text.split("\n"))) + 1
    assert getattr(load_run(path).config.model, "context", longest) in (longest, 8)
