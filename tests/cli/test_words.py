"""sample.py on vectors of words: each question's answer, and one line for what does not go together."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from jaxlm import Embeddings, UserError
from jaxlm.cli.sample import answer
from jaxlm.cli.sample_command import parse_sample
from tests import processes
from tests.processes import refused

WORDS = ("king", "queen", "man", "woman", "prince", "saw")
VEC_VE = np.array([[3, 1, 0], [3, -1, 0], [1, 1, 0], [1, -1, 0], [3, 1.5, 0.2], [0, 0, 1]], np.float32)


@pytest.fixture
def file(tmp_path):
    """Six words whose first number is how royal, whose second how male they are."""
    path = tmp_path / "vectors.txt"
    Embeddings(WORDS, VEC_VE).save(path)
    return path


@pytest.fixture
def ask(capsys, file):
    """What sample.py prints about the file, which the arguments ask about."""

    def asked(*args):
        answer(parse_sample([str(file), *map(str, args)]))
        return capsys.readouterr().out

    return asked


def cosine(a, b):
    a_E, b_E = VEC_VE[WORDS.index(a)], VEC_VE[WORDS.index(b)]
    return a_E @ b_E / np.linalg.norm(a_E) / np.linalg.norm(b_E)


def test_neighbours_are_printed_with_their_cosines(ask):
    lines = [line.split() for line in ask("--similar", "king", "--top", 2).splitlines()]
    assert [word for word, _ in lines] == ["prince", "man"]
    assert float(lines[0][1]) == pytest.approx(cosine("king", "prince"), abs=1e-4)
    told = json.loads(ask("--similar", "king", "--json"))
    assert told["word"] == "king" and len(told["similar"]) == len(WORDS) - 1


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_analogies_are_answered_by_both_methods(ask, method):
    told = json.loads(ask("--analogy", "man", "king", "woman", "--method", method, "--top", 1, "--json"))
    assert told["method"] == method and [found["word"] for found in told["answers"]] == ["queen"]
    assert ask("--analogy", "man", "king", "woman", "--method", method).splitlines()[1].startswith("queen")


def test_the_odd_word_comes_first(ask):
    assert ask("--odd-one-out", "king", "saw", "prince", "queen").splitlines()[0] == "saw"
    assert json.loads(ask("--odd-one-out", "king", "saw", "prince", "--json"))["odd"] == "saw"


def test_files_of_questions_and_of_pairs_are_scored(ask, tmp_path):
    questions, pairs = tmp_path / "questions.txt", tmp_path / "pairs.tsv"
    questions.write_text(": royal\nman king woman queen\nman king woman nobody\n")
    pairs.write_text("king\tprince\t9\nking\tqueen\t7\nking\tsaw\t1\n")
    total = json.loads(ask("--evaluate", questions, "--json"))["total"]
    assert (total["correct"], total["wrong"], total["unknown"]) == (1, 0, 1)
    assert "100.0%" in ask("--evaluate", questions)
    assert ask("--pairs", pairs).startswith("Spearman 1.0000")


@pytest.mark.parametrize("name", ["v.txt", "v.bin", "v.glove.txt", "v.bin.gz"])
def test_an_exported_table_comes_back(ask, tmp_path, name):
    assert ask("--export", tmp_path / name).strip() == f"6 words x 3 in {tmp_path / name}"
    again = Embeddings.load(tmp_path / name)
    assert again.words == WORDS
    np.testing.assert_array_equal(again.vec_VE, VEC_VE)


def test_words_are_drawn_where_it_is_said(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask("--plot-words").strip() == "6 words in words-pca.png"
    assert json.loads(ask("--plot-words", "--top", 4, "--projection", "tsne", "--json"))["words"] == 4
    out = tmp_path / "new" / "some.png"
    assert ask("--plot-words", "king", "queen", "man", "saw", "--out", out).strip() == f"4 words in {out}"
    for path in (tmp_path / "words-pca.png", tmp_path / "words-tsne.png", out):
        assert imread(path)[..., :3].std() > 0.01


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--similar", "king", "--pairs", "p.tsv"], ["--similar and --pairs exclude each other"]),
        (["--similar", "king", "--compare"], ["--compare and --similar exclude each other"]),
        (["--similar", "king", "--temperature", "1"], ["--temperature is for language models and --similar"]),
        (["-n", "20", "--export", "v.txt"], ["-n is for language models and --export"]),
        (["--prompt=a", "--odd_one_out", "a", "b"], ["--prompt is for language models and --odd-one-out"]),
        (["--top", "3"], ["--top goes with --similar or --analogy or --plot-words"]),
        (["--similar", "king", "--method", "3cosadd"], ["--method goes with --analogy"]),
        (["--similar", "king", "--projection", "pca"], ["--projection goes with --plot-words"]),
        (["--export", "v.txt", "--out", "p.png"], ["--out goes with --plot-words"]),
        (["--plot-words", "a", "b", "--top", "2"], ["--top and the words of --plot-words exclude"]),
        (["--similar", "king", "--top", "0"], ["--top wants a number >= 1, got 0"]),
        (["--analogy", "man", "king"], ["--analogy wants three words", "got 2"]),
        (["--similar", "kinge"], ["word 'kinge' is not among the 6 known", "'king'"]),
        (["--odd-one-out", "king", "man"], ["odd-one-out wants at least 3 words, got 2"]),
        (["--similar", "king", "--checkpoint", "best"], ["--checkpoint wants a run directory", "is a file"]),
        (["--temperature", "1"], ["--temperature wants the run directory of a language model", "is a file"]),
        ([], ["is a file", "--similar", "or --plot-words"]),
        (["--export", "v.png"], ["v.png", ".bin"]),
        (["--evaluate", "nothing.txt"], ["nothing.txt", "does not exist"]),
        (["--plot-words", "king", "man"], ["at least 4 different ones, got 2"]),
        (["--plot-words", "--out", "p.doc"], ["--out 'p.doc' cannot be drawn"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_what_does_not_go_together_is_one_line(ask, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as told:
        ask(*args)
    for word in words:
        assert word in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.txt"]


def test_a_picture_that_cannot_be_written_is_one_line(ask, file):
    with pytest.raises(UserError, match=r"the picture .* cannot be written"):
        ask("--plot-words", "--out", file / "words.png")


def test_a_language_model_is_not_asked_about_words(mlp_run):
    with pytest.raises(UserError, match=r"--similar is for vectors of words; run .* is a language model"):
        answer(parse_sample([str(mlp_run.path), "--similar", "emma"]))


@pytest.mark.slow
def test_the_whole_command_answers_and_refuses(tmp_path_factory, file):
    cli = processes.cli(tmp_path_factory)
    done = cli.sample(file, "--similar", "king", "--top", "1")
    assert done.code == 0 and done.stdout.split()[0] == "prince", done.stderr
    refused(cli.sample(file, "--similar", "king", "-n", "3"), "-n is for language models")
    refused(cli.sample(file, "--similer", "king"), "--similer is not a setting", "did you mean --similar?")
