"""What became of an evaluation that somebody asked for: as the trainer tells it, and as the journal keeps it.

An evaluation is two entries of the journal: "evaluation_start" says which samples, and "evaluation_end" what was found,
or what failed. One that was cancelled has no second entry, and neither has one in whose middle the process ended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import NotFound, StorageError
from graybox.store.blobs import BlobStore
from graybox.store.journal import JournalEntry

START, END = "evaluation_start", "evaluation_end"
PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = "pending", "running", "completed", "failed", "cancelled"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Numbers per class, each of shape [classes].

    support: int64, samples of the class. The others are float64, NaN where they cannot be said: precision, of the
    samples predicted to be of the class the share that are; recall, of its samples the share predicted to be; f1, their
    harmonic mean; mean_loss, over its samples.
    """

    support: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    mean_loss: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for a blob."""
        return {name: getattr(self, name) for name in ("support", "precision", "recall", "f1", "mean_loss")}


@dataclass(frozen=True)
class EvaluationReport:
    """One evaluation as it stands.

    evaluation_id: the journal sequence of its start. done, total: samples. tags, full, query: what chose them; query:
    that of a view. step, age: of the model. metrics: numbers by name. confusion: int64 [classes, classes], how often
    which class (down) was predicted to be which (across).
    """

    evaluation_id: int
    split: str
    status: str = PENDING
    done: int = 0
    total: int = 0
    tags: tuple[str, ...] = ()
    full: bool = False
    query: str = ""
    message: str = ""
    error: str = ""
    traceback: str = ""
    step: int = 0
    age: int = 0
    started_ms: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    classes: ClassTable | None = field(default=None, compare=False)
    confusion: NDArray[np.int64] | None = field(default=None, compare=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.status not in (PENDING, RUNNING)


def begun(entry: JournalEntry) -> EvaluationReport:
    """As an entry "evaluation_start" tells it."""
    asked = entry.arguments
    return EvaluationReport(
        evaluation_id=entry.sequence,
        split=asked["split"],
        total=asked["count"],
        tags=tuple(asked["tags"]),
        full=asked["full"],
        query=asked["query"],
        message=entry.summary,
        step=entry.step,
        age=entry.age,
        started_ms=entry.time_ms,
    )


def kept(classes: ClassTable | None, confusion: NDArray[np.int64] | None, blobs: BlobStore) -> dict[str, Any]:
    """Tables as the arguments of an entry "evaluation_end" hold them. Raises StorageError."""
    arrays = classes.arrays() if classes is not None else {}
    if confusion is not None:
        arrays["confusion"] = confusion
    return {"tables_blob": blobs.put(arrays)} if arrays else {}


def numbers_for(numbers: Mapping[str, float]) -> dict[str, float | str]:
    """As JSON of the strict kind can hold them: NaN and infinities as text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}


def numbers_from(kept_numbers: Mapping[str, float | str]) -> dict[str, float]:
    """What `numbers_for` was given."""
    return {name: float(value) for name, value in kept_numbers.items()}


def last_report(entries: Sequence[JournalEntry], blobs: BlobStore) -> EvaluationReport | None:
    """The newest evaluation of a journal in which none runs now; None where there was none. Tables that cannot be read
    are left out, and logged."""
    start = next((e for e in reversed(entries) if e.kind == START and e.outcome == "applied"), None)
    if start is None:
        return None
    report = begun(start)
    end = next((e for e in entries[start.sequence :] if e.kind == END and e.arguments["start"] == start.sequence), None)
    if end is None:
        message = "It did not end: it was cancelled, or the process ended in its middle"
        return replace(report, status=CANCELLED, message=message)
    found = end.arguments
    classes, confusion = _tables(found, blobs)
    return replace(
        report,
        status=found["status"],
        done=found["done"],
        message=end.summary,
        error=found.get("error", ""),
        traceback=found.get("traceback", ""),
        metrics=numbers_from(found.get("metrics", {})),
        classes=classes,
        confusion=confusion,
    )


def _tables(arguments: Mapping[str, Any], blobs: BlobStore) -> tuple[ClassTable | None, NDArray[np.int64] | None]:
    if "tables_blob" not in arguments:
        return None, None
    try:
        arrays = blobs.get(arguments["tables_blob"])
    except (NotFound, StorageError) as error:
        _log.warning("left out the tables of an evaluation: %s", error)
        return None, None
    confusion = arrays.pop("confusion", None)
    return (ClassTable(**arrays) if arrays else None), confusion
