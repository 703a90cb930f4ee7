"""Evaluations as the journal and the blobs keep them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.store.blobs import BlobStore
from graybox.store.evaluation_report import (
    CANCELLED,
    COMPLETED,
    END,
    FAILED,
    START,
    ClassTable,
    EvaluationReport,
    kept,
    last_report,
    numbers_for,
    numbers_from,
)
from graybox.store.journal import Journal

ASKED: dict[str, Any] = {"split": "test", "tags": ["dark"], "full": False, "query": "", "count": 9}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def add(journal: Journal, kind: str, arguments: dict[str, Any], **changes: Any) -> int:
    options = {
        "time_ms": 7, "actor": "a", "kind": kind, "step": 5, "age": 40, "branch": 0, "summary": kind,
        "arguments": arguments, **changes,
    }  # fmt: skip
    return journal.append(**options).sequence


def test_what_was_found_comes_back(journal: Journal, tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    assert last_report(journal.entries(), blobs) is None
    add(journal, "pause", {})
    number = add(journal, START, ASKED)
    add(journal, "resume", {})
    table = ClassTable(np.array([2, 0]), *(np.array([share, np.nan]) for share in (0.5, 0.25, 0.75, 1.5)))
    confusion = np.array([[1, 1], [0, 0]])
    numbers = {"loss": 0.5, "odd": float("nan")}
    found = {"start": number, "status": COMPLETED, "done": 9, "metrics": numbers_for(numbers)}
    add(journal, END, {**found, **kept(table, confusion, blobs)}, summary="done")
    reopened = Journal(tmp_path / "journal.jsonl", read_only=True)
    report = last_report(reopened.entries(), blobs)
    assert report is not None and report.ended and math.isnan(report.metrics["odd"])
    assert report == EvaluationReport(
        number, "test", COMPLETED, 9, 9, ("dark",), message="done", step=5, age=40, started_ms=7,
        metrics={"loss": 0.5, "odd": report.metrics["odd"]},
    )  # fmt: skip
    assert report.classes is not None and report.confusion is not None
    for name, column in table.arrays().items():
        np.testing.assert_array_equal(getattr(report.classes, name), column)
    np.testing.assert_array_equal(report.confusion, confusion)


def test_the_newest_counts_and_what_has_no_end_was_cancelled(journal: Journal, tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    first = add(journal, START, ASKED)
    add(journal, END, {"start": first, "status": COMPLETED, "done": 9, "metrics": {}, **kept(None, None, blobs)})
    add(journal, START, {**ASKED, "split": "val"}, outcome="failed")
    assert last_report(journal.entries(), blobs).evaluation_id == first  # type: ignore[union-attr]
    second = add(journal, START, {**ASKED, "split": "val"})
    report = last_report(journal.entries(), blobs)
    assert report is not None and (report.evaluation_id, report.status, report.done) == (second, CANCELLED, 0)
    add(journal, END, {"start": second, "status": FAILED, "done": 3, "error": "E", "traceback": "T"}, summary="no")
    report = last_report(journal.entries(), blobs)
    assert report is not None and (report.status, report.error, report.traceback) == (FAILED, "E", "T")
    assert (report.done, report.message) == (3, "no") and not (tmp_path / "blobs").exists()


def test_tables_that_are_broken_are_left_out(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    blobs = BlobStore(tmp_path / "blobs")
    number = add(journal, START, ASKED)
    tables = kept(None, np.eye(2, dtype=np.int64), blobs)
    add(journal, END, {"start": number, "status": COMPLETED, "done": 9, "metrics": {"loss": 1.0}, **tables})
    for path in (tmp_path / "blobs").iterdir():
        path.write_bytes(b"broken")
    report = last_report(journal.entries(), blobs)
    assert report is not None and report.metrics == {"loss": 1.0} and report.confusion is None
    assert "left out the tables of an evaluation" in caplog.text


@given(st.dictionaries(st.text(max_size=5), st.floats()))
def test_any_number_survives_strict_json(numbers: dict[str, float]) -> None:
    text = json.dumps(numbers_for(numbers), allow_nan=False)
    found = numbers_from(json.loads(text))
    np.testing.assert_array_equal(list(found.values()), list(numbers.values()))
    assert list(found) == list(numbers)
