"""What each sample of a split did, as columns: the truth in memory, changed by vectorised writes only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound
from graybox.store.loss_history import WIDTH, losses_of
from graybox.store.sample_keys import SampleKeys
from graybox.store.sample_notes import SampleNotes
from graybox.store.sample_scores import DEVIATIONS, MEANS, RUNNING, Scores
from graybox.store.targets import Answers, SampleTargets, note_right

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

_FLOAT = np.dtype("<f4")
STATE_COLUMNS: dict[str, tuple[np.dtype[Any], Any]] = {
    "prediction": (np.dtype("<i8"), -1),
    "loss": (_FLOAT, np.nan),
    "encounters": (np.dtype("<i8"), 0),
    "last_age": (np.dtype("<i8"), -1),
    "discarded": (np.dtype("?"), False),
    **{name: (_FLOAT, np.nan if name in MEANS else 0) for name in RUNNING},
    "confidence": (_FLOAT, np.nan),
    "margin": (_FLOAT, np.nan),
    "right": (np.dtype("?"), False),
    "forgetting": (np.dtype("<i4"), 0),
    "first_learnt": (np.dtype("<i8"), -1),
    "history": (_FLOAT, np.nan),
}
"""Columns that training changes, with their types and what they hold before a sample was seen. All are of shape
[samples], but for history, [samples, loss_history.WIDTH]."""

BYTES_A_SAMPLE = 8 + sum(
    kind.itemsize * (WIDTH if name == "history" else 1) for name, (kind, _) in STATE_COLUMNS.items()
)
"""Of STATE_COLUMNS and the label."""
MAX_COUNT = 1 << 40
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split. seen: met at least once; mean_loss: over finite losses, 0 where there is none; wrong: seen
    samples whose prediction differs from their label."""

    samples: int
    discarded: int
    seen: int
    mean_loss: float
    wrong: int


@dataclass(frozen=True)
class Ratings:
    """What a classifier says of a batch's true classes, both float32 [n]: the probability that it gives to each, and
    its logit less the largest of the others. NaN where a sample has no class."""

    confidence: Floats
    margin: Floats


class SplitColumns:
    """One split's columns, each of shape [count]. All but label stay the same arrays as long as the split does.

    label: int64, -1 none. prediction: int64, -1 none yet. loss: float32, NaN not seen yet. encounters: int64.
    last_age: int64, the age when it was seen last, -1 never. discarded: bool. scores: see sample_scores.py. notes:
    tags, corrected labels, logged signals, see sample_notes.py. targets: labels that are no classes, and what was
    predicted of them, see targets.py. keys: the samples' own names, or None. changed: int64, the
    store's version that each changed in last (sample_changes.py), in memory only. Only the store changes them.
    """

    def __init__(self, name: str, count: int, fingerprint: str = "", labels: ArrayLike | None = None) -> None:
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise Invalid(f"{name!r} cannot name a split; use 1 to 100 characters, without slashes")
        if not 0 <= count < MAX_COUNT:
            raise Invalid(f"split {name!r} cannot have {count} samples")
        self.name = name
        self.count = count
        self.fingerprint = fingerprint
        self.label: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        self.discarded: NDArray[np.bool_] = np.zeros(count, dtype=bool)
        self.scores = Scores(count)
        self.notes = SampleNotes(count)
        self.targets = SampleTargets(count)
        self.keys: SampleKeys | None = None
        self.changed: Rows = np.zeros(count, dtype=np.int64)
        if labels is not None:
            self.label[:] = self.checked_labels(labels)

    @property
    def prediction(self) -> NDArray[np.int64]:
        """That of the last encounter."""
        return self.scores.prediction

    @property
    def loss(self) -> Floats:
        """That of the last encounter."""
        return self.scores.loss

    @property
    def encounters(self) -> NDArray[np.int64]:
        """How often each was met."""
        return self.scores.encounters

    @property
    def last_age(self) -> NDArray[np.int64]:
        """When each was met last."""
        return self.scores.last_age

    def checked_labels(self, labels: ArrayLike) -> NDArray[np.int64]:
        """Labels as int64. Raises Invalid unless they are integers of shape [count]."""
        found = np.asarray(labels)
        if found.shape != (self.count,) or (found.dtype.kind not in "iub" and found.size):
            raise Invalid(
                f"labels of split {self.name!r} are integers of shape [{self.count}], not {found.dtype} {found.shape}"
            )
        return found.astype(np.int64)

    def checked_rows(self, rows: ArrayLike) -> Rows:
        """Rows as contiguous int64. Raises NotFound for one outside the split, Invalid for what is no row."""
        found = np.asarray(rows)
        if found.dtype != np.int64:
            if found.dtype.kind not in "iu" and found.size:
                raise Invalid(f"rows of split {self.name!r} are integers, not {found.dtype}")
            found = found.astype(np.int64)
        if found.ndim != 1:
            raise Invalid(f"rows of split {self.name!r} have shape [n], not {list(found.shape)}")
        found = np.ascontiguousarray(found)
        # As unsigned numbers the negative ones are the largest: one pass finds both kinds of stranger.
        if found.size and int(found.view(np.uint64).max()) >= self.count:
            strange = found[(found < 0) | (found >= self.count)][0]
            raise NotFound(f"split {self.name!r} has no sample {strange}; it has samples 0 to {self.count - 1}")
        return found

    def truth(self, rows: Rows | slice = slice(None)) -> NDArray[np.int64]:
        """The class that counts: the label, or what a person put in its place; int64, -1 none."""
        labels, corrected = self.label[rows], self.notes.corrected  # read once: the owner may take it away
        return labels if corrected is None else np.where(corrected[rows] >= 0, corrected[rows], labels)

    def record(
        self,
        rows: Rows,
        losses: Floats,
        predictions: NDArray[np.int64] | None,
        age: int,
        ratings: Ratings | None = None,
    ) -> None:
        """Note one batch; the arguments were checked. A row that comes twice counts twice, its last value wins."""
        for part in _each_row_once(rows):
            if part is None:
                self._record(rows, losses, predictions, age, ratings)
            else:
                self._record(
                    rows[part],
                    losses[part],
                    None if predictions is None else predictions[part],
                    age,
                    None if ratings is None else Ratings(ratings.confidence[part], ratings.margin[part]),
                )

    def _record(
        self, rows: Rows, losses: Floats, predictions: NDArray[np.int64] | None, age: int, ratings: Ratings | None
    ) -> None:
        right = None
        if predictions is not None:
            right = predictions == self.truth(rows)
            right &= predictions >= 0
        confidence, margin = (None, None) if ratings is None else (ratings.confidence, ratings.margin)
        self.scores.record(rows, losses, predictions, right, confidence, margin, age)

    def record_answers(self, rows: Rows, answers: Answers, age: int) -> None:
        """Note what was predicted of one batch beside classes; the arguments were checked. The last of a row that comes
        twice counts."""
        self.targets.answer(rows, answers)
        note_right(self.scores, rows, self.targets.right(rows), age)

    def rightness(self) -> NDArray[np.int8]:
        """int8 [count]: whether the last prediction was the label (of several classes: exactly these), 1 or 0; -1 where
        either is not known."""
        truth = self.truth()
        known = (truth >= 0) & (self.prediction >= 0)
        return np.where(known, (truth == self.prediction).astype(np.int8), self.targets.right())

    def discard(self, rows: Rows, value: bool) -> Rows:
        """Set the flag; the rows that changed, ascending."""
        changed = np.unique(rows[self.discarded[rows] != value])
        self.discarded[changed] = value
        return changed

    def losses_of(self, row: int) -> tuple[NDArray[np.int64], Floats]:
        """The losses of one sample that are still known: (numbers of its encounters from 0, int64 [m]; losses [m])."""
        return losses_of(self.scores.history[row], int(self.encounters[row]))

    def column(self, name: str) -> NDArray[Any]:
        """One of STATE_COLUMNS or sample_scores.DEVIATIONS, to be read only; of shape [count] or, for history,
        [count, WIDTH]."""
        if name in RUNNING or name in DEVIATIONS:
            return self.scores.read(name)
        found: NDArray[Any] = getattr(self.scores if hasattr(self.scores, name) else self, name)
        return found

    def part(self, name: str, at: slice) -> NDArray[Any]:
        """Some rows of one of STATE_COLUMNS, to be read only."""
        return self.scores.read(name, at) if name in RUNNING else self.column(name)[at]

    def set_part(self, name: str, at: slice, values: ArrayLike) -> None:
        """Overwrite some rows of one of STATE_COLUMNS in place."""
        if name in RUNNING:
            self.scores.load(name, values, at)
        else:
            self.column(name)[at] = values

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of the columns that training changes, and of what people noted."""
        return self.copied(np.array)()

    def copied(self, copy: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[], dict[str, NDArray[Any]]]:
        """What answers the state as it is now, later: the memory is copied by `copy`, as it lies there, and columns are
        taken out of it when they are asked for."""
        scores, discarded = self.scores.copied(copy), copy(self.discarded)
        beside = {name: copy(column) for name, column in self.notes.columns().items()} | self.targets.state(copy)

        def column(name: str) -> NDArray[Any]:
            if name == "discarded":
                return discarded
            found: NDArray[Any] = scores.read(name) if name in RUNNING else getattr(scores, name)
            return found

        return lambda: {**{name: column(name) for name in STATE_COLUMNS}, **beside}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite in place the columns that training changes; those that are left out become as never seen."""
        for name, (_, unseen) in STATE_COLUMNS.items():
            self.set_part(name, slice(None), state.get(name, unseen))
        self.notes.set_state({name: value for name, value in state.items() if name not in STATE_COLUMNS})
        self.targets.set_state(state)

    def summary(self) -> SplitSummary:
        loss = self.loss[np.isfinite(self.loss)]
        return SplitSummary(
            samples=self.count,
            discarded=int(np.count_nonzero(self.discarded)),
            seen=int(np.count_nonzero(self.encounters)),
            mean_loss=float(loss.mean(dtype=np.float64)) if len(loss) else 0.0,
            wrong=int(np.count_nonzero(self.rightness() == 0)),
        )


def shape_of(column: str, count: int) -> tuple[int, ...]:
    """Of one of STATE_COLUMNS."""
    return (count, WIDTH) if column == "history" else (count,)


def _each_row_once(rows: Rows) -> Iterator[NDArray[np.int64] | None]:
    """Indices into rows, such that within each part every row stands once and repetitions are in order; None where all
    of them do."""
    ordered = np.sort(rows)
    if not np.count_nonzero(ordered[1:] == ordered[:-1]):
        yield None
        return
    order = np.argsort(rows, kind="stable")
    begins = np.flatnonzero(np.concatenate(([True], rows[order][1:] != rows[order][:-1])))
    repetition = np.empty(len(rows), np.int64)
    repetition[order] = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
    for number in range(int(repetition.max()) + 1):
        yield np.flatnonzero(repetition == number)
