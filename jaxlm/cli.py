"""Loading configs/*.py, overriding settings, and one line for a mistake."""

import contextlib
import dataclasses
import difflib
import gc
import io
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from jaxlm.config import RunConfig, check
from jaxlm.config.codec import load_module
from jaxlm.errors import NonFiniteLoss, UserError, near_path

EXIT_USER, EXIT_NON_FINITE = 2, 3
ALLOCATIONS_BETWEEN_COLLECTIONS = 100_000
"""Python's 700 costs a tenth of the time that imports and tracing take."""
Command = TypeVar("Command")


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train the model that CONFIG describes; run again, it resumes.

    --sweep.SETTING VALUE VALUE ... in place of a setting trains once for each value, and for every combination where
    there are several, one run after another, each in a directory of its own (runs/NAME-optim.lr=0.1). The values are
    all checked first. Run again, a sweep goes on; its table at the end has the best first. A value of several numbers
    goes in quotes: --sweep.data.split "0.8 0.1 0.1" "1 0 0".
    """

    config: Annotated[tyro.conf.AvoidSubcommands[RunConfig], tyro.conf.arg(name="")]
    restart: bool = False
    """Throw the run directory's old training away and start over."""
    dry_run: bool = False
    """Print the resolved config, parameters, memory and tokens; train nothing."""


@dataclasses.dataclass(frozen=True)
class RangeCommand:
    """A short training in which the learning rate rises: prints the loss against the rate, and suggests a rate.

    The suggestion is the smallest rate at which the smoothed loss has made 98 % of its fall. The config's own rate,
    schedule and steps do not matter; no run directory is touched.
    """

    config: Annotated[tyro.conf.AvoidSubcommands[RunConfig], tyro.conf.arg(name="")]
    low: float = 1e-5
    """The first learning rate."""
    high: float = 10.0
    """The last one, unless the loss explodes before."""
    range_steps: int = 1000
    """Steps from low to high."""
    out: Path = Path()
    """The picture of the curve."""


@dataclasses.dataclass(frozen=True)
class SampleCommand:
    """Sample from a trained run, or score a text with it."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 20
    """Samples for a prompt."""
    prompt: str = ""
    """Text that each sample begins with; one longer than the context is seen from its end."""
    max_tokens: int | None = None
    """Tokens after the prompt at most. None: 200 of a line, 500 of running text."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    top_p: float | None = None
    """Draw from the fewest likeliest tokens that reach this probability together."""
    min_p: float | None = None
    """Draw from tokens at least this times as likely as the likeliest."""
    seed: int = 0
    """The same seed gives the same samples."""
    stop: str = ""
    """End a sample before this text."""
    compare: bool = False
    """Print samples of the untrained and of the trained parameters side by side."""
    nearest: bool = False
    """Beside each sample its nearest training line and their edit distance, and the rate of exact copies."""
    by_vector: bool = False
    """On a REAN run: take the token whose vector is nearest to the predicted one; [NIV] where none is near."""
    interactive: bool = False
    """Ask for prompts, or talk with a model of dialogues; /help lists the commands."""
    score: Path | None = None
    """Score this text file."""
    score_text: str | None = None
    """Score this text, token by token."""
    json: bool = False
    """Print JSON."""
    checkpoint: Literal["best", "last"] = "best"
    """Which parameters: the best by dev loss, or the last."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto: the best that JAX finds."""


@dataclasses.dataclass(frozen=True)
class PlotsCommand:
    """Draw the pictures of a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    beside_training: bool = False
    """Draw the losses only once a line comes on standard input."""


@dataclasses.dataclass(frozen=True)
class LeaderboardCommand:
    """Rank finished runs by dev loss; runs on other data, tokens or splits are grouped apart."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The run directories."""
    samples: int = 1000
    """Samples from each run by which copies and new ones are counted; 0: none. The counts are kept in the runs."""
    json: bool = False
    """Print JSON."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where samples are drawn. auto: the best that JAX finds."""


def run_main(main: Callable[[list[str]], int]) -> NoReturn:
    """Call main with the arguments and exit as the contract says: a user's mistake is one line and code 2."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 128 + signal.SIGINT
    except UserError as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        code = EXIT_USER
    except NonFiniteLoss as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        code = EXIT_NON_FINITE
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    gc.freeze()  # at the end nothing is worth a search for cycles
    sys.exit(code)


def parse_train(args: list[str]) -> TrainCommand | None:
    """The command of train.py, or None where only help was wanted (it has been printed)."""
    if not args or (args[0] in ("-h", "--help")):
        print(_train_usage())
        if not args:
            raise UserError("config wants a file, as in: train.py configs/names_mlp.py")
        return None
    return train_command(*load_train(args))


def load_train(args: Sequence[str]) -> tuple[Path, RunConfig, list[str]]:
    """The config file that comes first, what it defines, and the arguments after it."""
    if args[0].startswith("-"):
        raise UserError(f"config wants a file as the first argument, got {args[0]!r}")
    path = Path(args[0])
    return path, load_config(path), list(args[1:])


def train_command(path: Path, config: RunConfig, args: Sequence[str]) -> TrainCommand:
    """A loaded config with its settings overridden."""
    default = TrainCommand(_one_length(config, args))
    command = parse(TrainCommand, args, prog=f"train.py {path}", default=default)
    run_dir = command.config.run_dir or str(Path("runs") / path.stem)
    return dataclasses.replace(command, config=dataclasses.replace(command.config, run_dir=run_dir))


def parse_range(args: list[str]) -> RangeCommand | None:
    """The command of jaxlm.lr_range, or None where only the usage was wanted (it has been printed)."""
    prog = "python -m jaxlm.lr_range"
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: {prog} CONFIG [--low 1e-5] [--high 10] [--range-steps 1000] [--out FILE] [--SETTING VALUE ...]")
        if not args:
            raise UserError(f"config wants a file, as in: {prog} configs/names_mlp.py")
        return None
    path, config, rest = load_train(args)
    default = RangeCommand(_one_length(config, rest), out=Path("runs") / f"{path.stem}-lr-range.png")
    return parse(RangeCommand, rest, prog=f"{prog} {path}", default=default)


def parse_sample(args: list[str]) -> SampleCommand:
    """The command of sample.py. Raises UserError for values out of range, before anything is loaded."""
    command = parse(SampleCommand, args, prog="sample.py")
    check.at_least("--n", command.n, 1)
    check.at_least("--max-tokens", command.max_tokens, 1)
    check.at_least("--temperature", command.temperature, 0)
    check.at_least("--top-k", command.top_k, 1)
    check.half_open("--top-p", command.top_p, 0, 1)
    check.between("--min-p", command.min_p, 0, 1)
    check.between("--seed", command.seed, 0, 2**32 - 1)
    one_of = {
        "--compare": command.compare,
        "--nearest": command.nearest,
        "--interactive": command.interactive,
        "--score": command.score is not None,
        "--score-text": command.score_text is not None,
    }
    if sum(one_of.values()) > 1:
        given = " and ".join(name for name, asked in one_of.items() if asked)
        raise UserError(f"{given} exclude each other: give one of them")
    if command.json and command.interactive:
        raise UserError("--json and --interactive exclude each other: give one of them")
    return command


def parse_leaderboard(args: list[str]) -> LeaderboardCommand:
    """The command of python -m jaxlm.leaderboard. Raises UserError before anything is read."""
    command = parse(LeaderboardCommand, args, prog="python -m jaxlm.leaderboard")
    check.at_least("--samples", command.samples, 0)
    if not command.runs:
        raise UserError("runs wants at least one run directory, as in: python -m jaxlm.leaderboard runs/*")
    return command


def load_config(path: Path) -> RunConfig:
    """The `config` that a Python file defines. Raises UserError where there is none to be had."""
    if not path.is_file():
        raise UserError(
            f"config {str(path)!r} {'is not a file' if path.exists() else 'does not exist'}{near_path(path)}"
        )
    if path.suffix != ".py":
        raise UserError(f"config {str(path)!r} wants a Python file (.py)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            module = load_module(path)
    except SyntaxError as error:
        raise UserError(f"config {str(path)!r} does not parse: {error.msg} (line {error.lineno})") from error
    except UserError as error:
        raise UserError(f"config {str(path)!r}: {error}") from error
    except Exception as error:
        raise UserError(f"config {str(path)!r} fails as it is loaded: {type(error).__name__}: {error}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, RunConfig):
        got = "none" if config is None else f"a {type(config).__name__}"
        raise UserError(f"config {str(path)!r} wants a line `config = RunConfig(...)`, got {got}")
    return config


def parse(kind: type[Command], args: Sequence[str], *, prog: str, default: Command | None = None) -> Command:
    """Arguments to a dataclass. Raises UserError in one line, with the near name; SystemExit(0) after --help."""
    box = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    config = (tyro.conf.FlagCreatePairsOff,)
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, args=list(args), prog=prog, config=config, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_condense(box.getvalue(), lambda: _setting_names(kind, options))) from None


def _one_length(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let --epochs on the command line stand in for the config's steps, and the other way round."""
    given = {arg.partition("=")[0] for arg in args}
    if "--epochs" in given and "--steps" not in given:
        return dataclasses.replace(config, steps=None, epochs=config.epochs or 1.0)
    if "--steps" in given and "--epochs" not in given:
        return dataclasses.replace(config, steps=config.steps or 1, epochs=None)
    return config


def _condense(box: str, settings: Callable[[], list[str]]) -> str:
    """The message of tyro's box in one line, with the setting whose name is near."""
    body = " ".join(line.strip("│ ") for line in box.splitlines() if line.startswith("│"))
    message = _one_line(body.partition("───")[0])
    unknown = re.match(r"Unrecognized options: (\S+?),?(?: |$)", message)
    if unknown:
        near = difflib.get_close_matches(unknown[1].partition("=")[0], settings(), n=1)
        return f"{unknown[1]} is not a setting ({f'did you mean {near[0]}?' if near else 'see --help'})"
    message = re.sub(r"^Error parsing ", "", message)
    own = re.match(r"config[\w.]*: (.*)$", message)
    if own:
        return own[1]
    return re.sub(r"\.? Got errors:.*", "", message).rstrip(".") + " (see --help)"


def _setting_names(kind: Any, options: dict[str, Any]) -> list[str]:
    """Every --setting that the help lists."""
    box = io.StringIO()
    with contextlib.redirect_stdout(box), contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], prog="", config=(tyro.conf.FlagCreatePairsOff,), **options)
    return re.findall(r"(?<=[ │])--[\w.-]+", box.getvalue())


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _train_usage() -> str:
    configs = sorted(str(path) for path in Path("configs").glob("*.py"))
    listed = "\n".join(f"  {name}" for name in configs) or "  (no configs/ here)"
    return (
        "usage: train.py CONFIG [--SETTING VALUE ...] [--sweep.SETTING VALUE VALUE ...] [--restart] [--dry-run]\n\n"
        "Train the model that CONFIG, a Python file, describes; run again, it resumes.\n"
        "--sweep.optim.lr 0.01 0.1 trains once for each value, in run directories of their own.\n"
        "Every setting of the file can be overridden: train.py CONFIG --help lists them.\n\n"
        f"configs:\n{listed}"
    )
