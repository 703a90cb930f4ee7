"""samples.h5: all sample columns at one moment, whole or not at all.

Attributes of the file: format "graybox-samples", format_version 2, first_log (replay samples-<n>.log from this n on).
Group splits/<name> per split, with attributes index, count, fingerprint and the datasets (each of shape [count])
label int64, prediction int64, loss float32, encounters int64, last_age int64, discarded bool, and the scores of
sample_scores.py. Beside it, where there are any: tags/<split>/<tag> bool, signals/<split>/<name> float32,
copies/<split>/<name>, targets/<split>/<name> (targets.py), corrected/<split> int64 (-1 none), weight/<split> float32,
and history/<split> float32 [count, 16] (loss_history.py). Each dataset has an attribute crc32, the CRC-32 of its bytes
in C order; a file of before there were any is read without. Read by pandas:

    with h5py.File("samples.h5") as file:
        frame = pandas.DataFrame({name: column[:] for name, column in file["splits/train"].items()})
        frame["loss_std"] = (frame["loss_m2"] / frame["loss_count"]) ** 0.5

Version 1 had no scores and nothing beside the splits; it is still read.

Columns are read and written a piece at a time, so that nothing takes much memory beside the columns themselves.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from numpy.typing import NDArray

from graybox.errors import StorageError
from graybox.store.files import write_atomically
from graybox.store.sample_columns import STATE_COLUMNS, SplitColumns
from graybox.store.sample_notes import COPY, CORRECTED, SIGNAL, TAG, WEIGHT
from graybox.store.targets import TARGET

FORMAT = "graybox-samples"
FORMAT_VERSION = 2
OF_VERSION_1 = ("prediction", "loss", "encounters", "last_age", "discarded")
CHECKSUM = "crc32"
_BESIDE = {TAG: "tags", SIGNAL: "signals", COPY: "copies", TARGET: "targets"}
_PIECE = 1 << 18
"""Rows that are read and written at a time."""


@dataclass(frozen=True)
class ColumnImage:
    """A column to be written. length: its rows; part: some of them, [m, ...]."""

    length: int
    part: Callable[[slice], NDArray[Any]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> ColumnImage:
        """An array, not copied."""
        return cls(len(array), array.__getitem__)


@dataclass(frozen=True)
class SplitImage:
    """One split at one moment: name, count, fingerprint and its columns, `label` among them."""

    name: str
    count: int
    fingerprint: str
    columns: Mapping[str, ColumnImage]


def image_of(columns: SplitColumns) -> SplitImage:
    """A split's columns, not copied: to be written before they change."""

    def part_of(name: str) -> Callable[[slice], NDArray[Any]]:
        return lambda at: columns.part(name, at)

    beside = {**columns.notes.columns(), **columns.targets.of_data(), **columns.targets.state()}
    known = {"label": ColumnImage.of(columns.label)}
    known |= {name: ColumnImage(columns.count, part_of(name)) for name in STATE_COLUMNS}
    known |= {name: ColumnImage.of(array) for name, array in beside.items()}
    return SplitImage(columns.name, columns.count, columns.fingerprint, known)


def write_snapshot(path: Path, splits: Sequence[SplitImage], first_log: int) -> None:
    """Replace the snapshot. Raises StorageError when the disk refuses; the old one is then untouched."""

    def write(file: BinaryIO) -> None:
        sink = _Sink(file)
        try:
            _write(sink, splits, first_log)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise StorageError(f"the sample snapshot {path} cannot be made: {error}") from error
        if sink.refused is not None:
            raise sink.refused

    write_atomically(path, write)


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


def check_snapshot(path: Path) -> None:
    """Read what was written again. Raises StorageError where anything differs from its checksum."""

    def check(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            for _ in _pieces(item):
                pass

    try:
        with h5py.File(path, "r") as file:
            file.visititems(check)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise StorageError(f"the sample snapshot {path} is broken: {error}") from error


class _Sink:
    """A file that HDF5 writes into. Where the disk refuses it is told nothing of it, as it would then neither close the
    file nor let go of it; what the disk said is in `refused`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refused: OSError | None = None

    def write(self, data: Any) -> int:
        self._try(lambda: self._file.write(data))
        return len(data)

    def truncate(self, size: int | None = None) -> None:
        self._try(lambda: self._file.truncate(size))

    def flush(self) -> None:
        self._try(self._file.flush)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def _try(self, action: Callable[[], object]) -> None:
        if self.refused is None:
            try:
                action()
            except OSError as error:
                self.refused = error


def _write(sink: _Sink, splits: Sequence[SplitImage], first_log: int) -> None:
    with h5py.File(sink, "w") as file:
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
                _write_column(file, _place(split.name, key), column)


def _write_column(file: Any, place: str, column: ColumnImage) -> None:
    like = column.part(slice(0, 0))
    dataset = file.create_dataset(place, shape=(column.length, *like.shape[1:]), dtype=like.dtype)
    checksum = 0
    for start in range(0, column.length, _PIECE):
        at = slice(start, min(start + _PIECE, column.length))
        part = np.ascontiguousarray(column.part(at))
        checksum = zlib.crc32(part.data, checksum)
        dataset[at] = part
    dataset.attrs[CHECKSUM] = np.uint32(checksum)


def _pieces(dataset: Any) -> Iterator[tuple[slice, NDArray[Any]]]:
    """A dataset piece by piece. Raises ValueError after the last one where the checksum is not theirs."""
    checksum = 0
    for start in range(0, len(dataset), _PIECE):
        at = slice(start, min(start + _PIECE, len(dataset)))
        part = np.ascontiguousarray(dataset[at])
        checksum = zlib.crc32(part.data, checksum)
        yield at, part
    noted = dataset.attrs.get(CHECKSUM)
    if noted is not None and int(noted) != checksum:
        raise ValueError(f"the checksum of {dataset.name} is wrong")


def _whole(dataset: Any) -> NDArray[Any]:
    found = np.empty(dataset.shape, dtype=dataset.dtype)
    for at, part in _pieces(dataset):
        found[at] = part
    return found


def _place(split: str, key: str) -> str:
    """Where in the file a column of a split is."""
    for prefix, folder in _BESIDE.items():
        if key.startswith(prefix):
            return f"{folder}/{split}/{key[len(prefix) :]}"
    return f"{key}/{split}" if key in ("history", CORRECTED, WEIGHT) else f"splits/{split}/{key}"


def _read_split(file: Any, name: str, group: Any) -> SplitColumns:
    attributes = group.attrs
    columns = SplitColumns(name, int(attributes["count"]), str(attributes["fingerprint"]))
    columns.label[:] = columns.checked_labels(_whole(group["label"]))
    older = int(file.attrs["format_version"]) == 1
    for key in OF_VERSION_1 if older else STATE_COLUMNS:
        if len(file[_place(name, key)]) != columns.count:
            raise ValueError(f"{key} of {name!r} is not of {columns.count} samples")
        for at, part in _pieces(file[_place(name, key)]):
            columns.set_part(key, at, part)
    beside: dict[str, NDArray[Any]] = {}
    for prefix, folder in _BESIDE.items():
        beside |= {prefix + key: _whole(dataset) for key, dataset in file.get(f"{folder}/{name}", {}).items()}
    for key in (CORRECTED, WEIGHT):
        if f"{key}/{name}" in file:
            beside[key] = _whole(file[f"{key}/{name}"])
    columns.notes.set_state(beside)
    columns.targets.set_state(beside)
    columns.targets.set_of_data(beside)
    return columns
