"""samples.h5: all sample columns at one moment, whole or not at all.

Attributes of the file: format "graybox-samples", format_version 1, first_log (replay samples-<n>.log from this n on).
Group splits/<name> per split, with attributes index, count, fingerprint and the datasets (each of shape [count])
label int64, prediction int64, loss float32, encounters int64, last_age int64, discarded bool. Read by pandas:

    with h5py.File("samples.h5") as file:
        frame = pandas.DataFrame({name: column[:] for name, column in file["splits/train"].items()})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from numpy.typing import NDArray

from graybox.errors import StorageError
from graybox.store.files import write_atomically
from graybox.store.sample_columns import STATE_COLUMNS, SplitColumns

FORMAT = "graybox-samples"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SplitImage:
    """One split at one moment: name, count, fingerprint and copies of its columns, `label` among them."""

    name: str
    count: int
    fingerprint: str
    columns: Mapping[str, NDArray[Any]]


def image_of(columns: SplitColumns) -> SplitImage:
    """A copy of a split's columns. Labels are not copied: they are replaced, never changed in place."""
    return SplitImage(columns.name, columns.count, columns.fingerprint, {"label": columns.label, **columns.state()})


def write_snapshot(path: Path, splits: Sequence[SplitImage], first_log: int) -> None:
    """Replace the snapshot. Raises StorageError when the disk refuses; the old one is then untouched."""
    with h5py.File("samples", "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["first_log"] = first_log
        parent = file.create_group("splits")
        for index, split in enumerate(splits):
            group = parent.create_group(split.name)
            group.attrs["index"] = index
            group.attrs["count"] = split.count
            group.attrs["fingerprint"] = split.fingerprint
            for name, column in split.columns.items():
                group.create_dataset(name, data=column)
        file.flush()
        content = file.id.get_file_image()
    write_atomically(path, content)


def read_snapshot(path: Path) -> tuple[list[SplitColumns], int]:
    """The splits and the first log to replay; ([], 0) without a file. Raises StorageError for a broken one."""
    if not path.exists():
        return [], 0
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise StorageError(f"{path} holds no sample columns of Graybox")
            version = int(file.attrs["format_version"])
            if version != FORMAT_VERSION:
                raise StorageError(
                    f"{path} has format version {version}; this version of Graybox reads {FORMAT_VERSION}"
                )
            groups = sorted(file["splits"].items(), key=lambda item: int(item[1].attrs["index"]))
            return [_read_split(name, group) for name, group in groups], int(file.attrs["first_log"])
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise StorageError(f"the sample snapshot {path} is broken: {error}") from error


def _read_split(name: str, group: Any) -> SplitColumns:
    attributes = group.attrs
    columns = SplitColumns(name, int(attributes["count"]), str(attributes["fingerprint"]), np.asarray(group["label"]))
    columns.set_state({key: np.asarray(group[key]) for key in STATE_COLUMNS})
    return columns
