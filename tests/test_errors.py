"""What the system refuses is the user's line where it is about the run directory, and untouched where it is not."""

import errno
import os
from pathlib import Path

import pytest

from jaxlm.errors import UserError, is_refused, writing


@pytest.mark.parametrize("run_dir", ["runs/x", "{here}/runs/x"])
@pytest.mark.parametrize("name", ["names.txt", "data/names.txt", "runs/y/eval.json", "{here}/names.txt", None])
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_an_error_about_another_file_passes_through(tmp_path, monkeypatch, run_dir, name, number):
    monkeypatch.chdir(tmp_path)
    path = name if name is None else name.format(here=tmp_path)
    error = OSError(number, os.strerror(number), path)
    with pytest.raises(OSError) as caught, writing(Path(run_dir.format(here=tmp_path))):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("run_dir", ["runs/x", "{here}/runs/x"])
@pytest.mark.parametrize("name", ["runs/x", "runs/x/eval.json", "{here}/runs/x/eval.json", "runs", b"runs/x/eval.json"])
def test_an_error_about_the_run_directory_is_a_line(tmp_path, monkeypatch, run_dir, name):
    """Or about a directory above it, as where it cannot be made."""
    monkeypatch.chdir(tmp_path)
    path = name if isinstance(name, bytes) else name.format(here=tmp_path)
    with (
        pytest.raises(UserError, match=r"^run_dir '.*runs/x' cannot be written: Permission denied$"),
        writing(Path(run_dir.format(here=tmp_path))),
    ):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def test_a_full_disk_is_a_line_wherever_it_is_seen(tmp_path):
    """A file that is open already has no name in its error."""
    with pytest.raises(UserError, match="cannot be written: No space left on device"), writing(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (UserError("a setting"), True),
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied", "names.txt"), True),
        (OSError(errno.EIO, "Input/output error", "names.txt"), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_ends_with_exit_code_2(error, refused):
    assert is_refused(error) is refused
