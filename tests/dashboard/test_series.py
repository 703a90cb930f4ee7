from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.dashboard.series import HELD_POINTS, RunMetrics, Series, SeriesKey, decode, robust_range, smooth, thin
from graybox.proto import experiment_service_pb2 as pb

LOSS = SeriesKey("train", "loss", 0)
numbers = st.floats(-1e6, 1e6)


def answer(
    ages: list[int], *, cursor: str = "1:1", reset: bool = False, total: int = 0
) -> pb.GetLatestLoggerDataResponse:
    points = [
        pb.LoggerDataPoint(split_name="train", metric_name="loss", age=age, metric_value=age / 10) for age in ages
    ]
    return pb.GetLatestLoggerDataResponse(points=points, cursor=cursor, reset=reset, total_points=total or len(ages))


def test_news_is_appended_and_a_reset_replaces() -> None:
    run = RunMetrics("r")
    assert run.absorb(answer([1, 2], reset=True))
    assert run.absorb(answer([3], cursor="1:3"))
    assert (run.series[LOSS].ages, run.cursor, run.version) == ([1, 2, 3], "1:3", 2)
    assert not run.absorb(answer([], cursor="1:3"))
    assert run.version == 2
    assert run.absorb(answer([9], cursor="2:1", reset=True))
    assert run.series[LOSS].ages == [9]


def test_an_earlier_age_cuts_what_lies_behind_it() -> None:
    run = RunMetrics("r")
    run.absorb(answer([10, 20, 30, 40], reset=True))
    run.absorb(answer([25, 35]))
    assert run.series[LOSS].ages == [10, 20, 25, 35]


def test_a_run_knows_when_it_holds_too_much_and_when_it_was_downsampled() -> None:
    run = RunMetrics("r")
    run.absorb(answer(list(range(1, 100)), reset=True, total=5000))
    assert run.downsampled and not run.overfull
    run.absorb(answer(list(range(100, HELD_POINTS + 102))))
    assert run.overfull
    run.absorb(answer([1]), whole=True)
    assert not run.downsampled and not run.overfull


@given(st.lists(numbers, max_size=400), st.integers(4, 60))
def test_thinning_keeps_the_ends_and_the_extremes_and_the_order(values: list[float], points: int) -> None:
    series = Series(list(range(len(values))), values)
    kept = thin(series, points)
    assert len(kept.ages) <= max(points, 0) or len(values) <= points
    assert kept.ages == sorted(set(kept.ages))
    assert all(values[age] == value for age, value in zip(kept.ages, kept.values, strict=True))
    if values:
        assert (kept.ages[0], kept.ages[-1]) == (0, len(values) - 1)
        assert (min(kept.values), max(kept.values)) == (min(values), max(values))


def test_thinning_survives_values_that_are_none() -> None:
    values = [math.nan] * 500 + [1.0, 5.0] + [math.nan] * 500
    kept = thin(Series(list(range(len(values))), values), 50)
    assert max(value for value in kept.values if not math.isnan(value)) == 5.0
    assert len(kept.ages) <= 50


@given(st.lists(numbers, min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_smoothing_is_the_weighted_mean_of_what_came_before(values: list[float], weight: float) -> None:
    result = smooth(values, weight)
    for index in range(len(values)):
        weights = weight ** np.arange(index, -1, -1)
        expected = float(np.average(values[: index + 1], weights=weights))
        assert result[index] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_smoothing_passes_over_what_is_not_finite() -> None:
    result = smooth([1.0, math.nan, 1.0, math.inf, 1.0], 0.5)
    assert math.isnan(result[1]) and math.isinf(result[3])
    assert [result[0], result[2], result[4]] == pytest.approx([1, 1, 1])
    assert smooth([1.0, 2.0], 0) == [1.0, 2.0]


def test_one_curves_noise_does_not_set_the_range() -> None:
    calm = list(np.linspace(1, 0.1, 500))
    wild = [*calm]
    wild[250] = 1e6
    limits = robust_range([calm, wild])
    assert limits is not None and limits[1] < 1.2
    assert robust_range([[math.nan], []]) is None


@given(st.integers(0, 50), st.integers(0, 60))
def test_a_window_reaches_one_point_over_its_edges(low: int, width: int) -> None:
    series = Series(list(range(0, 60, 3)), [0.0] * 20)
    part = series.between(low, low + width)
    inside = [age for age in series.ages if low <= age <= low + width]
    assert set(inside) <= set(part.ages)
    assert len(part.ages) <= len(inside) + 2


def test_evaluations_on_demand_and_audits_are_no_part_of_a_curve() -> None:
    point = {"metric_name": "loss", "split_name": "val", "age": 8, "metric_value": 0.5}
    told = pb.GetLatestLoggerDataResponse(
        points=[
            pb.LoggerDataPoint(**point),  # type: ignore[arg-type]
            pb.LoggerDataPoint(**point, is_evaluation_marker=True),  # type: ignore[arg-type]
            pb.LoggerDataPoint(**point, is_evaluation_marker=True, evaluation_tags=["dark", "night"]),  # type: ignore[arg-type]
            pb.LoggerDataPoint(**point, audit_mode=True),  # type: ignore[arg-type]
        ]
    )
    assert [key.split for key, _, _ in decode(told)] == [
        "val", "val · evaluation", "val · evaluation · dark · night", "val · audit",
    ]  # fmt: skip
