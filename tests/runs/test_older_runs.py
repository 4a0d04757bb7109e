"""Runs of an older version, whose fingerprint has other settings than this one's."""

import json

import pytest

import jaxlm
from jaxlm.runs.directory import RunDir


def edit(path, *, without=(), **more):
    """Make a run's config.json and fingerprint.json what a version without some settings, and with others, left."""
    fingerprint = json.loads((path / "fingerprint.json").read_text())
    fingerprint["settings"] = {k: v for k, v in fingerprint["settings"].items() if k not in without} | more
    (path / "fingerprint.json").write_text(json.dumps(fingerprint))
    config = json.loads((path / "config.json").read_text())
    for name in without:
        group, _, last = name.rpartition(".")
        del (config[group] if group else config)[last]
    (path / "config.json").write_text(json.dumps(config))


def test_a_setting_that_came_since_counts_as_its_default(make_run):
    path = make_run(jaxlm.CountsConfig())
    edit(path, without=("data.split_seed", "seed", "model.add_k"), **{"optim.nesterov": True})
    assert jaxlm.load_run(path).config.data.split_seed == 42
    assert make_run(jaxlm.CountsConfig()) == path  # done, not refused
    with pytest.raises(jaxlm.UserError, match=r"other data or settings: seed: 0, now 3\."):
        make_run(jaxlm.CountsConfig(), seed=3)


def test_a_setting_that_is_not_its_default_is_still_a_difference(make_run):
    path = make_run(jaxlm.CountsConfig(add_k=0.5))
    fingerprint = RunDir(path).read_fingerprint()
    assert fingerprint["settings"]["model.add_k"] == 0.5
    edit(path, without=("model.add_k",))
    with pytest.raises(jaxlm.UserError, match=r"model\.add_k: 1\.0, now 0\.5"):
        make_run(jaxlm.CountsConfig(add_k=0.5))
