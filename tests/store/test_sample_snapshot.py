from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from graybox.errors import StorageError
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_snapshot import image_of, read_snapshot, write_snapshot


def made() -> list[SplitColumns]:
    train, empty = SplitColumns("zebra", 3, "prüf", [2, 1, 0]), SplitColumns("a split", 0)
    train.record(np.array([1]), np.array([0.25], np.float32), np.array([1]), 64)
    train.discard(np.array([2]), True)
    return [train, empty]


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "samples.h5"
    write_snapshot(path, [image_of(columns) for columns in made()], 7)
    found, first = read_snapshot(path)
    assert first == 7
    assert [(columns.name, columns.count, columns.fingerprint) for columns in found] == [
        ("zebra", 3, "prüf"),
        ("a split", 0, ""),
    ]
    for columns, expected in zip(found, made(), strict=True):
        np.testing.assert_array_equal(columns.label, expected.label)
        for name, column in expected.state().items():
            np.testing.assert_array_equal(columns.state()[name], column)
            assert columns.state()[name].dtype == column.dtype


def test_plain_h5py_and_pandas_read_it(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "samples.h5", [image_of(columns) for columns in made()], 1)
    with h5py.File(tmp_path / "samples.h5") as file:
        frame = pd.DataFrame({name: column[:] for name, column in file["splits/zebra"].items()})
    assert sorted(frame.columns) == ["discarded", "encounters", "label", "last_age", "loss", "prediction"]
    assert frame.loc[1, "loss"] == 0.25
    assert frame["discarded"].tolist() == [False, False, True]


def test_an_image_does_not_change_with_the_columns() -> None:
    columns = made()[0]
    image = image_of(columns)
    columns.record(np.array([0]), np.array([9], np.float32), None, 99)
    assert np.isnan(image.columns["loss"][0]) and image.columns["encounters"][0] == 0


def test_a_broken_snapshot_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.h5"
    assert read_snapshot(path) == ([], 0)
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(StorageError, match=r"samples\.h5 is broken"):
        read_snapshot(path)
    with h5py.File(path, "w") as file:
        file.attrs["other"] = 1
    with pytest.raises(StorageError, match="holds no sample columns"):
        read_snapshot(path)
    write_snapshot(path, [], 0)
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(StorageError, match="format version 2; this version of Graybox reads 1"):
        read_snapshot(path)
    write_snapshot(path, [image_of(columns) for columns in made()], 0)
    with h5py.File(path, "a") as file:
        del file["splits/zebra/loss"]
    with pytest.raises(StorageError, match=r"samples\.h5 is broken"):
        read_snapshot(path)
