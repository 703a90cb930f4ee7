"""What of a journal can be undone and redone: last in, first out over edits of neurons, samples and hyper-parameters.
A new edit ends what could be redone."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from graybox.store.journal import JournalEntry

UNDO = "undo"
"""Kind of the entry that takes another one back; its arguments name that one: {"sequence": n}."""
SAMPLE_EDITS = frozenset(
    {"sample_discard", "sample_restore", "sample_weight", "tag_add", "tag_remove", "label_change", "metadata_copy",
     "metadata_delete"}
)  # fmt: skip
UNDOABLE = frozenset({"neuron_edit", "hp_change", "mode_switch", *SAMPLE_EDITS})
REDO = "redo"
"""Kind of the entry that does an undone one again; its arguments name that one, which may be a redo itself. It can be
undone like the edit."""
DATA_CHANGED = "data_changed"
"""Kind of the entry that says that samples stand elsewhere from here on."""
_GOES_BACK = ("checkpoint_restore", DATA_CHANGED)


class UndoState(enum.Enum):
    """Of an entry that can be undone at all."""

    NEXT = "next"
    """What an undo takes back now."""
    LATER = "later"
    """Once what came after it is undone."""
    UNDONE = "undone"
    REDO = "redo"
    """Undone, and what a redo does again now."""
    GONE = "gone"
    """No longer: the run went back to a checkpoint since, which is undone by going to another one; or its data set
    became another one, in which samples stand elsewhere."""


@dataclass
class _Stacks:
    """states: of every entry that could be undone at some time. undo, redo: sequences, the next one last."""

    states: dict[int, UndoState] = field(default_factory=dict)
    undo: list[int] = field(default_factory=list)
    redo: list[int] = field(default_factory=list)

    def note(self, entry: JournalEntry) -> None:
        if entry.kind in UNDOABLE and entry.undo:
            self._can_be_undone(entry.sequence)
            self.redo.clear()
        elif entry.kind == REDO and entry.undo:
            again = named(entry)
            if again in self.redo:
                self.redo.remove(again)
            self._can_be_undone(entry.sequence)
        elif entry.kind == UNDO and named(entry) in self.undo:
            self.undo.remove(named(entry))
            self.states[named(entry)] = UndoState.UNDONE
            self.redo.append(named(entry))
        elif entry.kind in _GOES_BACK:
            self.states.update(dict.fromkeys(self.undo, UndoState.GONE))
            self.undo.clear()
            self.redo.clear()

    def _can_be_undone(self, sequence: int) -> None:
        self.states[sequence] = UndoState.LATER
        self.undo.append(sequence)


def _stacks(entries: Iterable[JournalEntry]) -> _Stacks:
    found = _Stacks()
    for entry in entries:
        if entry.outcome == "applied":
            found.note(entry)
    return found


def undo_states(entries: Iterable[JournalEntry]) -> dict[int, UndoState]:
    """By sequence, of every entry that was applied and tells what undoes it. Entries: the whole journal, in order."""
    found = _stacks(entries)
    if found.undo:
        found.states[found.undo[-1]] = UndoState.NEXT
    if found.redo:
        found.states[found.redo[-1]] = UndoState.REDO
    return found.states


def next_to_undo(entries: Iterable[JournalEntry]) -> int:
    """The sequence of the entry that an undo takes back now; 0 where there is none."""
    return next(reversed(_stacks(entries).undo), 0)


def next_to_redo(entries: Iterable[JournalEntry]) -> int:
    """The sequence of the undone entry that a redo does again now; 0 where there is none."""
    return next(reversed(_stacks(entries).redo), 0)


def undoes(entry: JournalEntry) -> int:
    """The entry that an undo took back; 0 for any other kind of entry."""
    return named(entry) if entry.kind == UNDO else 0


def named(entry: JournalEntry) -> int:
    """The entry that an undo or a redo is about; 0 where it names none."""
    sequence = entry.arguments.get("sequence", 0)
    return sequence if isinstance(sequence, int) else 0


def as_edit(entry: JournalEntry, by_sequence: Mapping[int, JournalEntry]) -> tuple[JournalEntry, int]:
    """(an entry as the edit that it is, the sequence of that edit when it was made first): a redo has the kind and
    arguments of what it did again, and its own way to be undone. Raises KeyError where the journal lacks it."""
    first = entry
    while first.kind == REDO:
        first = by_sequence[named(first)]
    return replace(entry, kind=first.kind, arguments=first.arguments), first.sequence
