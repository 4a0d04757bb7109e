"""python -m jaxlm.data: commands, their output and their mistakes; and --data.path DIR for a config of a text."""

import pytest

from jaxlm.cli.data_command import run
from jaxlm.cli.train_command import parse_train
from jaxlm.config import PreparedTokensConfig
from jaxlm.errors import UserError
from tests import processes
from tests.conftest import NAMES

CONFIG = """\
from jaxlm import DataConfig, GptConfig, RunConfig

data = DataConfig(name="tinyshakespeare", kind="stream", example="sequence", max_length=32, split=(0.9, 0.1, 0.0))
config = RunConfig(model=GptConfig(), data=data, steps=1)
"""


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(NAMES))
    return tmp_path / "a.txt"


def prepared(text, *args):
    out = text.with_name("out")
    assert (
        run(
            [
                "prepare",
                str(text),
                "--out",
                str(out),
                "--tokens",
                "characters",
                "--document",
                "lines",
                "--held-out",
                "0.2",
                *args,
            ]
        )
        == 0
    )
    return out


def test_prepare_and_verify_say_what_there_is(text, capsys):
    out = prepared(text)
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"{out}: 2 shards, train " in line and " documents, dev " in line
    assert run(["verify", str(out)]) == 0
    assert capsys.readouterr().out.endswith("as their checksums say\n")
    (out / "dev-00000.bin").write_bytes(bytes((out / "dev-00000.bin").stat().st_size))
    with pytest.raises(UserError, match=r"'dev-00000\.bin' has other content.*1 of 2 shards"):
        run(["verify", str(out)])


def test_help_and_mistakes(text, capsys):
    assert run(["--help"]) == 0
    assert "prepare PATHS" in capsys.readouterr().out
    mistakes = {
        "wants prepare or verify, got 'nothing'": [],
        "got 'prepair'": ["prepair"],
        "did you mean --held-out": ["prepare", str(text), "--out", "o", "--heldout", "1"],
        "held_out wants a number": ["prepare", str(text), "--out", "o", "--held-out", "1"],
        "--processes wants a number": ["prepare", str(text), "--out", "o", "--processes", "0"],
        "verify wants one directory": ["verify"],
    }
    for words, args in mistakes.items():
        with pytest.raises(UserError, match=words):
            run(args)


def test_a_mistake_is_one_line_of_a_real_process(tmp_path_factory):
    cli = processes.cli(tmp_path_factory)
    done = cli.python("-m", "jaxlm.data", "prepare", cli.base / "nothing.txt", "--out", cli.base / "out")
    processes.refused(done, "nothing.txt", "does not exist")


def test_shards_stand_in_for_the_settings_of_a_text(text):
    out = prepared(text)
    (text.parent / "gpt.py").write_text(CONFIG)
    command = parse_train([str(text.parent / "gpt.py"), "--data.path", str(out)])
    assert command is not None
    data = command.config.data
    assert (data.path, data.kind, data.example, data.max_length) == (str(out), "stream", "sequence", 32)
    assert data.tokens == PreparedTokensConfig() and data.split == (0.8, 0.1, 0.1)
    command = parse_train([str(text.parent / "gpt.py"), f"--data.path={out}", "--data.max-length", "16"])
    assert command is not None and command.config.data.max_length == 16
