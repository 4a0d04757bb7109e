"""python -m jaxlm.interop import FOLDER --out RUN | export RUN --out FOLDER | --program FILE."""

import sys
from pathlib import Path

from jaxlm.cli.interop_command import USAGE, ExportCommand, ImportCommand, parse_interop
from jaxlm.cli.process import run_main, show


def main(args: list[str]) -> int:
    """Do what the arguments say; return the exit code. Raises UserError."""
    command = parse_interop(args)
    if command is None:
        show(USAGE)
    elif isinstance(command, ImportCommand):
        show(import_folder(command))
    else:
        show(export_run(command))
    return 0


def import_folder(command: ImportCommand) -> str:
    """Make a run of a folder; returns a line about it."""
    from jaxlm.devices import platform
    from jaxlm.interop.importing import import_folder

    platform.choose_device(command.device)
    return import_folder(command.folder, command.out, dtype=command.dtype, mesh=command.mesh)


def export_run(command: ExportCommand) -> str:
    """Make a folder or a program of a run; returns a line about it."""
    from jaxlm.devices import platform

    platform.choose_device(command.device)
    if command.program is not None:
        return export_program(command, command.program)
    from jaxlm.interop.exporting import export_folder

    assert command.out is not None
    return export_folder(
        command.run, command.out, which=command.checkpoint, weights=command.weights, trust_code=command.trusted
    )


def export_program(command: ExportCommand, path: Path) -> str:
    """Make a program of a run; returns a line about it."""
    from jaxlm.interop import program, program_file
    from jaxlm.runs.loading import load_run

    program.serializer()
    program_file.check_place(path)
    run = load_run(command.run, which=command.checkpoint, weights=command.weights, trust_code=command.trusted, log=_log)
    return program_file.export_program(run, path)


def _log(line: str) -> None:
    show(line, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
