from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from graybox.errors import StorageError
from graybox.store import sample_snapshot
from graybox.store.sample_columns import STATE_COLUMNS, Ratings, SplitColumns
from graybox.store.sample_snapshot import check_snapshot, image_of, read_snapshot, write_snapshot

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


def test_what_was_written_in_pieces_is_read_in_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.h5"
    write_snapshot(path, [image_of(columns) for columns in made()], 7)
    whole = path.read_bytes()
    for size in (1, 2, 3):
        monkeypatch.setattr(sample_snapshot, "_PIECE", size)
        write_snapshot(path, [image_of(columns) for columns in made()], 7)
        assert path.read_bytes() == whole
        check_snapshot(path)
        found, _ = read_snapshot(path)
        for columns, expected in zip(found, made(), strict=True):
            for name, column in expected.state().items():
                np.testing.assert_array_equal(columns.state()[name], column)


def test_every_byte_of_a_column_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "samples.h5"
    write_snapshot(path, [image_of(columns) for columns in made()], 0)
    whole = path.read_bytes()
    places: dict[str, tuple[int, int]] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.size:
            places[name] = (item.id.get_offset(), item.id.get_storage_size())

    with h5py.File(path) as file:
        file.visititems(note)
    assert {"splits/zebra/loss", "history/zebra", "tags/zebra/schwer zu sehen", "corrected/zebra"} <= places.keys()
    for name, (start, size) in places.items():
        broken = bytearray(whole)
        broken[start + size - 1] ^= 0x10
        path.write_bytes(broken)
        for read in (check_snapshot, read_snapshot):
            with pytest.raises(StorageError, match=f"the checksum of /{name} is wrong"):
                read(path)
    path.write_bytes(whole)
    check_snapshot(path)


def test_a_snapshot_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "samples.h5"
    write_snapshot(path, [image_of(columns) for columns in made()], 0)

    def forget(_: str, item: h5py.Dataset | h5py.Group) -> None:
        item.attrs.pop("crc32", None)

    with h5py.File(path, "a") as file:
        file.visititems(forget)
        assert "crc32" not in file["splits/zebra/loss"].attrs
        file["splits/zebra/loss"][0] = 0.125
    (found, _), _ = read_snapshot(path)
    assert found.loss[0] == 0.125


def test_a_full_disk_leaves_the_old_snapshot_and_no_open_file(tmp_path: Path) -> None:
    """A limit on the size of files is a disk that is full, as far as a process can tell."""
    program = """if True:
        import os, resource, signal, sys
        from pathlib import Path
        import numpy as np
        from graybox.errors import StorageError
        from graybox.store.sample_columns import SplitColumns
        from graybox.store.sample_snapshot import image_of, read_snapshot, write_snapshot
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = Path(sys.argv[1])
        large = SplitColumns("train", 20_000)
        write_snapshot(path, [image_of(SplitColumns("train", 3))], 1)
        for limit in (0, 5_000, 100_000, 1_000_000, 3_000_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                write_snapshot(path, [image_of(large)], 2)
            except StorageError as error:
                print(error)
            assert read_snapshot(path)[0][0].count == 3 and os.listdir(path.parent) == [path.name]
            assert not [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
                        and str(path) in os.readlink(f"/proc/self/fd/{name}")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write_snapshot(path, [image_of(large)], 2)
        assert read_snapshot(path)[0][0].count == 20_000
    """
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "samples.h5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("cannot write") == 5 and done.stdout.count("File too large") == 5
