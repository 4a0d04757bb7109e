"""Checksums of a checkpoint's files, by one process and by several."""

import zlib
from pathlib import Path

import pytest

from jaxlm.runs import checksums as sums
from jaxlm.runs.checksums import CHECKSUMS, checksums, is_intact, read_checksums, write_checksums

FILES = {"a": b"", "b/c": b"one", "b/d/e": bytes(range(256)) * 40, "z": b"two"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_the_shares_of_processes_make_up_the_whole(place, processes, monkeypatch):
    monkeypatch.setattr(sums, "BLOCK", 1000)  # a file of several blocks, the last one not full
    shares = [checksums(place, process, processes) for process in range(processes)]
    assert sum(map(len, shares)) == len(FILES)
    assert max(map(len, shares)) == -(-len(FILES) // processes)
    merged = {name: crc for share in shares for name, crc in share.items()}
    assert merged == {name: zlib.crc32(content) for name, content in FILES.items()} == checksums(place)
    write_checksums(place, merged)
    assert read_checksums(place) == merged
    assert all(is_intact(place, merged, process, processes) for process in range(processes))


def test_the_process_whose_share_it_is_notices_a_changed_file(place):
    write_checksums(place, checksums(place))
    (place / "b/c").write_bytes(b"onE")
    wanted = read_checksums(place)
    assert wanted is not None and [is_intact(place, wanted, process, 2) for process in range(2)] == [True, False]
    assert not is_intact(place, wanted)


@pytest.mark.parametrize("change", ["missing", "added", "unreadable list", "no list of names"])
def test_another_list_of_files_is_noticed(place, change):
    write_checksums(place, checksums(place))
    if change == "missing":
        (place / "a").unlink()
    elif change == "added":
        (place / "b/new").write_bytes(b"")
    else:
        (place / CHECKSUMS).write_text("{" if change == "unreadable list" else "[]")
    assert read_checksums(place) is None


def test_a_checkpoint_without_a_list_is_taken_as_it_is(place):
    assert read_checksums(place) == {} and is_intact(place, {})


def test_a_folder_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        checksums(tmp_path / "nothing")
