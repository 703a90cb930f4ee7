from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, Refused, StorageError
from graybox.store.journal import Journal, JournalEntry

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {
        "time_ms": st.integers(0, 2**62),
        "actor": st.text(max_size=10),
        "kind": st.sampled_from(["pause", "neuron_edit"]),
        "step": st.integers(0, 2**62),
        "age": st.integers(0, 2**62),
        "branch": st.integers(0, 9),
        "summary": st.text(max_size=20),
        "arguments": st.dictionaries(st.text(max_size=4), json_values, max_size=3),
        "outcome": st.sampled_from(["applied", "failed"]),
        "undo": st.dictionaries(st.text(max_size=4), json_values, max_size=3),
    }
)


def add(journal: Journal, summary: str = "paused", **more: Any) -> JournalEntry:
    values: dict[str, Any] = {"time_ms": 5, "actor": "ann", "kind": "pause", "step": 1, "age": 64, "branch": 0}
    return journal.append(**{**values, "summary": summary, **more})


@settings(max_examples=40, deadline=None)
@given(st.lists(fields, max_size=6), st.integers(0, 6))
def test_entries_come_back_as_they_went_in(values: list[dict[str, Any]], reopen_at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        journal = Journal(path)
        reader = Journal(path, read_only=True)
        expected: list[JournalEntry] = []
        for index, value in enumerate(values):
            if index == reopen_at:
                journal.close()
                journal = Journal(path)
            expected.append(JournalEntry(sequence=index + 1, **value))
            assert journal.append(**value) == expected[-1]
            assert reader.last_sequence == journal.last_sequence == index + 1
        for after in range(len(values) + 2):
            assert journal.entries(after) == reader.entries(after) == expected[after:]
        journal.sync()
        journal.close()
        assert Journal(path, read_only=True).entries() == expected
        lines = path.read_text("ascii").splitlines()
        assert [json.loads(line)["summary"] for line in lines] == [value["summary"] for value in values]


def test_a_journal_cut_at_any_byte_keeps_every_whole_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    journal = Journal(whole)
    expected = [add(journal, f"entry {number}") for number in range(3)]
    journal.close()
    content = whole.read_bytes()
    for cut in range(len(content) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        path = folder / "journal.jsonl"
        path.write_bytes(content[:cut])
        lines = content[:cut].count(b"\n")
        reader = Journal(path, read_only=True)
        assert reader.entries() == expected[:lines]
        journal = Journal(path)
        assert journal.entries() == expected[:lines]
        torn = [file.read_bytes() for file in folder.glob("journal.torn-*")]
        left = content[:cut].rpartition(b"\n")[2]
        assert torn == ([left] if left else [])
        added = add(journal, "after")
        journal.close()
        assert added.sequence == lines + 1
        assert reader.entries() == Journal(path).entries() == [*expected[:lines], added]


def test_a_flipped_byte_in_the_middle_is_named_and_in_the_last_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    expected = [add(journal, f"entry {number}") for number in range(3)]
    journal.close()
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x04]) + content[position + 1 :])
        line = sum(end <= position for end in ends)
        if line < 2 or position == len(content) - 1:
            with pytest.raises(StorageError, match=f"line {line + 1} of .*journal.jsonl is broken"):
                Journal(path)
            assert not list(tmp_path.glob("*.torn-*"))
            with pytest.raises(StorageError, match=f"line {line + 1} of .*journal.jsonl is broken"):
                Journal(path, read_only=True)
        else:
            assert Journal(path, read_only=True).entries() == expected[:2]
    path.write_bytes(content[:-4] + b"x" + content[-3:])
    journal = Journal(path)
    assert journal.entries() == expected[:2]
    journal.close()


def test_a_line_that_went_missing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(4):
        add(journal, str(number))
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + lines[3])
    with pytest.raises(StorageError, match=r"line 2 of .* is broken: its sequence is 3, not 2"):
        Journal(path)


def test_memory_shows_what_a_restart_will_show(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    arguments = {"neurons": (1, 2), "rate": 0.5}
    entry = add(journal, arguments=arguments)
    assert entry.arguments == {"neurons": [1, 2], "rate": 0.5}
    arguments["rate"] = 9.0
    journal.close()
    assert Journal(tmp_path / "journal.jsonl").entries() == journal.entries() == [entry]


def test_what_cannot_be_kept_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    with pytest.raises(Invalid, match="the journal cannot hold this pause"):
        add(journal, arguments={"model": object()})
    assert journal.last_sequence == 0 and path.read_bytes() == b""
    add(journal)
    journal.close()
    journal.sync()
    with pytest.raises(StorageError, match="journal is closed"):
        add(journal)
    with pytest.raises(Refused, match="reading only"):
        add(Journal(path, read_only=True))
    assert Journal(tmp_path / "none.jsonl", read_only=True).entries() == []
    with pytest.raises(StorageError, match="cannot open the journal"):
        Journal(tmp_path / "missing" / "journal.jsonl")
