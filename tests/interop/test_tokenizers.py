"""Imported tokenizers give the token ids of transformers, and their texts back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm.errors import UserError
from jaxlm.interop.tokenizer_files import read_tokenizer
from jaxlm.tokenizers import ByteTokenizer, tokenizer_from_json
from tests.interop import families
from tests.tokenizers.texts import HARD

KINDS = ("gpt2", "smollm2", "llama3", "qwen2", "llama2")
kinds = pytest.mark.parametrize("kind", KINDS)
KEEPING = ("gpt2", "smollm2", "llama3")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Our tokenizer of each kind's folder, read once."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            families.tokenizer(kind).save_pretrained(folder)
            made[kind] = read_tokenizer(folder, {}, {})
        return made[kind]

    return of


def names_of(kind):
    return [*families.tokenizer(kind).get_added_vocab()]


@kinds
def test_ids_of_hard_texts_are_those_of_transformers(kind, opened):
    ours, theirs = opened(kind), families.tokenizer(kind)
    for text in HARD:
        want = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode_special(text).tolist() == want, text
        if not any(name in text for name in names_of(kind)):
            assert ours.encode(text).tolist() == want, text
            whole = theirs(text)["input_ids"]
            assert [*ours.prefix, *ours.encode(text)] == whole
    assert ours.vocab_size == len(theirs)
    assert (ours.eos, ours.bos) == (theirs.eos_token_id, theirs.bos_token_id)


@kinds
@settings(max_examples=60)
@given(text=st.text(max_size=40))
def test_ids_of_any_text_are_those_of_transformers(kind, opened, text):
    ours = opened(kind)
    assert ours.encode(text).tolist() == families.tokenizer(kind)(text, add_special_tokens=False)["input_ids"]
    if kind in KEEPING:
        assert ours.decode(ours.encode(text)) == text


@kinds
def test_a_long_text_that_is_cut_has_the_ids_of_the_whole(kind, opened):
    text = "".join(HARD[2:8]) + "the king and the\nqueen " * 4000
    want = families.tokenizer(kind)(text, add_special_tokens=False)["input_ids"]
    assert opened(kind).encode(text).tolist() == want


def test_a_normalizer_changes_the_text_and_no_more(opened):
    qwen2, llama2 = opened("qwen2"), opened("llama2")
    assert qwen2.decode(qwen2.encode("e\u0301 x")) == "\u00e9 x"
    assert llama2.decode(llama2.encode("the king 日本\n")) == " the king 日本\n"
    assert llama2.decode([*llama2.encode("the king"), 3 + 10, llama2.eos]) == " the king\n"  # <0x0A>
    assert llama2.bytes_of_token[llama2.encode("the 日")].sum() == len(" the 日".encode())


def test_a_text_cannot_spell_a_special_token(opened):
    llama3 = opened("llama3")
    text = "the<|eot|><|begin|>king"
    assert not {llama3.eos, llama3.bos} & set(llama3.encode(text).tolist())
    assert llama3.decode(llama3.encode(text)) == text
    special = llama3.encode_special(text).tolist()
    assert special.count(llama3.eos) == special.count(llama3.bos) == 1
    assert llama3.decode(special) == "theking"


def test_ends_bos_and_template_come_from_the_folder_and_are_kept_in_a_run(tmp_path):
    theirs = families.tokenizer("llama3")
    theirs.save_pretrained(tmp_path)
    begin, end, eot = (theirs.convert_tokens_to_ids(name) for name in ("<|begin|>", "<|end|>", "<|eot|>"))
    template = "{{ messages[0]['content'] }}{{ raise_exception('never run') }}"
    families.edit(tmp_path / "tokenizer_config.json", chat_template=[{"name": "default", "template": template}])
    ours = read_tokenizer(tmp_path, {"eos_token_id": 5}, {"eos_token_id": [end, eot]})
    assert (ours.eos, ours.bos, ours.end_tokens, ours.prefix) == (eot, begin, (eot, end), (begin,))
    assert ours.chat_template == template
    (tmp_path / "chat_template.jinja").write_text("of the file")
    assert read_tokenizer(tmp_path, {}, {}).chat_template == "of the file"
    again = tokenizer_from_json(json.loads(json.dumps(ours.to_json())))
    assert again == ours and again.end_tokens == (eot, end) and again.chat_template == template
    families.edit(tmp_path / "tokenizer_config.json", add_bos_token=False)
    assert read_tokenizer(tmp_path, {}, {}).prefix == ()


def test_tokenizers_of_our_own_have_one_end_and_no_template():
    ours = ByteTokenizer()
    assert (ours.end_tokens, ours.bos, ours.prefix, ours.chat_template) == ((0,), 0, (), None)


def test_only_ends_of_the_special_tokens_are_drawn(tmp_path):
    from jaxlm.inference.generate import drawn_tokens
    from jaxlm.interop.importing import import_folder

    families.saved(tmp_path / "folder", "llama", "llama3")
    end = families.tokenizer("llama3").convert_tokens_to_ids("<|end|>")
    families.edit(tmp_path / "folder" / "generation_config.json", eos_token_id=[end, 2])
    import_folder(tmp_path / "folder", tmp_path / "run")
    run = jaxlm.load_run(tmp_path / "run")
    allowed_V = drawn_tokens(run)
    assert allowed_V[list(run.tokenizer.end_tokens)].all() and not allowed_V[run.tokenizer.bos]
    assert np.flatnonzero(~allowed_V).tolist() == [run.tokenizer.bos, *range(run.tokenizer.vocab_size, families.V)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "byte-pair encoding in .*, got a Unigram model"),
        ({"decoder": {"type": "WordPiece"}}, "got the decoder WordPiece"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "got no token for the byte 0x00"),
        ({"model": 3}, "without a model"),
        ({"added_tokens": [{"id": 0}]}, "with other parts"),
    ],
)
def test_another_tokenizer_is_refused_with_its_name(changes, message, tmp_path):
    families.tokenizer("gpt2").save_pretrained(tmp_path)
    families.edit(tmp_path / "tokenizer.json", **changes)
    with pytest.raises(UserError, match=message):
        read_tokenizer(tmp_path, {}, {})
