"""Models of other programs: python -m jaxlm.interop import FOLDER --out RUN | export RUN --out FOLDER."""

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
    """Make a folder of a run; returns a line about it."""
    from jaxlm.devices import platform
    from jaxlm.interop.exporting import export_folder

    platform.choose_device(command.device)
    assert command.out is not None
    return export_folder(
        command.run, command.out, which=command.checkpoint, weights=command.weights, trust_code=command.trusted
    )


if __name__ == "__main__":
    run_main(main)
