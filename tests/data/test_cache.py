"""A folder of cached results stays below its size, whatever other processes do to it."""

import os
import shutil
import tempfile
import time

import pytest

from jaxlm.data import cache


@pytest.fixture
def folder(tmp_path):
    """Five entries of 100 bytes, the first used last."""
    for age in range(5):
        entry = tmp_path / f"entry{age}"
        entry.mkdir()
        (entry / "a").write_bytes(bytes(60))
        (entry / "b").write_bytes(bytes(40))
        os.utime(entry, (1e9 - age, 1e9 - age))
    return tmp_path


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("most", "kept"), [(1000, 5), (500, 5), (499, 4), (250, 2), (100, 1), (0, 1)])
def test_the_entries_used_last_stay(folder, most, kept):
    cache.prune(folder, most, folder / "entry0")
    assert names(folder) == [f"entry{age}" for age in range(kept)]


def test_the_entry_in_use_stays_and_counts(folder):
    cache.prune(folder, 200, folder / "entry4")
    assert names(folder) == ["entry0", "entry4"]
    cache.prune(folder, 0, folder / "entry4")
    assert names(folder) == ["entry4"]


def test_an_entry_that_was_used_is_the_newest(folder):
    cache.mark_used(folder / "entry3")
    cache.mark_used(folder / "gone")
    cache.prune(folder, 200, folder / "entry0")
    assert names(folder) == ["entry0", "entry3"]


def test_parts_stay_while_they_may_be_written(folder):
    for name, age in ((".part-new", 10), (".part-old", 2 * cache.ABANDONED_S), (".removed-old", 1e6)):
        (folder / name).mkdir()
        os.utime(folder / name, (time.time() - age,) * 2)
    cache.prune(folder, 1000, folder / "entry0")
    assert names(folder) == [".part-new", *(f"entry{age}" for age in range(5))]


def test_entries_that_others_remove_meanwhile_are_passed_over(folder, monkeypatch):
    original = tempfile.mkdtemp

    def mkdtemp(**options):
        shutil.rmtree(folder / "entry3", ignore_errors=True)
        shutil.rmtree(folder / "entry4", ignore_errors=True)
        return original(**options)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    cache.prune(folder, 250, folder / "entry0")
    assert names(folder) == ["entry0", "entry1"]


def test_a_file_that_is_read_outlives_its_entry(folder):
    with (folder / "entry4" / "a").open("rb") as file:
        cache.prune(folder, 0, folder / "entry0")
        assert file.read() == bytes(60)
