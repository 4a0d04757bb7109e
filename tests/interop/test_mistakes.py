"""Folders that cannot be imported and runs that cannot be exported: each reason in a line, and nothing left behind."""

import json
import struct
from typing import Any

import numpy as np
import pytest

import jaxlm
from jaxlm.errors import UserError
from jaxlm.interop import tensors
from jaxlm.interop.architectures import gpt_config
from jaxlm.interop.exporting import export_folder
from jaxlm.interop.importing import import_folder
from jaxlm.interop.targets import architecture_of, function_of, settings_of
from tests.interop import families

SIZES: dict[str, Any] = {"vocab_size": 30, "context": 16, "n_layers": 1, "n_heads": 2, "d_model": 8}
LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], **families.LLAMA}
GPT2: dict[str, Any] = {"architectures": ["GPT2LMHeadModel"], **families.GPT2}


@pytest.fixture
def folder(tmp_path):
    return families.saved(tmp_path / "folder")


def refused(folder, message):
    out = folder.parent / "run"
    with pytest.raises(UserError, match=message) as caught:
        import_folder(folder, out)
    assert "\n" not in str(caught.value)
    assert [entry for entry in folder.parent.iterdir() if entry.name.startswith("run")] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, "got Qwen3ForCausalLM; the nearest of them is Qwen2ForCausalLM"),
        ({}, "wants architectures in config.json"),
        ({**GPT2, "activation_function": "gelu"}, "activation_function 'gelu' .it has 'gelu_new'"),
        ({**GPT2, "scale_attn_by_inverse_layer_idx": True, "add_cross_attention": True}, "add_cross.*; scale_attn_by"),
        ({**GPT2, "n_embd": "768"}, "a whole number as n_embd, got '768'"),
        ({**GPT2, "auto_map": {"AutoModel": "code.py"}}, "auto_map, which names code to run"),
        ({**LLAMA, "attention_bias": True}, "attention_bias True, mlp_bias False .it has both or none"),
        ({**LLAMA, "quantization_config": {"bits": 4}}, "quantization_config"),
        ({**LLAMA, "rope_scaling": {"type": "longrope"}}, "rope_scaling wants default, .* got longrope"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor wants 1, got 0.5"),
        ({**LLAMA, "architectures": ["MistralForCausalLM"], "sliding_window": 32}, "sliding_window 32 below the 96"),
        ({**LLAMA, "architectures": ["Qwen2ForCausalLM"], "layer_types": ["sliding_attention"]}, "sliding_attention"),
    ],
)
def test_a_model_that_is_not_ours_is_named(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        gpt_config(settings)
    assert "\n" not in str(caught.value)


def test_settings_that_older_versions_wrote_are_read():
    old = {
        "model_type": "llama",
        **families.LLAMA,
        "rope_theta": 500.0,
        "rope_scaling": {"type": "linear", "factor": 2},
    }
    config = gpt_config(old)
    assert config.rope == jaxlm.RopeConfig(scaling="linear", factor=2.0) and config.rope_base == 500
    wide = {"architectures": ["MistralForCausalLM"], **families.LLAMA, "sliding_window": 96}
    assert gpt_config(wide).windows == (None, None)
    scaled = {"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5}
    assert gpt_config({**old, "rope_scaling": scaled}).rope.amplitude == pytest.approx(
        (0.1 * np.log(4) + 1) / (0.05 * np.log(4) + 1)
    )


def test_weights_that_may_run_code_are_refused_with_the_way_to_convert(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "got pytorch_model.bin in .*, which may run code: convert it .*save_pretrained")


def test_missing_surplus_and_mis_shaped_tensors_are_listed_together(folder):
    there = tensors.entries([folder / "model.safetensors"])
    values = {name: tensors.read(entry) for name, entry in there.items()}
    del values["transformer.h.1.ln_2.bias"], values["transformer.wpe.weight"]
    values["transformer.h.0.mlp.c_fc.weight"] = np.zeros((32, 5), np.float32)
    values["transformer.h.7.ln_1.weight"] = np.zeros(32, np.float32)
    shapes = {name: value.shape for name, value in values.items()}
    tensors.write(folder / "model.safetensors", shapes, values.values())
    refused(
        folder,
        r"missing: transformer.wpe.weight, transformer.h.1.ln_2.bias; unknown: transformer.h.7.ln_1.weight; "
        r"of another shape or type: transformer.h.0.mlp.c_fc.weight is F32 32 x 5, not 32 x 128",
    )


def test_a_damaged_file_of_weights_is_named(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(folder, "lies outside the file")
    path.write_bytes(whole[:4])
    refused(folder, "ends too early")
    path.write_bytes(struct.pack("<Q", 2**60) + whole[8:])
    refused(folder, "no safetensors file")
    path.write_bytes(struct.pack("<Q", 4) + b"[{]}")
    refused(folder, "no JSON")
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    refused(folder, "another size than its shape")


def test_an_index_cannot_lead_out_of_the_folder(folder):
    weight_map = {"transformer.wte.weight": "../secret.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, "wants weights in the folder itself")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    refused(folder, "lacks b.safetensors")


def test_folders_that_lack_a_file_and_places_that_are_taken(folder, tmp_path):
    with pytest.raises(UserError, match=r"does not exist \(did you mean .*folder"):
        import_folder(tmp_path / "foldr", tmp_path / "run")
    with pytest.raises(UserError, match="--out wants a run directory that does not exist yet"):
        import_folder(folder, folder)
    families.edit(folder / "config.json", vocab_size=100)
    refused(folder, "holds the tokenizer's [0-9]+ tokens, got vocab_size 100")
    (folder / "tokenizer.json").unlink()
    refused(folder, "wants tokenizer.json")
    (folder / "config.json").unlink()
    refused(folder, "a folder with config.json")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (jaxlm.GptConfig(qk_norm=True, logit_softcap=3.0), "model.qk_norm True, model.logit_softcap 3.0.*GPT2LMHead"),
        (jaxlm.GptConfig(n_kv_heads=2), "model.n_kv_heads 2; the nearest architecture is GPT2LMHeadModel"),
        (jaxlm.GptConfig.llama(activation="gelu"), "model.activation gelu; the nearest architecture is LlamaFor"),
        (jaxlm.GptConfig.llama(window_pattern="SL", context=8), "model.window_pattern SL"),
        (jaxlm.GptConfig(documents=True), "model.documents True"),
        (jaxlm.GptConfig.llama(qkv_bias=True, d_head=6), "model.d_head 6; the nearest architecture is Qwen2"),
        (jaxlm.MlpConfig(), "wants a run of a GptConfig, got a MlpConfig"),
    ],
)
def test_options_that_transformers_has_not_are_named(config, message):
    with pytest.raises(UserError, match=message):
        architecture_of(config)


@pytest.mark.parametrize(
    "config",
    [
        jaxlm.GptConfig(**SIZES, dropout=0.1, zero_init=True),
        jaxlm.GptConfig.gpt2(**SIZES, d_ff=20),
        jaxlm.GptConfig.llama(**SIZES, n_kv_heads=1, bias=True, rope_base=99.0, tied=True),
        jaxlm.GptConfig.llama(**SIZES, qkv_bias=True, window_pattern="LS", window=3),
        jaxlm.GptConfig.llama(
            **SIZES, d_head=6, rope=jaxlm.RopeConfig(scaling="llama3", factor=4.0, original_context=8, high=3.0)
        ),
        jaxlm.GptConfig.llama(**SIZES, rope=jaxlm.RopeConfig(scaling="yarn", factor=4.0, original_context=8)),
    ],
)
def test_settings_go_out_and_come_back(config):
    written = json.loads(json.dumps(settings_of(config, architecture_of(config))))
    assert function_of(gpt_config(written)) == function_of(config)


def test_rean_tokens_cannot_go_out(make_run, tmp_path):
    data = {"tokens": jaxlm.ReanTokensConfig(min_count=1), "example": "sequence"}
    path = make_run(jaxlm.GptConfig(**SIZES | {"vocab_size": None}, positions="learned"), data=data, steps=1)
    with pytest.raises(UserError, match="got a ReanTokenizer, which transformers has not"):
        export_folder(path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_nothing_is_left_where_what_was_written_reads_differently(make_run, tmp_path, monkeypatch):
    path = make_run(jaxlm.GptConfig(**SIZES | {"vocab_size": None}), data={"example": "sequence"}, steps=1)
    monkeypatch.setattr(tensors, "read", lambda entry: np.zeros(entry.shape, np.float32))
    with pytest.raises(UserError, match=r"reads back to be what it wrote, but the tensor transformer\.wte\.weight"):
        export_folder(path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
