"""Text to splits of tokens."""

import hashlib
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import DataConfig
from jaxlm.data import corpus as corpora
from jaxlm.data.corpus import (
    MAX_AGE,
    SPLITS,
    encode_text,
    from_lines,
    from_stream,
    line_hash,
    line_hashes,
    load,
    shares,
)
from jaxlm.errors import UserError
from jaxlm.tokenizers import CharTokenizer

NAMES = "emma\nolivia\nava\nisabella\nsophia\nava\nmia\nzoë\no'brien\nmary ann\n3.14\n"
LINES = st.lists(st.text("abé .'", min_size=1, max_size=9).filter(str.strip), min_size=1, max_size=12)
SPLIT = st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (0.5, 0.0, 0.5), (0.1, 0.1, 0.8), (1.0, 0.0, 0.0)])


def lectures_split(lines, seed):
    """The split of the makemore lectures: random.seed(42), shuffle, int(0.8 n), int(0.9 n)."""
    lines = list(lines)
    random.seed(seed)
    random.shuffle(lines)
    n1, n2 = int(0.8 * len(lines)), int(0.9 * len(lines))
    return {"train": lines[:n1], "dev": lines[n1:n2], "test": lines[n2:]}


@pytest.mark.parametrize("seed", [42, 7])
def test_lines_are_split_as_in_the_lecture(seed):
    lines = [f"name{i}" for i in range(103)]
    corpus = from_lines("\n".join(lines), DataConfig(split_seed=seed))
    assert corpus.lines == lectures_split(lines, seed)


@settings(deadline=None)
@given(LINES, SPLIT)
def test_every_line_is_in_one_split_and_its_tokens_end_with_the_boundary(lines, split):
    corpus = from_lines("\n".join(lines), DataConfig(split=split))
    assert Counter(line for part in corpus.lines.values() for line in part) == Counter(lines)
    for name in SPLITS:
        spelled = [token for line in corpus.lines[name] for token in [*corpus.tokenizer.encode(line).tolist(), 0]]
        assert corpus.tokens(name).tolist() == spelled
        assert corpus.size(name) == len(spelled)
    assert corpus.lines["train"]
    assert corpus.longest == max(map(len, lines)) + 1


@given(st.integers(1, 100_000))
def test_shares_are_the_lectures_ints_and_train_has_one_at_least(n):
    assert shares(n, (0.8, 0.1, 0.1)) == (max(1, int(0.8 * n)), max(1, int(0.9 * n)))


@given(st.integers(1, 100_000), st.integers(1, 100), st.integers(0, 100), st.integers(0, 100))
def test_shares_of_any_split_are_within_one_of_the_exact_numbers(n, a, b, c):
    total = a + b + c
    first, second = shares(n, (a / total, b / total, c / total))
    assert 1 <= first <= second <= n
    assert abs(first - max(1, n * a / total)) <= 1
    assert abs(second - max(1, n * (a + b) / total)) <= 1
    assert b or first == second
    assert c or second == n


@pytest.mark.parametrize(
    ("n", "split", "cuts"),
    [
        (100, (0.29, 0.71, 0.0), (29, 100)),  # 0.29 * 100 is just below 29
        (1000, (0.3333333, 0.6666666, 0.0), (333, 1000)),
        (1000, (0.9999995, 0.0, 0.0), (1000, 1000)),
    ],
)
def test_shares_that_are_rounded_lose_no_line(n, split, cuts):
    assert shares(n, DataConfig(split=split).split) == cuts


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ((1.0, 0.0, 0.0), (11, 0, 0)),
        ((0.9, 0.1, 0.0), (9, 2, 0)),
        ((0.5, 0.0, 0.5), (5, 0, 6)),
        ((0.01, 0, 0.99), (1, 0, 10)),
    ],
)
def test_a_share_of_zero_gives_an_empty_split(split, sizes):
    corpus = from_lines(NAMES, DataConfig(split=split))
    assert tuple(len(corpus.lines[name]) for name in SPLITS) == sizes


@pytest.mark.parametrize("kind", ["lines", "stream"])
def test_one_line_is_train(kind):
    corpus = encode_split("emma", kind)
    assert corpus.size("train") > 0
    assert "".join(corpus.tokenizer.decode(corpus.tokens(name)) for name in SPLITS) == "emma"
    assert from_lines("emma\n", DataConfig()).lines == {"train": ["emma"], "dev": [], "test": []}
    assert from_stream("x", DataConfig(kind="stream")).bounds == {"train": (0, 1), "dev": (1, 1), "test": (1, 1)}


def encode_split(text, kind):
    config = DataConfig(kind=kind)
    return from_lines(text, config) if kind == "lines" else from_stream(text, config)


def test_blank_lines_are_left_out_and_repeated_ones_stay():
    corpus = from_lines("\n ava\n\n  \nava\nava \n\t\n", DataConfig(split=(1, 0, 0)))
    assert sorted(corpus.lines["train"]) == [" ava", "ava", "ava "]


def test_nothing_but_blank_lines_is_refused():
    with pytest.raises(UserError, match=r"^data\.path wants at least one line with text"):
        from_lines("\n \n\t\n", DataConfig())


def test_a_stream_is_cut_by_position_and_keeps_its_line_ends():
    text = "".join(f"line {i}\n\n" for i in range(20))
    corpus = from_stream(text, DataConfig(kind="stream"))
    n1, n2 = int(0.8 * len(text)), int(0.9 * len(text))
    parts = {"train": text[:n1], "dev": text[n1:n2], "test": text[n2:]}
    for name, part in parts.items():
        assert corpus.tokenizer.decode(corpus.tokens(name)) == part
        start, end = corpus.bounds[name]
        assert corpus.age_N[start:end].tolist() == list(range(end - start))
    assert (corpus.tokens_N > 0).all()
    assert corpus.longest == n1
    assert corpus.lines == {}  # no sample of running text is a line of it


def test_the_age_of_a_token_stops_at_what_16_bits_hold():
    size = MAX_AGE + 10
    corpus = from_lines("a" * size + "\nb", DataConfig(split=(1, 0, 0)))
    ages = [min(i, MAX_AGE) for i in range(size + 1)]
    expected = [*ages, 0, 1] if corpus.lines["train"][0][0] == "a" else [0, 1, *ages]
    assert corpus.age_N.dtype == np.uint16
    np.testing.assert_array_equal(corpus.age_N, expected)
    stream = from_stream("a" * size, DataConfig(kind="stream", split=(1, 0, 0)))
    np.testing.assert_array_equal(stream.age_N, ages[:-1])


def test_the_hashes_tell_data_and_splits_apart_and_nothing_else():
    def hashes(text=NAMES, kind="lines", **settings):
        config = DataConfig(kind=kind, **settings)
        corpus = from_lines(text, config) if kind == "lines" else from_stream(text, config)
        return corpus.data_hash, corpus.split_hash

    data, split = hashes()
    assert hashes() == (data, split)
    assert hashes("\n\n" + NAMES) == (data, split)
    assert hashes(NAMES.replace("mia", "mía")) == (hashes(NAMES.replace("mia", "mía"))[0], split)
    assert hashes(NAMES.replace("mia", "mía"))[0] != data
    assert hashes("\n".join(reversed(NAMES.split("\n"))))[0] != data
    for changed in ({"split_seed": 43}, {"split": (0.9, 0.1, 0.0)}, {"kind": "stream"}):
        assert hashes(**changed)[1] != split


def test_crlf_gives_the_same_corpus_as_lf(tmp_path):
    (tmp_path / "lf.txt").write_bytes(NAMES.encode())
    (tmp_path / "crlf.txt").write_bytes(NAMES.replace("\n", "\r\n").encode())
    lf, crlf = (load(DataConfig(path=str(tmp_path / name))) for name in ("lf.txt", "crlf.txt"))
    assert (lf.data_hash, lf.lines, lf.tokenizer) == (crlf.data_hash, crlf.lines, crlf.tokenizer)


def test_loading_takes_the_kind_from_the_settings(tmp_path):
    (tmp_path / "names.txt").write_text(NAMES)
    config = DataConfig(path=str(tmp_path / "names.txt"))
    assert load(config).tokenizer == CharTokenizer.of_text(NAMES.replace("\n", ""))
    assert load(DataConfig(path=config.path, kind="stream")).tokenizer == CharTokenizer.of_text(NAMES)


def test_a_text_to_score_is_all_train():
    tokenizer = CharTokenizer.of_text("ab\n")
    lines = encode_text("ab\n\nb", tokenizer, "lines")
    assert lines.tokens("train").tolist() == [*tokenizer.encode("ab").tolist(), 0, *tokenizer.encode("b").tolist(), 0]
    assert lines.age_N.tolist() == [0, 1, 2, 0, 1]
    stream = encode_text("ab\n\nb", tokenizer, "stream")
    assert tokenizer.decode(stream.tokens("train")) == "ab\n\nb"
    assert stream.age_N.tolist() == [0, 1, 2, 3, 4]
    assert lines.size("dev") == lines.size("test") == stream.size("dev") == 0


@pytest.mark.parametrize("kind", ["lines", "stream"])
def test_a_text_to_score_must_be_known_and_not_blank(kind):
    with pytest.raises(UserError, match="'z'"):
        encode_text("abz", CharTokenizer("ab"), kind)
    with pytest.raises(UserError, match="at least one line with text"):
        encode_text("\n \n", CharTokenizer("ab\n "), kind)


@given(st.lists(st.text()))
def test_line_hashes_are_sorted_and_distinct_blake2(lines):
    hashes = line_hashes(lines)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == sorted({line_hash(line) for line in lines})
    for line in lines:
        digest = hashlib.blake2b(line.encode(), digest_size=8).digest()
        assert line_hash(line) == int(np.frombuffer(digest, "<u8")[0])


def test_makemores_names_give_the_lectures_number_of_examples(shared_data):
    corpus = load(DataConfig(path=str(shared_data / "names" / "makemore_names.txt")))
    assert [corpus.size(name) for name in SPLITS] == [182_625, 22_655, 22_866]
    assert corpus.tokenizer.vocab_size == 27


def test_tiny_shakespeare_gives_nanogpts_number_of_tokens(shared_data):
    path = str(shared_data / "shakespeare" / "tinyshakespeare.txt")
    corpus = load(DataConfig(path=path, kind="stream", split=(0.9, 0.1, 0)))
    assert [corpus.size(name) for name in SPLITS] == [1_003_854, 111_540, 0]
    assert corpus.tokenizer.vocab_size == 65 + 1


def test_line_ages_start_anew_after_each_boundary():
    assert corpora.line_ages(np.array([3, 1, 0, 0, 2, 0, 5])).tolist() == [0, 1, 2, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "kind", "note"),
    [
        ("emma\rolivia\r\nava\n", "lines", None),
        ("a long text on one line", "lines", "note: the text has one line; .*give --data.kind stream$"),
        ("emma\n" + "so " * 2000, "lines", "note: a line of the text has 6,000 characters; .*give --data.kind stream$"),
        ("so " * 2000, "stream", None),
    ],
)
def test_running_text_that_is_read_as_lines_is_noted(tmp_path, text, kind, note):
    (tmp_path / "my.txt").write_text(text, newline="")
    notes = load(DataConfig(path=str(tmp_path / "my.txt"), kind=kind)).notes
    assert [*map(bool, notes)] == [True] * (note is not None)
    assert note is None or re.match(note, notes[0])


@pytest.mark.parametrize("kind", ["lines", "stream", "dialogues"])
def test_an_unknown_character_is_named_with_its_place(tmp_path, kind):
    tokenizer, text = CharTokenizer.of_text("human network:\n"), "human: n\r\n\r\nnetwork: ü\nhuman: tü\n"
    with pytest.raises(UserError, match=r"^line 3, column 10: the character 'ü' \(U\+00FC\) is not in this tokenizer"):
        encode_text(text.replace("\r", ""), tokenizer, kind)
    (tmp_path / "my.txt").write_text(text, newline="")
    with pytest.raises(UserError, match=r"^init_from: line 3, column 10: the character 'ü'"):
        load(DataConfig(path=str(tmp_path / "my.txt"), kind=kind), tokenizer)
