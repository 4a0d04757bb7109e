"""What was meant by a setting or value that does not exist, on every terminal."""

import io
import sys

import pytest

from jaxlm.cli.sample_command import parse_sample
from jaxlm.cli.suggestions import near_setting, near_value
from jaxlm.cli.sweep_command import parse_sweep
from jaxlm.cli.train_command import parse_train
from jaxlm.errors import UserError

GPT = """
from jaxlm import DataConfig, GptConfig, RunConfig
config = RunConfig(model=GptConfig(), data=DataConfig(example="sequence"), steps=100)
"""
SETTINGS = [
    "--batch-size",
    "--data.name",
    "--data.path",
    "--device",
    "--epochs",
    "--model.d-hidden",
    "--model.n-layers",
    "--model.name",
    "--model.out-gain",
    "--model.vectors-from.optim.lr",
    "--optim.lr",
    "--optim.weight-decay",
    "--run-dir",
    "--sample.n",
    "--sample.temperature",
    "--steps",
]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("--lr", "--optim.lr"),
        ("--lr=0.1", "--optim.lr"),
        ("--model.lr", "--optim.lr"),
        ("--optm.lr", "--optim.lr"),
        ("--dta.name", "--data.name"),
        ("--modle.name", "--model.name"),
        ("--temp", "--sample.temperature"),
        ("--sample.temp", "--sample.temperature"),
        ("--epoch", "--epochs"),
        ("--batch", "--batch-size"),
        ("--batch_size_", "--batch-size"),
        ("--hidden", "--model.d-hidden"),
        ("--hidden-size", "--model.d-hidden"),
        ("--num_layers", "--model.n-layers"),
        ("--num-epochs", "--epochs"),
        ("--learning-rate", "--optim.lr"),
        ("--data", "--data.path"),
        ("--output", "--run-dir"),
        ("--gpu", "--device"),
        ("--weight-deacy", "--optim.weight-decay"),
        ("--stepz", "--steps"),
        ("--dropout", None),
        ("--zzzqqq", None),
        ("-x", None),
    ],
)
def test_the_setting_that_was_meant(given, near):
    assert near_setting(given, SETTINGS) == near


@pytest.mark.parametrize(("given", "near"), [("linse", "lines"), ("dial", "dialogues"), ("LINE", "lines"), ("x", None)])
def test_the_value_that_was_meant(given, near):
    assert near_value(given, ["lines", "stream", "dialogues"]) == near


@pytest.fixture
def gpt(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(GPT)
    return str(path)


class Terminal(io.StringIO):
    """A terminal that has no letter beyond ASCII."""

    encoding = "ascii"

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["a file", "a terminal"])
def narrow(request, monkeypatch):
    """Output of 40 columns."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    if request.param == "a terminal":
        monkeypatch.setattr(sys, "stdout", Terminal())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--lr", "0.1"], r"--lr is not a setting \(did you mean --optim\.lr\?\)"),
        (["--dropout", "0.1"], r"--dropout is not a setting \(did you mean --model\.dropout\?\)"),
        (["--hid", "1"], r"--hid is not a setting \(see --help\)"),
        (
            ["--data.kind", "linse"],
            r"--data\.kind wants lines, stream or dialogues, got 'linse' \(did you mean lines\?\)",
        ),
        (["--optim.lr", "fast"], r"--optim\.lr wants a number, got 'fast'"),
        (["--model.n-heads", "3"], r"model\.d_model wants a multiple of the 3 heads, got 64"),
    ],
)
def test_a_mistake_is_the_same_line_whatever_the_terminal(gpt, narrow, args, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        parse_train([gpt, *args])


def test_other_commands_suggest_their_own(gpt, narrow):
    with pytest.raises(UserError, match=r"^--temp is not a setting \(did you mean --temperature\?\)$"):
        parse_sample(["run", "--temp", "1"])
    with pytest.raises(UserError, match=r"^--checkpoint wants best or last, got 'lats' \(did you mean last\?\)$"):
        parse_sample(["run", "--checkpoint", "lats"])
    with pytest.raises(UserError, match=r"^--sweep\.lr is not a setting \(did you mean --sweep\.optim\.lr\?\)$"):
        parse_sweep([gpt, "--sweep.lr", "0.1", "0.2"])


@pytest.mark.parametrize("no_color", [False, True])
def test_help_has_colours_on_a_terminal_unless_they_are_unwanted(gpt, monkeypatch, no_color):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit):
        parse_train([gpt, "--help"])
    assert "--optim.lr" in terminal.getvalue() and ("\x1b[" in terminal.getvalue()) is not no_color
