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

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.loss_history import WIDTH, keep_losses

Floats = NDArray[np.float32]

SERIES = ("loss", "confidence", "margin")
COUNTS = tuple(f"{name}_count" for name in SERIES)
MEANS = ("loss_mean", "confidence_mean", "aum")
SQUARES = tuple(f"{name}_m2" for name in SERIES)
DEVIATIONS = tuple(f"{name}_std" for name in SERIES)
RUNNING = (*COUNTS, *MEANS, *SQUARES)
"""Per series: over how many finite values, their mean, the sum of squared distances from it. One block in memory, so
that a batch reads and writes each sample's at once."""


class Scores:
    """All arrays have as many rows as there are samples.

    confidence, margin: float32, NaN unknown. right: bool, whether the last prediction was the label. forgetting: int32.
    first_learnt: int64, -1 never. history: float32 [n, WIDTH], see loss_history.py. `read` and `load` are for the
    columns of RUNNING.
    """

    def __init__(self, count: int) -> None:
        self._running: Floats = np.zeros((count, len(RUNNING)), dtype=np.float32)  # a mean of nothing is 0 here
        self.confidence: Floats = np.full(count, np.nan, dtype=np.float32)
        self.margin: Floats = np.full(count, np.nan, dtype=np.float32)
        self.right: NDArray[np.bool_] = np.zeros(count, dtype=bool)
        self.forgetting: NDArray[np.int32] = np.zeros(count, dtype=np.int32)
        self.first_learnt: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        self.history: Floats = np.full((count, WIDTH), np.nan, dtype=np.float32)

    def record(
        self,
        rows: NDArray[np.int64],
        encounters: NDArray[np.int64],
        losses: Floats,
        right: NDArray[np.bool_] | None,
        confidence: Floats | None,
        margin: Floats | None,
        age: int,
    ) -> None:
        """Note one batch. rows: int64 [n], each once. encounters: int64 [n], how often each was met before. right:
        whether each was predicted right, None without labels or predictions. All others [n]."""
        values = np.full((len(rows), len(SERIES)), np.nan, dtype=np.float32)
        values[:, 0] = losses
        if confidence is not None and margin is not None:
            values[:, 1], values[:, 2] = confidence, margin
            self.confidence[rows], self.margin[rows] = confidence, margin
        self._add(rows, values)
        if right is not None:
            self._learn(rows, right, age)
        keep_losses(self.history, rows, encounters, losses)

    def _add(self, rows: NDArray[np.int64], values: Floats) -> None:
        """Add values [n, series] to counts, means and sums of squares; those that are no finite numbers are left
        out."""
        block = self._running.take(rows, axis=0)
        count, mean, squares = block[:, 0:3], block[:, 3:6], block[:, 6:9]
        known = np.isfinite(values)
        with np.errstate(over="ignore", invalid="ignore"):  # a loss of 1e30 has no square in float32
            if known.all():
                count += 1
                away = values - mean
                mean += away / count
            else:
                count += known
                values = np.where(known, values, mean)
                away = values - mean
                mean += away / np.maximum(count, 1)
            squares += away * (values - mean)
        # A whole row as one value: several times faster than writing its numbers.
        whole = np.dtype((np.void, block.shape[1] * block.itemsize))
        self._running.view(whole).reshape(-1).put(rows, block.view(whole).reshape(-1))

    def _learn(self, rows: NDArray[np.int64], right: NDArray[np.bool_], age: int) -> None:
        forgotten = rows[self.right[rows] > right]
        if len(forgotten):
            self.forgetting[forgotten] += 1
        learnt = rows[right]
        learnt = learnt[self.first_learnt[learnt] < 0]
        if len(learnt):
            self.first_learnt[learnt] = age
        self.right[rows] = right

    def read(self, name: str) -> Floats:
        """A column of RUNNING or DEVIATIONS, float32 [n], a new array; NaN where nothing is known but a count."""
        if name in DEVIATIONS:
            series = DEVIATIONS.index(name)
            count = self._running[:, series]
            with np.errstate(invalid="ignore", divide="ignore"):
                found: Floats = np.sqrt(self._running[:, 6 + series] / count)
            return found
        column = self._running[:, RUNNING.index(name)]
        if name in MEANS:
            return np.where(self._running[:, MEANS.index(name)] > 0, column, np.float32(np.nan))
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

    def load(self, name: str, values: Any) -> None:
        """Overwrite a column of RUNNING with what `read` answered."""
        self._running[:, RUNNING.index(name)] = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
