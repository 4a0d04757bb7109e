"""Redraw the plots of a run: python -m jaxlm.plots RUN."""

from jaxlm.cli.parsing import parse
from jaxlm.cli.process import run_main
from jaxlm.cli.report_commands import PlotsCommand
from jaxlm.errors import UserError
from jaxlm.plots.run_pictures import draw_run
from jaxlm.runs.directory import open_existing


def main(args: list[str]) -> int:
    """Redraw the plots of the run that the argument names."""
    if not args:
        raise UserError("run wants a run directory, as in: python -m jaxlm.plots runs/names_mlp")
    draw_run(open_existing(parse(PlotsCommand, args, prog="python -m jaxlm.plots").run))
    return 0


if __name__ == "__main__":
    run_main(main)
