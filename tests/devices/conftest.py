"""Runs of two processes that the tests of a module share."""

from pathlib import Path

import pytest

from tests import processes
from tests.devices.jobs import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(processes.cli(tmp_path_factory))


@pytest.fixture(scope="module")
def lines(place: Place) -> Path:
    return place.config("lines", place.cli.text)


@pytest.fixture(scope="module")
def whole(place: Place, lines: Path) -> Path:
    """The run of one process with two devices."""
    run = place.base / "whole"
    done = place.alone(lines, "--run-dir", run)
    assert done.code == 0, done.stderr
    return run
