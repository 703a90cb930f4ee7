"""Scores of samples, worked out online from every encounter, by which mislabelled, hard and redundant ones are ranked.

loss_mean, loss_std: of the losses so far (Welford, 1962, "Note on a method for calculating corrected sums of squares
    and products"). A loss that is no finite number leaves them.
confidence: the probability that the network gave to the true class when it saw the sample last. confidence_mean and
    confidence_std over all encounters are the confidence and the variability of Swayamdipta et al., 2020, "Dataset
    Cartography: Mapping and Diagnosing Datasets with Training Dynamics".
margin: the logit of the true class less the largest of the others, at the last encounter. aum: its mean over all
    encounters, the area under the margin of Pleiss et al., 2020, "Identifying Mislabeled Data using the Area Under the
    Margin Ranking"; low for samples whose label the others contradict. margin_std: its deviation.
forgetting: how often it was predicted right at one encounter and wrong at the next; first_learnt: the age of the model
    when it was predicted right for the first time, -1 never (both of Toneva et al., 2019, "An Empirical Study of
    Example Forgetting during Deep Neural Network Learning").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.aligned import aligned_zeros
from graybox.store.loss_history import keep_losses, new_history

Floats = NDArray[np.float32]

SERIES = ("loss", "confidence", "margin")
COUNTS = tuple(f"{name}_count" for name in SERIES)
MEANS = ("loss_mean", "confidence_mean", "aum")
SQUARES = tuple(f"{name}_m2" for name in SERIES)
DEVIATIONS = tuple(f"{name}_std" for name in SERIES)
RUNNING = (*COUNTS, *MEANS, *SQUARES)
"""Per series: over how many finite values, their mean, the sum of squared distances from it."""

_LAST = np.dtype(
    [("loss", "<f4"), ("confidence", "<f4"), ("margin", "<f4"), ("", "V4"), ("prediction", "<i8"), ("last_age", "<i8")]
)
"""The last encounter of a sample: 32 bytes."""
_ALL = np.dtype(
    [("running", "<f4", len(RUNNING)), ("forgetting", "<i4"), ("encounters", "<i8"), ("first_learnt", "<i8"),
     ("right", "?"), ("", "V7")]
)  # fmt: skip
"""All of its encounters: 64 bytes."""


class Scores:
    """What training notes of samples; all arrays have as many rows as there are samples.

    Of the last encounter: loss, confidence and margin float32, NaN unknown; prediction int64, -1 none yet; last_age
    int64, -1 never. Of all: encounters int64, how many; right bool, whether the last prediction was the label;
    forgetting int32; first_learnt int64, -1 never; history float32 [n, WIDTH], see loss_history.py. `read` and `load`
    are for the columns of RUNNING.

    What a batch changes lies together, sample by sample, and the arrays are views of it: memory is waited for three
    times for each sample of a batch, and not once for each of its columns.
    """

    def __init__(self, count: int) -> None:
        self._look_at(aligned_zeros(count, _LAST), aligned_zeros(count, _ALL), new_history(count))
        for unknown in (self.loss, self.confidence, self.margin):
            unknown.fill(np.nan)
        for never in (self.prediction, self.last_age, self.first_learnt):
            never.fill(-1)

    def _look_at(self, last: NDArray[np.void], whole: NDArray[np.void], history: Floats) -> None:
        self._last, self._all, self.history = last, whole, history
        self.loss: Floats = last["loss"]
        self.confidence: Floats = last["confidence"]
        self.margin: Floats = last["margin"]
        self.prediction: NDArray[np.int64] = last["prediction"]
        self.last_age: NDArray[np.int64] = last["last_age"]
        self._running: Floats = whole["running"]  # a mean of nothing is 0 here
        self.forgetting: NDArray[np.int32] = whole["forgetting"]
        self.encounters: NDArray[np.int64] = whole["encounters"]
        self.first_learnt: NDArray[np.int64] = whole["first_learnt"]
        self.right: NDArray[np.bool_] = whole["right"]

    def copied(self, copy: Callable[[NDArray[Any]], NDArray[Any]]) -> Scores:
        """The same, in memory that `copy` takes it to: three arrays, however many the columns."""
        found = Scores.__new__(Scores)
        found._look_at(copy(self._last), copy(self._all), copy(self.history))
        return found

    def __getstate__(self) -> tuple[NDArray[Any], ...]:
        # Pickled one by one, the views would no longer be of the same memory.
        return self._last, self._all, self.history

    def __setstate__(self, state: tuple[NDArray[Any], ...]) -> None:
        last, whole, history = state
        self._look_at(aligned_zeros(len(last), _LAST), aligned_zeros(len(whole), _ALL), new_history(len(history)))
        self._last[:], self._all[:], self.history[:] = last, whole, history

    def record(
        self,
        rows: NDArray[np.int64],
        losses: Floats,
        predictions: NDArray[np.int64] | None,
        right: NDArray[np.bool_] | None,
        confidence: Floats | None,
        margin: Floats | None,
        age: int,
    ) -> None:
        """Note one batch. rows: int64 [n], each once. right: whether each was predicted right, None without labels or
        predictions. All others [n]; None leaves what is known."""
        rated = confidence is not None and margin is not None
        # What is replaced as a whole need not be read.
        last = np.empty(len(rows), _LAST) if rated and predictions is not None else self._last.take(rows)
        values = np.full((len(SERIES), len(rows)), np.nan, dtype=np.float32)
        values[0] = last["loss"] = losses
        if rated:
            values[1] = last["confidence"] = confidence
            values[2] = last["margin"] = margin
        if predictions is not None:
            last["prediction"] = predictions
        last["last_age"] = age
        self._last.put(rows, last)
        whole = self._all.take(rows)
        _add(whole["running"], values)
        if right is not None:
            forgotten = whole["right"] > right
            if np.count_nonzero(forgotten):
                whole["forgetting"][forgotten] += 1
            whole["right"] = right
            first = whole["first_learnt"]
            first[right & (first < 0)] = age
        encounters = whole["encounters"].copy()
        whole["encounters"] += 1
        self._all.put(rows, whole)
        keep_losses(self.history, rows, encounters, losses)

    def read(self, name: str, at: slice = slice(None)) -> Floats:
        """A column of RUNNING or DEVIATIONS, or some rows of it, float32 [n], a new array; NaN where nothing is known
        but a count."""
        running = self._running[at]
        if name in DEVIATIONS:
            series = DEVIATIONS.index(name)
            with np.errstate(invalid="ignore", divide="ignore"):
                found: Floats = np.sqrt(running[:, 6 + series] / running[:, series])
            return found
        column = running[:, RUNNING.index(name)]
        if name in MEANS:
            return np.where(running[:, MEANS.index(name)] > 0, column, np.float32(np.nan))
        return column.copy()

    def of(self, row: int) -> dict[str, float]:
        """All scores of one sample, by name; NaN unknown, but for counts."""
        running = self._running[row].tolist()
        found: dict[str, float] = {}
        for number, name in enumerate(MEANS):
            count, mean, squares = running[number], running[3 + number], running[6 + number]
            found[name] = mean if count else float("nan")
            found[DEVIATIONS[number]] = (squares / count) ** 0.5 if count else float("nan")
        found |= {"confidence": float(self.confidence[row]), "margin": float(self.margin[row])}
        learnt = int(self.first_learnt[row])
        return {
            **found,
            "forgetting": int(self.forgetting[row]),
            "first_learnt": float("nan") if learnt < 0 else learnt,
        }

    def load(self, name: str, values: Any, at: slice = slice(None)) -> None:
        """Overwrite a column of RUNNING, or some rows of it, with what `read` answered."""
        self._running[at, RUNNING.index(name)] = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _add(running: Floats, values: Floats) -> None:
    """Add values [series, n] to counts, means and sums of squares, [n, RUNNING]; those that are no finite numbers are
    left out."""
    columns = running.T.copy()  # each in one piece: several times faster to calculate with
    count, mean, squares = columns[0:3], columns[3:6], columns[6:9]
    known = np.isfinite(values)
    with np.errstate(over="ignore", invalid="ignore"):  # a loss of 1e30 has no square in float32
        if np.count_nonzero(known) == known.size:
            count += 1
            away = values - mean
            mean += away / count
        else:
            count += known
            values = np.where(known, values, mean)
            away = values - mean
            mean += away / np.maximum(count, 1)
        away *= values - mean
        squares += away
    running[:] = columns.T
