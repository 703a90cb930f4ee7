"""A run's journal as a table for spreadsheets: one row per intervention."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO

from graybox.store.journal import JournalEntry
from graybox.store.undo_order import undo_states

COLUMNS = (
    "sequence", "time", "actor", "kind", "step", "age", "branch", "outcome", "undo_state", "summary", "arguments",
)  # fmt: skip
"""time: ISO 8601 in UTC, to the millisecond. undo_state: a word of UndoState, empty where there is nothing to undo.
arguments: JSON."""


def write_journal_table(entries: Iterable[JournalEntry], file: TextIO) -> int:
    """CSV with a head line, as RFC 4180 says but for line ends, which are the file's own; how many rows. Entries: the
    whole journal, in order. A text is written as it is: it is for programs that take no text for a formula."""
    found = list(entries)
    states = undo_states(found)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in found:
        state = states.get(entry.sequence)
        when = datetime.fromtimestamp(entry.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        writer.writerow([
            entry.sequence, when, entry.actor, entry.kind, entry.step, entry.age, entry.branch, entry.outcome,
            "" if state is None else state.value, entry.summary, json.dumps(entry.arguments, ensure_ascii=False),
        ])  # fmt: skip
    return len(found)
