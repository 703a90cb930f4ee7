"""Sampling weights in the store: durable, undone by what was before, as a checkpoint keeps them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound
from graybox.store.samples import SampleStore

CHANGES = st.lists(
    st.tuples(st.lists(st.integers(0, 9), max_size=6, unique=True), st.sampled_from([0.0, 0.5, 1.0, 3.0])), max_size=6
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, snapshot_after=st.integers(0, 6))
def test_what_was_written_is_there_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[list[int], float]], snapshot_after: int
) -> None:
    folder = tmp_path_factory.mktemp("samples")
    store = SampleStore(folder)
    store.add_split("train", 10)
    expected = np.ones(10, dtype=np.float32)
    for number, (rows, weight) in enumerate(changes):
        before = expected.copy()
        expected[rows] = weight
        changed, old = store.set_weights("train", rows, np.full(len(rows), weight))
        assert sorted(changed.tolist()) == np.flatnonzero(expected != before).tolist()
        assert old.tolist() == before[changed].tolist()
        if number + 1 == snapshot_after:
            store.snapshot()
    store.sync()
    store.close()
    again = SampleStore(folder)
    notes = again.splits["train"].notes
    assert notes.weights().tolist() == expected.tolist()
    assert (notes.weight is None) == bool((expected == 1).all())
    state = again.state()
    again.set_weights("train", np.arange(10), np.full(10, 7.0))
    again.load_state(state)
    assert again.splits["train"].notes.weights().tolist() == expected.tolist()
    again.close()


def test_plain_h5py_reads_them(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 3)
    store.set_weights("train", [1], [2.5])
    store.snapshot()
    store.close()
    with h5py.File(tmp_path / "samples.h5") as file:
        assert file["weight/train"][:].tolist() == [1.0, 2.5, 1.0]


@pytest.mark.parametrize("weights", [[-1.0], [np.nan], [np.inf], [1.0, 2.0]])
def test_what_is_no_weight_changes_nothing(tmp_path: Path, weights: list[float]) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 3)
    version = store.discard_version
    with pytest.raises(Invalid, match="weights"):
        store.set_weights("train", [1], weights)
    with pytest.raises(NotFound):
        store.set_weights("train", [3], [1.0])
    assert store.discard_version == version and store.splits["train"].notes.weight is None
    store.close()
