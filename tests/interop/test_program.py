"""Exported programs: the texts of jaxlm.generate without jaxlm, files whole or not there, readers of tokens."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm.cli.interop_command import parse_interop
from jaxlm.data import corpus as corpora
from jaxlm.errors import UserError
from jaxlm.interop import program, program_file
from jaxlm.interop.__main__ import main
from jaxlm.ops.target import Target, compiling_for
from jaxlm.tokenizers import BpeTokenizer, ReanTokenizer
from jaxlm.tokenizers.rean_tokens import PATTERN
from jaxlm.tokenizers.unicode_words import with_marks
from tests.conftest import NAMES, REPOSITORY, TINY, opened

READER = REPOSITORY / "examples" / "run_exported.py"
C = 8
TEXTS = {
    "lines": "\n".join(NAMES),
    "stream": "the king and the queen rule the land near the water. a man drinks.\n" * 5,
    "dialogues": "human: Hello.\nnetwork: Hi.\n\nhuman: Who?\nnetwork: A machine.\nhuman: Ah.\nnetwork: Yes.\n" * 3,
}
READ = {"lines": corpora.from_lines, "stream": corpora.from_stream, "dialogues": corpora.from_dialogues}
PROMPTS = {"lines": "em", "stream": "the ki", "dialogues": "human: Who?\nnetwork: "}
SMALL: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "d_model": 16}
GPT = jaxlm.GptConfig(context=C, **SMALL)
BIGRAM = jaxlm.CountsConfig(order=2, add_k=0.1)
PLAIN = {"temperature": 1.0, "top_k": 2**31 - 1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


def reader() -> Any:
    """The module examples/run_exported.py."""
    spec = importlib.util.spec_from_file_location("run_exported", READER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_of(model: jaxlm.ModelConfig, kind: Any = "stream", **data: Any) -> jaxlm.Run:
    """A run in memory in which a token depends on those before it, and a memory does not begin with zeros."""
    config = jaxlm.DataConfig(kind=kind, split=(1, 0, 0), **data)
    run = opened(model, config, READ[kind](TEXTS[kind], config), C)
    if model.trained_by_steps:
        larger = jax.tree.map(lambda x: 4 * x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), run.params)
        run = dataclasses.replace(run, params=larger)
    return run


def texts(run: jaxlm.Run, path: Path, prompt: str, n: int, most: int, **given: Any) -> list[str]:
    """What the reader makes of an exported run, which must be what jaxlm.generate makes of it."""
    program_file.export_program(run, path)
    read = reader().Program(str(path))
    for temperature in (given.pop("temperature", 0.8), 0.0):
        chosen = given | {"temperature": temperature}
        found = list(read.texts(prompt, n, 3, most, **PLAIN | chosen))
        key = jax.random.key(3, impl="threefry2x32")
        assert found == jaxlm.generate(run, n=n, prompt=prompt, max_tokens=most, key=key, **chosen)
    return found


def test_a_table_of_counts_writes_the_same_names(tmp_path):
    found = texts(run_of(BIGRAM, "lines"), tmp_path / "a.zip", "em", 5, 20)
    assert len(set(found)) == 1, "the most likely ones"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (BIGRAM, "dialogues"),
        (jaxlm.CountsConfig(order=3, smoothing="kneser-ney"), "stream"),
        (TINY, "lines"),
        (jaxlm.RnnConfig(cell="lstm", d_embed=4, d_hidden=8), "lines"),
        (jaxlm.WavenetConfig(layers=2, d_embed=4, d_hidden=8), "stream"),
        (GPT, "lines"),
        (GPT, "dialogues"),
        (jaxlm.GptConfig.modern(context=C, zero_init=False, window_pattern="SL", **SMALL), "stream"),
        (jaxlm.ReanConfig(context=C, d_embed=8, **SMALL), "stream"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_model_writes_the_same_texts(model, kind, tmp_path):
    by_sequences = isinstance(model, jaxlm.GptConfig | jaxlm.ReanConfig | jaxlm.RnnConfig)
    run = run_of(model, kind, example="sequence" if by_sequences else "window")
    texts(run, tmp_path / "a.zip", PROMPTS[kind], 3, 30)


@pytest.mark.slow
def test_prefill_begins_a_text_anew_or_goes_on():
    run = run_of(jaxlm.RnnConfig(cell="lstm", d_embed=4, d_hidden=8), example="sequence")
    made = program.export_programs(run)
    prefill = jax.export.deserialize(bytearray(made.prefill)).call
    tokens, number = np.arange(made.prompt, dtype=np.int32)[None] % run.model.vocab_size, np.array([5], np.int32)
    junk = [np.full(leaf.shape, 7, leaf.dtype) for leaf in made.cache]
    once = prefill(made.weights, junk, np.array(True), tokens, number)
    twice = prefill(made.weights, once, np.array(False), tokens, number)
    cache = run.model.init_cache(run.params, 1, made.prompt)
    for found in (once, twice):
        _, cache = run.model.extend(run.params, cache, jnp.asarray(tokens), jnp.asarray(number))
        chex.assert_trees_all_close(found, jax.tree.leaves(cache), rtol=1e-5)


@pytest.mark.slow
def test_long_prompts_and_texts_beyond_the_context_are_the_same(tmp_path, monkeypatch):
    """A GPT sees the last of a prompt and goes on from half of what it saw; an RNN reads a prompt piece by piece."""
    monkeypatch.setattr(program, "PROMPT", 4)
    for name, model in (("gpt", GPT), ("rnn", jaxlm.RnnConfig(cell="gru", d_embed=4, d_hidden=8))):
        for prompt in ("", "the", "the king and the queen"):
            texts(run_of(model, example="sequence"), tmp_path / f"{name}{len(prompt)}.zip", prompt, 2, 40)


@pytest.mark.slow
def test_all_settings_act_as_they_do_in_the_house(tmp_path):
    chosen = {"top_k": 9, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.5, "temperature": 1.3}
    texts(run_of(GPT, example="sequence"), tmp_path / "a.zip", "the ki", 4, 30, **chosen)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [jaxlm.BytesConfig(), jaxlm.BpeConfig(vocab_size=280), jaxlm.ReanTokensConfig()])
def test_every_tokenizer_is_read(tokens, tmp_path):
    texts(run_of(BIGRAM, tokens=tokens), tmp_path / "a.zip", "the king é", 3, 30)


@pytest.mark.slow
def test_texts_are_written_by_a_process_without_jaxlm(tmp_path):
    run = run_of(GPT, example="sequence")
    program_file.export_program(run, tmp_path / "a.zip")
    blocked = "('jaxlm', 'flax', 'optax', 'orbax', 'tokenizers')"
    code = (
        f"import runpy, sys\nfor name in {blocked}: sys.modules[name] = None\n"
        f"runpy.run_path({str(READER)!r}, run_name='__main__')"
    )
    options = ["a.zip", "-n", "2", "--prompt", "a man", "--max-tokens", "30", "--seed", "5"]
    command = [sys.executable, "-W", "error", "-c", code, *options]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    key = jax.random.key(5, impl="threefry2x32")
    wanted = jaxlm.generate(run, n=2, prompt="a man", max_tokens=30, key=key)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "".join(f"{text}\n" for text in wanted))


@pytest.fixture(scope="module")
def bigram(tmp_path_factory) -> Path:
    """An exported table of counts."""
    path = tmp_path_factory.mktemp("exported") / "a.zip"
    program_file.export_program(run_of(BIGRAM, "lines"), path)
    return path


def test_the_file_is_what_docs_say(bigram):
    with zipfile.ZipFile(bigram) as file:
        header = json.loads(file.read("header.json"))
        names = set(file.namelist())
        assert json.loads(file.read("tokenizer.json"))["kind"] == "characters"
        for name in ("prefill", "decode"):
            exported = jax.export.deserialize(bytearray(file.read(f"{name}.bin")))
            assert exported.platforms == ("cpu", "cuda", "tpu")
        for name, said in header["weights"].items():
            with file.open(f"weights/{name}.npy") as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
            assert [*array.shape] == said["shape"] and array.dtype.name == said["dtype"]
    own = {"header.json", "tokenizer.json", "prefill.bin", "decode.bin"}
    assert names == own | {f"weights/{name}.npy" for name in header["weights"]}
    assert {"allowed", "params/count", "params/token_1"} <= set(header["weights"])
    assert (header["format"], header["version"], header["positions"], header["prompt"]) == (
        "jaxlm-program",
        1,
        None,
        256,
    )
    assert header["made"]["jax"] == jax.__version__ and re.fullmatch(r"\d{4}-\d\d-\d\d", header["made"]["date"])


@pytest.mark.slow
def test_no_program_has_a_kernel_of_one_platform(tmp_path):
    """Not even where the run is exported on a GPU that has one for its attention."""
    model = jaxlm.GptConfig(context=128, n_layers=1, n_heads=2, d_model=128, dtype="bfloat16")
    run = run_of(model, example="sequence")
    with compiling_for(Target("cuda", 9.0)):
        programs = program.export_programs(run)
    for raw in (programs.prefill, programs.decode):
        text = jax.export.deserialize(bytearray(raw)).mlir_module()
        assert "stablehlo.dot_general" in text
        assert not {name for name in re.findall(r"custom_call @(\w+)", text) if name != "Sharding"}
    assert {leaf.dtype.name for leaf in programs.cache} == {"bfloat16", "int32"}


@pytest.mark.slow
def test_numbers_that_numpy_lacks_come_back(tmp_path):
    run = run_of(jaxlm.GptConfig(context=C, dtype="bfloat16", **SMALL), example="sequence")
    params = jax.tree.map(lambda x: x.astype("bfloat16"), run.params)
    run = dataclasses.replace(run, params=params)
    program_file.export_program(run, tmp_path / "a.zip")
    weights = reader().Program(str(tmp_path / "a.zip"))._weights
    for name, array in program.named_weights(run).items():
        assert weights[name].dtype == array.dtype and np.array_equal(weights[name], array)


def test_nothing_is_written_over(bigram):
    before = bigram.read_bytes()
    with pytest.raises(UserError, match=r"--program wants a file that does not exist yet, got '.*a.zip'"):
        program_file.export_program(run_of(BIGRAM, "lines"), bigram)
    assert bigram.read_bytes() == before


@pytest.mark.parametrize("breaks", ["_write", "_check"])
def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch, breaks):
    real = getattr(program_file, breaks)

    def failing(path, *rest):
        real(path, *rest)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program_file, breaks, failing)
    with pytest.raises(UserError, match=r"--program '.*a.zip' cannot be written: No space left on device"):
        program_file.export_program(run_of(BIGRAM, "lines"), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_what_is_read_back_must_be_what_was_written(tmp_path, monkeypatch):
    real = program_file._write

    def damaged(path, run, programs):
        real(path, run, programs._replace(prefill=programs.prefill[:-1]))

    monkeypatch.setattr(program_file, "_write", damaged)
    with pytest.raises(UserError, match="cannot be read back"):
        program_file.export_program(run_of(BIGRAM, "lines"), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_line(tmp_path, monkeypatch, make_run):
    run = str(make_run(BIGRAM))
    for options, count in (([], "neither"), (["--out", "a", "--program", "b"], "both")):
        with pytest.raises(UserError, match=f"export wants --out FOLDER, .* or --program FILE, .* got {count}"):
            parse_interop(["export", run, *options])
    with pytest.raises(UserError, match="'nothing' does not exist"):
        main(["export", "nothing", "--program", str(tmp_path / "a.zip")])
    with pytest.raises(UserError, match=r"--program wants a place in a directory, got .*: '.*text.txt' is a file"):
        main(["export", run, "--program", str(tmp_path / "text.txt" / "a.zip")])
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(UserError, match=r"--program wants the extra: pip install 'jaxlm\[export\]'"):
        main(["export", run, "--program", str(tmp_path / "a.zip")])


def test_the_command_exports_a_run(tmp_path, make_run, capsys):
    run, path = make_run(BIGRAM), tmp_path / "made" / "a.zip"
    assert main(["export", str(run), "--program", str(path)]) == 0
    assert re.fullmatch(r"\S+a.zip: [\d,]+ bytes of programs for cpu, cuda, tpu and .*\n", capsys.readouterr().out)
    found = list(reader().Program(str(path)).texts("em", 3, 0, 20, **PLAIN))
    key = jax.random.key(0, impl="threefry2x32")
    assert found == jaxlm.generate(jaxlm.load_run(run), n=3, prompt="em", max_tokens=20, key=key)


GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TEXT = st.text(st.one_of(st.sampled_from("ab the'sTRE 12½٣ \n\t\r\x85\xa0\x1c.!éß中"), st.characters(codec="utf-8")))


@pytest.fixture(scope="module")
def byte_pairs() -> dict[str, Any]:
    """A tokenizer of GPT-2's pattern, and one of GPT-4's, by the house and by the reader."""
    pytest.importorskip("tokenizers")
    plain = BpeTokenizer.of_texts(list(TEXTS.values()) + ["it's 1234 of 'em éé ßß"] * 9, 400)
    tree = json.loads(plain.model)
    split = {"type": "Split", "pattern": {"Regex": GPT4}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
    tree["model"]["ignore_merges"] = True
    other = BpeTokenizer(json.dumps(tree), plain.eos)
    module = reader()
    return {"gpt2": (plain, module.ByteLevelBpe(json.loads(plain.model))), "gpt4": (other, module.ByteLevelBpe(tree))}


@settings(max_examples=300)
@given(TEXT)
def test_byte_pairs_are_merged_as_the_library_merges_them(byte_pairs, text):
    for house, read in byte_pairs.values():
        tokens = read.encode(text)
        assert tokens == house.encode(text).tolist()
        assert b"".join(map(read.bytes_of, tokens)).decode() == text
        assert read.bytes_of(house.eos) == b""


def test_what_the_reader_cannot_encode_is_refused(byte_pairs):
    tree = json.loads(byte_pairs["gpt2"][0].model)
    read = reader().ByteLevelBpe
    assert read(tree | {"normalizer": {"type": "NFC"}}).encode("e\u0301") == read(tree).encode("é")
    added = {"id": 900, "content": "<tool>", "special": False}
    other = read(tree | {"added_tokens": [*tree["added_tokens"], added]})
    assert other.bytes_of(900) == b"<tool>" and other.encode("tool") == read(tree).encode("tool")
    with pytest.raises(SystemExit, match="does not encode added tokens"):
        other.encode("a <tool>")
    with pytest.raises(SystemExit, match="byte-level BPE alone"):
        read(tree | {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(SystemExit, match="does not know how Metaspace cuts a text"):
        read(tree | {"pre_tokenizer": {"type": "Metaspace"}})


@given(TEXT)
def test_words_are_found_as_the_house_finds_them(text):
    house = ReanTokenizer.of_texts([TEXTS["stream"], "é중 हिन्दी "])
    read = reader().Words(list(house.words), with_marks(PATTERN))
    assert read.encode(text) == house.encode(text).tolist()
    assert b"".join(map(read.bytes_of, read.encode(text))).decode() == text
