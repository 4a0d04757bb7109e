"""Preparation: the tokens on disk are the documents', whatever stops it, and however the work is spread."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from jaxlm.config import PrepareConfig
from jaxlm.data import documents as documents_of_files
from jaxlm.data import files, prepare, units
from jaxlm.data.shards import open_shards
from jaxlm.errors import UserError
from tests.conftest import NAMES, REPOSITORY
from tests.processes import SECONDS

LINES = PrepareConfig(tokens="characters", document="lines", held_out=0.2, shard_tokens=100)


@pytest.fixture
def text(tmp_path):
    """Two files of names, a document a line; each is cut into several units of work."""
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(NAMES[:30]) + "\n")
    (folder / "b.txt").write_text("\n".join(NAMES[30:]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(files, "UNIT_BYTES", 40)


def done(paths, out, config=LINES, processes=1):
    """Prepare; returns the content of every file."""
    prepare.prepare(paths, out, config, processes, log=lambda line: None)
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def documents(out, split):
    """The documents of a split, decoded from its shards."""
    shards = open_shards(out)
    token_N = np.concatenate([np.zeros(0, int), *(shards.map(shard) for shard in shards.of_split(split))])
    ends = np.flatnonzero(token_N == shards.eos).tolist()
    assert len(token_N) == (ends[-1] + 1 if ends else 0)
    starts = [0, *(end + 1 for end in ends)]
    return [shards.tokenizer.decode(token_N[start:end].tolist()) for start, end in zip(starts, ends, strict=False)]


def test_shards_are_the_documents_in_order_each_with_its_end(text, tmp_path):
    done([text], tmp_path / "out")
    held_out = [name for name in NAMES if units.is_held_out(name, 0.2)]
    assert 0 < len(held_out) < 25
    assert documents(tmp_path / "out", "dev") == held_out
    assert documents(tmp_path / "out", "train") == [name for name in NAMES if name not in held_out]


def test_the_manifest_says_what_shards_hold(text, tmp_path):
    done([text], tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "manifest.json").read_text())
    *full, last = [shard["tokens"] for shard in tree["shards"] if shard["split"] == "train"]
    assert set(full) == {100} and 0 < last <= 100
    assert sum(shard["documents"] for shard in tree["shards"]) == len(NAMES)
    assert sum(shard["bytes"] for shard in tree["shards"]) == sum(len(name) + 1 for name in NAMES)
    assert [source["bytes"] for source in tree["sources"]] == [p.stat().st_size for p in sorted(text.iterdir())]
    assert (tree["dtype"], tree["eos"]) == ("uint16", 0)


def test_a_vocabulary_beyond_16_bits_takes_32(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNIT_BYTES", 2**24)
    (tmp_path / "a.txt").write_text(
        "".join(map(chr, range(0x4E00, 0xA000))) + "".join(map(chr, range(0x20000, 0x2C000)))
    )
    prepare.prepare([tmp_path / "a.txt"], tmp_path / "out", PrepareConfig(tokens="characters", held_out=0), 1)
    shards = open_shards(tmp_path / "out")
    assert shards.dtype == "<u4"
    assert documents(tmp_path / "out", "train") == [(tmp_path / "a.txt").read_text()]


def test_the_split_of_a_document_depends_on_no_other_one_nor_on_files(text, tmp_path):
    done([text / "b.txt", text / "a.txt"], tmp_path / "turned")
    (tmp_path / "one.jsonl").write_text("".join(json.dumps({"text": name}) + "\n" for name in sorted(NAMES)[::2]))
    done([tmp_path / "one.jsonl"], tmp_path / "one")
    held_out = set(documents(tmp_path / "turned", "dev"))
    assert held_out == {name for name in NAMES if units.is_held_out(name, 0.2)}
    assert set(documents(tmp_path / "one", "dev")) == held_out & set(sorted(NAMES)[::2])


def test_a_document_of_many_units_has_one_split_and_one_end(tmp_path, monkeypatch):
    """Its beginning decides, wherever it is cut, and no token is lost at a cut."""
    monkeypatch.setattr(documents_of_files, "HEAD", 10)
    texts = [f"{name} and others, {i}\n" * 30 for i, name in enumerate(NAMES[:8])]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    assert len(files.units_of(sorted(tmp_path.glob("*.txt")))) > 50
    done([tmp_path], tmp_path / "out", PrepareConfig(tokens="characters", held_out=0.5))
    held_out = [text for text in texts if units.is_held_out(text[:10], 0.5)]
    assert 0 < len(held_out) < 8
    assert documents(tmp_path / "out", "dev") == held_out
    assert documents(tmp_path / "out", "train") == [text for text in texts if text not in held_out]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def test_stopped_at_any_write_it_goes_on_to_the_same_bytes(text, tmp_path, monkeypatch):
    """Stopped while it writes the plan, the tokenizer, the first and a middle unit, each shard, and the manifest."""
    whole_file, left = units.whole_file, 0

    def stopping(path):
        nonlocal left
        left -= 1
        if left < 0:
            path.with_name(path.name + ".part").write_bytes(b"half")
            raise Killed
        return whole_file(path)

    for module in (units, prepare):
        monkeypatch.setattr(module, "whole_file", stopping)
    left = 1000
    expected = done([text], tmp_path / "whole")
    writes = 1000 - left
    shards = len([name for name in expected if name.endswith(".bin")])
    for at in (0, 1, 2, writes // 2, *range(writes - shards - 1, writes)):
        out, left = tmp_path / f"stopped{at}", at
        with pytest.raises(Killed):
            done([text], out)
        left = 1000
        assert done([text], out) == expected


def test_killed_with_its_processes_it_goes_on_to_the_same_bytes(text, tmp_path):
    (text / "c.txt").write_text("".join(f"line {i}\n" for i in range(800)))
    expected = done([text], tmp_path / "whole")
    program = (
        "import sys; from pathlib import Path; from jaxlm.config import PrepareConfig; from jaxlm.data import files\n"
        "from jaxlm.data.prepare import prepare\n"
        "files.UNIT_BYTES = 40\n"
        "if __name__ == '__main__':\n"
        "    config = PrepareConfig(tokens='characters', document='lines', held_out=0.2, shard_tokens=100)\n"
        "    prepare([sys.argv[1]], Path(sys.argv[2]), config, 2)\n"
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(text), str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=env, start_new_session=True, stdout=-3, stderr=-3)
    limit = time.monotonic() + SECONDS
    while not (tmp_path / "out" / "parts" / "000040.json").exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "manifest.json").exists()
    while True:  # its processes end by themselves
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert done([text], tmp_path / "out") == expected


def test_a_directory_of_other_things_or_other_settings_is_refused(text, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"--out wants a new directory.*mine\.txt"):
        done([text], tmp_path / "full")
    done([text], tmp_path / "out")
    with pytest.raises(UserError, match=r"begun with --shard-tokens 100 \(now 50\)"):
        done(
            [text],
            tmp_path / "out",
            PrepareConfig(tokens="characters", document="lines", held_out=0.2, shard_tokens=50),
        )
    with pytest.raises(UserError, match=r"other files or contents, as .*b\.txt"):
        done([text / "a.txt"], tmp_path / "out")
    with pytest.raises(UserError, match="the file"):
        done([text], text / "a.txt")


def test_a_finished_directory_is_left_as_it_is(text, tmp_path):
    before = done([text], tmp_path / "out")
    lines: list[str] = []
    prepare.prepare([text], tmp_path / "out", LINES, 1, log=lines.append)
    assert lines == [f"{tmp_path / 'out'} is prepared already"]
    assert done([text], tmp_path / "out") == before


def test_tokens_of_a_run_and_tokens_that_are_trained(text, tmp_path):
    done([text], tmp_path / "out")
    done([text], tmp_path / "again", PrepareConfig(tokens=str(tmp_path / "out"), document="lines"))
    assert open_shards(tmp_path / "again").tokenizer == open_shards(tmp_path / "out").tokenizer
    (text / "c.txt").write_text("emma\n" * 3)
    done([text], tmp_path / "rean", PrepareConfig(tokens="rean", document="file", held_out=0))
    assert documents(tmp_path / "rean", "train") == [path.read_text() for path in sorted(text.iterdir())]
    assert list(open_shards(tmp_path / "rean").tokenizer.words) == ["emma\n"]
    with pytest.raises(UserError, match="tokens wants bytes, bpe, characters, rean"):
        done([text], tmp_path / "no", PrepareConfig(tokens="chars"))


@pytest.mark.parametrize("tokens", ["bytes", "bpe", "gpt2_bpe"])
def test_tokens_that_know_every_text(tokens, tmp_path, request):
    """GPT-2's EOS is not token 0: shards, their counts and the manifest have the tokenizer's own."""
    if tokens == "gpt2_bpe":
        tokens = str(request.getfixturevalue("shared_data") / tokens)
    if tokens != "bytes":
        pytest.importorskip("tokenizers")
    texts = ["Ein schöner Tag\n\nim Juli, " * 3, "<|endoftext|> 𝄞 \t  x\n", "a a a a a"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    vocab_size: dict[str, Any] = {"vocab_size": 260} if tokens == "bpe" else {}
    done([tmp_path / "a.jsonl"], tmp_path / "out", PrepareConfig(tokens=tokens, held_out=0, **vocab_size))
    assert documents(tmp_path / "out", "train") == texts
    shards = open_shards(tmp_path / "out")
    assert shards.eos == shards.tokenizer.eos == (50_256 if "gpt2" in tokens else 0)
    assert sum(shard.documents for shard in shards.shards) == 3
    assert sum(shard.bytes for shard in shards.shards) == sum(len(text.encode()) + 1 for text in texts)


def test_what_the_tokenizer_lacks_is_reported_with_its_file(text, tmp_path):
    done([text / "a.txt"], tmp_path / "out")
    (text / "b.txt").write_text("emma\nZoë\n")
    with pytest.raises(UserError, match=r"b\.txt.*'Z' \(U\+005A\) is not in this tokenizer"):
        done([text / "b.txt"], tmp_path / "again", PrepareConfig(tokens=str(tmp_path / "out"), document="lines"))


def test_a_tokenizer_is_trained_on_a_bounded_sample_of_train(text, tmp_path):
    work = [units.Unit(number, spans) for number, spans in enumerate(files.units_of(files.find_files([text])))]
    sample = list(units.sample_of(LINES, work[::3], 60))
    assert sum(map(len, sample)) <= 60
    assert len(sample) >= 3
    assert not [part for part in sample if part in NAMES and units.is_held_out(part, 0.2)]


def test_without_train_or_dev(text, tmp_path):
    with pytest.raises(UserError, match="at least one document for train"):
        done([text / "a.txt"], tmp_path / "none", PrepareConfig(tokens="characters", held_out=0.9999999))
    (text / "empty.txt").write_text("")
    with pytest.raises(UserError, match=r"1 empty files, as .*empty\.txt"):
        done([text / "empty.txt"], tmp_path / "empty")
    lines: list[str] = []
    prepare.prepare(
        [text / "a.txt"], tmp_path / "out", PrepareConfig(tokens="characters", held_out=0.00001), 1, log=lines.append
    )
    assert "no document was held out" in lines[-1]
