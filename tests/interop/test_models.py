"""Imported models compute what transformers computes, and go out again bit for bit."""

import json
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.config import PreparedTokensConfig
from jaxlm.interop.exporting import export_folder
from jaxlm.interop.importing import import_folder
from tests.interop import families
from tests.interop.families import FAMILIES, V, torch, transformers

families_ = pytest.mark.parametrize("name", FAMILIES)
NEW = 64
SIZES: dict[str, Any] = {"vocab_size": V, "context": 96, "n_layers": 2, "n_heads": 4, "d_model": 32}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The folder and the run of each family, made once."""
    made = {}

    def of(name):
        if name not in made:
            place = tmp_path_factory.mktemp("imported")
            families.saved(place / "folder", name)
            import_folder(place / "folder", place / "run")
            made[name] = place
        return made[name]

    return of


def tokens():
    return np.random.default_rng(0).integers(1, V, (2, 90))


def their_logits(model, tok_BT):
    with torch.no_grad():
        return model(torch.tensor(tok_BT)).logits.numpy()


@families_
def test_logits_are_those_of_transformers(name, imported):
    run, tok_BT = jaxlm.load_run(imported(name) / "run"), tokens()
    logits_BTV = jax.jit(run.model.apply)(run.params, jnp.asarray(tok_BT))
    theirs_BTV = their_logits(families.model(name), tok_BT)
    assert np.abs(theirs_BTV).max() > 0.3
    chex.assert_trees_all_close(np.asarray(logits_BTV), theirs_BTV, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen2"])
def test_greedy_texts_are_those_of_transformers(name, imported):
    run, text = jaxlm.load_run(imported(name) / "run"), "the king"
    tokenizer = families.tokenizer(families.tokenizer_of(name))
    never = [
        token for token in range(V) if token >= run.tokenizer.vocab_size or not run.tokenizer.bytes_of_token[token]
    ]
    given = tokenizer(text, return_tensors="pt")
    theirs = families.model(name).generate(
        **given, max_new_tokens=NEW, do_sample=False, pad_token_id=0, suppress_tokens=never
    )
    (ours,) = jaxlm.generate(run, prompt=text, temperature=0, max_tokens=NEW, key=jax.random.key(0))
    assert ours == tokenizer.decode(theirs[0], skip_special_tokens=True)
    assert len(theirs[0]) > 4


@families_
def test_a_run_goes_out_as_it_came_and_is_opened_by_transformers(name, imported, tmp_path):
    place = imported(name)
    export_folder(place / "run", tmp_path / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    before = families.model(name)
    for (key, value), (other, theirs) in zip(before.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == other and torch.equal(value, theirs), key
    np.testing.assert_allclose(their_logits(again, tokens()), their_logits(before, tokens()), atol=1e-6)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "the king  isn't 日本 e\u0301\n"
    assert tokenizer(text)["input_ids"] == families.tokenizer(families.tokenizer_of(name))(text)["input_ids"]


def test_a_folder_of_several_files_is_the_same_run(imported, tmp_path):
    families.saved(tmp_path / "folder", "qwen2", max_shard_size="20KB")
    assert len(list((tmp_path / "folder").glob("*.safetensors"))) > 2
    import_folder(tmp_path / "folder", tmp_path / "run")
    one, other = (jaxlm.load_run(path).params for path in (imported("qwen2") / "run", tmp_path / "run"))
    chex.assert_trees_all_equal(one, other)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_types_are_read_exactly(dtype, tmp_path):
    short = transformers.GPT2LMHeadModel(families.model("gpt2").config).to(getattr(torch, dtype))
    short.save_pretrained(tmp_path / "folder")
    families.tokenizer("gpt2").save_pretrained(tmp_path / "folder")
    import_folder(tmp_path / "folder", tmp_path / "run", dtype="bfloat16")
    run = jaxlm.load_run(tmp_path / "run")
    assert (
        run.config.model == jaxlm.GptConfig.gpt2(**SIZES, dtype="bfloat16") and run.params["embed"].dtype == jnp.float32
    )
    want = short.transformer.wte.weight.detach().float().numpy()
    np.testing.assert_array_equal(run.params["embed"], want)


def test_an_imported_run_has_the_files_of_a_run_and_no_losses(imported):
    path = imported("gpt2") / "run"
    run = jaxlm.load_run(path)
    assert run.step == 0 and run.config.data.kind == "stream"
    assert isinstance(run.config.data.tokens, PreparedTokensConfig)
    results = json.loads((path / "eval.json").read_text())
    assert results["train"] is results["dev"] is results["test"] is None
    assert results["params"] == families.model("gpt2").num_parameters()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["folder", "run"]
    score = jaxlm.score(run, "the king")
    start = torch.tensor([[0, *families.tokenizer("gpt2")("the king")["input_ids"]]])
    with torch.no_grad():
        nats = families.model("gpt2")(start, labels=start).loss.item()
    assert score.nats_per_token == pytest.approx(nats, abs=1e-4)


@pytest.mark.slow
def test_an_imported_model_is_trained_further(imported, make_run):
    path = imported("llama3") / "run"
    model = jaxlm.load_run(path).config.model
    data = {"kind": "stream", "example": "sequence", "max_length": 16}
    tuned = make_run(
        model,
        text="the king and the queen " * 200,
        data=data,
        init_from=str(path),
        steps=3,
        name="tuned",
        optim=jaxlm.OptimConfig(lr=1e-3),
    )
    before, after = jaxlm.load_run(path), jaxlm.load_run(tuned)
    assert after.tokenizer == before.tokenizer
    assert not np.array_equal(before.params["embed"], after.params["embed"])
    chex.assert_trees_all_close(before.params, after.params, atol=0.05)
