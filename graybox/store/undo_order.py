"""What of a journal can be undone: last in, first out over edits of neurons, samples and hyper-parameters."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from graybox.store.journal import JournalEntry

UNDO = "undo"
"""Kind of the entry that takes another one back; its arguments name that one: {"sequence": n}."""
SAMPLE_EDITS = frozenset(
    {"sample_discard", "sample_restore", "sample_weight", "tag_add", "tag_remove", "label_change", "metadata_copy",
     "metadata_delete"}
)  # fmt: skip
UNDOABLE = frozenset({"neuron_edit", "hp_change", *SAMPLE_EDITS})
_GOES_BACK = "checkpoint_restore"


class UndoState(enum.Enum):
    """Of an entry that can be undone at all."""

    NEXT = "next"
    """What an undo takes back now."""
    LATER = "later"
    """Once what came after it is undone."""
    UNDONE = "undone"
    GONE = "gone"
    """No longer: the run went back to a checkpoint since, which is undone by going to another one."""


def undo_states(entries: Iterable[JournalEntry]) -> dict[int, UndoState]:
    """By sequence, of every entry that was applied and tells what undoes it. Entries: the whole journal, in order."""
    states: dict[int, UndoState] = {}
    waiting: list[int] = []
    for entry in entries:
        if entry.outcome != "applied":
            continue
        if entry.kind in UNDOABLE and entry.undo:
            states[entry.sequence] = UndoState.LATER
            waiting.append(entry.sequence)
        elif entry.kind == UNDO:
            taken_back = undoes(entry)
            if taken_back in waiting:
                waiting.remove(taken_back)
                states[taken_back] = UndoState.UNDONE
        elif entry.kind == _GOES_BACK:
            states.update(dict.fromkeys(waiting, UndoState.GONE))
            waiting.clear()
    if waiting:
        states[waiting[-1]] = UndoState.NEXT
    return states


def next_to_undo(entries: Iterable[JournalEntry]) -> int:
    """The sequence of the entry that an undo takes back now; 0 where there is none."""
    return next((sequence for sequence, state in undo_states(entries).items() if state is UndoState.NEXT), 0)


def undoes(entry: JournalEntry) -> int:
    """The entry that an undo took back; 0 for any other kind of entry."""
    sequence = entry.arguments.get("sequence", 0) if entry.kind == UNDO else 0
    return sequence if isinstance(sequence, int) else 0
