"""Settings of tokens: they build their tokenizer, and are refused where a model cannot use their tokens."""

import dataclasses
import json
import sys

import pytest

import jaxlm
from jaxlm.cli.sweep_command import parse_sweep
from jaxlm.cli.train_command import load_config, parse_train
from jaxlm.config.serialization import differences, from_json, settings_that_change_numbers, to_json
from jaxlm.config.user_code import load_module
from jaxlm.data import corpus as corpora
from jaxlm.errors import UserError
from jaxlm.tokenizers import CharTokenizer, ReanTokenizer, WordTokenizer
from tests.conftest import REPOSITORY

WORD2VEC, MLP = jaxlm.Word2vecConfig(), jaxlm.MlpConfig()
VECTORS = jaxlm.FaithfulReanConfig(vectors_from=jaxlm.VectorsConfig())


def test_settings_build_their_tokenizer():
    whole, train = "to be or to be\nnot", ["to be or to be"]
    assert jaxlm.CharactersConfig().build(whole, train) == CharTokenizer("\n benort")
    assert jaxlm.ReanTokensConfig(min_count=1).build(whole, train) == ReanTokenizer(("to ", "be", "be ", "or "))
    assert jaxlm.ReanTokensConfig(max_vocab=1).build(whole, train) == ReanTokenizer(("to ",))
    words = jaxlm.WordsConfig(min_count=2).build(whole, train)
    assert isinstance(words, WordTokenizer)
    assert (words.words, words.counts) == (("be", "to"), (2, 2))


@pytest.mark.parametrize(
    ("model", "tokens", "message"),
    [
        (
            WORD2VEC,
            jaxlm.CharactersConfig(),
            r"wants words for a Word2vecConfig, got CharactersConfig\(\): .*WordsConfig",
        ),
        (MLP, jaxlm.WordsConfig(), r"wants tokens that give the text back for a MlpConfig, got WordsConfig\(\)"),
        (VECTORS, jaxlm.CharactersConfig(), r"wants words for model\.vectors_from, .*tokens=ReanTokensConfig\(\)"),
    ],
    ids=["word2vec", "language model", "vectors"],
)
def test_tokens_that_a_model_cannot_use_are_refused(model, tokens, message):
    with pytest.raises(UserError, match=rf"^data\.tokens {message}") as told:
        jaxlm.RunConfig(model=model, data=jaxlm.DataConfig(tokens=tokens), steps=1)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("model", [WORD2VEC, MLP, VECTORS], ids=lambda model: type(model).__name__)
def test_the_tokens_of_rean_serve_every_model(model):
    jaxlm.RunConfig(model=model, data=jaxlm.DataConfig(tokens=jaxlm.ReanTokensConfig()), steps=1)


def test_a_corpus_of_words_alone_is_refused_without_a_run_too(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n")
    with pytest.raises(UserError, match=r"^data\.tokens wants tokens that give the text back, got WordsConfig\(\)"):
        corpora.load(jaxlm.DataConfig(path=str(tmp_path / "text.txt"), tokens=jaxlm.WordsConfig(min_count=1)))


def test_tokens_are_set_on_the_command_line():
    path = str(REPOSITORY / "configs" / "gpt_dialogues.py")
    command = parse_train([path, "--data.tokens.min-count", "3"])
    assert command is not None
    assert command.config.data.tokens == jaxlm.ReanTokensConfig(min_count=3, max_vocab=3000)
    with pytest.raises(UserError, match=r"^data\.tokens\.min_count wants a number >= 1, got 0$"):
        parse_train([path, "--data.tokens.min-count", "0"])
    with pytest.raises(UserError, match=r"--data\.tokens\.min-cuont is not a setting \(did you mean .*min-count"):
        parse_train([path, "--data.tokens.min-cuont", "3"])


def test_the_class_of_tokens_is_chosen_on_the_command_line():
    path = str(REPOSITORY / "configs" / "gpt_dialogues.py")
    for args, tokens in (
        (["--data.tokens", "bpe", "--data.tokens.vocab-size", "512"], jaxlm.BpeConfig(vocab_size=512)),
        (["--data.tokens.path", "x", "--data.tokens=bpe"], jaxlm.BpeConfig(path="x")),
        (["--data.tokens", "bytes"], jaxlm.BytesConfig()),
        (["--data.tokens", "rean"], jaxlm.ReanTokensConfig(max_vocab=3000)),
    ):
        command = parse_train([path, *args])
        assert command is not None and command.config.data.tokens == tokens
    runs = parse_sweep([path, "--data.tokens", "bpe", "--sweep.data.tokens.vocab-size", "300", "400"]).runs
    assert [run.config.data.tokens for run in runs] == [jaxlm.BpeConfig(vocab_size=size) for size in (300, 400)]
    with pytest.raises(UserError, match=r"^--data\.tokens wants .*rean or words, got 'bep' \(did you mean bpe\?\)$"):
        parse_train([path, "--data.tokens", "bep"])
    with pytest.raises(UserError, match=r"^--data\.tokens wants characters, .*, got ''$"):
        parse_train([path, "--data.tokens"])


def test_bpe_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"^data\.tokens BpeConfig\(\) wants the extra: pip install 'jaxlm\[bpe\]'$"):
        jaxlm.BpeConfig().build("", ["a text"])


def test_a_tokenizer_that_moves_changes_no_run():
    config = jaxlm.RunConfig(model=MLP, data=jaxlm.DataConfig(tokens=jaxlm.BpeConfig(path="here")), steps=1)
    was = settings_that_change_numbers(to_json(config))
    moved = dataclasses.replace(config, data=jaxlm.DataConfig(tokens=jaxlm.BpeConfig(path="there")))
    assert differences(was, moved) == []
    trained = dataclasses.replace(config, data=jaxlm.DataConfig(tokens=jaxlm.BpeConfig(vocab_size=300)))
    assert differences(was, trained) == ["data.tokens.vocab_size: 4096, now 300"]


OWN = """
import dataclasses
from jaxlm import DataConfig, MlpConfig, RunConfig, TokensConfig
from jaxlm.tokenizers import CharTokenizer

@dataclasses.dataclass(frozen=True)
class UpperConfig(TokensConfig):
    more: str = ""

    def build(self, whole, train):
        return CharTokenizer.of_text(whole + self.more)

config = RunConfig(model=MlpConfig(), data=DataConfig(path="text.txt", tokens=UpperConfig(more="Z")), steps=1)
"""


def test_tokens_of_a_users_own_file_build_the_corpus_and_survive_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "text.txt").write_text("ab\n")
    config = load_config(tmp_path / "own.py")
    assert corpora.load(config.data).tokenizer == CharTokenizer("Zab")
    tree = json.loads(json.dumps(to_json(config)))
    assert tree["data"]["tokens"] == {"class": "../../own.py:UpperConfig", "more": "Z"}
    assert repr(from_json(tree, trust_code=True)) == repr(config)


def test_every_config_of_word2vec_says_how_text_becomes_words():
    for name in ("word2vec_cbow", "word2vec_skipgram"):
        config = load_module(REPOSITORY / "configs" / f"{name}.py").config
        assert config.data.tokens == jaxlm.WordsConfig()
        with pytest.raises(UserError, match=r"^data\.tokens wants words"):
            dataclasses.replace(config, data=dataclasses.replace(config.data, tokens=jaxlm.CharactersConfig()))
