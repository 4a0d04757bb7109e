"""Runs that were trained here go out, are opened by transformers, and come in again."""

import json
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.interop.exporting import export_folder
from jaxlm.interop.importing import import_folder
from tests.conftest import NAMES, write_run
from tests.interop.families import torch, transformers
from tests.tokenizers.texts import HARD

pytestmark = pytest.mark.slow
GPT2 = jaxlm.GptConfig(n_layers=2, n_heads=2, d_model=16)
LLAMA = jaxlm.GptConfig.llama(n_layers=2, n_heads=2, d_model=16, n_kv_heads=1)
TEXT = "the king and the queen rule the land near the water. It's 1999!\n" * 12
STREAM: dict[str, Any] = {"kind": "stream", "example": "sequence", "max_length": 24}
RUNS: dict[str, Any] = {
    "characters": (GPT2, {"example": "sequence"}, "\n".join(NAMES)),
    "bytes": (LLAMA, {**STREAM, "tokens": jaxlm.BytesConfig()}, TEXT),
    "bpe": (GPT2, {**STREAM, "tokens": jaxlm.BpeConfig(vocab_size=280)}, TEXT),
}


@pytest.fixture(scope="module", params=RUNS)
def exported(request, tmp_path_factory):
    """A run, its folder, and the run that the folder becomes again."""
    place = tmp_path_factory.mktemp(request.param)
    model, data, text = RUNS[request.param]
    path = write_run(place, model, data=data, text=text, steps=4)
    export_folder(path, place / "out")
    import_folder(place / "out", place / "again")
    return request.param, jaxlm.load_run(path), place / "out", jaxlm.load_run(place / "again")


def test_transformers_opens_an_exported_run_with_equal_ids_and_logits(exported):
    name, run, out, _ = exported
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    texts = [*NAMES, run.tokenizer.characters] if name == "characters" else [text for text in HARD if "<|" not in text]
    for text in texts:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokens == run.tokenizer.encode(text).tolist(), text
        assert tokenizer.decode(tokens) == text
    begin = [run.tokenizer.eos] if run.config.data.kind == "lines" else []
    text = "emma" if name == "characters" else "the king"
    tokens = tokenizer(text)["input_ids"]
    assert tokens == [*begin, *run.tokenizer.encode(text)]
    with torch.no_grad():
        theirs_BTV = model(torch.tensor([tokens])).logits.numpy()
    ours_BTV = jax.jit(run.model.apply)(run.params, jnp.asarray([tokens]))
    np.testing.assert_allclose(np.asarray(ours_BTV), theirs_BTV, atol=1e-4)
    assert model.generation_config.eos_token_id == run.tokenizer.eos == tokenizer.eos_token_id


def test_an_exported_run_comes_in_again_bit_for_bit(exported):
    _, run, _, again = exported
    chex.assert_trees_all_equal(run.params, again.params)
    assert run.tokenizer.vocab_size == again.tokenizer.vocab_size
    text = run.tokenizer.decode(range(1, 20))
    assert run.tokenizer.encode(text).tolist() == again.tokenizer.encode(text).tolist()
    np.testing.assert_array_equal(run.tokenizer.bytes_of_token, again.tokenizer.bytes_of_token)
    assert again.tokenizer.prefix == ((run.tokenizer.eos,) if run.config.data.kind == "lines" else ())


def test_the_model_card_has_the_figures_of_the_run(exported):
    _, run, out, _ = exported
    card = (out / "README.md").read_text("utf-8")
    results = json.loads((run.path / "eval.json").read_text())
    for split in ("train", "dev", "test"):
        assert f"| {split} | {results[split]['nats_per_token']:.4f} |" in card
    assert f"{results['params']:,}" in card and "library_name: transformers" in card


def test_a_character_that_the_tokenizer_lacks_is_refused_after_a_round_trip(exported):
    name, _, _, again = exported
    if name == "characters":
        with pytest.raises(jaxlm.UserError, match="a character that no token"):
            again.tokenizer.encode("emma9")


def test_qkv_bias_goes_out_with_the_tokenizer_of_qwen2_alone(make_run, tmp_path):
    model = jaxlm.GptConfig.llama(n_layers=1, n_heads=2, d_model=8, qkv_bias=True)
    path = make_run(model, data={"example": "sequence"}, steps=1)
    with pytest.raises(jaxlm.UserError, match=r"wants Qwen2's tokenizer for model\.qkv_bias True"):
        export_folder(path, tmp_path / "out")
