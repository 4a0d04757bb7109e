"""Explanations: contexts against a search by hand, probabilities against scores, places against the file."""

import collections
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxlm
from jaxlm.cli.sample import answer
from jaxlm.cli.sample_command import parse_sample
from jaxlm.data.corpus import load
from jaxlm.inference import formatting
from jaxlm.inference.context_search import ContextSearch
from jaxlm.inference.explain import explain
from jaxlm.inference.score import score

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=30)


def found_by_hand(text, boundary, context, token):
    """The longest end of a context in a text, the places after it, and the smallest order that suffices."""
    order, length, places = None, 0, []
    for size in range(len(context) + 1):
        end = context[len(context) - size :]
        after = [p for p in range(boundary, len(text)) if p >= size and text[p - size : p] == end]
        if not after:
            break
        length, places = size, after
        counts = collections.Counter(text[p] for p in after)
        if order is None and counts[token] == max(counts.values()):
            order = size + 1
    return length, places, order


@given(tokens, st.integers(0, 2), st.lists(tokens, min_size=1, max_size=4), st.integers(0, 2))
def test_contexts_are_found_as_a_search_by_hand_finds_them(text, boundary, contexts, token):
    boundary = min(boundary, len(text) - 1)
    search = ContextSearch(np.array(text, np.int32), boundary)
    for context in contexts:  # what is kept of one serves the next
        found = search.look(context, token)
        assert (found.length, found.place_P.tolist(), found.order) == found_by_hand(text, boundary, context, token)


@pytest.mark.slow
def test_probabilities_are_those_of_the_score(counts_run, mlp_run, stream_run):
    for run, text in ((counts_run, "emma\nzoez"), (mlp_run, "emma\nzoe"), (stream_run, "emma\nzoe")):
        explained, scored = explain(run, text), score(run, text)
        assert explained.total == scored.total
        assert [token.token for token in explained.tokens] == scored.tokens
        assert [token.nats for token in explained.tokens] == scored.nats.tolist()
        for token in explained.tokens:
            likely = dict(token.alternatives)
            assert list(likely.values()) == sorted(likely.values(), reverse=True) and len(likely) <= 5
            if token.token in likely:
                assert likely[token.token] == pytest.approx(np.exp(-token.nats), rel=1e-4)
                assert list(likely.values())[token.rank - 1] == pytest.approx(likely[token.token])
            else:
                assert not likely or np.exp(-token.nats) <= token.alternatives[-1][1] * (1 + 1e-4)


def test_alternatives_are_the_counts_of_train(counts_run):
    lines = load(counts_run.config.data).lines["train"]
    after = collections.Counter(
        f"..{line}."[i + 2] for line in lines for i in range(len(line) + 1) if f"..{line}."[i : i + 2] == ".e"
    )
    explained = explain(counts_run, "em").tokens[1]
    assert dict(explained.alternatives) == pytest.approx(
        {token: count / sum(after.values()) for token, count in after.most_common(5)}
    )


def test_a_lines_context_is_found_in_train_and_its_line_in_the_file(counts_run):
    config = counts_run.config.data
    train = "." + ".".join(load(config).lines["train"]) + "."
    in_file = Path(config.path).read_text().split("\n")
    text = ".emmz"
    for i, token in enumerate(explain(counts_run, "emmz").tokens, 1):
        match = token.match
        assert match is not None
        longest = next(text[j:i] for j in range(i + 1) if text[j:i] in train[:-1])
        assert match.context == longest and match.length == len(longest)
        assert match.count == sum(train.startswith(longest, p) for p in range(len(train) - len(longest)))
        if longest:
            assert match.line is not None and in_file[match.line - 1] == match.text
            assert longest.strip(".") in match.text


def test_running_text_has_the_line_where_the_context_begins(stream_run):
    whole = Path(stream_run.config.data.path).read_text()
    token = explain(stream_run, "mm\navz").tokens[-1]
    match = token.match
    assert match is not None and match.context == "\\nav" and match.text.startswith("\nav")
    assert match.line == whole[: whole.index("\nav")].count("\n") + 1
    assert token.order is None


def test_dialogues_are_found_by_their_turns(make_run):
    talks = [f"human: {word} there\nnetwork: hello {word}\n" for word in ("abc", "bcd", "cde", "def", "efg", "fgh")]
    data = {"kind": "dialogues", "split": (1.0, 0.0, 0.0)}
    path = make_run(jaxlm.CountsConfig(order=2), text="\n".join(talks), data=data)
    match = explain(jaxlm.load_run(path), "human: cde there\nnetwork: hello cdk").tokens[-3].match
    assert match is not None and match.count == 1 and match.text == "network: hello cde"
    assert match.context.startswith("..human:␣cde␣there.network:") and match.line == 8


def test_without_its_text_a_run_is_explained_without_train(counts_run, tmp_path):
    (tmp_path / "other.txt").write_text("emma\n")
    for name, reason in (("other.txt", "other.txt' has other content now"), ("gone.txt", "gone.txt' does not exist")):
        data = dataclasses.replace(counts_run.config.data, path=str(tmp_path / name))
        run = dataclasses.replace(counts_run, config=dataclasses.replace(counts_run.config, data=data))
        explained = explain(run, "emma")
        assert reason in explained.missing and "\n" not in explained.missing
        assert [token.nats for token in explained.tokens] == score(run, "emma").nats.tolist()
        assert all(token.match is None and token.order is None for token in explained.tokens)
        assert formatting.explained(explained, 80).endswith(f"train is not shown: {explained.missing}")


@pytest.mark.parametrize("columns", [40, 200])
def test_the_table_has_a_row_for_each_token_and_keeps_to_wide_terminals(counts_run, columns):
    explained = explain(counts_run, "emmz")
    lines = formatting.explained(explained, columns).split("\n")
    rows = [line for line in lines if not line.startswith("    ")]
    assert [row.split()[0] for row in rows[1:6]] == ["e", "m", "m", "z", "."]
    assert len(lines) == (8 if columns == 200 else 14)
    assert all("x, line " in line for line in (lines[1:4] if columns == 200 else lines[3:9:2]))


def test_the_command_prints_a_table_or_json(counts_run, capsys):
    answer(parse_sample([str(counts_run.path), "--explain", "emma", "--json"]))
    shown = json.loads(capsys.readouterr().out)
    first = shown["explained"][0]
    assert first["token"] == "e" and first["train"]["context"] == "." and first["rank"] >= 1
    assert shown["missing"] is None and shown["tokens"] == 5
    answer(parse_sample([str(counts_run.path), "--explain", "emma"]))
    assert capsys.readouterr().out.startswith("token  p ")
    with pytest.raises(jaxlm.UserError, match=r"--explain: .*'é'"):
        answer(parse_sample([str(counts_run.path), "--explain", "é"]))
