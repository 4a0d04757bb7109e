"""Text to words to numbers of words: against plain Python, block by block, and from the cache."""

import itertools
import os
import re
from collections import Counter

import numpy as np
import pytest

import jaxlm
from jaxlm import text_files
from jaxlm.data import cache
from jaxlm.tokenizers import WordTokenizer
from jaxlm.word2vec import corpus as word_corpora
from jaxlm.word2vec import vocabulary
from jaxlm.word2vec.vocabulary import END

TEXT = "The new york times.\nNew York, new york!\n\nIt's a déjà_vu 42 times\nnew york\n"


def tokens_of(text, lines=True, **settings):
    config = jaxlm.WordsConfig(**settings)
    return [
        t
        for block in vocabulary.split_words([text], vocabulary.token_pattern(config), config.lower, lines)
        for t in block
    ]


def test_words_are_matches_of_the_pattern_and_lines_are_sentences():
    first_line = ["the", "new", "york", "times", END]
    assert tokens_of(TEXT)[:5] == first_line
    assert tokens_of(TEXT, lines=False)[3:5] == ["times", "new"]
    assert tokens_of("Ab c", lower=False) == ["Ab", "c"]
    assert tokens_of("It's déjà_vu 42") == ["it", "s", "déjà", "vu", "42"]
    assert tokens_of("ab2 c", pattern="[a-z]+") == ["ab", "c"]
    assert tokens_of("a, b.c", punctuation="keep") == ["a", ",", "b", ".", "c"]


def plain_phrases(sentences, min_count, threshold, discount):
    """Every pair of words scored one by one."""
    unigrams = Counter(word for sentence in sentences for word in sentence)
    bigrams = Counter(pair for sentence in sentences for pair in itertools.pairwise(sentence))
    N = np.float64(sum(unigrams.values()))
    return sorted(
        pair
        for pair, count in bigrams.items()
        if min(unigrams[pair[0]], unigrams[pair[1]]) >= min_count
        and (count - discount) / (unigrams[pair[0]] * unigrams[pair[1]]) * N > threshold
    )


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_phrases_are_those_of_the_score(threshold):
    rng = np.random.default_rng(0)
    sentences = [[f"w{n}" for n in rng.zipf(1.5, rng.integers(1, 9)) if n < 30] for _ in range(200)]
    sentences += [["w1", "w2"]] * 20
    tokens = [token for sentence in sentences for token in [*sentence, END]]
    settings = jaxlm.WordsConfig(min_count=3, phrases=threshold, phrase_discount=2.0)
    counts, total = vocabulary.count_tokens([tokens], 1000)
    found = vocabulary.find_phrases([tokens], counts, total, settings)
    assert list(found) == plain_phrases(sentences, 3, threshold, 2.0)
    assert 0 < len(found) < 300


def plain_reduced(blocks, limit):
    """word2phrase's table, block by block: its ReduceVocab drops what was seen least, each time a little more."""
    held: dict[str, int] = {}
    least = 1
    for block in blocks:
        for item in block:
            held[item] = held.get(item, 0) + 1
        while len(held) > limit:
            for item in [item for item in held if held[item] <= least]:
                del held[item]
            least += 1
    return held


def test_counts_beyond_the_limit_drop_the_rarest_and_never_hold_more():
    rng = np.random.default_rng(1)
    blocks = [[f"w{n}" for n in rng.zipf(1.2, 100)] for _ in range(60)]
    whole = Counter(itertools.chain(*blocks))
    for limit in (5, 40, len(whole) - 1):
        for some in (1, 2, 8, 30, 60):
            got = vocabulary.count(blocks[:some], limit)
            assert got == plain_reduced(blocks[:some], limit)
            assert len(got) <= limit
        assert got != whole and all(number <= whole[word] for word, number in got.items())
    assert got.most_common(3) == whole.most_common(3)
    assert vocabulary.count(blocks, len(whole)) == whole


def test_phrases_of_a_long_text_are_found_in_a_table_that_cannot_hold_its_pairs(monkeypatch):
    rng = np.random.default_rng(2)
    blocks = [[*(f"w{n}" for n in rng.integers(0, 50, 300)), *("new", "york", END) * 20] for _ in range(30)]
    settings = jaxlm.WordsConfig(phrases=10.0, max_counted=100)
    tables: list[Counter] = []
    exact = vocabulary.count

    def kept(items, limit):
        tables.append(exact(items, limit))
        return tables[-1]

    monkeypatch.setattr(vocabulary, "count", kept)
    counts, total = vocabulary.count_tokens(blocks, settings.max_counted)
    assert total == 30 * 340
    assert vocabulary.find_phrases(blocks, counts, total, settings) == (("new", "york"),)
    assert len(tables) == 2 and max(map(len, tables)) <= 100


def test_phrases_are_joined_from_left_to_right_and_not_twice():
    joined = {("a", "b"): "a_b", ("b", "c"): "b_c", ("a_b", "c"): "no"}
    assert vocabulary.join_phrases(["a", "b", "c", "b", "c", END, "a", END, "b"], joined) == [
        *("a_b", "c", "b_c", END, "a", END, "b")
    ]


def test_the_vocabulary_has_the_frequent_words_first():
    counts = Counter({"b": 3, "a": 3, "c": 9, "rare": 1})
    assert vocabulary.frequent(counts, 2, None) == [("c", 9), ("a", 3), ("b", 3)]
    assert vocabulary.frequent(counts, 1, 2) == [("c", 9), ("a", 3)]


@pytest.mark.parametrize("size", [7, 16, 1000])
def test_blocks_put_together_are_the_text(tmp_path, monkeypatch, size):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    monkeypatch.setattr(text_files, "BLOCK_BYTES", size)
    blocks = list(vocabulary.read_blocks(path, "data.path"))
    assert "".join(blocks) == TEXT
    assert all(block[-1] in " \n" for block in blocks[:-1])
    assert len(blocks) > 1 or size == 1000
    config = jaxlm.WordsConfig()
    by_block = [t for b in vocabulary.split_words(blocks, config.pattern, True, True) for t in b]
    assert by_block == tokens_of(TEXT)


def test_a_file_that_is_not_utf8_is_told_with_the_place(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(b"good line\n" * 3 + b"bad \xff\n")
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 12)
    with pytest.raises(
        jaxlm.UserError, match=r"data.path wants UTF-8, got byte 0xff at line 4, column 5 \(offset 34\) of .*text.txt"
    ):
        list(vocabulary.read_blocks(path, "data.path"))


def test_a_nul_in_a_later_block_is_no_text_either(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(b"good line\n" * 3 + b"bad \0\n")
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 12)
    with pytest.raises(jaxlm.UserError, match=r"data.path wants a text file, got the binary file '.*text.txt'"):
        list(vocabulary.read_blocks(path, "data.path"))


def test_sentences_are_cut_and_empty_ones_go():
    assert word_corpora.cut_sentences(np.array([0, 0, 1, 2, 3, 4, 5, 0, 0, 6, 7]), 2).tolist() == [
        *(1, 2, 0, 3, 4, 0, 5, 0, 6, 7, 0)
    ]
    assert word_corpora.cut_sentences(np.array([1, 2, 0, 3, 4, 0]), 2).tolist() == [1, 2, 0, 3, 4, 0]
    assert word_corpora.cut_sentences(np.zeros(0, np.int32), 2).tolist() == []


@pytest.fixture
def corpus_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(f"w{n}" for n in rng.integers(0, 40, 8)) for _ in range(300)) + " rare\n")
    return path


def sentences(id_N, tokenizer):
    return [[tokenizer.words[int(t) - 1] for t in s.split()] for s in " ".join(map(str, id_N)).split(" 0") if s.strip()]


def test_splits_hold_each_sentence_once_in_its_order(corpus_file, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 500)
    data = jaxlm.DataConfig(path=str(corpus_file), split=(0.7, 0.2, 0.1))
    corpus = word_corpora.read_words(data, jaxlm.WordsConfig(min_count=2))
    want = [line.replace(" rare", "").split() for line in corpus_file.read_text().splitlines()]
    got = {split: sentences(id_N, corpus.tokenizer) for split, id_N in corpus.ids.items()}
    assert sorted(want) == sorted(itertools.chain(*got.values()))
    for part in got.values():
        places = [want.index(sentence) for sentence in part]
        assert places == sorted(places)
    assert all(abs(len(part) / 300 - share) < 0.1 for part, share in zip(got.values(), data.split, strict=True))
    assert corpus.total_words == 300 * 8 + 1
    assert corpus.ids["train"].dtype == np.uint16 and isinstance(corpus.ids["train"], np.memmap)
    counts = Counter(word for part in got.values() for sentence in part for word in sentence)
    assert dict(zip(corpus.tokenizer.words, corpus.tokenizer.counts, strict=True)) == counts


def test_the_cache_is_used_and_notices_another_text_or_setting(corpus_file, monkeypatch):
    data = jaxlm.DataConfig(path=str(corpus_file))
    first = word_corpora.read_words(data, jaxlm.WordsConfig())
    other = word_corpora.read_words(data, jaxlm.WordsConfig(min_count=70))
    assert other.tokenizer.vocab_size < first.tokenizer.vocab_size
    assert other.data_hash == first.data_hash and other.split_hash != first.split_hash
    with monkeypatch.context() as patch:
        patch.setattr(word_corpora, "_write", None)
        again = word_corpora.read_words(data, jaxlm.WordsConfig())
    assert again.tokenizer == first.tokenizer
    np.testing.assert_array_equal(again.ids["train"], first.ids["train"])
    corpus_file.write_text(corpus_file.read_text() + "w1 w2\n")
    assert word_corpora.read_words(data, jaxlm.WordsConfig()).data_hash != first.data_hash


def test_the_cache_keeps_the_texts_used_last(corpus_file, monkeypatch):
    data, home = jaxlm.DataConfig(path=str(corpus_file)), corpus_file.parent / "cache" / "jaxlm" / "words"

    def used(min_count, after):
        """The entries after a load, `after` seconds after the others."""
        word_corpora.read_words(data, jaxlm.WordsConfig(min_count=min_count))
        entries = set(home.iterdir())
        newest = max(entries, key=lambda entry: entry.stat().st_mtime)
        os.utime(newest, (1e9 + after, 1e9 + after))
        return newest, entries

    first, entries = used(1, 0)
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(word_corpora, "MOST_CACHED", int(2.5 * size))
    second, entries = used(2, 1)
    assert entries == {first, second}
    assert used(1, 2)[0] == first  # read again: second is now the one that was used least recently
    third, entries = used(3, 3)
    assert entries == {first, third}
    monkeypatch.setattr(word_corpora, "MOST_CACHED", 0)
    fourth, entries = used(4, 4)
    assert entries == {fourth}


def test_a_text_that_leaves_the_cache_while_it_is_read_is_encoded_again(corpus_file, monkeypatch):
    data = jaxlm.DataConfig(path=str(corpus_file))
    first = word_corpora.read_words(data, jaxlm.WordsConfig())
    before = first.ids["train"].tolist()
    original, removed = cache.mark_used, []

    def mark_used(entry):
        original(entry)
        removed.append(entry)
        (entry / "train.npy").unlink()
        (entry / "words.json").rename(entry.parent / "words.json")
        (entry / "dev.npy").unlink()
        (entry / "test.npy").unlink()
        entry.rmdir()

    monkeypatch.setattr(cache, "mark_used", mark_used)
    again = word_corpora.read_words(data, jaxlm.WordsConfig())
    assert removed and again.ids["train"].tolist() == before == first.ids["train"].tolist()


@pytest.mark.parametrize("lost", ["words.json", "train.npy"])
def test_an_entry_that_lost_a_file_is_encoded_again(corpus_file, lost):
    data, home = jaxlm.DataConfig(path=str(corpus_file)), corpus_file.parent / "cache" / "jaxlm" / "words"
    first = word_corpora.read_words(data, jaxlm.WordsConfig())
    (entry,) = home.iterdir()
    (entry / lost).unlink()
    again = word_corpora.read_words(data, jaxlm.WordsConfig())
    assert again.tokenizer == first.tokenizer
    np.testing.assert_array_equal(again.ids["train"], first.ids["train"])
    assert list(home.iterdir()) == [entry]


def test_phrases_reach_the_vocabulary(corpus_file):
    corpus_file.write_text("new york is a city\nnew york is big\na big new car is a car\n" * 20)
    corpus = word_corpora.read_words(jaxlm.DataConfig(path=str(corpus_file)), jaxlm.WordsConfig(phrases=1.5))
    assert "new_york" in corpus.tokenizer.words
    assert ("new", "york") in corpus.tokenizer.phrases
    assert WordTokenizer.from_json(corpus.tokenizer.to_json()) == corpus.tokenizer


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pattern": "("}, "data.tokens.pattern wants a regular expression, got '('"),
        ({"pattern": "(a)"}, "data.tokens.pattern wants no groups"),
        ({"pattern": "a*"}, "data.tokens.pattern wants at least one character"),
        ({"min_count": 0}, "data.tokens.min_count wants a number >= 1, got 0"),
        ({"phrases": -1.0}, "data.tokens.phrases wants a number > 0"),
        ({"phrase_discount": 2.0}, "data.tokens.phrase_discount 2.0 has no effect with data.tokens.phrases None"),
        ({"max_counted": 1}, "data.tokens.max_counted wants a number >= 2, got 1"),
    ],
)
def test_settings_that_cannot_be_used(settings, told):
    with pytest.raises(jaxlm.UserError, match=re.escape(told)):
        jaxlm.WordsConfig(**settings)


def test_too_few_words(corpus_file):
    with pytest.raises(jaxlm.UserError, match=r"data.path wants a text in which at least two words occur 900 times"):
        word_corpora.read_words(jaxlm.DataConfig(path=str(corpus_file)), jaxlm.WordsConfig(min_count=900))


def vocabulary_of(path, text, encoding="utf-8", **settings):
    path.write_bytes(text.encode(encoding))
    data = jaxlm.DataConfig(path=str(path), encoding=encoding)
    return dict.fromkeys(word_corpora.read_words(data, jaxlm.WordsConfig(**settings)).tokenizer.words)


def test_letters_keep_their_marks_and_an_accent_has_one_spelling(corpus_file):
    assert vocabulary_of(corpus_file, "आधुनिक मानक हिन्दी किताब\n" * 5).keys() == {"आधुनिक", "मानक", "हिन्दी", "किताब"}
    decomposed, composed = "cafe\u0301 fore\u0302t\n", "café forêt\n"
    assert vocabulary_of(corpus_file, (decomposed + composed) * 3, min_count=6).keys() == {"café", "forêt"}
    kept = vocabulary_of(corpus_file, "हिन्दी। किताब, cafe\u0301!\n" * 5, punctuation="keep")
    assert kept.keys() == {"हिन्दी", "।", "किताब", ",", "café", "!"}
    assert vocabulary_of(corpus_file, "İstanbul ve Iğdır\n" * 5).keys() == {"i\u0307stanbul", "ve", "iğdır"}


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "utf-8-sig"])
def test_words_are_read_in_the_encoding_and_with_the_line_ends_that_the_text_has(corpus_file, monkeypatch, encoding):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 13)
    assert vocabulary_of(corpus_file, "déjà vu\rça va\r\n" * 9, encoding).keys() == {"déjà", "vu", "ça", "va"}


UNSEGMENTED = {
    "chinese": "今天天气很好。\n我们去公园散步。\n",
    "japanese": "今日はとても良い天気ですね。\n公園へ散歩に行きました。\n",
    "thai": "วันนี้อากาศดีมากเลย\nพวกเราไปเดินเล่นที่สวนสาธารณะ\n",
}


@pytest.mark.parametrize("script", UNSEGMENTED)
@pytest.mark.parametrize("punctuation", ["drop", "keep"])
def test_a_text_without_spaces_is_refused_with_what_to_do(corpus_file, script, punctuation):
    with pytest.raises(jaxlm.UserError, match=r"wants spaces between words.*segmenter.*--data.tokens.pattern '\\w'"):
        vocabulary_of(corpus_file, UNSEGMENTED[script] * 10, punctuation=punctuation)
    each = vocabulary_of(corpus_file, UNSEGMENTED[script] * 10, pattern=r"\w")
    letters = {char for char in UNSEGMENTED[script] if char.isalnum()}
    assert {word[0] for word in each} == letters


@pytest.mark.parametrize(
    "text",
    ["今天 天气 很 好\n我们 去 公园 散步\n", "วันนี้ อากาศ ดี มาก\n", "안녕하세요 여러분\n", "the word 今天天气很好我们\n"],
)
def test_a_text_with_spaces_between_words_is_read(corpus_file, text):
    assert vocabulary_of(corpus_file, text * 10).keys() == set(text.split())


@pytest.mark.parametrize("home", [None, "a file"])
def test_without_a_cache_the_words_are_read_each_time(corpus_file, tmp_path, monkeypatch, home):
    data = jaxlm.DataConfig(path=str(corpus_file))
    cached = word_corpora.read_words(data, jaxlm.WordsConfig())
    (tmp_path / "a file").touch()
    monkeypatch.setattr(word_corpora, "cache_dir", lambda: home and tmp_path / home)
    alone = word_corpora.read_words(data, jaxlm.WordsConfig())
    assert cached.notes == () and "cannot be cached" in alone.notes[0]
    assert (alone.tokenizer, alone.data_hash, alone.split_hash) == (
        cached.tokenizer,
        cached.data_hash,
        cached.split_hash,
    )
    for split, id_N in cached.ids.items():
        np.testing.assert_array_equal(alone.ids[split], id_N)
