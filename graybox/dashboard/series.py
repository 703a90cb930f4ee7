"""Curves as the dashboard holds them: what a run's metrics were, by split, metric and branch, over model age."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from graybox.proto import experiment_service_pb2 as pb

MAX_POINTS = 2000
"""Points of one trace that a browser gets."""
HELD_POINTS = 2 * MAX_POINTS
"""Points of one series kept here before the backend is asked for a downsampled history again."""


class SeriesKey(NamedTuple):
    """Which curve of a run."""

    split: str
    metric: str
    branch: int


Point = tuple[SeriesKey, int, float]
"""(which curve, age, value)."""


@dataclass
class Series:
    """One curve; `ages` ascend. NaN where the value was none."""

    ages: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def between(self, low: float, high: float) -> Series:
        """The points of age low to high, and one more on either side so that lines reach the edge."""
        first = max(bisect_left(self.ages, low) - 1, 0)
        last = bisect_right(self.ages, high) + 1
        return Series(self.ages[first:last], self.values[first:last])


@dataclass
class RunMetrics:
    """All curves of one run. `version` grows with every change, `cursor` goes back with the next question."""

    run_id: str
    cursor: str = ""
    version: int = 0
    downsampled: bool = False
    series: dict[SeriesKey, Series] = field(default_factory=dict)

    @property
    def overfull(self) -> bool:
        """Whether a downsampled history should be asked for instead of ever more points."""
        return any(len(series.ages) > HELD_POINTS for series in self.series.values())

    @property
    def last_age(self) -> int:
        """The age up to which any curve reaches."""
        return max((series.ages[-1] for series in self.series.values() if series.ages), default=0)

    def absorb(
        self, response: pb.GetLatestLoggerDataResponse, points: list[Point] | None = None, *, whole: bool = False
    ) -> bool:
        """Take an answer in, and tell whether that changed anything. Between two awaits: readers see it whole.

        points: what `decode` made of the answer. whole: it is the whole history, whatever its reset flag says.
        """
        replaces = response.reset or whole
        if replaces:
            self.series = {}
            self.downsampled = response.total_points > len(response.points)
        self.cursor = response.cursor or self.cursor
        if not response.points and not replaces:
            return False
        for key, age, value in decode(response) if points is None else points:
            series = self.series.get(key)
            if series is None:
                series = self.series[key] = Series()
            if series.ages and age < series.ages[-1]:
                cut = bisect_left(series.ages, age)
                del series.ages[cut:], series.values[cut:]
            series.ages.append(age)
            series.values.append(value)
        self.version += 1
        return True


def decode(response: pb.GetLatestLoggerDataResponse) -> list[Point]:
    """The points of an answer as plain values; takes milliseconds for a long history, so do it in a thread."""
    return [
        (SeriesKey(_curve(point), point.metric_name, point.branch), point.age or point.model_age, point.metric_value)
        for point in response.points
    ]


def _curve(point: pb.LoggerDataPoint) -> str:
    """The split; evaluations that somebody asked for, and audits, are no part of its own curve."""
    if point.audit_mode:
        return f"{point.split_name} · audit"
    if point.is_evaluation_marker:
        return " · ".join([point.split_name, "evaluation", *point.evaluation_tags])
    return point.split_name


def thin(series: Series, points: int = MAX_POINTS) -> Series:
    """At most `points` of the series: in each of points/2 buckets of equal count the smallest and the largest value
    stay, and so do the two ends."""
    count = len(series.ages)
    if count <= points:
        return series
    buckets = max(points // 2 - 1, 1)
    values = np.asarray(series.values[1:-1], dtype=np.float64)
    inner = len(values)
    width = -(-inner // buckets)
    padded = np.full(buckets * width, np.nan)
    padded[:inner] = values
    grid = padded.reshape(buckets, width)
    low = np.where(np.isnan(grid), np.inf, grid).argmin(axis=1)
    high = np.where(np.isnan(grid), -np.inf, grid).argmax(axis=1)
    starts = np.arange(buckets) * width
    picked = np.union1d(starts + low, starts + high)
    picked = picked[picked < inner] + 1
    chosen = [0, *picked.tolist(), count - 1]
    return Series([series.ages[i] for i in chosen], [series.values[i] for i in chosen])


def smooth(values: list[float], weight: float) -> list[float]:
    """Exponential moving average with the start-up bias removed. weight in [0, 1): 0 leaves the values as they are.
    What is not finite stays so and does not count."""
    if weight <= 0:
        return values
    result: list[float] = []
    average = 0.0
    mass = 0.0
    for value in values:
        if value - value != 0:  # NaN or infinite
            result.append(value)
            continue
        average = weight * average + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        result.append(average / mass)
    return result


def robust_range(curves: Iterable[list[float]], share: float = 0.98) -> tuple[float, float] | None:
    """A range of values that the bulk of every curve lies in, so that one curve's noise does not set the scale for all.

    Each curve's own low and high are the two quantiles that leave out (1 - share) / 2 at either end; its last value
    always counts. None when there is no finite value.
    """
    low, high = np.inf, -np.inf
    for curve in curves:
        values = np.asarray(curve, dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            continue
        edge = (1 - share) / 2 if len(values) >= 20 else 0.0
        below, above = np.quantile(values, [edge, 1 - edge])
        low, high = min(low, below, values[-1]), max(high, above, values[-1])
    if not np.isfinite(low):
        return None
    margin = (high - low) * 0.06 or max(abs(high) * 0.05, 1e-9)
    return float(low - margin), float(high + margin)
