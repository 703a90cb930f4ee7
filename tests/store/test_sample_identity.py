"""What is known of samples follows them to other places."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graybox.store.class_sets import packed
from graybox.store.sample_columns import Ratings, SplitColumns
from graybox.store.sample_identity import carried_state
from graybox.store.targets import Answers, LabelKind, Labels


def known() -> SplitColumns:
    columns = SplitColumns("train", 4, "before", [0, 1, 2, 1])
    ratings = Ratings(np.array([0.5, 0.25], np.float32), np.array([1, -1], np.float32))
    columns.record(np.array([1, 3]), np.array([2, 3], np.float32), np.array([1, 0]), 8, ratings)
    columns.notes.tag("odd", np.array([1, 3]), True)
    columns.notes.correct(np.array([3]), np.array([2]))
    columns.notes.weigh(np.array([0]), np.array([2.5], np.float32))
    columns.notes.log("entropy", np.array([2]), np.array([0.5], np.float32))
    columns.notes.copy("was_discarded", np.array([True, False, True, False]))
    columns.notes.copy("seen", columns.encounters.copy())
    columns.targets.learn(np.arange(4), Labels(LabelKind.CLASSES, {"classes": packed(np.eye(4, 20, dtype=bool))}))
    columns.record_answers(np.array([2]), Answers({"predicted_classes": packed(np.ones((1, 20), dtype=bool))}), 8)
    return columns


@given(st.lists(st.integers(-1, 3), max_size=7))
def test_each_sample_has_what_it_had_and_new_ones_nothing(source: list[int]) -> None:
    before = known()
    after = SplitColumns("train", len(source), "after")
    after.targets.set_of_data(carried_state(before.targets.of_data(), np.array(source, dtype=np.int64)))
    after.set_state(carried_state(before.state(), np.array(source, dtype=np.int64)))
    fresh = SplitColumns("train", 1)
    for name in ("loss", "encounters", "confidence", "loss_mean", "loss_std", "aum", "first_learnt", "history"):
        for row, old in enumerate(source):
            expected = before.column(name)[old] if old >= 0 else fresh.column(name)[0]
            np.testing.assert_array_equal(after.column(name)[row], expected)
    assert after.notes.tags["odd"].tolist() == [old in (1, 3) for old in source]
    assert after.notes.corrections(np.arange(len(source))).tolist() == [2 if old == 3 else -1 for old in source]
    assert after.notes.weights().tolist() == [2.5 if old == 0 else 1 for old in source]
    assert after.notes.copies["was_discarded"].tolist() == [old in (0, 2) for old in source]
    assert after.notes.copies["seen"].tolist() == [-1 if old < 0 else old % 2 for old in source]
    np.testing.assert_array_equal(
        after.notes.signals["entropy"], [np.float32(0.5) if old == 2 else np.float32(np.nan) for old in source]
    )
    assert after.targets.kind is LabelKind.CLASSES
    assert after.targets.is_known(np.arange(len(source))).tolist() == [old >= 0 for old in source]
    assert after.targets.right().tolist() == [0 if old == 2 else -1 for old in source]
