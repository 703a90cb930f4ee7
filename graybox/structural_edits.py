"""The edits of neurons that a network's present structure came about by, in order, as data: no code is kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graybox.store.checkpoints import CheckpointRecord
from graybox.store.journal import JournalEntry
from graybox.store.undo_order import REDO, UNDO

EDIT = "neuron_edit"
RESTORE = "checkpoint_restore"


@dataclass(frozen=True)
class _Edits:
    """Edits in force: the last one, and those before it. What is before is shared, or a long journal would take the
    square of its length."""

    sequence: int
    entry: JournalEntry
    before: _Edits | None


def edits_behind(
    entries: Sequence[JournalEntry], sequence: int, records: Sequence[CheckpointRecord]
) -> list[dict[str, Any]]:
    """Every edit of neurons that is in force after the journal's entry `sequence`, the first one first: sequence (of
    the entry that did it, or did it again), step, age, branch, summary (what it did, in words), edit (its arguments,
    with selections resolved to indices) and edit_blob (the name of what lies in the run's blobs, if anything does).
    What was undone is left out, and so is what a restore, of all or of the weights, went back behind.

    entries: of the journal, from its first on. records: the run's checkpoints, among them those that were restored.
    """
    kept_at = {record.id: record.journal_sequence for record in records}
    edits: dict[int, JournalEntry] = {}
    present: _Edits | None = None
    moments: list[int] = [0]
    states: list[_Edits | None] = [None]
    for entry in entries[:sequence]:
        if entry.outcome != "applied":
            continue
        about = int(entry.arguments.get("sequence", 0))
        if entry.kind == EDIT or (entry.kind == REDO and about in edits):
            edits[entry.sequence] = entry if entry.kind == EDIT else edits[about]
            present = _Edits(entry.sequence, edits[entry.sequence], present)
        elif entry.kind == UNDO and about in edits:
            present = _without(present, about)
        elif entry.kind == RESTORE and entry.arguments["id"] in kept_at:
            present = states[bisect_right(moments, kept_at[entry.arguments["id"]]) - 1]
        else:
            continue
        moments.append(entry.sequence)
        states.append(present)
    found: list[dict[str, Any]] = []
    while present is not None:
        entry = present.entry
        what = {key: value for key, value in entry.arguments.items() if key in ("edit", "edit_blob")}
        told = {"step": entry.step, "age": entry.age, "branch": entry.branch, "summary": entry.summary}
        found.append({"sequence": present.sequence, **told, **what})
        present = present.before
    return found[::-1]


def _without(edits: _Edits | None, sequence: int) -> _Edits | None:
    """It is nearly always the last one."""
    later: list[_Edits] = []
    while edits is not None and edits.sequence != sequence:
        later.append(edits)
        edits = edits.before
    edits = None if edits is None else edits.before
    for each in reversed(later):
        edits = _Edits(each.sequence, each.entry, edits)
    return edits
