from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from graybox.store.checkpoints import CheckpointRecord
from graybox.store.journal import JournalEntry
from graybox.structural_edits import edits_behind


def entry(number: int, kind: str, outcome: str = "applied", /, **arguments: Any) -> JournalEntry:
    return JournalEntry(number, 0, "", kind, 10 * number, 80 * number, 0, f"did {number}", arguments, outcome)


def edit(sequence: int, **more: Any) -> JournalEntry:
    return entry(sequence, "neuron_edit", edit={"kind": "freeze", "number": sequence}, evaluated=False, **more)


def sequences(entries: list[JournalEntry], until: int | None = None, records: Any = ()) -> list[int]:
    found = edits_behind(entries, len(entries) if until is None else until, records)
    return [told["sequence"] for told in found]


def test_edits_in_their_order_as_data() -> None:
    journal = [edit(1), entry(2, "pause"), edit(3, edit_blob="abc", command_id="x"), edit(4)]
    assert edits_behind(journal, 3, []) == [
        {
            "sequence": 1, "step": 10, "age": 80, "branch": 0, "summary": "did 1",
            "edit": {"kind": "freeze", "number": 1},
        },
        {
            "sequence": 3, "step": 30, "age": 240, "branch": 0, "summary": "did 3",
            "edit": {"kind": "freeze", "number": 3}, "edit_blob": "abc",
        },
    ]  # fmt: skip
    assert edits_behind([], 0, []) == edits_behind(journal, 0, []) == []


def test_what_was_undone_or_failed_is_left_out_and_what_was_done_again_is_in() -> None:
    journal = [
        edit(1), edit(2), entry(3, "undo", sequence=2), entry(4, "redo", sequence=2), edit(5),
        entry(6, "undo", sequence=5), entry(7, "undo", sequence=4), entry(8, "redo", sequence=4),
        entry(9, "hp_change"), entry(10, "undo", sequence=9), entry(11, "neuron_edit", "failed", edit={}),
    ]  # fmt: skip
    expected = [[], [1], [1, 2], [1], [1, 4], [1, 4, 5], [1, 4], [1], [1, 8], [1, 8], [1, 8], [1, 8]]
    assert [sequences(journal, until) for until in range(12)] == expected
    again = edits_behind(journal, 8, [])[1]
    assert again["edit"] == {"kind": "freeze", "number": 2} and again["sequence"] == 8


def test_a_restore_brings_back_those_of_its_checkpoint() -> None:
    records = [CheckpointRecord("000001", journal_sequence=1), CheckpointRecord("000002", journal_sequence=4)]
    journal = [
        edit(1), edit(2), entry(3, "checkpoint_restore", id="000001", weights_only=False), edit(4), edit(5),
        entry(6, "checkpoint_restore", id="000002", weights_only=True), edit(7),
        entry(8, "checkpoint_restore", id="000099"),
    ]  # fmt: skip
    expected = [[], [1], [1, 2], [1], [1, 4], [1, 4, 5], [1, 4], [1, 4, 7], [1, 4, 7]]
    assert [sequences(journal, until, records) for until in range(9)] == expected


steps = st.lists(
    st.one_of(
        st.just(("edit", 0)), st.just(("edit", 0)), st.tuples(st.just("undo"), st.integers(0, 3)), st.just(("keep", 0)),
        st.tuples(st.just("restore"), st.integers(0, 5)),
    ),
    max_size=40,
)  # fmt: skip


@given(steps)
def test_as_a_list_that_is_carried_along(taken: list[tuple[str, int]]) -> None:
    """The same told by somebody who does it all with plain lists."""
    journal: list[JournalEntry] = []
    records: list[CheckpointRecord] = []
    present: list[int] = []
    kept: dict[str, list[int]] = {}
    for kind, number in taken:
        sequence = len(journal) + 1
        if kind == "edit":
            journal.append(edit(sequence))
            present = [*present, sequence]
        elif kind == "undo" and present:
            gone = present[-1 - number % len(present)]
            journal.append(entry(sequence, "undo", sequence=gone))
            present = [one for one in present if one != gone]
        elif kind == "keep":
            records.append(CheckpointRecord(f"{len(records) + 1:06d}", journal_sequence=len(journal)))
            kept[records[-1].id] = present
        elif kind == "restore" and records:
            identity = records[number % len(records)].id
            journal.append(entry(sequence, "checkpoint_restore", id=identity))
            present = kept[identity]
        assert sequences(journal, records=records) == present
