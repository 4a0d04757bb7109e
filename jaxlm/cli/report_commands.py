"""Arguments of the commands that report on finished runs: jaxlm.plots and jaxlm.leaderboard."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlm.cli.parsing import TrustOption, parse, trust_code, trust_last
from jaxlm.config import check
from jaxlm.errors import UserError


@dataclasses.dataclass(frozen=True)
class PlotsCommand:
    """Draw the pictures of a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""


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
    trust_code: TrustOption = None
    """Run the files of your own that runs name for their model classes; FILE.py after it where one was moved."""

    @property
    def trusted(self) -> bool | Path:
        """The `trust_code` of `load_run`."""
        return trust_code(self.trust_code)


def parse_leaderboard(args: list[str]) -> LeaderboardCommand:
    """Parse the arguments of python -m jaxlm.leaderboard. Raises UserError before anything is read."""
    command = parse(LeaderboardCommand, trust_last(args), prog="python -m jaxlm.leaderboard")
    check.at_least("--samples", command.samples, 0)
    if not command.runs:
        raise UserError("runs wants at least one run directory, as in: python -m jaxlm.leaderboard runs/*")
    return command
