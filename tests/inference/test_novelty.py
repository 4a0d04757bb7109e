"""Edit distances, the nearest training line, and what --nearest prints."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxlm
from jaxlm.cli import sample
from jaxlm.cli.sample_command import SampleCommand, parse_sample
from jaxlm.data.corpus import from_lines, line_hashes
from jaxlm.errors import UserError
from jaxlm.inference import novelty
from jaxlm.inference.novelty import Nearest, by_length, edit_distances, nearest, training_lines
from jaxlm.runs.directory import RunDir
from tests.conftest import NAMES, write_run

LINES = st.lists(st.text("abé😀", max_size=6), min_size=1, max_size=12)


def by_hand(a: str, b: str) -> int:
    """Levenshtein's distance, cell by cell."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("emma", "gemma", 1), ("ab", "ba", 2)],
)
def test_distances_that_are_known(a, b, distance):
    ((_, point_TN),) = by_length([b]).values()
    assert edit_distances(a, point_TN).tolist() == [distance] == [by_hand(a, b)]


@given(st.text("abé😀", max_size=8), LINES)
def test_distances_are_those_by_hand(text, lines):
    for length, (group, point_TN) in by_length(lines).items():
        assert point_TN.shape == (length, len(group))
        assert edit_distances(text, point_TN).tolist() == [by_hand(text, line) for line in group]


@given(LINES)
def test_every_distinct_line_is_grouped_once(lines):
    grouped = [line for group, _ in by_length(lines).values() for line in group]
    assert sorted(grouped) == sorted(set(lines))


@given(st.text("abé😀", max_size=8), LINES)
def test_the_nearest_is_the_first_of_the_nearest(text, lines):
    want = min(Nearest(by_hand(text, line), line) for line in lines)
    assert nearest(text, by_length(lines)) == nearest(text, by_length(lines[::-1])) == want


def test_of_equally_near_lines_of_any_length_the_first_in_order_is_taken():
    assert nearest("bc", by_length(["bcd", "bd", "abc", "b"])) == Nearest(1, "abc")
    assert nearest("bcd", by_length(["bcde", "zcd"])) == Nearest(1, "bcde")


def test_lengths_that_cannot_be_nearer_are_not_looked_at(monkeypatch):
    looked: list[int] = []

    def look(text, point_TN):
        looked.append(len(point_TN))
        return edit_distances(text, point_TN)

    monkeypatch.setattr(novelty, "edit_distances", look)
    nearest("emma", by_length(["emmy", "emily", "ema", "emilia", "abigail", "em", "e"]))
    assert looked[0] == 4 and sorted(looked) == [3, 4, 5]


def test_no_lines_have_no_nearest():
    with pytest.raises(ValueError, match="at least one line"):
        nearest("emma", {})


def test_the_training_lines_are_those_the_run_saw(mlp_run):
    lines = training_lines(RunDir(mlp_run.path))
    assert lines == from_lines("\n".join(NAMES), mlp_run.config.data).lines["train"]
    np.testing.assert_array_equal(line_hashes(lines), RunDir(mlp_run.path).read_seen()["train"])


def test_data_that_changed_or_is_gone_is_named(tmp_path):
    run = RunDir(write_run(tmp_path, jaxlm.CountsConfig(order=1), plots=False))
    text = tmp_path / "text.txt"
    text.write_text("\n".join([*NAMES, "zz é"]))
    with pytest.raises(UserError, match=r"--nearest .*data\.path '.*text\.txt' has other content \(sha256 \w{8}, now"):
        training_lines(run)
    text.unlink()
    with pytest.raises(UserError, match=r"--nearest .*data\.path '.*text\.txt' does not exist"):
        training_lines(run)


def test_running_text_has_no_lines(mlp_run, tmp_path):
    shutil.copytree(mlp_run.path, tmp_path / "run")
    for name in ("config.json", "fingerprint.json"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace('kind": "lines"', 'kind": "stream"'))
    with pytest.raises(UserError, match=r"--nearest wants a run on lines, got .*data\.kind stream"):
        sample.answer(SampleCommand(tmp_path / "run", nearest=True))


@pytest.mark.parametrize("other", ["--compare", "--interactive", "--score-text=a"])
def test_nearest_goes_with_samples_only(other):
    with pytest.raises(UserError, match=rf"(?=.*--nearest)(?=.*{other.partition('=')[0]}).*exclude each other"):
        parse_sample(["run", "--nearest", other])


def test_samples_are_printed_with_their_nearest(counts_run, capsys):
    """The trigram's samples are the same with --nearest as without, under the same headings."""
    command = SampleCommand(counts_run.path)
    outputs = {}
    for form in ({}, {"json": True}, {"nearest": True}, {"json": True, "nearest": True}):
        sample.answer(SampleCommand(**{**vars(command), **form}))
        outputs[frozenset(form)] = capsys.readouterr().out
    plain, rich = (json.loads(outputs[frozenset(form)]) for form in (["json"], ["json", "nearest"]))
    assert [{"text": one["text"], "seen": one["seen"]} for one in rich] == plain
    train = from_lines("\n".join(NAMES), counts_run.config.data).lines["train"]
    for one in rich:
        assert (one["distance"], one["nearest"]) == min((by_hand(one["text"], line), line) for line in train)
        assert (one["distance"] == 0) == (one["seen"] == "train")
    assert {one["distance"] == 0 for one in rich} == {True, False}

    head, *lines, rate = outputs[frozenset(["nearest"])].splitlines()
    assert head == "sample, edit distance, nearest training line"
    assert [line.split()[0] for line in lines] == [line.split()[0] for line in outputs[frozenset()].splitlines()]
    shown = {tuple(line.split()) for line in lines if line.startswith("  ")}
    assert shown == {(one["text"], str(one["distance"]), one["nearest"]) for one in rich}
    copies = sum(one["distance"] == 0 for one in rich)
    assert rate == f"exact copies of training lines: {copies} of 20 ({copies / 20:.1%})"


def test_shares_are_counted_kept_and_drawn_again(counts_run, tmp_path, monkeypatch):
    shutil.copytree(counts_run.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    shares = novelty.shares_of_run(run, 50, counts_run.step)
    kept = json.loads(run.novelty.read_text())
    assert kept == {"n": 50, "seed": 0, "step": 1} | {
        key: getattr(shares, key) for key in ("train", "dev_or_test", "new")
    }
    assert shares.train + shares.dev_or_test + shares.new == pytest.approx(1) and 0 < shares.train < 1

    def refuse(*args):
        raise AssertionError("drawn again")

    monkeypatch.setattr(novelty, "_draw", lambda path, n, step, *args: ["train"] * (n - 1) + ["new"])
    assert novelty.shares_of_run(run, 10, 1) == novelty.Shares(10, 0, 1, 0.9, 0.0, 0.1)
    assert novelty.shares_of_run(run, 10, 2).step == 2
    monkeypatch.setattr(novelty, "_draw", refuse)
    assert novelty.shares_of_run(run, 10, 2).train == 0.9
    run.novelty.write_text('{"n": 10')
    monkeypatch.setattr(novelty, "_draw", lambda path, n, step, *args: ["dev+test"] * n)
    assert novelty.shares_of_run(run, 10, 2).dev_or_test == 1.0


def test_a_directory_that_cannot_be_written_is_no_error(counts_run, tmp_path, monkeypatch):
    shutil.copytree(counts_run.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    run.novelty.mkdir()
    monkeypatch.setattr(novelty, "_draw", lambda path, n, step, *args: ["new"] * n)
    assert novelty.shares_of_run(run, 5, 1).new == 1.0
    assert [path.name for path in run.path.iterdir() if path.name.startswith("novelty")] == ["novelty.json"]


def test_shares_are_of_the_scored_checkpoint_only(counts_run):
    with pytest.raises(UserError, match=r"lacks the checkpoint that was scored \(step 7\)"):
        novelty._draw(counts_run.path, 5, 7, "auto")
