"""Scores of samples, against plain lists of what every sample did."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.store.loss_history import OLDER, RECENT, WIDTH, losses_of, strides
from graybox.store.sample_columns import Ratings, SplitColumns
from graybox.store.samples import SampleStore

COUNT = 5
CLASSES = 3


class Diary:
    """What every sample did, written down one by one."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels
        self.seen: list[list[dict[str, Any]]] = [[] for _ in labels]

    def batch(self, rows: list[int], losses: list[float], guesses: list[int], ratings: Any, age: int) -> None:
        for place, row in enumerate(rows):
            rated = (np.nan, np.nan) if ratings is None else (ratings[0][place], ratings[1][place])
            self.seen[row].append(
                {"loss": losses[place], "guess": guesses[place], "p": rated[0], "margin": rated[1], "age": age}
            )

    def expected(self, row: int) -> dict[str, float]:
        seen = self.seen[row]
        losses = [one["loss"] for one in seen if np.isfinite(one["loss"])]
        rated = [one for one in seen if np.isfinite(one["p"])]
        right = [one["guess"] == self.labels[row] for one in seen]
        return {
            "loss_mean": statistics.fmean(losses) if losses else np.nan,
            "loss_std": statistics.pstdev(losses) if losses else np.nan,
            "confidence_mean": statistics.fmean(one["p"] for one in rated) if rated else np.nan,
            "confidence_std": statistics.pstdev(one["p"] for one in rated) if rated else np.nan,
            "margin_std": statistics.pstdev(one["margin"] for one in rated) if rated else np.nan,
            "aum": statistics.fmean(one["margin"] for one in rated) if rated else np.nan,
            "forgetting": sum(a and not b for a, b in itertools.pairwise(right)),
            "first_learnt": next((one["age"] for one, ok in zip(seen, right, strict=True) if ok), -1),
        }


def found(columns: SplitColumns, row: int) -> dict[str, float]:
    return {
        name: columns.column(name)[row].item()
        for name in (
            "loss_mean",
            "loss_std",
            "confidence_mean",
            "confidence_std",
            "aum",
            "margin_std",
            "forgetting",
            "first_learnt",
        )
    }


losses = st.floats(-10, 100, width=32) | st.just(float("nan")) | st.just(float("inf"))
batches = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, COUNT - 1), losses, st.integers(0, CLASSES - 1)), min_size=1, max_size=7),
        st.booleans(),
    ),
    max_size=25,
)


@given(
    batches=batches,
    labels=st.lists(st.integers(-1, CLASSES - 1), min_size=COUNT, max_size=COUNT),
    seed=st.integers(0, 9),
)
def test_scores_are_those_of_the_whole_diary(batches: Any, labels: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    columns, diary = SplitColumns("train", COUNT, labels=labels), Diary(labels)
    for number, (batch, rated) in enumerate(batches):
        rows, values, guesses = (list(part) for part in zip(*batch, strict=True))
        ratings = (random.random(len(rows)), random.normal(size=len(rows)) * 5) if rated else None
        diary.batch(rows, values, guesses, ratings, 8 * number)
        columns.record(
            np.array(rows),
            np.array(values, np.float32),
            np.array(guesses),
            8 * number,
            None if ratings is None else Ratings(*(part.astype(np.float32) for part in ratings)),
        )
    for row in range(COUNT):
        expected = diary.expected(row)
        assert found(columns, row) == pytest.approx(expected, rel=1e-4, abs=1e-3, nan_ok=True)
        numbers, kept = columns.losses_of(row)
        all_losses = np.array([one["loss"] for one in diary.seen[row]], np.float32)
        np.testing.assert_array_equal(kept, all_losses[numbers])
        recent = range(max(len(all_losses) - RECENT, 0), len(all_losses))
        assert set(recent) <= set(numbers.tolist())


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 64, 65, 1_000, 4_099])
def test_a_long_history_is_thinned_evenly_and_in_bounds(count: int) -> None:
    columns = SplitColumns("train", 2)
    for number in range(count):
        columns.record(np.array([1]), np.array([number], np.float32), None, number)
    numbers, kept = columns.losses_of(1)
    assert kept.tolist() == numbers.tolist() == sorted(set(numbers.tolist()))
    assert len(numbers) <= WIDTH and numbers[-RECENT:].tolist() == list(range(max(count - RECENT, 0), count))
    if count > RECENT:
        stride = int(strides(np.array([count - 1]))[0])
        assert numbers[:-RECENT].tolist() == list(range(0, count - RECENT, stride))
        assert stride <= 2 * count / OLDER  # no more than is needed
    assert columns.losses_of(0)[0].size == 0


def test_samples_that_were_met_more_or_less_often_are_thinned_each_by_itself() -> None:
    columns, random = SplitColumns("train", 30), np.random.default_rng(0)
    seen: list[list[float]] = [[] for _ in range(30)]
    for _ in range(400):
        rows = random.integers(0, 1 + random.integers(1, 30), size=6)
        values = random.random(6).astype(np.float32)
        columns.record(rows, values, None, 1)
        for row, value in zip(rows, values, strict=True):
            seen[row].append(float(value))
    for row, all_losses in enumerate(seen):
        numbers, kept = losses_of(columns.scores.history[row], len(all_losses))
        assert kept.tolist() == [all_losses[number] for number in numbers]


def test_a_corrected_label_is_what_counts_from_then_on() -> None:
    columns = SplitColumns("train", 3, labels=[0, 0, 0])
    columns.record(np.array([0, 1]), np.ones(2, np.float32), np.array([2, 2]), 8)
    columns.notes.correct(np.array([0]), np.array([2]))
    assert columns.truth().tolist() == [2, 0, 0] and columns.truth(np.array([1, 0])).tolist() == [0, 2]
    assert columns.summary().wrong == 1
    columns.record(np.array([0, 1]), np.ones(2, np.float32), np.array([2, 2]), 16)
    assert columns.column("first_learnt").tolist() == [16, -1, -1]
    columns.notes.correct(np.array([0]), np.array([-1]))
    assert columns.notes.corrected is None and columns.truth().tolist() == [0, 0, 0]


def test_the_store_keeps_scores_and_notes_through_log_and_snapshot(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 40, np.arange(40) % 3)
    random = np.random.default_rng(1)

    def train(steps: int) -> None:
        for step in range(steps):
            rows = random.integers(0, 40, 16)
            rated = Ratings(random.random(16).astype(np.float32), random.normal(size=16).astype(np.float32))
            values = random.random(16).astype(np.float32)
            store.record_batch("train", rows, values, random.integers(0, 3, 16), 16 * step, rated)

    def agree() -> None:
        reader = SampleStore(tmp_path, read_only=True)
        mine, theirs = store.splits["train"].state(), reader.splits["train"].state()
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)
            assert value.dtype == theirs[name].dtype

    train(20)
    assert store.set_tag("train", "hard", [3, 1, 3], True).tolist() == [1, 3]
    store.correct_labels("train", [5, 6], [2, 2])
    store.log_signal("train", "entropy", [1, 2], [0.5, 0.25])
    store.keep_column("train", "loss_before", store.splits["train"].loss.copy())
    agree()
    assert store.snapshot() and not store.snapshot()
    agree()
    train(20)
    store.set_tag("train", "hard", [1], False)
    store.drop_column("train", "entropy")
    agree()
    assert store.snapshot()
    train(5)
    kept = store.state()
    train(5)
    store.set_tag("train", "late", [9], True)
    store.load_state(kept)
    agree()
    assert list(store.splits["train"].notes.tags) == ["hard"]
    store.close()
