from __future__ import annotations

import json
from pathlib import Path

import pytest

from graybox.errors import Invalid, NotFound, StorageError
from graybox.store.runs import Branch, RunFolder, create_run_folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create_run_folder(tmp_path / "digits", "Digits")


def test_a_new_run_tells_what_it_is(run: RunFolder) -> None:
    assert run.run_id == "digits"
    record = run.record
    assert (record["name"], record["state"], record["step"], record["metrics"]) == ("Digits", "starting", 0, {})
    assert record["format_version"] == 1
    assert record["created_ms"] == record["updated_ms"] > 1_600_000_000_000
    assert run.branches == [Branch(0, -1, 0, 0, "")]


def test_updates_are_on_disk_and_seen_by_others(run: RunFolder) -> None:
    other = RunFolder(run.path)
    created = run.record["created_ms"]
    run.update(step=12, age=768, state="running", metrics={"val/loss": 0.5}, class_names=["0", "ü"])
    for found in (run.record, other.record, RunFolder(run.path).record):
        assert (found["step"], found["age"], found["state"]) == (12, 768, "running")
        assert found["metrics"] == {"val/loss": 0.5}
        assert found["class_names"] == ["0", "ü"]
        assert found["created_ms"] == created <= found["updated_ms"]


def test_a_record_is_a_copy(run: RunFolder) -> None:
    run.record["branches"].clear()
    assert len(run.branches) == 1


def test_branches_are_numbered_in_order(run: RunFolder) -> None:
    first = run.add_branch(0, 10, 640, "from 10")
    second = RunFolder(run.path).add_branch(1, 20, 1280)
    assert (first, second) == (Branch(1, 0, 10, 640, "from 10"), Branch(2, 1, 20, 1280, ""))
    assert run.branches == [Branch(0), first, second]
    with pytest.raises(NotFound, match=r"no branch 7; it has \[0, 1, 2\]"):
        run.add_branch(7, 0, 0)


def test_branches_are_named_and_noted(run: RunFolder) -> None:
    run.add_branch(0, 10, 640)
    assert run.change_branch(1, name="wider", note="two\nlines ü") == Branch(1, 0, 10, 640)
    assert run.change_branch(1, name="") == Branch(1, 0, 10, 640, "wider", "two\nlines ü")
    noted = Branch(1, 0, 10, 640, "", "two\nlines ü")
    assert run.change_branch(1) == noted and RunFolder(run.path).branches == [Branch(0), noted]
    run.change_branch(1, note="")
    # As versions wrote it, and read it, that know of no notes.
    assert "note" not in json.loads((run.path / "run.json").read_bytes())["branches"][1]
    with pytest.raises(NotFound, match=r"no branch 7; it has \[0, 1\]"):
        run.change_branch(7, name="x")
    assert run.branches == [Branch(0), Branch(1, 0, 10, 640)]


def test_what_cannot_be_written_changes_nothing(run: RunFolder) -> None:
    before = run.record
    with pytest.raises(Invalid, match="cannot hold this"):
        run.update(step=1, name={1, 2})
    with pytest.raises(Invalid, match="run_id of a run cannot be changed"):
        run.update(run_id="other")
    assert run.record == before == RunFolder(run.path).record


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is broken"),
        (b"[]", "no JSON object"),
        (b'{"format_version": 99}', "format version 99; this version of Graybox reads 1"),
        (b'{"format_version": 1, "created_ms": "x"}', "'created_ms' is missing or of the wrong type"),
    ],
)
def test_a_broken_record_is_named(run: RunFolder, content: bytes, reason: str) -> None:
    (run.path / "run.json").write_bytes(content)
    with pytest.raises(StorageError, match=reason):
        RunFolder(run.path)
    with pytest.raises(StorageError, match=reason):
        _ = run.record


def test_a_broken_branch_is_named(run: RunFolder) -> None:
    record = run.record
    record["branches"] = [{"branch": 0, "colour": "red"}]
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(StorageError, match="colour"):
        _ = run.branches


def test_a_folder_without_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no run\.json"):
        RunFolder(tmp_path)
    with pytest.raises(StorageError, match="cannot create the run folder"):
        create_run_folder(tmp_path / "missing" / "run", "x")
