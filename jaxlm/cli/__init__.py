"""The command line: parsing, loading configs/*.py, overriding settings, and one line for a mistake."""

from jaxlm.cli.parsing import parse
from jaxlm.cli.reports import LeaderboardCommand, PlotsCommand, parse_leaderboard
from jaxlm.cli.sampling import SampleCommand, parse_sample
from jaxlm.cli.training import (
    RangeCommand,
    TrainCommand,
    load_config,
    load_train,
    parse_range,
    parse_train,
    train_command,
)

__all__ = [
    "LeaderboardCommand",
    "PlotsCommand",
    "RangeCommand",
    "SampleCommand",
    "TrainCommand",
    "load_config",
    "load_train",
    "parse",
    "parse_leaderboard",
    "parse_range",
    "parse_sample",
    "parse_train",
    "train_command",
]
