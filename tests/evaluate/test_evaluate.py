"""Strided perplexity against a loop over every token, choices against sums of jaxlm.score, and what is refused."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.data import corpus as corpora
from jaxlm.errors import UserError
from jaxlm.evaluate import single_pass
from jaxlm.evaluate.__main__ import main
from jaxlm.evaluate.choices import Accuracy, evaluate_choices, score_choices
from jaxlm.evaluate.questions import Question, read_questions
from jaxlm.evaluate.text import evaluate_text
from tests.conftest import NAMES, TINY, opened, write_run

C = 8
TEXT = "the king and the queen rule the land near the water. a man drinks.\n" * 3
DIALOGUES = "human: Hello.\nnetwork: Hi there.\n\nhuman: Who are you?\nnetwork: A machine.\nhuman: Ah.\nnetwork: Yes.\n"
SMALL: dict[str, Any] = {"n_layers": 1, "n_heads": 2, "d_model": 16}
GPT = jaxlm.GptConfig(context=C, **SMALL)
MODELS: dict[str, tuple[jaxlm.ModelConfig, str]] = {
    "bigram": (jaxlm.CountsConfig(order=2, add_k=1.0), "window"),
    "kneser-ney": (jaxlm.CountsConfig(order=3, smoothing="kneser-ney"), "sequence"),
    "mlp": (TINY, "window"),
    "gru": (jaxlm.RnnConfig(cell="gru", d_embed=4, d_hidden=8), "sequence"),
    "wavenet": (jaxlm.WavenetConfig(layers=2, d_embed=4, d_hidden=8), "window"),
    "bow": (jaxlm.BowConfig(context=C, d_embed=4, d_hidden=8), "window"),
    "gpt": (GPT, "sequence"),
    "rean": (jaxlm.ReanConfig(context=C, d_embed=8, **SMALL), "sequence"),
}
READ = {"lines": corpora.from_lines, "stream": corpora.from_stream, "dialogues": corpora.from_dialogues}


def run_of(model: jaxlm.ModelConfig, example: Any = "sequence", kind: Any = "stream", text: str = TEXT) -> jaxlm.Run:
    """A run in memory, in which a token depends on those before it."""
    data = jaxlm.DataConfig(kind=kind, example=example, split=(1, 0, 0))
    run = opened(model, data, READ[kind](text, data), C)
    if model.trained_by_steps:
        larger = jax.tree.map(lambda x: 4 * x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), run.params)
        run = dataclasses.replace(run, params=larger)
    return run


def loop_over_tokens(run: jaxlm.Run, tokens: list[int], stride: int) -> list[float]:
    """-log p of every token, each by a forward pass of its own over the window that scores it."""
    nats, inputs, apply = [], [run.tokenizer.eos, *tokens[:-1]], jax.jit(run.model.apply)
    for i, token in enumerate(tokens):
        begin = 0 if i < C else (i - C) // stride * stride + stride
        seen_C = np.zeros(C, np.int32)  # what follows the window's last token does not reach it
        seen_C[: i + 1 - begin] = inputs[begin : i + 1]
        logits_V = apply(run.params, seen_C[None])[0, i - begin]
        nats.append(-float(jax.nn.log_softmax(logits_V)[token]))
        assert i + 1 - begin <= C and (i < C or i - begin >= C - stride)
    return nats


@pytest.mark.parametrize("stride", [1, 3, C])
def test_strided_windows_score_as_a_loop_over_every_token(stride):
    run, text = run_of(GPT), TEXT[:45]
    wanted = loop_over_tokens(run, run.tokenizer.encode(text).tolist(), stride)
    found = evaluate_text(run, text, stride)
    assert (found.stride, found.context, found.score.tokens, found.score.bytes) == (stride, C, 45, 45)
    assert found.score.nats == pytest.approx(sum(wanted), rel=1e-5)


def test_a_stride_of_the_context_is_the_plain_evaluation_and_smaller_ones_are_not():
    run = run_of(GPT)
    plain = jaxlm.score(dataclasses.replace(run, config=_with_length(run.config, C)), TEXT)
    assert evaluate_text(run, TEXT, C).score.nats == pytest.approx(plain.total.nats, rel=1e-6)
    assert abs(evaluate_text(run, TEXT, 1).score.nats - plain.total.nats) > 1e-2 * plain.total.nats
    assert evaluate_text(run, TEXT).stride == C // 2


def _with_length(config: jaxlm.RunConfig, length: int) -> jaxlm.RunConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, max_length=length))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_scores_text_as_jaxlm_score_does(name):
    """Where no window is cut: in pieces with the state carried along, in windows, and in one sequence."""
    run = run_of(*MODELS[name])
    text = TEXT[: C if run.model.max_length else 150]
    assert evaluate_text(run, text).score.nats == pytest.approx(jaxlm.score(run, text).total.nats, rel=1e-5)


@pytest.mark.parametrize("kind", ["lines", "dialogues"])
@pytest.mark.parametrize("name", ["gru", "bigram"])
def test_lines_and_dialogues_are_read_on_their_own(name, kind, monkeypatch):
    monkeypatch.setattr(single_pass, "EVAL_TOKENS", 40)  # several groups of lines, and pieces of a line
    text = "\n".join(NAMES[:17]) if kind == "lines" else DIALOGUES
    run = run_of(*MODELS[name], kind=kind, text=text)
    found, wanted = evaluate_text(run, text).score, jaxlm.score(run, text).total
    assert found.nats == pytest.approx(wanted.nats, rel=1e-5) and found[1:] == wanted[1:]


def test_running_text_is_read_in_one_pass_whose_pieces_do_not_matter(monkeypatch):
    run, nats = run_of(*MODELS["gru"]), []
    for most in (8192, 7):
        monkeypatch.setattr(single_pass, "EVAL_TOKENS", most)
        nats.append(evaluate_text(run, TEXT).score.nats)
    assert nats[0] == pytest.approx(nats[1], rel=1e-5)


def test_a_stride_above_the_context_is_refused():
    with pytest.raises(UserError, match=r"--stride wants at most 8, the context of run '.', got 9"):
        evaluate_text(run_of(GPT), TEXT, C + 1)


def question(before: str, *choices: str, answer: int = 0, is_question: bool = False) -> Question:
    return Question("q:1", before, choices, answer, is_question)


@pytest.mark.parametrize("name", MODELS)
def test_a_choice_costs_what_its_tokens_cost_after_the_text_before(name):
    run = run_of(*MODELS[name])
    asked = [question("the k", "ing", "een", "a"), question("", "a", "the")]
    for one, choices in zip(asked, score_choices(run, asked), strict=True):
        for text, found in zip(one.choices, choices, strict=True):
            nats = jaxlm.score(run, one.before + text).nats[len(one.before) :]
            assert found.nats == pytest.approx(float(nats.sum()), rel=1e-5)
            assert (found.tokens, found.characters) == (len(text), len(text))


def test_a_long_text_before_keeps_its_last_tokens():
    run = run_of(GPT)
    before, choice = TEXT[:20], "lan"
    (found, _), *_ = score_choices(run, [question(before, choice, "d")])
    tokens = run.tokenizer.encode(before + choice).tolist()
    logits_TV = run.model.apply(run.params, jnp.array([tokens[-1 - C : -1]], jnp.int32))[0]
    wanted = -jax.nn.log_softmax(logits_TV)[np.arange(C - 3, C), jnp.array(tokens[-3:])].sum()
    assert found.nats == pytest.approx(float(wanted), rel=1e-5)


def test_a_question_is_followed_by_a_blank_or_by_the_turn_of_the_answer():
    plain = question("a man", "drinks", "rule", is_question=True)
    run = run_of(*MODELS["bigram"])
    assert score_choices(run, [plain]) == [
        [dataclasses.replace(one, characters=one.characters - 1) for one in choices]
        for choices in score_choices(run, [question("a man", " drinks", " rule")])
    ]
    run = run_of(*MODELS["bigram"], kind="dialogues", text=DIALOGUES)
    asked = question("Who are you?", "A machine.", is_question=True)
    (found,) = score_choices(run, [dataclasses.replace(asked, choices=("A machine.", "Yes."))])[0][:1]
    nats = jaxlm.score(run, "human: Who are you?\nnetwork: A machine.").nats
    assert found.nats == pytest.approx(float(nats[len("human: Who are you?\nnetwork:") : -2].sum()), rel=1e-5)


def test_tokens_that_reach_into_the_text_before_count_for_all_choices():
    """BPE may join the end of the text before with a choice: what all choices share stays, the rest is theirs."""
    pytest.importorskip("tokenizers")
    data = jaxlm.DataConfig(kind="stream", tokens=jaxlm.BpeConfig(vocab_size=300), split=(1, 0, 0))
    run = opened(jaxlm.CountsConfig(order=2, add_k=1.0), data, corpora.from_stream(TEXT * 20, data), C)
    asked = question("a man and the ki", "ng", "xx")
    before, *whole = (run.tokenizer.encode(asked.before + choice).tolist() for choice in ("", *asked.choices))
    kept = next(i for i, pair in enumerate(zip(*whole, strict=False)) if pair[0] != pair[1])
    assert kept < len(before), "the end of the text before is a token of its own in both"
    for text, tokens, found in zip(asked.choices, whole, score_choices(run, [asked])[0], strict=True):
        assert found.tokens == len(tokens) - kept
        nats = jaxlm.score(run, asked.before + text).nats[kept:]
        assert found.nats == pytest.approx(float(nats.sum()), rel=1e-5)


def test_accuracies_by_log_p_by_characters_and_by_tokens():
    """A constant model: each token costs ln V, so that log p wants few tokens and log p / tokens is a tie."""
    run = run_of(jaxlm.CountsConfig(order=1, add_k=1e9), "window")
    found = evaluate_choices(
        run, [question("a", "kk", "kkk", answer=1), question("a", "k", "kk"), question("a", "kk", "k", "a")]
    )
    assert found.plain == Accuracy.of(1, 3) and found.by_tokens.share == pytest.approx(found.by_characters.share)
    assert found.chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert Accuracy.of(1, 4) == (0.25, pytest.approx(0.25)) and Accuracy.of(1, 1) == (1.0, None)
    shares = np.array([1.0, 0, 0, 0])
    assert Accuracy.of(1, 4).stderr == pytest.approx(shares.std(ddof=1) / math.sqrt(4))


def test_a_long_right_choice_wins_only_when_length_is_divided_out():
    run = run_of(jaxlm.CountsConfig(order=2, add_k=1e-3), "window")
    asked = [question("", "the king and the queen", "k")]
    long, short = score_choices(run, asked)[0]
    found = evaluate_choices(run, asked)
    assert long.nats > short.nats and long.nats / 22 < short.nats
    assert (found.plain.share, found.by_characters.share, found.by_tokens.share) == (0.0, 1.0, 1.0)


def test_bytes_are_not_characters():
    """One letter of two bytes is one character and two tokens."""
    data = jaxlm.DataConfig(kind="stream", tokens=jaxlm.BytesConfig(), split=(1, 0, 0))
    run = opened(jaxlm.CountsConfig(order=1, add_k=1e9), data, corpora.from_stream("é" * 30, data), C)
    asked = question("a", "é", "e")
    (found, _), *_ = score_choices(run, [asked])
    assert (found.tokens, found.characters) == (2, 1)
    assert evaluate_choices(run, [question("a", "aaaaé", "aa", answer=0)]).by_characters.share == 0.0


def test_a_question_without_a_possible_choice_is_answered_wrongly():
    run = run_of(jaxlm.CountsConfig(order=2, add_k=0.0), "window")
    found = evaluate_choices(run, [question("k", "kk", "kq"), question("th", "e", "k")])
    assert (found.plain.share, found.impossible) == (0.5, 1)


GOOD = {"context": "the k", "choices": ["ing", "een"], "answer": 0}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", 'wants a JSON object a line, {"context" or'),
        ("[1]", "wants a JSON object, .*, got '\\[1\\]'"),
        ({"choices": ["a", "b"], "answer": 0}, "wants either context or question, got neither"),
        (GOOD | {"question": "a"}, "wants either context or question, got context and question"),
        (GOOD | {"context": 3}, "context wants a text, got 3"),
        (GOOD | {"choices": ["a"]}, 'choices wants a list of at least two texts, got \\["a"\\]'),
        (GOOD | {"choices": None}, "choices wants a list of at least two texts, got nothing"),
        (GOOD | {"choices": ["a", ""]}, 'choices\\[1\\] wants a text that is not empty, got ""'),
        (GOOD | {"answer": 2}, "answer wants a number from 0 to 1, got 2"),
        (GOOD | {"answer": True}, "answer wants a number from 0 to 1, got true"),
        (GOOD | {"answer": "ing"}, 'answer wants a number from 0 to 1, got "ing"'),
    ],
)
def test_a_mistake_in_a_question_is_named_with_its_line(tmp_path, line, reason):
    file = tmp_path / "q.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n\n{line if isinstance(line, str) else json.dumps(line)}\n")
    with pytest.raises(UserError, match=f"q.jsonl:3: {reason}"):
        read_questions(file)


def test_texts_that_a_model_cannot_take_are_named_with_their_line():
    run = run_of(GPT)
    with pytest.raises(UserError, match=r"q:1: .*'%'"):
        score_choices(run, [question("a%", "n", "t")])
    with pytest.raises(UserError, match=r"q:1: choices\[1\] wants at most 8 tokens, the context of run '.', got 9"):
        score_choices(run, [question("a", "n", "the queen")])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Finished runs bigram and gpt, a text and questions."""
    place = tmp_path_factory.mktemp("evaluated")
    data = {"kind": "stream", "example": "sequence", "max_length": C}
    write_run(place, GPT, text=TEXT * 4, data=data, name="gpt", steps=2)
    write_run(place, jaxlm.CountsConfig(order=2, add_k=1.0), text=TEXT * 4, data={"kind": "stream"}, name="bigram")
    (place / "held.txt").write_text(TEXT[:100])
    (place / "q.jsonl").write_text(json.dumps(GOOD) + "\n")
    return place


def test_the_command_prints_runs_beside_what_the_leaderboard_says(place, capsys):
    runs = [str(place / "gpt"), str(place / "bigram")]
    assert main([*runs, "--text", str(place / "held.txt"), "--stride", "2", "--choices", str(place / "q.jsonl")]) == 0
    heads, first, second, *_ = capsys.readouterr().out.splitlines()
    assert "nats/token" in heads and "acc_norm" in heads and heads.index("test") > heads.index("acc_tokens")
    assert [first.split()[0], second.split()[0]] == runs[::-1]
    dev = json.loads((place / "bigram" / "eval.json").read_text())["dev"]
    assert first.split()[-4:-3] == [f"{dev['nats_per_token']:.4f}"]
    assert first.split()[-1] == f"{dev['bits_per_byte']:.4f}"
    main([*runs, "--text", str(place / "held.txt"), "--stride", "2", "--choices", str(place / "q.jsonl"), "--json"])
    gpt, bigram = json.loads(capsys.readouterr().out)
    assert (gpt["text"]["context"], gpt["text"]["stride"], bigram["text"]["stride"]) == (C, 2, None)
    for one in (gpt, bigram):
        assert one["text"]["perplexity"] == pytest.approx(math.exp(one["text"]["nats_per_token"]))
        assert one["choices"]["questions"] == 1 and one["choices"]["acc_stderr"] is None
    assert bigram["leaderboard"]["dev"]["nats_per_token"] == dev["nats_per_token"]
    assert second.split()[2] == f"{gpt['text']['nats_per_token']:.4f}"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "evaluate wants at least one run directory"),
        (["bigram"], "evaluate wants --text FILE, --choices FILE.jsonl or both, got neither"),
        (["bigram", "--choices", "q.jsonl", "--stride", "2"], "--stride goes with --text"),
        (["bigram", "--text", "held.txt", "--stride", "0"], "--stride wants a number >= 1, got 0"),
        (["bigram", "--text", "held.txt", "--stride", "2"], "--stride wants a model that reads strided windows"),
        (["gpt", "--text", "held.txt", "--stride", "99"], "--stride wants at most 8, the context of run 'gpt', got 99"),
        (["bigram", "--text", "nothing.txt"], "--text 'nothing.txt' does not exist"),
        (["bigram", "--text", "odd.txt"], "--text, run 'bigram': line 1, column 3: .*'%'"),
        (["nothing", "--text", "held.txt"], "'nothing' does not exist"),
    ],
)
def test_mistakes_are_one_line(place, monkeypatch, args, reason):
    (place / "odd.txt").write_text("an%")
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match=reason):
        main(args)


def test_a_run_that_cannot_be_measured_is_left_out_with_its_reason(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["bigram", "nothing", "--text", "held.txt"]) == 0
    shown = capsys.readouterr()
    assert "left out: " in shown.err and "'nothing'" in shown.err and "bigram" in shown.out
