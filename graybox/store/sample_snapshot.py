"""samples.h5: all sample columns at one moment, whole or not at all.

Attributes of the file: format "graybox-samples", format_version 1, first_log (replay samples-<n>.log from this n on).
Group splits/<name> per split, with attributes index, count, fingerprint and the datasets (each of shape [count])
label int64, prediction int64, loss float32, encounters int64, last_age int64, discarded bool, and the scores of
sample_scores.py. Beside it, where there are any: tags/<split>/<tag> bool, signals/<split>/<name> float32,
copies/<split>/<name>, corrected/<split> int64 (-1 none), weight/<split> float32, and history/<split> float32
[count, 16] (loss_history.py).
Read by pandas:

    with h5py.File("samples.h5") as file:
        frame = pandas.DataFrame({name: column[:] for name, column in file["splits/train"].items()})
        frame["loss_std"] = (frame["loss_m2"] / frame["loss_count"]) ** 0.5

Version 1 had no scores and nothing beside the splits; it is still read.
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
from graybox.store.sample_notes import COPY, CORRECTED, SIGNAL, TAG, WEIGHT

FORMAT = "graybox-samples"
FORMAT_VERSION = 2
OF_VERSION_1 = ("prediction", "loss", "encounters", "last_age", "discarded")
_BESIDE = {TAG: "tags", SIGNAL: "signals", COPY: "copies"}


@dataclass(frozen=True)
class SplitImage:
    """One split at one moment: name, count, fingerprint and its columns, `label` among them."""

    name: str
    count: int
    fingerprint: str
    columns: Mapping[str, NDArray[Any]]


def image_of(columns: SplitColumns) -> SplitImage:
    """A split's columns, not copied: to be written before they change."""
    known = {"label": columns.label, **{name: columns.column(name) for name in STATE_COLUMNS}, **columns.notes.state()}
    return SplitImage(columns.name, columns.count, columns.fingerprint, known)


def write_snapshot(path: Path, splits: Sequence[SplitImage], first_log: int) -> None:
    """Replace the snapshot. Raises StorageError when the disk refuses; the old one is then untouched."""
    try:
        content = _content_of(splits, first_log)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise StorageError(f"the sample snapshot {path} cannot be made: {error}") from error
    write_atomically(path, content)


def _content_of(splits: Sequence[SplitImage], first_log: int) -> bytes:
    """The file, made in memory."""
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
            for key, column in split.columns.items():
                file.create_dataset(_place(split.name, key), data=column)
        file.flush()
        content: bytes = file.id.get_file_image()
    return content


def read_snapshot(path: Path) -> tuple[list[SplitColumns], int]:
    """The splits and the first log to replay; ([], 0) without a file. Raises StorageError for a broken one."""
    if not path.exists():
        return [], 0
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise StorageError(f"{path} holds no sample columns of Graybox")
            version = int(file.attrs["format_version"])
            if not 1 <= version <= FORMAT_VERSION:
                raise StorageError(
                    f"{path} has format version {version}; this version of Graybox reads 1 to {FORMAT_VERSION}"
                )
            groups = sorted(file["splits"].items(), key=lambda item: int(item[1].attrs["index"]))
            return [_read_split(file, name, group) for name, group in groups], int(file.attrs["first_log"])
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise StorageError(f"the sample snapshot {path} is broken: {error}") from error


def _place(split: str, key: str) -> str:
    """Where in the file a column of a split is."""
    for prefix, folder in _BESIDE.items():
        if key.startswith(prefix):
            return f"{folder}/{split}/{key[len(prefix) :]}"
    return f"{key}/{split}" if key in ("history", CORRECTED, WEIGHT) else f"splits/{split}/{key}"


def _read_split(file: Any, name: str, group: Any) -> SplitColumns:
    attributes = group.attrs
    columns = SplitColumns(name, int(attributes["count"]), str(attributes["fingerprint"]), np.asarray(group["label"]))
    older = int(file.attrs["format_version"]) == 1
    wanted = OF_VERSION_1 if older else tuple(STATE_COLUMNS)
    state = {key: np.asarray(file[_place(name, key)]) for key in wanted}
    for prefix, folder in _BESIDE.items():
        noted = file.get(f"{folder}/{name}", {})
        state |= {prefix + key: np.asarray(value) for key, value in noted.items()}
    for key in (CORRECTED, WEIGHT):
        if f"{key}/{name}" in file:
            state[key] = np.asarray(file[f"{key}/{name}"])
    columns.set_state(state)
    return columns
