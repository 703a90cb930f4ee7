"""Metrics over model age: written by the trainer, read by anybody with a cursor, kept in metrics.log."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid, NotFound, Refused
from graybox.store.metric_history import (
    AUDIT,
    MARKER,
    PLAIN,
    ROW,
    ROW_TYPE,
    About,
    History,
    MetricColumns,
    MetricPoint,
    MetricState,
    Series,
    columns_of,
    hash_payload,
    note_payload,
    rewind_payload,
    series_payload,
)
from graybox.store.record_log import RecordLog, read_records
from graybox.store.thinning import thin

_log = logging.getLogger(__name__)

FILE_NAME = "metrics.log"
KIND = b"METR"
VERSION = 1
LATEST = 100
"""Points per series that a read without cursor answers."""


@dataclass(frozen=True)
class MetricSlice:
    """What a read answers.

    points: in the order they were appended. cursor: pass it back to get what is new since. reset: the points replace
    what the reader holds (no cursor was given, or history changed behind it). total: points on disk for what was
    asked, before downsampling.
    """

    points: MetricColumns
    cursor: str
    reset: bool
    total: int


class MetricStore:
    """The metrics of one run. One thread writes; any number of threads read beside it without a lock.

    A read-only store follows the file that another process writes.
    """

    def __init__(self, folder: Path | str, *, read_only: bool = False) -> None:
        """folder: the run's. Opening to write repairs a torn tail. Raises StorageError for a broken or strange file."""
        self.path = Path(folder) / FILE_NAME
        self.read_only = read_only
        self._state = MetricState()
        self._guard = threading.Lock()
        self._offset = 0
        self._identity: tuple[int, int] | None = None
        self._codes: dict[tuple[int, About], dict[tuple[str, str], int]] = {}
        self._hash_codes: dict[str, int] = {}
        if read_only:
            self._follow()
            return
        self._writer = RecordLog(self.path, kind=KIND, version=VERSION, replay=self._state.apply)
        for code, series in enumerate(self._state.series):
            self._codes.setdefault((series.branch, series.about), {})[series.split, series.metric] = code
        self._hash_codes = {text: code for code, text in enumerate(self._state.hashes)}
        if self._writer.repaired:
            # Points that a reader may already hold are gone: a new generation makes it read anew.
            self._log_and_apply(rewind_payload(self._state.position))

    # Writing, by one thread

    def append(
        self,
        *,
        branch: int,
        step: int,
        age: int,
        time_ms: int,
        values: Mapping[tuple[str, str], float],
        about: About = PLAIN,
        experiment_hash: str = "",
    ) -> None:
        """Add one point per (split, metric), by one write; durable after `sync`. split "" is the whole run.

        NaN and infinities are kept as they are.
        Raises StorageError when the disk refuses; no point is added then.
        """
        self._writable()
        codes = self._codes.get((branch, about))
        if codes is None:
            codes = self._codes.setdefault((branch, about), {})
        experiment = self._hash_codes.get(experiment_hash)
        if experiment is None:
            experiment = self._define_hash(experiment_hash)
        flags = MARKER * about.marker | AUDIT * about.audit
        pack = ROW.pack
        chosen: list[int] = []
        rows = b""
        for name, value in values.items():
            code = codes.get(name)
            if code is None:
                code = self._define_series(name, branch, about)
            chosen.append(code)
            rows += pack(code, experiment, step, age, time_ms, value, flags)
        if chosen:
            self._writer.append(b"P" + rows)
            self._state.add(rows, chosen)

    @property
    def position(self) -> int:
        """How many points were ever appended: what a checkpoint keeps, to rewind to."""
        if self.read_only:
            self._follow()
        return self._state.position

    def rewind(self, position: int) -> None:
        """Make everything void that was appended after that position; notes stay. Nothing is truncated on disk.

        Readers whose cursor is older get the whole history with reset=True. A position beyond the end (a checkpoint
        that outlived the log's tail in a power cut) has nothing to make void. Raises Invalid for a negative one.
        """
        self._writable()
        if position < 0:
            raise Invalid(f"a position in the metrics is 0 or more, not {position}")
        if position > self._state.position:
            _log.warning("metrics end at position %d, before %d: nothing to rewind", self._state.position, position)
            return
        if self._state.rows_at(position) < self._state.history.count:
            self._log_and_apply(rewind_payload(position))

    def set_note(self, split: str, metric: str, branch: int, age: int, note: str) -> None:
        """Put a note on the points of a series at an age; an empty one removes it. Raises NotFound without a point."""
        self._writable()
        state, history = self._state, self._state.history
        codes = [
            code
            for code, each in enumerate(state.series)
            if (each.split, each.metric, each.branch) == (split, metric, branch)
        ]
        if not codes:
            raise NotFound(f"there is no metric {_title(split, metric)} in branch {branch}")
        rows = history.rows[: history.count]
        rows = rows[np.isin(rows["series"], codes)]
        ages = rows["age"]
        found = np.unique(rows["series"][ages == age]).tolist()
        if not found:
            nearest = f"; the nearest is at {ages[np.argmin(np.abs(ages - age))]}" if len(ages) else ""
            raise NotFound(f"{_title(split, metric)} has no point at age {age} in branch {branch}{nearest}")
        for code in found:
            self._log_and_apply(note_payload(code, age, note))

    def sync(self) -> None:
        """Wait until what was appended before this call is on the disk."""
        if not self.read_only:
            self._writer.sync()

    def close(self) -> None:
        """Close without syncing; what was read stays readable."""
        if not self.read_only:
            self._writer.close()

    # Reading, by any thread

    def latest(self) -> dict[tuple[str, str], MetricPoint]:
        """The point of each (split, metric) that was appended last, whatever its branch; those of an audit, and of an
        evaluation of some samples only, do not count."""
        if self.read_only:
            self._follow()
        state = self._state
        history = state.history
        rows: dict[tuple[str, str], int] = {}
        for code, row in sorted(history.last.copy().items(), key=lambda item: item[1]):
            series = state.series[code]
            if not series.about.audit and not series.about.tags:
                rows[series.split, series.metric] = row
        columns = columns_of(state, history, np.array(list(rows.values()), dtype=np.int64))
        return {name: columns.point(index) for index, name in enumerate(rows)}

    def read(
        self,
        *,
        cursor: str = "",
        full: bool = False,
        max_points: int = 0,
        metric: str = "",
        min_age: int = 0,
        max_age: int = 0,
    ) -> MetricSlice:
        """Points that are new since a cursor; without one the latest 100 of each series or, with full, all.

        cursor: from an answer before, of this run; wins over full. One that is unknown, or older than a rewind or a
        changed note, answers the whole history with reset=True.
        max_points: most points per series (split, metric, branch), downsampled with extremes, last point and notes
        kept; 0: all. metric: only that one. min_age, max_age: both inclusive; max_age 0: no upper bound.
        Raises Invalid for a negative max_points.
        """
        if max_points < 0:
            raise Invalid(f"max_points is 0 (all) or more, not {max_points}")
        if self.read_only:
            self._follow()
        state = self._state
        history = state.history
        count = history.count
        start = _start_of(cursor, history.generation, count)
        matching = _matching(state, history, start or 0, count, metric, min_age, max_age)
        newest = LATEST if not cursor and not full else 0
        chosen = _chosen(history, matching, max_points, newest) if max_points or newest else matching
        return MetricSlice(
            points=columns_of(state, history, chosen),
            cursor=f"{history.generation}:{count}",
            reset=start is None,
            total=len(matching),
        )

    # Inside

    def _writable(self) -> None:
        if self.read_only:
            raise Refused(f"{self.path} is open for reading only")

    def _log_and_apply(self, payload: bytes) -> None:
        self._writer.append(payload)
        self._state.apply(payload)

    def _define_series(self, name: tuple[str, str], branch: int, about: About) -> int:
        series = Series(str(name[0]), str(name[1]), int(branch), about)
        self._log_and_apply(series_payload(series))
        code = len(self._state.series) - 1
        self._codes[branch, about][name] = code
        return code

    def _define_hash(self, text: str) -> int:
        self._log_and_apply(hash_payload(text))
        code = len(self._state.hashes) - 1
        self._hash_codes[text] = code
        return code

    def _follow(self) -> None:
        """Apply what another process has written since; from the start when the file is another one."""
        with self._guard:
            try:
                status = os.stat(self.path)
            except FileNotFoundError:
                return
            identity = (status.st_dev, status.st_ino)
            if identity == self._identity and status.st_size == self._offset:
                return
            if identity != self._identity or status.st_size < self._offset:
                self._state, self._offset, self._identity = MetricState(), 0, identity
            for end, payload in read_records(self.path, KIND, VERSION, self._offset):
                self._state.apply(payload)
                self._offset = end


def _start_of(cursor: str, generation: int, count: int) -> int | None:
    """Where a cursor points to; None for one that does not belong to this history."""
    known, _, index = cursor.partition(":")
    if not (known.isdecimal() and index.isdecimal() and len(cursor) < 40):
        return None
    start = int(index)
    return start if int(known) == generation and start <= count else None


def _matching(
    state: MetricState, history: History, start: int, count: int, metric: str, min_age: int, max_age: int
) -> NDArray[np.int64]:
    """Ascending indices of the points from start to count that were asked for."""
    if start == count:
        return np.arange(0)
    rows = history.rows[start:count]
    mask = np.ones(len(rows), dtype=bool)
    if metric:
        wanted = np.array([series.metric == metric for series in state.series], dtype=bool)
        mask &= wanted[rows["series"]]
    if min_age > 0:
        mask &= rows["age"] >= min_age
    if max_age > 0:
        mask &= rows["age"] <= max_age
    return np.flatnonzero(mask) + start


def _chosen(history: History, matching: NDArray[np.int64], max_points: int, newest: int) -> NDArray[np.int64]:
    """The points to answer: of each series the newest (0: all), then no more than max_points (0: all)."""
    if len(matching) == 0:
        return matching
    rows = history.rows
    codes = rows["series"][matching]
    # 16-bit keys sort by radix, some ten times faster.
    order = np.argsort(codes.astype(np.uint16) if codes.max() < 1 << 16 else codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    result: list[NDArray[np.int64]] = []
    for group in np.split(matching[order], edges):
        if newest:
            group = group[-newest:]
        if max_points and len(group) > max_points:
            ages = rows["age"][group].astype(np.int64)
            series = int(rows["series"][group[0]])
            noted = [age for code, age in history.notes if code == series]
            keep = np.flatnonzero(np.isin(ages, noted)).tolist() if noted else []
            group = group[thin(ages, rows["value"][group].astype(np.float64), max_points, keep)]
        result.append(group)
    return np.sort(np.concatenate(result))


def _title(split: str, metric: str) -> str:
    return f"{split}/{metric}" if split else metric


assert ROW_TYPE.itemsize == ROW.size
