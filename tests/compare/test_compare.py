"""Comparing runs: pairing of one text under two tokenizers, tables of tokens, what is printed and what is refused."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import jaxlm
from jaxlm.compare.__main__ import main
from jaxlm.compare.pairing import STREAM_BLOCK, ScoredText, paired, scored
from jaxlm.compare.report import by_mean, by_total, token_differences, verdict
from jaxlm.compare.sides import dev_text
from jaxlm.compare.statistics import Difference
from jaxlm.data import corpus as corpora
from jaxlm.errors import UserError
from jaxlm.runs.directory import RunDir
from tests.conftest import NAMES, TINY, opened, write_run

LINES = "\n".join(NAMES * 2) + "\n"
CHARACTERS, BYTES = jaxlm.CharactersConfig(), jaxlm.BytesConfig()


def counted(order: int, tokens: jaxlm.TokensConfig = CHARACTERS, kind: str = "lines", text: str = LINES) -> jaxlm.Run:
    """A count model of a text, in memory."""
    data = jaxlm.DataConfig(kind=kind, tokens=tokens, split=(1, 0, 0))  # type: ignore[arg-type]
    read = {"lines": corpora.from_lines, "stream": corpora.from_stream, "dialogues": corpora.from_dialogues}[kind]
    return opened(jaxlm.CountsConfig(order=order), data, read(text, data))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Directories bigram and trigram, on one text."""
    place = tmp_path_factory.mktemp("compared")
    for order, name in ((2, "bigram"), (3, "trigram")):
        write_run(place, jaxlm.CountsConfig(order=order), text=LINES, name=name)
    return place


def test_pieces_of_one_tokenizer_are_its_tokens_and_blocks_its_lines():
    pieces = paired(scored([counted(2)], LINES), scored([counted(3)], LINES))
    assert pieces.text[:5] == [*"emma", "."] and (pieces.unit, pieces.blocks) == ("nats/token", "lines")
    assert pieces.count == len(NAMES) * 2
    assert np.bincount(pieces.block_P).tolist() == [len(name) + 1 for name in NAMES * 2]
    for run, loss in zip((counted(2), counted(3)), pieces.losses, strict=True):
        assert loss[0] == pytest.approx(jaxlm.score(run, LINES).nats_per_token)
    sum_N, size_N = pieces.of_blocks()
    assert sum_N.sum() / size_N.sum() == pytest.approx(pieces.losses[0][0] - pieces.losses[1][0])


def test_tokenizers_that_differ_meet_where_both_have_whole_tokens():
    """The two bytes of é are one piece, as the letter is; losses are bits per byte."""
    text = "\n".join(["renée", "zoë", "ana"] * 5) + "\n"
    a, b = (counted(2, tokens, text=text) for tokens in (CHARACTERS, BYTES))
    pieces = paired(scored([a], text), scored([b], text))
    assert pieces.unit == "bits/byte" and pieces.text[:6] == [*"renée", "."]
    back = paired(scored([b], text), scored([a], text))
    assert np.array_equal(pieces.a_RP, back.b_RP) and np.array_equal(pieces.b_RP, back.a_RP)
    assert (pieces.size_P / math.log(2)).round().astype(int)[:6].tolist() == [1, 1, 1, 2, 1, 1]
    for run, loss in ((a, pieces.losses[0]), (b, pieces.losses[1])):
        assert loss[0] == pytest.approx(jaxlm.score(run, text).total.bits_per_byte)


def test_tokens_that_make_other_bytes_of_the_text_are_refused():
    score = scored([counted(2)], LINES)
    other: ScoredText = score._replace(run=counted(2, BYTES), bytes_N=score.bytes_N + 1)
    with pytest.raises(UserError, match="cannot be compared: they make 674 and 1,348 bytes"):
        paired(score, other)


def test_running_text_is_cut_into_blocks_and_short_text_refused():
    text = "the king and the queen rule the land near the water. " * 40
    runs = [counted(order, kind="stream", text=text) for order in (2, 3)]
    pieces = paired(*(scored([run], text) for run in runs))
    assert pieces.count == -(-len(text) // STREAM_BLOCK)
    assert set(np.bincount(pieces.block_P)[:-1].tolist()) == {STREAM_BLOCK}
    with pytest.raises(UserError, match="the text wants at least 10 blocks of 64 tokens, got 2: give a longer --text"):
        paired(*(scored([run], text[:100]) for run in runs))


def test_many_lines_are_resampled_in_groups():
    text = "ana\n" * 5000
    pieces = paired(*(scored([counted(order, text=text)], text) for order in (2, 3)))
    assert (pieces.count, pieces.blocks) == (2500, "groups of 2 lines")


def test_tokens_are_listed_by_sum_and_by_mean():
    pieces = paired(scored([counted(2)], LINES), scored([counted(3)], LINES))
    tokens = {one.token: one for one in token_differences(pieces)}
    assert {token: one.count for token, one in tokens.items()} == Counter(pieces.text)
    here_P = np.array(pieces.text) == "a"
    assert tokens["a"].mean == pytest.approx((pieces.a_RP - pieces.b_RP)[0][here_P].mean())
    totals = [abs(one.total) for one in by_total(list(tokens.values()), 99)]
    means = [abs(one.mean) for one in by_mean(list(tokens.values()), 5)]
    assert totals == sorted(totals, reverse=True) and means == sorted(means, reverse=True)
    assert sum(one.total for one in tokens.values()) == pytest.approx(pieces.of_blocks()[0].sum())
    assert all(one.count >= 5 for one in by_mean(list(tokens.values()), 99))


def test_the_verdict_names_the_better_side_only_where_the_interval_does():
    assert verdict(Difference(-0.5, -0.7, -0.3), "u") == "A is better by 0.5000 u, 95% interval 0.3000 to 0.7000"
    assert verdict(Difference(0.5, 0.3, 0.7), "u") == "B is better by 0.5000 u, 95% interval 0.3000 to 0.7000"
    assert verdict(Difference(0.5, -0.1, 0.7), "u").startswith("no clear difference: A - B is +0.5000 u")


def test_two_runs_are_compared_on_their_dev_split(trained, capsys):
    places = [str(trained / "trigram"), str(trained / "bigram")]
    losses = [RunDir(Path(place)).read_eval()["dev"]["nats_per_token"] for place in places]
    assert main([*places, "--json", "--tokens", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [result["losses_a"][0], result["losses_b"][0]] == pytest.approx(losses, rel=1e-6)
    assert result["difference"]["estimate"] == pytest.approx(losses[0] - losses[1], rel=1e-5)
    assert len(result["tokens"]["by_total"]) == 3
    assert main(places) == 0
    shown = capsys.readouterr().out
    assert f"A: {places[0]} (Counts, step 1): {losses[0]:.4f} nats/token" in shown
    assert "10 lines" in shown and "by the sum of A - B" in shown


def test_a_run_and_itself_do_not_differ(trained, capsys):
    place = str(trained / "bigram")
    main([place, place])
    shown = capsys.readouterr().out
    assert "no clear difference: A - B is +0.0000 nats/token, 95% interval +0.0000 to +0.0000" in shown
    assert "A is better in 50.0% of 10,000" in shown and "by the sum" not in shown


def test_a_difference_that_is_there_is_found(trained, capsys, tmp_path):
    """Counts of pairs of letters are clearly better than those of letters, whichever side they are on."""
    (tmp_path / "text.txt").write_text(LINES)
    write_run(tmp_path, jaxlm.CountsConfig(order=1), text=LINES, name="unigram")
    places = [str(trained / "bigram"), str(tmp_path / "unigram")]
    losses = [jaxlm.score(jaxlm.load_run(place), LINES).nats_per_token or 0.0 for place in places]
    for sides, better, share in ((places, "A", "100.0%"), (places[::-1], "B", "0.0%")):
        main([*sides, "--text", str(tmp_path / "text.txt"), "--seed", "4"])
        shown = capsys.readouterr().out
        assert f"{better} is better by {losses[1] - losses[0]:.4f} nats/token" in shown
        assert f"A is better in {share} of 10,000" in shown


@pytest.mark.slow
def test_two_directories_of_seeds_are_compared_over_seeds(trained, tmp_path, capsys):
    for width, name in ((16, "wide"), (4, "narrow")):
        write_run(tmp_path, dataclasses.replace(TINY, d_hidden=width), text=LINES, name=name, seeds=3)
    places = [str(tmp_path / "wide"), str(tmp_path / "narrow")]
    of = [RunDir(Path(place)).read_eval()["dev"]["of_seeds"] for place in places]
    main([*places, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["losses_a"] == pytest.approx(of[0], rel=1e-5) and result["losses_b"] == pytest.approx(of[1], rel=1e-5)
    assert result["difference"]["estimate"] == pytest.approx(np.mean(of[0]) - np.mean(of[1]), rel=1e-4)
    difference_N = np.subtract(*of)
    assert result["paired"]["standard_error"] == pytest.approx(difference_N.std(ddof=1) / math.sqrt(3), rel=1e-3)
    assert result["paired"]["degrees"] == 2 and result["welch"]["degrees"] > 2
    main(places)
    shown = capsys.readouterr().out
    assert "3 seeds from 0 on" in shown and "paired by seed" in shown and "Welch" in shown
    with pytest.raises(UserError, match="compare wants two runs or two directories of seeds, got the 3 seeds of"):
        main([places[0], str(trained / "bigram")])
    main([f"{places[0]}/seed-1", str(trained / "bigram")])  # a seed's directory is a run


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "compare wants two run directories"),
        (["bigram", "other"], "compare wants runs with the same dev split, but data of"),
        (["bigram", "stream"], "compare wants runs on one kind of text (data.kind), got lines of"),
        (["bigram", "none"], "does not exist"),
        (["bigram", "all"], "compare wants runs with the same dev split, but split of"),
        (["all", "all"], "has no dev split: give a text with --text FILE"),
        (["raw", "raw"], "tokens have probability 0, so its loss is infinite"),
        (["bigram", "bigram", "--text", "letters"], "is not in this tokenizer"),
        (["bigram", "bigram", "--resamples", "3"], "--resamples wants a number from 100"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(trained, tmp_path, args, words):
    counts = jaxlm.CountsConfig()
    if "other" in args:
        write_run(tmp_path, counts, name="other")
    if "stream" in args:
        write_run(tmp_path, counts, text=LINES, data={"kind": "stream"}, name="stream")
    if "all" in args:
        write_run(tmp_path, counts, text=LINES, data={"split": (1, 0, 0)}, name="all")
    if "raw" in args:
        write_run(tmp_path, jaxlm.CountsConfig(order=3, add_k=0.0), name="raw", text="\n".join(NAMES * 2))
        (tmp_path / "swapped.txt").write_text("\n".join(name[::-1] for name in NAMES))
        args = [*args, "--text", str(tmp_path / "swapped.txt")]
    if "letters" in args:
        (tmp_path / "letters").write_text("ÄÖÜ\n" * 20)
    places = {path.name: str(path) for folder in (trained, tmp_path) for path in folder.iterdir()}
    with pytest.raises(UserError) as error:
        main([places.get(arg, arg) for arg in args])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["lines", "dialogues", "stream"])
def test_the_dev_split_as_a_text_is_read_as_it_was(kind):
    text = "\n\n".join(f"ask: is {name} here?\ntell: no." for name in NAMES)
    data = jaxlm.DataConfig(kind=kind, split=(0.5, 0.4, 0.1))
    read = {"lines": corpora.from_lines, "stream": corpora.from_stream, "dialogues": corpora.from_dialogues}[kind]
    corpus = read(text, data)
    again = corpora.encode_text(dev_text(corpus), corpus.tokenizer, kind)
    assert np.array_equal(again.tokens_N, corpus.tokens("dev"))
