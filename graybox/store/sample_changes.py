"""What changed of which samples since somebody looked: of every sample the store's version is kept that it changed in.

A cursor is opaque to whoever passes it back. It is "<history>.<version>.<split>.<row>", the first change that is not
known yet; changes are in order of their version, those of one version of split, by number, and row. A history ends
when the store is opened anew for writing, when it gets a state of before, and when a split begins anew. Where a store
is only read it is made of its files, so that a cursor outlives the process.

A change marks its samples with the version that is to come, then makes itself, then publishes the version. Who reads
takes the published version first and looks at the marks again afterwards: what was just being changed comes the next
time, and no sample is missed or told twice.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graybox.store.sample_columns import MAX_COUNT, Rows, SplitColumns
from graybox.store.sample_query import Selection

_CURSOR = re.compile(r"([0-9a-f]{16})\.(\d{1,18})\.(\d{1,5})\.(\d{1,13})")
_Place = tuple[int, int, int]
"""Version, split, row: what stands before it is known."""
_BEGINNING: _Place = (0, 0, 0)


@dataclass(frozen=True)
class Changes:
    """Samples that changed, in the order in which they did.

    cursor: to go on with. reset: the cursor that was given says nothing here, and these begin all samples anew.
    history, version: until when they are told.
    """

    selection: Selection
    cursor: str
    reset: bool
    history: str
    version: int


class ChangeReader:
    """What `SampleStore` inherits; used by any thread."""

    read_only: bool
    _splits: list[SplitColumns]
    _version: int
    _history: str

    def _begin_history(self, name: str = "") -> None:
        """From now on no cursor of before is known. name: 16 hexadecimal digits; new ones, unless given."""
        self._history = name or secrets.token_hex(8)

    def cursor(self) -> str:
        """With which `changed_since` goes on from now. To be asked for before anything is read."""
        return _text(self._history, (self._published() + 1, 0, 0))

    def changed_since(self, cursor: str, within: Selection, limit: int) -> Changes:
        """Which of some samples changed since a cursor was given, at most `limit` of them, 0 or more. What is read of
        them afterwards is right as far as `settled` says."""
        history, version, splits = self._history, self._published(), self._splits
        place = _place_of(cursor, history, version)
        begin, end = place or _BEGINNING, (version + 1, 0, 0)
        marks = position = np.zeros(0, dtype=np.int64)
        if begin != end:
            marks, position = _unknown(splits, within, begin, version)
            if len(marks) > limit:
                first = _first(marks, position, limit)
                marks, position = marks[first], position[first]
                end = (int(marks[-1]), *divmod(int(position[-1]) + 1, MAX_COUNT)) if limit else begin
            else:
                order = np.lexsort((position, marks))
                marks, position = marks[order], position[order]
        return Changes(
            _selection(splits, within.splits, position), _text(history, end), place is None, history, version
        )

    def settled(self, changes: Changes) -> NDArray[np.bool_]:
        """Which of these samples did not change again until now, bool [n]. The others come with the next changes."""
        if self._history != changes.history or not len(changes.selection):
            return np.zeros(len(changes.selection), dtype=bool)
        return np.asarray(_marks_of(self._splits, changes.selection) <= changes.version)

    def _published(self) -> int:
        # Reading anew what others wrote begins another history, if anything changed.
        return 0 if self.read_only else self._version


def _text(history: str, place: _Place) -> str:
    return ".".join((history, *map(str, place)))


def _place_of(cursor: str, history: str, version: int) -> _Place | None:
    """None for a cursor that says nothing here."""
    match = _CURSOR.fullmatch(cursor)
    if match is None or match[1] != history or int(match[2]) > version + 1:
        return None
    return int(match[2]), int(match[3]), int(match[4])


def _marks_of(splits: Sequence[SplitColumns], chosen: Selection) -> Rows:
    """The version that each changed in last, int64 [n]."""
    columns = {each.name: each for each in splits}
    if len(chosen.splits) == 1:
        return columns[chosen.splits[0]].changed[chosen.row]
    marks = np.zeros(len(chosen), dtype=np.int64)
    for number, name in enumerate(chosen.splits):
        there = chosen.split == number
        marks[there] = columns[name].changed[chosen.row[there]]
    return marks


def _unknown(splits: Sequence[SplitColumns], within: Selection, begin: _Place, version: int) -> tuple[Rows, Rows]:
    """Of those that changed from `begin` on, until the version: (the version that each changed in last, its split and
    row as one number), int64 [n] each."""
    since, split, row = begin
    parts = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))]
    for number, columns in enumerate(splits):
        rows = _rows_of(within, columns)
        marks = columns.changed if rows is None else columns.changed[rows]
        found = np.flatnonzero((marks >= since) & (marks <= version))
        marks, position = marks[found], (found if rows is None else rows[found]) + number * MAX_COUNT
        # Once more, as they go on changing.
        new = ((marks > since) | (position >= split * MAX_COUNT + row)) & (marks <= version)
        parts.append((marks[new], position[new]))
    all_marks, positions = zip(*parts, strict=True)
    return np.concatenate(all_marks), np.concatenate(positions)


def _rows_of(chosen: Selection, columns: SplitColumns) -> Rows | None:
    """Those of one split, each once; None where it is all of them."""
    if chosen.splits == (columns.name,):
        return None if len(chosen) == columns.count else chosen.row
    if columns.name not in chosen.splits:
        return chosen.row[:0]
    there = chosen.split == chosen.splits.index(columns.name)
    return None if np.count_nonzero(there) == columns.count else chosen.row[there]


def _selection(splits: Sequence[SplitColumns], names: tuple[str, ...], positions: Rows) -> Selection:
    """names: of the splits as the selection numbers them."""
    numbers = [names.index(columns.name) if columns.name in names else -1 for columns in splits]
    number, row = np.divmod(positions, MAX_COUNT)
    return Selection(np.array(numbers, dtype=np.int16)[number], row, names)


def _first(marks: Rows, position: Rows, limit: int) -> Rows:
    """Indices of the first `limit` by mark and position, in that order, without sorting all the others."""
    if not limit:
        return np.zeros(0, dtype=np.int64)
    highest = np.partition(marks, limit - 1)[limit - 1]
    below, ties = np.flatnonzero(marks < highest), np.flatnonzero(marks == highest)
    left = limit - len(below)
    chosen = np.concatenate([below, ties[np.argpartition(position[ties], left - 1)[:left]]])
    return chosen[np.lexsort((position[chosen], marks[chosen]))]
