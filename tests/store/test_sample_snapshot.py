from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from graybox.errors import StorageError
from graybox.store.sample_columns import STATE_COLUMNS, Ratings, SplitColumns
from graybox.store.sample_snapshot import image_of, read_snapshot, write_snapshot

RATINGS = Ratings(np.array([0.5, 0.125], np.float32), np.array([1.5, -2], np.float32))


def made() -> list[SplitColumns]:
    train, empty = SplitColumns("zebra", 3, "prüf", [2, 1, 0]), SplitColumns("a split", 0)
    train.record(np.array([1]), np.array([0.25], np.float32), np.array([1]), 64)
    train.discard(np.array([2]), True)
    train.record(np.array([1, 0]), np.array([0.75, 2], np.float32), np.array([1, 0]), 96, RATINGS)
    train.notes.tag("schwer zu sehen", np.array([0, 2]), True)
    train.notes.correct(np.array([1]), np.array([5]))
    train.notes.log("entropy", np.array([2]), np.array([0.5], np.float32))
    train.notes.copy("loss_before", train.loss.copy())
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
        frame["loss_std"] = (frame["loss_m2"] / frame["loss_count"]) ** 0.5
        hard = file["tags/zebra/schwer zu sehen"][:]
        corrected, history = file["corrected/zebra"][:], file["history/zebra"][:]
    assert set(frame.columns) == {"label", "loss_std", *STATE_COLUMNS} - {"history"}
    assert frame.loc[1, ["loss", "loss_mean", "loss_std"]].tolist() == [0.75, 0.5, 0.25]
    assert frame.loc[0, ["confidence", "aum"]].tolist() == [0.125, -2.0]
    assert hard.tolist() == [True, False, True] and corrected.tolist() == [-1, 5, -1]
    assert history[1, :2].tolist() == [0.25, 0.75]
    assert frame["discarded"].tolist() == [False, False, True]


def test_a_snapshot_of_version_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "samples.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "graybox-samples", "format_version": 1, "first_log": 3})
        group = file.create_group("splits/train")
        group.attrs.update({"index": 0, "count": 2, "fingerprint": "f"})
        seen = {"loss": [0.5, np.nan], "encounters": [2, 0], "last_age": [8, -1], "discarded": [False, True]}
        for name, values in {"label": [1, 0], "prediction": [1, -1], **seen}.items():
            group.create_dataset(name, data=np.array(values))
    (found,), first = read_snapshot(path)
    assert first == 3 and found.encounters.tolist() == [2, 0] and found.discarded.tolist() == [False, True]
    assert np.isnan(found.column("loss_mean")).all() and found.column("first_learnt").tolist() == [-1, -1]


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
        file.attrs["format_version"] = 3
    with pytest.raises(StorageError, match="format version 3; this version of Graybox reads 1 to 2"):
        read_snapshot(path)
    write_snapshot(path, [image_of(columns) for columns in made()], 0)
    with h5py.File(path, "a") as file:
        del file["splits/zebra/loss"]
    with pytest.raises(StorageError, match=r"samples\.h5 is broken"):
        read_snapshot(path)
