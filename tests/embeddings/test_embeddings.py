"""A table of vectors agrees with plain NumPy, and mistakes are refused in one line."""

import json
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import Embeddings, UserError
from jaxlm.embeddings import reports, search
from jaxlm.embeddings.spelling import near_spellings


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def best(score_BV, k):
    """Indices of the k largest columns, ties ordered by column."""
    return np.argsort(-score_BV, axis=1, kind="stable")[:, :k]


@pytest.fixture(scope="module")
def table():
    """Two capitals and countries on a grid (France, Italy, capital), and two unrelated words."""
    rows = {
        "paris": (1, 0, 1),
        "france": (1, 0, 0),
        "rome": (0, 1, 1),
        "italy": (0, 1, 0),
        "banana": (-1, -1, 0.2),
        "apple": (-1, -0.9, 0.1),
    }
    return Embeddings(tuple(rows), np.array(list(rows.values()), np.float32))


@pytest.mark.parametrize(("V", "B", "k"), [(1, 1, 1), (7, 3, 10), (700, 3, 2), (20_000, 300, 3)])
def test_nearest_is_what_sorting_all_cosines_gives(V, B, k):
    table_VE, query_BE = unit(normal(V, 6)), normal(B, 6, seed=1)
    found = search.nearest_rows(jnp.asarray(table_VE), jnp.asarray(query_BE), k)
    cos_BV = unit(query_BE).astype(np.float64) @ table_VE.astype(np.float64).T
    assert found.row_BK.shape == (B, min(k, V))
    np.testing.assert_array_equal(found.row_BK, best(cos_BV, k))
    np.testing.assert_allclose(found.score_BK, -np.sort(-cos_BV, axis=1)[:, :k], atol=1e-6)


def test_of_equal_rows_the_lower_comes_first_across_blocks_and_groups():
    table_VE = np.tile(unit(normal(50, 4)), (400, 1))
    found = search.nearest_rows(jnp.asarray(table_VE), jnp.asarray(table_VE[:300]), 5)
    np.testing.assert_array_equal(found.row_BK, np.arange(300)[:, None] % 50 + np.arange(5) * 50)


def test_of_equal_rows_the_lower_comes_first_after_a_better_one_in_a_later_group():
    cos_V = np.zeros(700, np.float32)
    cos_V[[10, 330, 331]] = 0.5, 0.9, 0.5
    table_VE = np.stack([cos_V, np.sqrt(1 - cos_V**2)], axis=1)
    found = search.nearest_rows(jnp.asarray(table_VE), jnp.array([[1.0, 0.0]]), 2)
    assert found.row_BK[0].tolist() == [330, 10]


@pytest.mark.slow
def test_neighbours_can_be_more_than_a_block():
    table_VE = unit(normal(1500, 4))
    found = search.nearest_rows(jnp.asarray(table_VE), jnp.asarray(np.tile(table_VE[:1], (4096, 1))), 700)
    cos_BV = table_VE[:1].astype(np.float64) @ table_VE.T.astype(np.float64)
    np.testing.assert_array_equal(found.row_BK[7], best(cos_BV, 700)[0])


def test_excluded_rows_are_left_out_and_missing_rows_are_marked():
    table_VE = unit(normal(4, 3))
    exclude_BX = jnp.array([[0, 1, 1], [-1, -1, -1]])
    found = search.nearest_rows(jnp.asarray(table_VE), jnp.asarray(table_VE[:2]), 4, exclude_BX)
    assert set(found.row_BK[0].tolist()) == {2, 3, -1}
    assert found.row_BK[0, 2:].tolist() == [-1, -1] and np.isneginf(found.score_BK[0, 2:]).all()
    assert sorted(found.row_BK[1].tolist()) == [0, 1, 2, 3] and found.row_BK[1, 0] == 1


def test_no_array_of_batch_by_vocabulary_is_made():
    V, B = 100_000, 1000
    shapes = jax.ShapeDtypeStruct((V, 8), jnp.float32), jax.ShapeDtypeStruct((B, 8), jnp.float32)
    compiled = jax.jit(lambda table_VE, query_BE: search.nearest_rows(table_VE, query_BE, 10)).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < B * V * 4 / 4


def test_a_row_of_zeros_is_orthogonal_to_all():
    unit_NE = search.unit_rows(jnp.array([[0.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(unit_NE, np.array([[0, 0], [0.6, 0.8]]), atol=1e-7)
    np.testing.assert_allclose(search.similarity(unit_NE[:1], unit_NE), np.zeros(2))


@pytest.mark.parametrize("scale", [3e38, 1e25, 1.0, 1e-25, 1e-30, 1e-36])
def test_cosines_do_not_depend_on_the_length_of_vectors(scale):
    x_NE = np.float32(scale) * np.clip(normal(8, 5), -1, 1)
    exact_NE = unit(x_NE.astype(np.float64))
    np.testing.assert_allclose(search.unit_rows(jnp.asarray(x_NE)), exact_NE, rtol=1e-5, atol=1e-7)
    table = Embeddings(tuple("abcdefgh"), x_NE)
    assert table.similarity("a", "b") == pytest.approx(exact_NE[0] @ exact_NE[1], abs=1e-6)
    cosines = dict(table.similar("a", 7))
    assert cosines == pytest.approx(dict(zip("bcdefgh", exact_NE[1:] @ exact_NE[0], strict=True)), abs=1e-6)


def test_both_analogies_are_their_formulas():
    table_VE = unit(normal(500, 12))
    abc_B3 = np.random.default_rng(2).integers(0, 500, (40, 3)).astype(np.int32)
    a_BE, b_BE, c_BE = (table_VE[abc_B3[:, i]].astype(np.float64) for i in range(3))
    add_BV = unit(b_BE - a_BE + c_BE) @ table_VE.T
    a_BV, b_BV, c_BV = ((1 + x_BE @ table_VE.T) / 2 for x_BE in (a_BE, b_BE, c_BE))
    mul_BV = b_BV * c_BV / (a_BV + 1e-6)
    for analogy, score_BV in ((search.analogy_cosadd, add_BV), (search.analogy_cosmul, mul_BV)):
        np.put_along_axis(score_BV, abc_B3, -np.inf, axis=1)
        found = analogy(jnp.asarray(table_VE), jnp.asarray(abc_B3), 4)
        np.testing.assert_array_equal(found.row_BK, best(score_BV, 4))
        np.testing.assert_allclose(found.score_BK, -np.sort(-score_BV, axis=1)[:, :4], rtol=1e-4)
    assert (best(add_BV, 4) != best(mul_BV, 4)).any()


def test_words_are_queried_by_name(table):
    everything = table.similar("banana", 100)
    assert everything[0][0] == "apple" and len(everything) == 5
    assert table.analogy("france", "paris", "italy", 1)[0][0] == "rome"
    assert table.analogy("france", "paris", "italy", 1, "3cosmul")[0][0] == "rome"
    assert table.odd_one_out(["paris", "rome", "banana", "italy"]) == "banana"
    assert table.similarity("paris", "france") == pytest.approx(2**-0.5, abs=1e-6)
    assert "paris" in table and "london" not in table and len(table) == 6
    np.testing.assert_array_equal(table["rome"], [0, 1, 1])


def test_unknown_words_get_near_spellings(table):
    with pytest.raises(UserError, match=r"word 'pariss' is not among the 6 known \(did you mean 'paris'\?\)"):
        table.similar("pariss")
    with pytest.raises(UserError, match=r"word 'Rome' .*'rome'"):
        table.odd_one_out(["paris", "Rome", "italy"])
    with pytest.raises(UserError, match=r"word 'xyzzy' is not among the 6 known$"):
        table.analogy("paris", "xyzzy", "rome")
    assert near_spellings("beleive", ["relieved", "believe", "cat", ""]) == ["believe"]
    assert near_spellings("PARIS", ["parish", "Paris"])[0] == "Paris"
    assert near_spellings("", ["a"]) == []


@pytest.mark.parametrize(
    ("words", "shape"), [(("a", "b"), (3, 2)), (("a", "b"), (2,)), (("a", "a"), (2, 2))], ids=["rows", "flat", "twice"]
)
def test_words_and_vectors_must_fit(words, shape):
    with pytest.raises(ValueError, match="Embeddings wants"):
        Embeddings(words, np.zeros(shape, np.float32))


def test_answers_as_text_and_as_json(table, tmp_path):
    assert reports.report_similar(table, "banana", 1).split() == ["apple", f"{table.similarity('banana', 'apple'):.4f}"]
    assert json.loads(reports.report_similar(table, "banana", 2, True))["similar"][0]["word"] == "apple"
    lines = reports.report_analogy(table, ["france", "paris", "italy"], 2).splitlines()
    assert lines[0] == "france is to paris as italy is to ... (3cosadd)" and lines[1].split()[0] == "rome"
    answer = json.loads(reports.report_analogy(table, ["france", "paris", "italy"], 1, "3cosmul", True))
    assert answer["method"] == "3cosmul" and [one["word"] for one in answer["answers"]] == ["rome"]
    words = ["paris", "rome", "banana", "italy"]
    assert reports.report_odd_one_out(table, words).splitlines()[0] == "banana"
    assert json.loads(reports.report_odd_one_out(table, words, True))["odd"] == "banana"
    (tmp_path / "questions").write_text(": all\nfrance paris italy rome\nonly three words\n")
    assert reports.report_analogy_accuracy(table, tmp_path / "questions").endswith(
        "\n1 line is not four words; it is left out"
    )
    (tmp_path / "questions").write_text(": all\nfrance paris italy rome\nonly three words\none\n")
    assert reports.report_analogy_accuracy(table, tmp_path / "questions").endswith(
        "\n2 lines are not four words; they are left out"
    )
    assert reports.export(table, tmp_path / "x.bin") == f"6 words x 3 in {tmp_path / 'x.bin'}"
    assert json.loads(reports.export(table, tmp_path / "x.txt", True))["words"] == 6
    assert Embeddings.load(tmp_path / "x.bin").words == Embeddings.load(tmp_path / "x.txt").words == table.words


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda table: reports.report_similar(table, "rome", 0), "--top wants a number >= 1, got 0"),
        (lambda table: reports.report_analogy(table, ["rome"]), r"--analogy wants three words .*got 1"),
        (
            lambda table: reports.report_analogy(table, ["rome"] * 3, 1, "best"),  # type: ignore[arg-type]
            "wants 3cosadd or 3cosmul, got 'best'",
        ),
        (lambda table: reports.report_odd_one_out(table, ["rome", "paris"]), "wants at least 3 words, got 2"),
    ],
)
def test_an_invalid_query_is_refused(table, question, message):
    with pytest.raises(UserError, match=message):
        question(table)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_word_is_found_in_either_normal_form(form):
    words = ["café", "thé", "été", "x"]
    vectors = Embeddings(tuple(unicodedata.normalize(form, word) for word in words), np.eye(4, dtype=np.float32))
    for other in ("NFC", "NFD"):
        assert vectors.rows([unicodedata.normalize(other, word) for word in words]).tolist() == [0, 1, 2, 3]
        assert unicodedata.normalize(other, "été") in vectors
    assert "éte" not in vectors and 1 not in vectors
    with pytest.raises(UserError, match="word 'éte' is not among"):
        vectors.rows(["éte"])
