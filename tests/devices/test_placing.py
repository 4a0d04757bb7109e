"""Arrays of the host on a mesh; tests/devices/test_processes.py does this with several processes."""

import chex
import numpy as np
import pytest

from jaxlm.devices.mesh import make_mesh, replicated
from jaxlm.devices.placing import ProcessRows, local, place, process_rows


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_lie_where_they_were_in_the_batch(axis):
    rows = ProcessRows(make_mesh())
    host = {"a": np.arange(24).reshape(4, 6), "b": np.arange(4 * 6 * 2.0).reshape(4, 6, 2)}
    size = host["a"].shape[axis]
    np.testing.assert_array_equal(rows.own(size), np.arange(size))
    chex.assert_trees_all_equal(rows.place(host, axis, size), host)


def test_one_process_reads_all_rows_and_holds_whole_arrays():
    assert process_rows(make_mesh()) is None
    host = {"a": np.arange(6.0), "b": np.int32(3)}
    placed = place(host, replicated(make_mesh()))
    chex.assert_trees_all_equal(placed, host)
    assert local(placed)["a"] is placed["a"]
