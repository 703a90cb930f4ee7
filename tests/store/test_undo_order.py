"""What can be undone, against a stack kept by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from graybox.store.journal import JournalEntry
from graybox.store.undo_order import UndoState, as_edit, next_to_redo, next_to_undo, undo_states, undoes


def entry(number: int, kind: str, *, outcome: str = "applied", undo: Any = None, **arguments: Any) -> JournalEntry:
    return JournalEntry(number, 1, "ada", kind, 1, 8, 0, kind, arguments, outcome, undo or {})


OVER = (UndoState.UNDONE, UndoState.REDO)
STEPS = st.lists(
    st.sampled_from(["edit", "undo", "pause", "failed edit", "nothing to undo", "restore", "redo"]), max_size=30
)


@given(STEPS)
def test_last_in_first_out(steps: list[str]) -> None:
    entries: list[JournalEntry] = []
    stack: list[int] = []
    again: list[int] = []
    expected: dict[int, UndoState] = {}
    for step in steps:
        sequence = len(entries) + 1
        if step == "edit":
            entries.append(entry(sequence, "neuron_edit", undo={"frozen": [False]}))
            stack.append(sequence)
            again.clear()
        elif step == "undo" and stack:
            taken = stack.pop()
            again.append(taken)
            entries.append(entry(sequence, "undo", sequence=taken))
        elif step == "redo" and again:
            taken = again.pop()
            expected[taken] = UndoState.UNDONE
            entries.append(entry(sequence, "redo", undo={"frozen": [False]}, sequence=taken))
            stack.append(sequence)
        elif step == "pause":
            entries.append(entry(sequence, "pause"))
        elif step == "failed edit":
            entries.append(entry(sequence, "neuron_edit", outcome="failed", undo={"frozen": [False]}))
        elif step == "nothing to undo":
            entries.append(entry(sequence, "sample_discard"))
        elif step == "restore":
            entries.append(entry(sequence, "checkpoint_restore", id="000001"))
            expected.update(dict.fromkeys(stack, UndoState.GONE))
            stack.clear()
            gone, again = again, []
            expected.update(dict.fromkeys(gone, UndoState.UNDONE))
        expected.update(
            dict.fromkeys((e.sequence for e in entries if expected.get(e.sequence) in OVER), UndoState.UNDONE)
        )
        expected.update(dict.fromkeys(again, UndoState.UNDONE))
        if again:
            expected[again[-1]] = UndoState.REDO
        expected.update(dict.fromkeys(stack, UndoState.LATER))
        if stack:
            expected[stack[-1]] = UndoState.NEXT
        assert undo_states(entries) == expected
        assert next_to_undo(entries) == (stack[-1] if stack else 0)
        assert next_to_redo(entries) == (again[-1] if again else 0)


def test_an_undo_names_what_it_took_back() -> None:
    assert undoes(entry(5, "undo", sequence=3)) == 3
    assert undoes(entry(5, "pause", sequence=3)) == 0
    assert undoes(entry(5, "undo", sequence="3")) == 0


def test_a_redo_is_the_edit_that_it_does_again() -> None:
    entries = [
        entry(1, "tag_add", undo={"rows": {}}, tag="hard"), entry(2, "undo", sequence=1),
        entry(3, "redo", undo={"rows": {"train": [1]}}, sequence=1), entry(4, "undo", sequence=3),
        entry(5, "redo", undo={"rows": {"train": [2]}}, sequence=3),
    ]  # fmt: skip
    edit, first = as_edit(entries[4], {e.sequence: e for e in entries})
    assert (edit.kind, edit.arguments, edit.undo, edit.sequence, first) == (
        "tag_add", {"tag": "hard"}, {"rows": {"train": [2]}}, 5, 1,
    )  # fmt: skip
