import json
import math
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxlm.runs import checkpoints
from tests import processes
from tests.processes import Cli, refused, tree


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Cli:
    return processes.cli(tmp_path_factory)


@pytest.fixture(scope="module")
def run(cli) -> Path:
    """A run that keeps three checkpoints."""
    return cli.trained("run", "--steps", 3000)


def texts(done: processes.Done) -> list[str]:
    assert done.code == 0, done.stderr
    return [entry["text"] for entry in json.loads(done.stdout)]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--temperature", "-0.1"], ["--temperature", ">= 0", "-0.1"]),
        (["--temperature", "nan"], ["--temperature", "nan"]),
        (["--top-p", "0"], ["--top-p", "above 0 and at most 1", "0"]),
        (["--top-p", "1.01"], ["--top-p", "above 0 and at most 1", "1.01"]),
        (["--top-k", "0"], ["--top-k", ">= 1", "0"]),
        (["--min-p", "1.5"], ["--min-p", "from 0 to 1"]),
        (["--repetition-penalty", "0"], ["--repetition-penalty", "> 0", "0"]),
        (["--temperature", "1e300"], ["--temperature", "at most 3.4e+38", "1e+300"]),
        (["-n", "0"], ["--n", "from 1 to 1048576", "0"]),
        (["-n", "3000000000"], ["--n", "from 1 to 1048576", "3000000000"]),
        (["--max-tokens", "0"], ["--max-tokens", "from 1 to 1048576", "0"]),
        (["--max-tokens", "3000000000"], ["--max-tokens", "from 1 to 1048576", "3000000000"]),
        (["--seed", "-1"], ["--seed", "-1"]),
        (["--seed", "x"], ["--seed", "x"]),
        (["--temperatur", "1"], ["--temperatur is not a setting", "did you mean --temperature?"]),
        (["--compare", "--interactive"], ["exclude each other"]),
        (["--json", "--interactive"], ["exclude each other"]),
        (["--prompt", "a", "--interactive"], ["--prompt", "exclude each other"]),
        (["--checkpoint", "worst"], ["--checkpoint", "best", "last"]),
        (["--draft-tokens", "2"], ["--draft-tokens goes with --draft"]),
        (["--draft", "b", "--draft-tokens", "0"], ["--draft-tokens", "from 1 to 64", "0"]),
        (["--draft", "b", "--compare"], ["--draft and --compare exclude each other"]),
        (["--draft", "b", "--by-vector"], ["--draft and --by-vector exclude each other"]),
        (["--draft", "b", "--score", "c"], ["--draft and --score exclude each other"]),
        (["--draft", "b", "--score-text", "c"], ["--draft and --score-text exclude each other"]),
        (["--draft", "b", "--explain", "c"], ["--draft and --explain exclude each other"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else "",
)
def test_an_argument_that_cannot_be_used(cli, args, words):
    refused(cli.sample("no-run-is-opened", *args), *words)


@pytest.mark.slow
def test_a_run_that_cannot_be_used(cli, run, tmp_path):
    refused(cli.sample(), "run")
    refused(cli.sample(run.parent / "rum"), "does not exist", "did you mean", "run")
    refused(cli.sample(tmp_path), "not a run directory")
    refused(cli.sample(cli.text), "is a file", "--similar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_character_that_the_run_does_not_know(cli, run, tmp_path):
    strange = tmp_path / "strange.txt"
    strange.write_text("abba\nzoë\n")
    before = tree(run)
    refused(cli.sample(run, "--prompt", "azb"), "prompt", "'z'", "U+007A", "abcde")
    refused(cli.sample(run, "--stop", "z"), "stop 'z' cannot be used", "U+007A")
    refused(cli.sample(run, "--score-text", "ë"), "--score-text", "'ë'", "U+00EB")
    refused(cli.sample(run, "--score-text", ""), "--score-text", "at least one line")
    refused(cli.sample(run, "--score", strange), "--score", "'z'")
    refused(cli.sample(run, "--score", tmp_path / "strange"), "--score", "does not exist", "did you mean")
    refused(cli.sample(run, "--score", tmp_path), "--score", "directory")
    assert tree(run) == before


@pytest.mark.slow
def test_samples_are_sorted_by_where_they_were_seen(cli, run):
    listed = json.loads(cli.sample(run, "--json", "-n", 200).stdout)
    plain = cli.sample(run, "-n", 200)
    assert plain.code == 0 and plain.stderr == ""
    names = set(cli.text.read_text().split())
    blocks = re.split(r"^(\d+) (in train|in dev or test|new):\n?", plain.stdout, flags=re.MULTILINE)[1:]
    told = {title: (int(count), body.split()) for count, title, body in zip(*[iter(blocks)] * 3, strict=True)}
    for kind, title in {"train": "in train", "dev+test": "in dev or test", "new": "new"}.items():
        group = [entry["text"] for entry in listed if entry["seen"] == kind]
        assert told[title] == (len(group), [text for text in group if text])  # split() sees no empty name
        assert all((text in names) == (kind != "new") for text in group)
    assert sum(count for count, _ in told.values()) == 200
    assert told["in train"][0] and told["new"][0]


@pytest.mark.slow
def test_seed_prompt_and_stop(cli, run):
    first, again = (texts(cli.sample(run, "--json", "--seed", 5)) for _ in range(2))
    other = texts(cli.sample(run, "--json", "--seed", 6))
    assert first == again != other and len(first) == 20
    assert texts(cli.sample(run, "--json", "--seed", 5, "--repetition-penalty", 3)) != first
    prompted = texts(cli.sample(run, "--json", "--prompt", "ab", "--stop", "c"))
    assert all(text.startswith("ab") and "c" not in text for text in prompted) and len(set(prompted)) > 1


@pytest.mark.slow
def test_greedy_takes_the_most_likely_and_max_tokens_ends(cli, run):
    greedy = texts(cli.sample(run, "--json", "--temperature", 0, "-n", 3, "--max-tokens", 2))
    assert len(set(greedy)) == 1 and len(greedy) == 3 and len(greedy[0]) <= 2
    assert texts(cli.sample(run, "--json", "--top-k", 1, "-n", 3, "--seed", 9, "--max-tokens", 2)) == greedy


@pytest.mark.slow
def test_a_draft_changes_no_greedy_text_and_how_it_did_is_reported(cli, run, tmp_path):
    draft = cli.trained("draft", "--steps", 400, "--model.context", 1)
    greedy = texts(cli.sample(run, "--json", "--temperature", 0, "-n", 3))
    done = cli.sample(run, "--json", "--temperature", 0, "-n", 3, "--draft", draft, "--draft-tokens", 2)
    assert texts(done) == greedy
    counts = [entry["draft"] for entry in json.loads(done.stdout)]
    for text, count in zip(greedy, counts, strict=True):
        assert count["tokens"] == len(text) + 1
        assert 0 <= count["accepted"] <= count["proposed"] == 2 * count["passes"]
        assert count["acceptance"] == count["accepted"] / count["proposed"]
        assert count["tokens_per_pass"] == count["tokens"] / count["passes"] >= 1
    proposed = sum(count["proposed"] for count in counts)
    share = sum(count["accepted"] for count in counts) / proposed
    rate = sum(count["tokens"] for count in counts) / sum(count["passes"] for count in counts)
    told = f"draft {draft}: {share:.1%} of {proposed:,} proposed tokens stayed, {rate:.2f} tokens a pass of {run}\n"
    assert done.stderr == told
    plain = cli.sample(run, "--draft", draft, "--nearest")
    assert plain.code == 0 and plain.stderr.startswith(f"draft {draft}: ") and "edit distance" in plain.stdout
    assert "proposed tokens stayed" in cli.sample(run, "--draft", draft, "--interactive", stdin="ab\n").stderr
    other = tmp_path / "other.txt"
    other.write_text(cli.text.read_text() + "fgh\n")
    stranger = cli.trained("stranger", "--steps", 1, "--data.path", other)
    refused(cli.sample(run, "--draft", stranger), f"draft '{stranger}' wants the tokenizer of run '{run}'", "9 and 6")
    refused(cli.sample(run, "--draft", tmp_path / "none"), "--draft", "does not exist")


@pytest.mark.slow
def test_compare_shows_the_untrained_beside_the_trained(cli, run):
    compared = json.loads(cli.sample(run, "--compare", "--json", "--seed", 4).stdout)
    assert compared["trained"] == texts(cli.sample(run, "--json", "--seed", 4))
    assert len(compared["untrained"]) == 20 and compared["untrained"] != compared["trained"]
    done = cli.sample(run, "--compare", "--seed", 4)
    title, _, *rows = done.stdout.splitlines()
    assert title.split() == ["untrained", "trained"]
    width = title.index("trained", len("untrained"))
    assert [row[width:] for row in rows] == compared["trained"]


@pytest.mark.slow
def test_a_file_is_scored(cli, run, tmp_path):
    path = tmp_path / "unseen.txt"
    path.write_text("abc\n\ndad\n")
    scored = json.loads(cli.sample(run, "--score", path, "--json").stdout)
    logprobs = [entry["logprob"] for entry in scored["token_logprobs"]]
    assert [entry["token"] for entry in scored["token_logprobs"]] == [*"abc.dad."]
    assert scored["tokens"] == scored["bytes"] == 8 and max(logprobs) < 0
    assert scored["nats_per_token"] == pytest.approx(-sum(logprobs) / 8, rel=1e-5)
    assert scored["bits_per_byte"] == pytest.approx(-sum(logprobs) / 8 / math.log(2), rel=1e-5)
    assert scored["perplexity"] == pytest.approx(math.exp(scored["nats_per_token"]))
    line = cli.sample(run, "--score", path).stdout
    assert line.startswith(f"{scored['nats_per_token']:.4f} nats/token, {scored['bits_per_byte']:.4f} bits/byte, ")
    assert f"perplexity {scored['perplexity']:.3f}" in line and line.count("\n") == 1


@pytest.mark.slow
def test_a_text_is_scored_term_by_term(cli, run):
    scored = json.loads(cli.sample(run, "--score-text", "bad", "--json").stdout)["token_logprobs"]
    _, *rows, total = cli.sample(run, "--score-text", "bad").stdout.splitlines()
    assert [row.split()[0] for row in rows] == [*"bad."] == [entry["token"] for entry in scored]
    for row, entry in zip(rows, scored, strict=True):
        probability, log_p, bits = map(float, row.split()[1:])
        assert log_p == pytest.approx(entry["logprob"], abs=1e-4)
        assert probability == pytest.approx(math.exp(log_p), abs=1e-4)
        assert bits == pytest.approx(-log_p / math.log(2), abs=1e-3)
    assert "nats/token" in total


@pytest.mark.slow
def test_json_is_json_where_the_terminal_lacks_a_character(cli, tmp_path):
    path = tmp_path / "accents.txt"
    path.write_text("zoë\nchloé\n", "utf-8")
    run = cli.trained("accents", "--data.path", path, "--steps", 1)
    done = cli.sample(run, "--prompt", "zoë", "--json", "-n", 1, env={"PYTHONIOENCODING": "ascii"})
    assert texts(done)[0].startswith("zoë")


def test_the_split_scores_of_eval_json_are_those_of_the_lines(cli, run, tmp_path):
    """Train, dev and test together are the file, each line scored on its own."""
    ended = json.loads((run / "eval.json").read_text())
    scored = json.loads(cli.sample(run, "--score", cli.text, "--json").stdout)
    parts = [ended[split] for split in ("train", "dev", "test")]
    assert scored["tokens"] == sum(part["tokens"] for part in parts)
    nats = sum(part["nats_per_token"] * part["tokens"] for part in parts)
    assert scored["nats_per_token"] * scored["tokens"] == pytest.approx(nats, rel=1e-5)


def _broken_best(run: Path, to: Path) -> tuple[Path, list[int]]:
    """A copy of a run whose best checkpoint lacks a file, and the steps in the order in which they are tried."""
    shutil.copytree(run, to)
    order = [one.step for one in checkpoints.best_first(to / "checkpoints")]
    (to / "checkpoints" / str(order[0]) / "params" / "manifest.ocdbt").unlink()
    return to, order


@pytest.mark.slow
def test_a_broken_best_checkpoint_gives_way_to_the_next(cli, run, tmp_path):
    broken, order = _broken_best(run, tmp_path / "broken")
    without = tmp_path / "without"
    shutil.copytree(run, without)
    shutil.rmtree(without / "checkpoints" / str(order[0]))
    args = ("--score-text", "abc", "--json")
    got, want, whole = (json.loads(cli.sample(path, *args).stdout) for path in (broken, without, run))
    assert got == want != whole
    assert (broken / "checkpoints" / str(order[0])).exists()


@pytest.mark.slow
def test_a_broken_best_checkpoint_is_told(cli, run, tmp_path):
    broken, order = _broken_best(run, tmp_path / "broken")
    done = cli.sample(broken, "-n", 2, "--json")
    assert len(texts(done)) == 2
    assert f"checkpoint {order[0]}" in done.stderr and "broken" in done.stderr


def test_no_checkpoint_at_all_is_one_line(cli, run, tmp_path):
    shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "checkpoints")
    refused(cli.sample(tmp_path / "bare"), "no checkpoint", "train.py")


@pytest.mark.slow
def test_best_and_last_are_different_checkpoints(cli, run):
    saved = checkpoints.best_first(run / "checkpoints")
    assert saved[0].step == json.loads((run / "eval.json").read_text())["step"]
    args = ("--score-text", "abc", "--json")
    best, last = (json.loads(cli.sample(run, *args, "--checkpoint", which).stdout) for which in ("best", "last"))
    assert (best == last) == (saved[0].step == 3000)


@pytest.mark.slow
def test_prompts_through_a_pipe(cli, run):
    done = cli.sample(run, "--interactive", stdin="ab\nazb\n/n 2\n/n none\nba\n/quit\nnever\n")
    assert done.code == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert all(line.startswith("ab") for line in lines[:5])
    assert lines[5].startswith("error: ") and "'z'" in lines[5]
    assert lines[6].startswith("error: ") and "/n" in lines[6] and "none" in lines[6]
    assert len(lines) == 9 and all(line.startswith("ba") for line in lines[7:])


@pytest.mark.slow
@pytest.mark.parametrize(("args", "n"), [([], 5), (["-n", 3], 3), (["--n=20"], 20)])
def test_the_end_of_the_input_ends_the_prompts(cli, run, args, n):
    done = cli.sample(run, "--interactive", *args, stdin="c")
    assert done.code == 0
    assert len(done.stdout.splitlines()) == n


def test_prompts_want_an_input(cli, run):
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "sample.py", str(run), "--interactive"]
    done = subprocess.run(command, cwd=processes.ROOT, env=cli.env, text=True, capture_output=True)
    refused(processes.Done(done.returncode, done.stdout, done.stderr), "--interactive", "standard input", "closed")


class Terminal:
    """sample.py --interactive with a pseudo-terminal as its input and output."""

    def __init__(self, cli: Cli, run: Path):
        self.end, inner = pty.openpty()
        terminal = {"stdin": inner, "stdout": inner, "stderr": inner, "env": {"TERM": "xterm", "INPUTRC": os.devnull}}
        self.process: subprocess.Popen[str] = cli.start("sample.py", run, "--interactive", "-n", 2, **terminal)
        os.close(inner)
        self.seen = ""

    def until(self, pattern: str) -> str:
        """Read until the pattern has come, and take it away."""
        limit = time.monotonic() + processes.SECONDS
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < limit and self.process.poll() is None, self.seen
            if select.select([self.end], [], [], 0.1)[0]:
                self.seen += os.read(self.end, 4096).decode()
        self.seen = self.seen[found.end() :]
        return found[0]

    def type(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def close(self) -> int:
        code = self.process.wait(processes.SECONDS)
        os.close(self.end)
        return code


@pytest.mark.slow
def test_history_and_editing_in_a_terminal(cli, run):
    pytest.importorskip("readline")
    arrow_up, arrow_left = "\x1b[A", "\x1b[D"
    terminal = Terminal(cli, run)
    try:
        assert "/quit" in terminal.until(r".*\n> ")
        terminal.type("ad\n")
        assert len(re.findall(r"\nad\w*", terminal.until(r"ad\r\n.*> "))) == 2
        terminal.type("bb\n")
        terminal.until(r"bb\r\n.*\n.*\n.*> ")
        terminal.type(arrow_up + arrow_up)
        terminal.until("ad")
        terminal.type("\n")
        assert len(re.findall(r"\nad\w*", terminal.until(r"\r\n.*> "))) == 2
        terminal.type("e" + arrow_left + "c\n")
        assert len(re.findall(r"\nce\w*", terminal.until(r"\r\n[^>]*> "))) == 2
        terminal.type("\x04")
        assert terminal.close() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    later = Terminal(cli, run)
    try:
        later.until("> ")
        later.type(arrow_up)
        later.until("ce")
        later.type("\n/quit\n")
        assert later.close() == 0
    finally:
        later.process.kill()
        later.process.wait()
