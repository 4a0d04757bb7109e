"""Evaluation and neighbours agree with gensim (extra `peers`) on the same vectors and questions."""

import json
import unicodedata
import warnings

import numpy as np
import pytest

from jaxlm import Embeddings, UserError
from jaxlm.embeddings import reports
from jaxlm.embeddings.intrinsic_evaluation import Section, evaluate_analogies, evaluate_pairs, ranks

pytestmark = [  # of gensim itself
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*unclosed file|Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:Call to deprecated `init_sims`:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def gensim():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("gensim.models").KeyedVectors


def peer(gensim, table):
    theirs = gensim(table.vec_VE.shape[1])
    theirs.add_vectors(list(table.words), table.vec_VE)
    return theirs


@pytest.fixture(scope="module")
def glove(shared_data):
    return Embeddings.load(shared_data / "vectors" / "glove.6B.50d.subset.txt")


def random_table(words, width=8, seed=0):
    return Embeddings(tuple(words), np.random.default_rng(seed).standard_normal((len(words), width)).astype(np.float32))


def assert_same_sections(ours, theirs):
    named = {part["section"]: (len(part["correct"]), len(part["incorrect"])) for part in theirs}
    assert named.pop("Total accuracy") == (ours.total.correct, ours.total.wrong)
    assert named == {part.name: (part.correct, part.wrong) for part in ours.sections}


@pytest.mark.parametrize(
    "file", ["glove.6B.50d.subset.txt", "test_glove.txt", "word2vec_pre_kv_c", "euclidean_vectors.bin"]
)
def test_shared_files_are_read_as_gensim_reads_them(gensim, shared_data, file):
    path = shared_data / "vectors" / file
    theirs = gensim.load_word2vec_format(path, binary=file.endswith("bin"), no_header="glove" in file, limit=3000)
    ours = Embeddings.load(path)
    assert list(ours.words[:3000]) == theirs.index_to_key
    np.testing.assert_array_equal(ours.vec_VE[:3000], theirs.vectors)


@pytest.mark.parametrize("name", ["x.txt", "x.bin", "x.glove.txt", "x.txt.gz", "x.bin.gz"])
def test_a_round_trip_through_gensim_gives_the_same_vectors_and_neighbours(gensim, tmp_path, name):
    table = random_table([f"w{i}é" for i in range(300)])
    table.save(tmp_path / name)
    options = {"binary": ".bin" in name, "no_header": "glove" in name}
    theirs = gensim.load_word2vec_format(tmp_path / name, **options)
    assert tuple(theirs.index_to_key) == table.words
    np.testing.assert_array_equal(theirs.vectors, table.vec_VE)
    back = tmp_path / f"back_{name}"
    theirs.save_word2vec_format(back, binary=options["binary"], write_header=not options["no_header"])
    again = Embeddings.load(back)
    assert again.words == table.words
    np.testing.assert_array_equal(again.vec_VE, table.vec_VE)
    for word in table.words[:20]:
        assert_scored(again.similar(word, 5), theirs.most_similar(word, topn=5))


def assert_scored(ours, theirs):
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=2e-6)


def test_analogies_and_odd_words_are_gensims(gensim):
    table = random_table([f"w{i}" for i in range(400)])
    theirs = peer(gensim, table)
    for i in range(0, 60, 4):
        a, b, c, d = table.words[i : i + 4]
        assert_scored(table.analogy(a, b, c, 4), theirs.most_similar(positive=[b, c], negative=[a], topn=4))
        cosmul = theirs.most_similar_cosmul(positive=[b, c], negative=[a], topn=4)
        assert [word for word, _ in table.analogy(a, b, c, 4, "3cosmul")] == [word for word, _ in cosmul]
        assert table.odd_one_out([a, b, c, d]) == theirs.doesnt_match([a, b, c, d])
        assert table.similarity(a, b) == pytest.approx(theirs.similarity(a, b), abs=1e-6)


CASED = """: capitals of: things
Aa bb CC dd
cc DD aa BB
aa aa bb cc

only three words
aa bb cc zz
: empty
: second
Bb Ee Cc Ff
ee ff ee ff
bb ee cc ee
"""


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("restrict", [3, 5, 9, None])
@pytest.mark.parametrize("fold_case", [True, False])
def test_case_restriction_and_odd_lines_count_as_in_gensim(gensim, tmp_path, seed, restrict, fold_case):
    words = [w for stem in ("aa", "bb", "cc", "dd", "ee", "ff") for w in (stem, stem.upper(), stem.title())]
    words = np.random.default_rng(seed).permutation([*words, "bB", "cC", "eE"]).tolist()
    table = random_table(words, width=2, seed=seed)
    (tmp_path / "questions.txt").write_text(CASED)
    ours = evaluate_analogies(table, tmp_path / "questions.txt", restrict=restrict, fold_case=fold_case)
    _, theirs = peer(gensim, table).evaluate_word_analogies(
        str(tmp_path / "questions.txt"), restrict_vocab=restrict, case_insensitive=fold_case
    )
    assert_same_sections(ours, theirs)
    assert ours.malformed == 1
    assert ours.total.unknown == 7 - ours.total.correct - ours.total.wrong


def test_where_all_candidates_are_spellings_of_the_question_the_last_counts_as_in_gensim(gensim, tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text(": one\nbb ee cc ee\n: two\nbb ee cc cc\n")
    right = set()
    for seed in range(30):
        table = random_table(["bb", "ee", "cc", "Cc", "CC", "cC", "Ee", "EE", "eE"], width=2, seed=seed)
        ours = evaluate_analogies(table, path)
        _, theirs = peer(gensim, table).evaluate_word_analogies(str(path))
        assert_same_sections(ours, theirs)
        right.add(ours.sections[0].correct)
    assert right == {0, 1}


def test_questions_words_counts_are_gensims(gensim, glove, shared_data, tmp_path):
    """Every 29th question is used; all of them agree too, but take gensim fifty seconds."""
    lines = (shared_data / "analogies" / "questions-words.txt").read_text().splitlines()
    some = [line for i, line in enumerate(lines) if line.startswith(":") or i % 29 == 0]
    (tmp_path / "some.txt").write_text("\n".join(some))
    score = evaluate_analogies(glove, tmp_path / "some.txt", restrict=9000)
    _, theirs = peer(gensim, glove).evaluate_word_analogies(str(tmp_path / "some.txt"), restrict_vocab=9000)
    assert_same_sections(score, theirs)
    assert score.total.correct > 100 and score.total.unknown > 100


@pytest.mark.parametrize("restrict", [300_000, 4000])
@pytest.mark.parametrize("file", ["wordsim353.tsv", "simlex999.txt"])
def test_pairs_correlate_as_in_gensim(gensim, glove, shared_data, file, restrict):
    path = shared_data / "analogies" / file
    ours = evaluate_pairs(glove, path, restrict=restrict)
    pearson, spearman, unknown = peer(gensim, glove).evaluate_word_pairs(str(path), restrict_vocab=restrict)
    assert ours.spearman == pytest.approx(spearman[0], abs=1e-9)
    assert ours.pearson == pytest.approx(pearson[0], abs=1e-7)
    assert 100 * ours.unknown_share == pytest.approx(unknown)
    assert (ours.unknown > 0) == (restrict == 4000)


def test_odd_lines_of_pairs_count_as_in_gensim(gensim, tmp_path):
    table = random_table(["Cat", "cat", "dog", "cow", "ox", "a b"])
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "Word 1\tWord 2\tmean\n# a\tb\t1\n\nCAT\tdog\t3.5\ncow\tox\t 1 \ndog\tox\t3.5\na b\tcow\t0\nelk\tox\t2\n"
        "cow\tdog\ncow dog 2\n"
    )
    ours = evaluate_pairs(table, path)
    pearson, spearman, unknown = peer(gensim, table).evaluate_word_pairs(str(path))
    assert (ours.pairs, ours.unknown, ours.malformed) == (4, 1, 3) and unknown == 20
    assert ours.spearman == pytest.approx(spearman[0], abs=1e-9)
    assert ours.pearson == pytest.approx(pearson[0], abs=1e-6)


def test_equal_values_share_a_rank():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1, 3, 2, 3])), [4, 1, 4, 2, 4])


def test_files_without_questions_or_scores_are_refused(tmp_path):
    table = random_table(["a", "b", "c"])
    path = tmp_path / "file"
    path.write_text("a b c a\n")
    with pytest.raises(UserError, match=r"line 1 wants a section first \(': name'\), got 'a b c a'"):
        evaluate_analogies(table, path)
    with pytest.raises(UserError, match=r"wants lines 'word TAB word TAB score'.*got 0 of known words \(0 .* 1 other"):
        evaluate_pairs(table, path)
    with pytest.raises(UserError, match="restrict wants a number of words >= 1, got 0"):
        evaluate_pairs(table, path, restrict=0)
    with pytest.raises(UserError, match=r"does not exist \(did you mean '.*file'\?\)"):
        evaluate_pairs(table, tmp_path / "fiel")
    path.write_bytes(b": a\n\xff")
    with pytest.raises(UserError, match="wants UTF-8, got byte 0xff"):
        evaluate_analogies(table, path)


def test_accuracy_is_reported_by_section_and_in_total(tmp_path):
    table = random_table(["a", "b", "c", "d"])
    path = tmp_path / "questions"
    path.write_text(": one\na b c d\na b c x\n: two\nb c x a\n")
    score = evaluate_analogies(table, path)  # of four words the fourth is the only answer
    assert score.sections == (Section("one", 1, 0, 1), Section("two", 0, 0, 1))
    assert score.total == Section("total", 1, 0, 2)
    assert score.sections[1].accuracy is None
    rows = [line.split() for line in reports.report_analogy_accuracy(table, path).splitlines()]
    assert rows[1:] == [
        ["one", "1", "1", "100.0%", "1"],
        ["two", "0", "0", "-", "1"],
        ["total", "1", "1", "100.0%", "2"],
    ]
    answer = json.loads(reports.report_analogy_accuracy(table, path, as_json=True))
    assert answer["total"] == {"name": "total", "correct": 1, "wrong": 0, "unknown": 2, "accuracy": 1.0}
    assert [part["accuracy"] for part in answer["sections"]] == [1.0, None]
    path.write_text("a\tb\t1\nb\tc\t2\na\tc\t2.5\na\tx\t1\n")
    line = reports.report_pair_correlation(table, path)
    assert line.startswith("Spearman ") and line.endswith("over 3 pairs; 1 more (25.0% of all) has an unknown word")
    assert json.loads(reports.report_pair_correlation(table, path, as_json=True))["unknown_share"] == 0.25


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_questions_and_pairs_have_any_line_end_and_normal_form(tmp_path, form):
    table = random_table([unicodedata.normalize(form, word) for word in ("é", "b", "c", "d")])
    path = tmp_path / "questions"
    path.write_bytes(": one\re\u0301 b c d\r\n\u00e9 b c d\n".encode())
    assert evaluate_analogies(table, path).total == Section("total", 2, 0, 0)
    path.write_bytes("e\u0301\tb\t1\r\u00e9\tc\t2\r\nb\tc\t3".encode())
    assert evaluate_pairs(table, path).pairs == 3
