"""The rules of the recipe for any text: bounds that hold for every size, alphabet and speed."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

import jaxlm
from jaxlm.any_text import choose as rules
from jaxlm.any_text.choose import choose, operations_a_token, parameters

ASKED = jaxlm.RunConfig(model=jaxlm.AnyTextConfig(), seed=3)


def chosen(kind="stream", tokens=10**6, examples=1, longest=10**6, vocab_size=60, speed=5e10):
    return choose(
        dataclasses.replace(ASKED, data=jaxlm.DataConfig(kind=kind)),
        tokens=tokens,
        examples=examples,
        longest=longest,
        vocab_size=vocab_size,
        order=5,
        minutes=5.0,
        speed=speed,
    )


@given(
    kind=st.sampled_from(["lines", "stream", "dialogues"]),
    tokens=st.integers(200, 10**8),
    mean=st.integers(1, 2000),
    vocab_size=st.integers(3, 10_000),
    speed=st.floats(1e9, 1e15),
)
def test_every_text_gets_a_run_within_its_bounds(kind, tokens, mean, vocab_size, speed):
    examples = 1 if kind == "stream" else max(1, tokens // mean)
    longest = tokens if kind == "stream" else min(tokens, 3 * mean)
    choice = chosen(kind, tokens, examples, longest, vocab_size, speed)
    config, network = choice.config, choice.config.model.network
    length = config.data.max_length
    sizes = network.n_layers, network.d_model, vocab_size, length
    assert config.seed == 3 and config.data.kind == kind and config.model.order == 5
    assert network.d_model % network.n_heads == 0
    assert length <= min(longest, rules.LONGEST_LINE)
    smallest = (network.n_layers, network.d_model) == rules.LADDER[0]
    assert smallest or parameters(*sizes[:3]) <= rules.PARAMETERS_PER_TOKEN * tokens
    # no more passes than MANY_PASSES, and no more time than there is, up to one step and a batch rounded up
    filled = min(1.0, tokens / (examples * length))
    batch = config.batch_size * length * filled
    assert (config.steps - 1) * batch <= rules.MANY_PASSES * tokens * (1 + 1e-6)
    seconds = (config.steps - 1) * choice.operations_a_step / speed
    assert seconds <= 60 * 5 * rules.TRAINING_SHARE * (1 + 1e-6)
    assert choice.operations_a_step == operations_a_token(*sizes) * config.batch_size * length


def test_a_faster_machine_gets_a_larger_network_up_to_what_the_text_can_teach():
    widths = [chosen(speed=speed).config.model.network.d_model for speed in (1e10, 1e11, 1e12, 1e13, 1e15)]
    assert widths == sorted(widths) and widths[0] < widths[2]
    assert widths[-1] == widths[-2]


def test_dropout_rises_with_the_passes_over_few_tokens():
    assert chosen(tokens=10**7).config.model.network.dropout == 0
    assert chosen("lines", 6000, 900, 15, 27).config.model.network.dropout > 0.1


def test_only_long_examples_are_cut_with_an_overlap():
    assert chosen("stream", 7000, 1, 7000).config.data.overlap
    assert not chosen("lines", 7000, 1000, 15).config.data.overlap


def test_the_reason_names_sizes_and_minutes():
    choice = chosen()
    assert f"{choice.config.steps:,} steps of {choice.config.batch_size} x" in choice.reason
    assert math.isfinite(choice.operations_a_step)
