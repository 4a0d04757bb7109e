"""Opening a run, generating and scoring with it."""

import dataclasses
import math
import shutil
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data.corpus import from_lines, from_stream
from jaxlm.devices import compilation
from jaxlm.devices.compilation import FEW_SAMPLES
from jaxlm.errors import UserError
from jaxlm.inference.evaluation import Score
from jaxlm.inference.generate import generate, stream
from jaxlm.inference.novelty import classify
from jaxlm.inference.score import score
from jaxlm.runs.directory import RunDir, read_json
from jaxlm.runs.loading import Run, load_run
from tests.conftest import NAMES

KEY = jax.random.key(0)


def nats_by_hand(run: Run, lines: list[str]) -> list[float]:
    """-log p of each token of each line and of its end, by apply and log_softmax on the line alone."""
    nats = []
    for line in lines:
        tok_T = [0, *run.tokenizer.encode(line).tolist(), 0]
        logp_BTV = jax.nn.log_softmax(run.model.apply(run.params, jnp.array([tok_T[:-1]])), axis=-1)
        nats += [-float(logp_BTV[0, t, target]) for t, target in enumerate(tok_T[1:])]
    return nats


def test_a_run_is_opened_with_all_that_it_needs(mlp_run):
    assert mlp_run.config.model.vocab_size == mlp_run.tokenizer.vocab_size == mlp_run.model.vocab_size
    assert mlp_run.tokenizer.characters == "".join(sorted(set("".join(NAMES))))
    assert mlp_run.step == read_json(mlp_run.path / "eval.json")["step"]


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_run(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a run directory"):
        load_run(tmp_path)


def test_the_untrained_parameters_are_those_of_step_0(mlp_run):
    untrained = mlp_run.untrained()
    chex.assert_trees_all_equal_shapes_and_dtypes(untrained, mlp_run.params)
    again = mlp_run.untrained()
    assert all(bool((untrained[name] == again[name]).all()) for name in untrained)
    assert any(bool((untrained[name] != mlp_run.params[name]).any()) for name in untrained)
    before = next(line for line in open_metrics(mlp_run) if line["step"] == 0 and line["split"] == "dev")
    dev = from_lines("\n".join(NAMES), mlp_run.config.data).lines["dev"]
    start = score(dataclasses.replace(mlp_run, params=untrained), "\n".join(dev))
    assert start.nats_per_token == pytest.approx(before["nats_per_token"], abs=1e-5)


@pytest.mark.slow
def test_a_run_that_starts_from_another_has_its_parameters_at_step_0(mlp_run, make_run, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(mlp_run.path, start)
    run = load_run(make_run(steps=2, init_from=str(start), optim=jaxlm.OptimConfig(lr=1.0)))
    chex.assert_trees_all_equal(run.untrained(), mlp_run.params)
    with pytest.raises(UserError, match=r"init_from '.*start' is no longer the run"):
        dataclasses.replace(run, path=start).untrained()
    shutil.rmtree(start)
    shutil.copytree(run.path, start)
    with pytest.raises(UserError, match=r"init_from '.*start' is no longer the run"):
        run.untrained()
    shutil.rmtree(start)
    with pytest.raises(UserError, match=r"init_from '.*start', where training began, cannot be opened: .*exist"):
        run.untrained()
    make_run(jaxlm.MlpConfig(d_embed=4, d_hidden=5), name="start", steps=1)
    with pytest.raises(UserError, match=r"init_from '.*start' is no longer the run"):
        run.untrained()


def open_metrics(run: Run) -> list[dict]:
    from jaxlm.runs.metrics import read

    return read(RunDir(run.path).metrics)


def test_five_samples_are_the_first_of_twenty(mlp_run):
    few, many = (generate(mlp_run, n=n, prompt="a", max_tokens=15, key=KEY) for n in (5, 20))
    assert many[:5] == few
    assert len(few) == 5 and len(set(many)) > 10
    assert generate(mlp_run, n=5, prompt="a", max_tokens=15, key=jax.random.key(1)) != few


@pytest.mark.usefixtures("users_options")
def test_many_samples_begin_with_the_few_although_their_programs_differ(mlp_run):
    few, many = (generate(mlp_run, n=n, max_tokens=15, key=KEY) for n in (FEW_SAMPLES, FEW_SAMPLES + 1))
    options = [compilation.sampling_options(mlp_run.params, n) for n in (FEW_SAMPLES, FEW_SAMPLES + 1)]
    assert options[0] != options[1] and many[:FEW_SAMPLES] == few


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"stop": "la"}, {"temperature": 0.4, "top_k": 3, "max_tokens": 4}])
def test_a_stream_is_the_text_that_generate_gives(mlp_run, every, settings):
    options = {"prompt": "a", "max_tokens": 15, "key": KEY} | settings
    for place, text in enumerate(generate(mlp_run, n=3, **options)):
        parts = list(stream(mlp_run, place=place, every=every, **options))
        assert "".join(parts) == text[1:]
        assert all(parts) and (every > 1 or settings or len(parts) == len(text) - 1)


def test_repetition_is_penalised(mlp_run):
    """A letter comes back once all others have come: of a model that ends no line, all letters differ."""
    params = mlp_run.params | {"out_bias": mlp_run.params["out_bias"].at[0].set(-1e9)}
    texts = generate(mlp_run, n=5, prompt="e", max_tokens=12, repetition_penalty=1e30, params=params, key=KEY)
    plain = generate(mlp_run, n=5, prompt="e", max_tokens=12, params=params, key=KEY)
    assert max(max(Counter(text).values()) for text in plain) > 1
    assert texts != plain


def test_samples_begin_with_their_prompt_and_hold_no_line_end(mlp_run):
    texts = generate(mlp_run, n=2, prompt=["em", "", "olivia"], max_tokens=4, key=KEY)
    assert len(texts) == 6
    for text, prompt in zip(texts, ["em", "em", "", "", "olivia", "olivia"], strict=True):
        assert text.startswith(prompt) and len(text) <= len(prompt) + 4
        assert set(text) <= set(mlp_run.tokenizer.characters)


def test_samples_have_the_first_letters_of_the_data(counts_run):
    """With k = 0 an untempered sample is a walk over trigrams that occur."""
    train = from_lines("\n".join(NAMES), counts_run.config.data).lines["train"]
    seen = {f"..{name}."[i : i + 3] for name in train for i in range(len(name) + 1)}
    texts = generate(counts_run, n=200, max_tokens=40, key=KEY)
    finished = [text for text in texts if len(text) < 40]
    assert len(finished) > 100 and len(set(texts)) > 20
    for text in finished:
        assert all(f"..{text}."[i : i + 3] in seen for i in range(len(text) + 1))


@pytest.mark.slow
def test_stop_ends_a_sample_before_it(counts_run):
    free = generate(counts_run, n=100, prompt="a", key=KEY)
    stopped = generate(counts_run, n=100, prompt="a", stop="a", key=KEY)
    assert stopped == ["a" + text[1:].partition("a")[0] for text in free]
    assert stopped != free
    assert generate(counts_run, n=2, stop="emmaemma", max_tokens=2, key=KEY) == generate(
        counts_run, n=2, max_tokens=2, key=KEY
    )


def test_temperature_0_repeats_the_most_likely_text(counts_run):
    assert len(set(generate(counts_run, n=4, temperature=0, max_tokens=30, key=KEY))) == 1


def test_other_parameters_can_stand_in(mlp_run):
    untrained = generate(mlp_run, n=5, params=mlp_run.untrained(), max_tokens=10, key=KEY)
    assert untrained != generate(mlp_run, n=5, max_tokens=10, key=KEY)


def test_running_text_holds_no_boundary_even_after_an_unseen_context(stream_run):
    """Every token drawn is a character, so the text has exactly as many as were asked for."""
    texts = generate(stream_run, n=40, prompt="zz", max_tokens=30, key=KEY)
    assert {len(text) for text in texts} == {32}
    assert any("\n" in text for text in texts)


def test_a_vocabulary_larger_than_the_data_still_gives_text(make_run):
    run = load_run(make_run(jaxlm.CountsConfig(vocab_size=60)))
    texts = generate(run, n=20, max_tokens=30, key=KEY)
    assert len(texts) == 20 and set("".join(texts)) <= set(run.tokenizer.words)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", None])
def test_keys_of_any_generator_give_the_same_texts(mlp_run, impl):
    """JAX's rbg draws dependent rows under vmap. None: a key of the old kind, an array of two words."""
    key = jax.random.PRNGKey(3) if impl is None else jax.random.key(3, impl=impl)
    assert generate(mlp_run, n=5, key=key) == generate(mlp_run, n=5, key=jax.random.key(3, impl="threefry2x32"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"n": 0}, "n wants"),
        ({"n": 2**20 + 1}, "n wants a number from 1 to 1048576"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**20 + 1}, "max_tokens wants a number from 1 to 1048576"),
        ({"n": 2**15, "max_tokens": 2**14}, "n times max_tokens wants a number from 0 to 268435456, got 536870912"),
        ({"top_k": 0}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty wants a number > 0"),
        ({"prompt": "é"}, "prompt 'é'"),
        ({"stop": "é"}, "stop 'é'"),
    ],
)
def test_a_wrong_setting_is_named(mlp_run, settings, named):
    with pytest.raises(UserError, match=named):
        generate(mlp_run, key=KEY, **settings)


def test_no_prompts_give_no_texts(mlp_run):
    assert generate(mlp_run, prompt=[], key=KEY) == []


def test_a_text_is_scored_term_by_term(mlp_run):
    scored = score(mlp_run, "emma\nzoe")
    assert scored.tokens == [*"emma", ".", *"zoe", "."]
    want = nats_by_hand(mlp_run, ["emma", "zoe"])
    np.testing.assert_allclose(scored.nats, want, atol=1e-5)
    assert scored.nats_per_token == pytest.approx(sum(want) / 9, abs=1e-5)
    assert scored.total == Score(scored.total.nats, tokens=9, bytes=9, impossible=0)
    assert scored.total.bits_per_byte == pytest.approx(sum(want) / math.log(2) / 9, abs=1e-5)
    assert scored.total.perplexity == pytest.approx(math.exp(sum(want) / 9), rel=1e-5)


def test_lines_end_without_an_end_of_line_too(mlp_run):
    for text in ("emma\nzoe\n", "\nemma\n\nzoe\n\n"):
        np.testing.assert_array_equal(score(mlp_run, text).nats, score(mlp_run, "emma\nzoe").nats)


def test_a_long_line_is_scored_whole(mlp_run):
    line = "".join(NAMES) * 2
    np.testing.assert_allclose(score(mlp_run, line).nats, nats_by_hand(mlp_run, [line]), atol=1e-5)


def test_bytes_are_those_of_utf_8(make_run):
    lines = ["zoé", "日本", "naïve", "a😀", "été"]
    run = load_run(make_run(jaxlm.CountsConfig(order=1), text="\n".join(lines), data={"split": (1, 0, 0)}))
    scored = score(run, "é日\n😀")
    assert scored.total.bytes == len("é日\n😀\n".encode()) == 11
    assert scored.total.tokens == 5
    count = Counter("".join(f"{line}\n" for line in lines))
    want = [math.log((count.total() + len(count)) / (count[c] + 1)) for c in "é日\n😀\n"]
    np.testing.assert_allclose(scored.nats, want, atol=1e-5)
    assert scored.total.bits_per_byte == pytest.approx(sum(want) / math.log(2) / 11, abs=1e-5)


def test_an_impossible_text_has_no_loss(counts_run):
    scored = score(counts_run, "emma\nzzz")
    assert scored.nats_per_token is None and scored.total.perplexity is None and scored.total.bits_per_byte is None
    assert scored.total.impossible == np.isinf(scored.nats).sum() > 0
    assert np.isfinite(scored.nats[:5]).all()


def test_parameters_that_are_no_numbers_are_named_as_that(mlp_run):
    broken = dataclasses.replace(mlp_run, params=jax.tree.map(lambda leaf: leaf * np.nan, mlp_run.params))
    with pytest.raises(UserError, match=r"^the parameters of run '.*' give a loss that is not a number"):
        score(broken, "emma")


def test_running_text_is_scored_without_line_ends_of_its_own(stream_run):
    text = from_stream("\n".join(NAMES), stream_run.config.data)
    train = text.tokenizer.decode(text.tokens("train").tolist())
    scored = score(stream_run, train)
    assert (scored.total.tokens, scored.total.bytes) == (len(train), len(train))
    want = read_json(stream_run.path / "eval.json")["train"]["nats_per_token"]
    assert scored.nats_per_token == pytest.approx(want, abs=1e-5)


def test_an_unknown_character_or_no_text_is_refused(mlp_run):
    with pytest.raises(UserError, match="'É'"):
        score(mlp_run, "Éva")
    with pytest.raises(UserError, match="at least one line"):
        score(mlp_run, " \n")


def test_the_dev_text_scores_what_eval_json_says(mlp_run):
    dev = from_lines("\n".join(NAMES), mlp_run.config.data).lines["dev"]
    entry = read_json(mlp_run.path / "eval.json")["dev"]
    scored = score(mlp_run, "\n".join(dev))
    assert scored.nats_per_token == pytest.approx(entry["nats_per_token"], abs=1e-6)
    assert (scored.total.tokens, scored.total.bytes) == (entry["tokens"], entry["bytes"])


def test_samples_are_told_from_the_data(mlp_run):
    corpus = from_lines("\n".join(NAMES), mlp_run.config.data)
    seen = RunDir(mlp_run.path).read_seen()
    lines = corpus.lines
    texts = [lines["test"][0], lines["train"][3], "emmaa", lines["dev"][1], "", lines["train"][0]]
    assert classify(seen, texts) == ["dev+test", "train", "new", "dev+test", "new", "train"]


def test_a_line_of_train_and_dev_counts_as_train():
    hashes = {"train": ["a", "b"], "dev": ["b", "c"], "test": ["d"]}
    from jaxlm.data.corpus import line_hashes

    seen = {split: line_hashes(lines) for split, lines in hashes.items()}
    assert classify(seen, list("abcde")) == ["train", "train", "dev+test", "dev+test", "new"]
