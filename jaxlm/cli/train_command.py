"""Arguments of the commands that take a config: load configs/*.py, and override its settings."""

import dataclasses
import itertools
import re
import reprlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxlm.cli.parsing import parse
from jaxlm.cli.suggestions import near_value
from jaxlm.config import AnyTextConfig, DataConfig, PreparedTokensConfig, RunConfig, check
from jaxlm.config.rean import TableConfig
from jaxlm.config.run import DEFAULT_BATCH
from jaxlm.config.settings import at_home
from jaxlm.config.tokens import CHOICES
from jaxlm.config.user_code import failure, load_module
from jaxlm.errors import UserError, near_path


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train the model that CONFIG describes; run again, it resumes.

    --sweep.SETTING VALUE VALUE ... in place of a setting trains once for each value, and for every combination where
    there are several, one run after another, each in a directory of its own (runs/NAME-optim.lr=0.1). The values are
    all checked first. Run again, a sweep goes on; its table at the end has the best first. A value of several numbers
    goes in quotes: --sweep.data.split "0.8 0.1 0.1" "1 0 0".
    """

    config: Annotated[tyro.conf.AvoidSubcommands[RunConfig], tyro.conf.arg(name="")]
    restart: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin anew; an old run in the run directory is renamed to NAME.old."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
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
class PlanCommand:
    """Compile the train step and a decoding step of a config for devices that are not there.

    Prints parameters, bytes on a device, operations, and the time that the device's peaks allow. No data is read.
    """

    config: Annotated[tyro.conf.AvoidSubcommands[RunConfig], tyro.conf.arg(name="")]
    on: str = "h100"
    """The devices: h100, h100x8, "4x8 h100" (hosts x GPUs), v5p:2x2x2; a100, h200, b200, l4, v5e, v6e, v7, ..."""
    search: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile the train step for every mesh of these devices, and list them with the fastest first."""
    decode_rows: int = 1
    """Rows that the decoding step continues together."""
    price_per_hour: float | None = None
    """The price of a device for an hour, in any currency, by which the run is priced. None: no price."""
    mfu: float | None = None
    """The share of the peak that steps are known to reach, as 0.4: hours and price by it too. None: bounds alone."""


def parse_train(args: list[str]) -> TrainCommand | None:
    """Parse the arguments of train.py; None where only help was wanted (it has been printed)."""
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
    path = Path(at_home(args[0]))
    return path, *_choose_tokens(load_config(path), list(args[1:]))


def train_command(path: Path, config: RunConfig, args: Sequence[str]) -> TrainCommand:
    """A loaded config with its settings overridden."""
    default = TrainCommand(_default(config, args))
    if isinstance(config.model, AnyTextConfig):
        args = [re.sub(r"^--minutes(?==|$)", "--model.minutes", arg) for arg in args]
    command = parse(TrainCommand, args, prog=f"train.py {path}", default=default)
    run_dir = command.config.run_dir or str(Path("runs") / path.stem)
    return dataclasses.replace(command, config=dataclasses.replace(command.config, run_dir=run_dir))


def parse_range(args: list[str]) -> RangeCommand | None:
    """Parse the arguments of jaxlm.lr_range; None where only the usage was wanted (it has been printed)."""
    prog = "python -m jaxlm.lr_range"
    options = "[--low 1e-5] [--high 10] [--range-steps 1000] [--out FILE]"
    if _asks_for_usage(args, f"{prog} CONFIG {options}", f"{prog} configs/names_mlp.py"):
        return None
    path, config, rest = load_train(args)
    default = RangeCommand(_default(config, rest), out=Path("runs") / f"{path.stem}-lr-range.png")
    return parse(RangeCommand, rest, prog=f"{prog} {path}", default=default)


def parse_plan(args: list[str]) -> PlanCommand | None:
    """Parse the arguments of jaxlm.devices.plan; None where only the usage was wanted (it has been printed)."""
    prog = "python -m jaxlm.devices.plan"
    options = "--on h100x8 [--search] [--price-per-hour 2.5] [--mfu 0.4] [--decode-rows 1]"
    if _asks_for_usage(args, f"{prog} CONFIG {options}", f"{prog} configs/names_gpt.py --on h100"):
        return None
    path, config, rest = load_train(args)
    default = PlanCommand(_default(config, rest))
    command = parse(PlanCommand, _one_word(rest, "--on"), prog=f"{prog} {path}", default=default)
    check.more_than("--price-per-hour", command.price_per_hour, 0)
    check.half_open("--mfu", command.mfu, 0, 1)
    check.at_least("--decode-rows", command.decode_rows, 1)
    return command


def _one_word(args: Sequence[str], option: str) -> list[str]:
    """Join the two words after an option, as those of --on 4x8 h100, into one."""
    joined = list(args)
    for at in range(len(joined) - 2, 0, -1):
        if joined[at - 1] == option and not any(word.startswith("-") for word in joined[at : at + 2]):
            joined[at : at + 2] = [" ".join(joined[at : at + 2])]
    return joined


def _asks_for_usage(args: list[str], usage: str, example: str) -> bool:
    """Print the usage where there are no arguments, or only help is wanted. Raises UserError where there are none."""
    if args and args[0] not in ("-h", "--help"):
        return False
    print(f"usage: {usage} [--SETTING VALUE ...]")
    if not args:
        raise UserError(f"config wants a file, as in: {example}")
    return True


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
    except (Exception, SystemExit) as error:
        raise UserError(f"config {str(path)!r} fails as it is loaded: {failure(error)}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, RunConfig):
        got = "none" if config is None else reprlib.repr(config)
        raise UserError(f"config {str(path)!r} wants a line `config = RunConfig(...)`, got {got}")
    return config


def _choose_tokens(config: RunConfig, args: Sequence[str]) -> tuple[RunConfig, list[str]]:
    """Let --data.tokens NAME choose the class of the config's tokens; returns the arguments without it.

    A class that the config has already keeps its settings.
    """
    rest = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--data.tokens=") else [arg])]
    while "--data.tokens" in rest:
        at = rest.index("--data.tokens")
        name = rest[at + 1] if at + 1 < len(rest) else ""
        if name not in CHOICES:
            near = near_value(name, list(CHOICES))
            hint = f" (did you mean {near}?)" if near else ""
            *others, last = CHOICES
            raise UserError(f"--data.tokens wants {', '.join(others)} or {last}, got {name!r}{hint}")
        if type(config.data.tokens) is not CHOICES[name]:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokens=CHOICES[name]()))
        del rest[at : at + 2]
    return config, rest


def _default(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Return the config without the settings that an argument replaces under another name."""
    for replaced in (_one_order, _one_length, _one_batch, _one_text, _shards, _one_source):
        config = replaced(config, args)
    return config


def _one_order(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let --batch-size full on the command line stand in for the config's order of rows, which it leaves no effect."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    if ("--batch-size", "full") in itertools.pairwise(words) and config.batch_size != "full":
        return dataclasses.replace(config, data=dataclasses.replace(config.data, order="shuffled"))
    return config


def _one_length(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let one of --steps, --epochs and --tokens on the command line stand in for what the config has of them."""
    lengths = {"steps": 1, "epochs": 1.0, "tokens": 1.0}
    asked = [name for name in lengths if f"--{name}" in {arg.partition("=")[0] for arg in args}]
    if len(asked) != 1:
        return config
    nothing: dict[str, Any] = dict.fromkeys(lengths)
    (name,) = asked
    return dataclasses.replace(config, **nothing | {name: getattr(config, name) or lengths[name]})


def _one_batch(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let --batch-tokens on the command line stand in for the config's batch_size, and the other way round."""
    given = {arg.partition("=")[0].replace("_", "-") for arg in args}
    if "--batch-tokens" in given and "--batch-size" not in given:
        return dataclasses.replace(config, batch_size=DEFAULT_BATCH, batch_tokens=config.batch_tokens or 1.0)
    if "--batch-size" in given and "--batch-tokens" not in given:
        return dataclasses.replace(config, batch_tokens=None)
    return config


def _one_text(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let --data.path on the command line stand in for the config's data.name, and the other way round."""
    given = {arg.partition("=")[0] for arg in args}
    if "--data.path" in given and "--data.name" not in given:
        return dataclasses.replace(config, data=dataclasses.replace(config.data, name=DataConfig().name))
    if "--data.name" in given and "--data.path" not in given:
        data = dataclasses.replace(config.data, path=None, encoding=DataConfig().encoding)
        return dataclasses.replace(config, data=data)
    return config


def _shards(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let the shards that --data.path names stand in for the config's settings of how a text becomes rows."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    paths = [value for option, value in itertools.pairwise(words) if option == "--data.path"]
    if not (paths and Path(at_home(paths[-1])).is_dir()) or isinstance(config.model, AnyTextConfig):
        return config
    data = DataConfig(
        path=at_home(paths[-1]),
        kind="stream",
        tokens=PreparedTokensConfig(),
        example="sequence",
        max_length=config.data.max_length,
        order=config.data.order,
    )
    return dataclasses.replace(config, data=data)


def _one_source(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """Let --model.vectors FILE on the command line stand in for the config's vectors_from, unless that is there too."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    files = [value for option, value in itertools.pairwise(words) if option == "--model.vectors" and value != "None"]
    both = any(word.replace("_", "-").startswith("--model.vectors-from.") for word in words)
    if files and not both and isinstance(config.model, TableConfig):
        model = dataclasses.replace(config.model, vectors=files[-1], vectors_from=None)
        return dataclasses.replace(config, model=model)
    return config


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
