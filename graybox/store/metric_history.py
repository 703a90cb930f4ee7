"""Points of metrics in memory and their bytes on disk: one row layout for both.

A row has 48 bytes, little-endian: int32 series, int32 experiment hash (both indices of what was defined before),
int64 step, int64 age, int64 time in milliseconds, float64 value, int64 flags (1: evaluation marker, 2: audit).

Payloads in metrics.log (record_log.py, kind "METR"), by their first byte:
    P  rows
    S  JSON {"split", "metric", "branch"} and, where its points are about something else than training went through,
       {"marker", "tags", "audit"}: defines the next series
    H  UTF-8 text: defines the next experiment hash
    R  int64: rewind to that position
    N  JSON {"series", "age", "note"}: a note on a point, empty to remove it
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graybox.errors import StorageError

ROW = struct.Struct("<iiqqqdq")
ROW_TYPE = np.dtype(
    [
        ("series", "<i4"),
        ("hash", "<i4"),
        ("step", "<i8"),
        ("age", "<i8"),
        ("time_ms", "<i8"),
        ("value", "<f8"),
        ("flags", "<i8"),
    ]
)
MARKER, AUDIT = 1, 2
_POSITION = struct.Struct("<q")
_FIRST_CAPACITY = 1024

Rows = NDArray[Any]


class About(NamedTuple):
    """What points are about. marker: an evaluation that somebody asked for, of the samples that tags say (none: all of
    the split). audit: batches that went through without training."""

    marker: bool = False
    tags: tuple[str, ...] = ()
    audit: bool = False


PLAIN = About()


class Series(NamedTuple):
    """What a point belongs to. Curves of training and points of evaluations do not share a series, so that neither
    hides the other where few points are asked for."""

    split: str
    metric: str
    branch: int
    about: About = PLAIN


@dataclass(frozen=True)
class _Stretch:
    """Rows in memory from `row` on are those that were appended as `position` and after it."""

    row: int
    position: int


class History:
    """The valid points of one generation. One writer; readers take `count` first, then `rows`, and see whole rows.

    A rewind or a note makes a new object, so that whoever reads the old one is not disturbed.
    """

    def __init__(self, generation: int, buffer: bytearray, count: int, notes: dict[tuple[int, int], str]) -> None:
        self.generation = generation
        self.notes = notes
        self.count = count
        self.last: dict[int, int] = {}
        self._set_buffer(buffer)

    def _set_buffer(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self.capacity = len(buffer) // ROW.size
        self.rows: Rows = np.frombuffer(buffer, dtype=ROW_TYPE)

    def add(self, rows: bytes, series: list[int]) -> None:
        """Add rows; series: theirs, in order."""
        size = ROW.size
        count = self.count
        after = count + len(series)
        if after > self.capacity:
            larger = bytearray(size * max(after, 2 * self.capacity))
            larger[: count * size] = self._view[: count * size]
            self._set_buffer(larger)
        self._view[count * size : after * size] = rows
        for code in series:
            self.last[code] = count
            count += 1
        self.count = after

    def with_note(self, series: int, age: int, note: str) -> History:
        """The same points in a new generation; the buffer is shared, since what is there stays there."""
        notes = {key: text for key, text in self.notes.items() if key != (series, age)}
        if note:
            notes[series, age] = note
        result = History(self.generation + 1, self._buffer, self.count, notes)
        result.last = dict(self.last)
        return result

    def cut(self, count: int) -> History:
        """The first points only, in a new generation and a buffer of its own: what follows will be overwritten."""
        buffer = bytearray(ROW.size * max(count, _FIRST_CAPACITY))
        buffer[: count * ROW.size] = self._view[: count * ROW.size]
        result = History(self.generation + 1, buffer, count, dict(self.notes))
        series, last = np.unique(result.rows["series"][:count][::-1], return_index=True)
        result.last = {int(code): count - 1 - int(row) for code, row in zip(series, last, strict=True)}
        return result


def empty_history() -> History:
    """No points yet."""
    return History(0, bytearray(ROW.size * _FIRST_CAPACITY), 0, {})


class MetricState:
    """What a metrics.log says, applied payload by payload; the same for the writer, its restart, and a reader."""

    def __init__(self) -> None:
        self.history = empty_history()
        self.series: list[Series] = []
        self.hashes: list[str] = []
        self.position = 0
        self._stretches = [_Stretch(0, 0)]

    def apply(self, payload: bytes) -> None:
        """Apply one payload. Raises StorageError for one that says nothing sensible."""
        try:
            self._apply(payload[:1], payload[1:])
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise StorageError(f"a record of the metrics log is broken: {error}") from error

    def _apply(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            codes = np.frombuffer(body, dtype=ROW_TYPE)["series"].tolist()
            self.add(body, codes)
        elif kind == b"S":
            value = json.loads(body)
            about = About(value.get("marker", False), tuple(value.get("tags", ())), value.get("audit", False))
            self.series.append(Series(value["split"], value["metric"], value["branch"], about))
        elif kind == b"H":
            self.hashes.append(body.decode())
        elif kind == b"R":
            self.rewind(_POSITION.unpack(body)[0])
        elif kind == b"N":
            value = json.loads(body)
            self.history = self.history.with_note(value["series"], value["age"], value["note"])
        else:
            raise ValueError(f"its kind is {kind!r}")

    def add(self, rows: bytes, codes: list[int]) -> None:
        self.history.add(rows, codes)
        self.position += len(codes)

    def rows_at(self, position: int) -> int:
        """How many of the valid points were appended before that position."""
        count = self.history.count
        ends = [stretch.row for stretch in self._stretches[1:]] + [count]
        for stretch, end in zip(reversed(self._stretches), reversed(ends), strict=True):
            if stretch.position <= position:
                return min(stretch.row + position - stretch.position, end)
        return 0

    def rewind(self, position: int) -> None:
        count = self.rows_at(position)
        self.history = self.history.cut(count)
        kept = [stretch for stretch in self._stretches if stretch.row < count]
        self._stretches = [*kept, _Stretch(count, self.position)]


def series_payload(series: Series) -> bytes:
    """Defines the next series."""
    named: dict[str, Any] = {"split": series.split, "metric": series.metric, "branch": series.branch}
    if series.about != PLAIN:
        named |= series.about._asdict()
    return b"S" + json.dumps(named).encode()


def hash_payload(text: str) -> bytes:
    """Defines the next experiment hash."""
    return b"H" + text.encode()


def rewind_payload(position: int) -> bytes:
    """Makes void what was appended after that position."""
    return b"R" + _POSITION.pack(position)


def note_payload(series: int, age: int, note: str) -> bytes:
    """Puts a note on a point; an empty one removes it."""
    return b"N" + json.dumps({"series": series, "age": age, "note": note}).encode()


@dataclass(frozen=True)
class MetricPoint:
    """One point. value: as it was logged, NaN and infinities among it; marker, tags, audit: see About."""

    split: str
    metric: str
    branch: int
    step: int
    age: int
    time_ms: int
    value: float
    marker: bool = False
    experiment_hash: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()
    audit: bool = False


@dataclass(frozen=True)
class MetricColumns:
    """Points as columns, all of shape [n]; text, and tags as tuples of it, in arrays of dtype object."""

    split: NDArray[np.object_]
    metric: NDArray[np.object_]
    branch: NDArray[np.int64]
    step: NDArray[np.int64]
    age: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    marker: NDArray[np.bool_]
    experiment_hash: NDArray[np.object_]
    note: NDArray[np.object_]
    tags: NDArray[np.object_]
    audit: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.value)

    def point(self, index: int) -> MetricPoint:
        """The point at an index, as plain Python values."""
        return MetricPoint(
            self.split[index], self.metric[index], int(self.branch[index]), int(self.step[index]),
            int(self.age[index]), int(self.time_ms[index]), float(self.value[index]), bool(self.marker[index]),
            self.experiment_hash[index], self.note[index], self.tags[index], bool(self.audit[index]),
        )  # fmt: skip


def columns_of(state: MetricState, history: History, chosen: NDArray[np.int64]) -> MetricColumns:
    """The rows of these indices, as columns of copies."""
    rows = history.rows[chosen]
    codes = rows["series"]
    names = _objects([series.split for series in state.series]), _objects([series.metric for series in state.series])
    branches = np.array([series.branch for series in state.series], dtype=np.int64)
    ages = rows["age"].astype(np.int64)
    note = np.full(len(rows), "", dtype=object)
    for (series, age), text in history.notes.items():
        note[(codes == series) & (ages == age)] = text
    return MetricColumns(
        split=names[0][codes],
        metric=names[1][codes],
        branch=branches[codes],
        step=rows["step"].astype(np.int64),
        age=ages,
        time_ms=rows["time_ms"].astype(np.int64),
        value=rows["value"].astype(np.float64),
        marker=(rows["flags"] & MARKER).astype(bool),
        experiment_hash=_objects(state.hashes)[rows["hash"]],
        note=note,
        tags=_objects([series.about.tags for series in state.series])[codes],
        audit=(rows["flags"] & AUDIT).astype(bool),
    )


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    result = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # a tuple assigned to a slice would be taken apart
        result[place] = value
    return result
