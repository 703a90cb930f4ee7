from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.comparison.samples import FIRST, sample_differences, split_difference
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_keys import SampleKeys


def columns(frame: pd.DataFrame, *, fingerprint: str = "same") -> SplitColumns:
    """Of a table with label, prediction, loss, discarded and tag:odd."""
    made = SplitColumns("train", len(frame), fingerprint, frame["label"].to_numpy())
    state = made.state()
    state["prediction"] = frame["prediction"].to_numpy()
    state["loss"] = frame["loss"].to_numpy(np.float32)
    state["discarded"] = frame["discarded"].to_numpy()
    state["tag:odd"] = frame["odd"].to_numpy()
    made.set_state(state)
    return made


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two states of the same samples."""
    count = draw(st.integers(0, 30))
    classes = st.integers(-1, 3)
    losses = st.one_of(st.just(float("nan")), st.floats(0, 8, width=32))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    label = np.array(column(classes), dtype=np.int64)
    made = [
        pd.DataFrame(
            {
                "label": label,
                "prediction": np.array(column(classes), dtype=np.int64),
                "loss": np.array(column(losses), dtype=np.float32),
                "discarded": np.array(column(st.booleans()), dtype=bool),
                "odd": np.array(column(st.booleans()), dtype=bool),
            }
        )
        for _ in range(2)
    ]
    return made[0], made[1]


@settings(max_examples=150)
@given(tables())
def test_it_is_what_pandas_says(both: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    a, b = both
    found = split_difference(columns(a), columns(b), top=5)
    frame = a.add_suffix("_a").join(b.add_suffix("_b")).astype({"loss_a": float, "loss_b": float})
    for side in "ab":
        frame[f"known_{side}"] = (frame[f"label_{side}"] >= 0) & (frame[f"prediction_{side}"] >= 0)
        frame[f"right_{side}"] = frame[f"label_{side}"] == frame[f"prediction_{side}"]
    known = frame[frame.known_a & frame.known_b]
    wrong, better = known[known.right_a & ~known.right_b], known[~known.right_a & known.right_b]
    assert found.seen == (frame.known_a.sum(), frame.known_b.sum())
    assert (found.got_wrong, found.got_right) == (len(wrong), len(better))
    assert found.other_answers == len(
        known[~known.right_a & ~known.right_b & (known.prediction_a != known.prediction_b)]
    )
    assert found.accuracy == pytest.approx((known.right_a.mean(), known.right_b.mean()), nan_ok=True)
    measured = frame[np.isfinite(frame.loss_a) & np.isfinite(frame.loss_b)]
    assert found.mean_loss == pytest.approx((measured.loss_a.mean(), measured.loss_b.mean()), nan_ok=True)
    turned = {
        label: (len(group), len(wrong[wrong.label_b == label]), len(better[better.label_b == label]))
        for label, group in known.groupby("label_b")
    }
    assert {t.label: (t.samples, t.got_wrong, t.got_right) for t in found.by_class} == {
        label: counts for label, counts in turned.items() if counts[1] or counts[2]
    }
    changed = measured.assign(change=(measured.loss_b - measured.loss_a).abs(), row=measured.index)
    changed = changed[changed.change > 0].sort_values(["change", "row"], ascending=[False, True])
    changes = [abs(m.losses[1] - m.losses[0]) for m in found.most_changed]
    assert changes == changed.change.head(5).tolist()
    for each in found.most_changed:
        row = frame.loc[each.sample]
        assert (each.label, *each.predictions) == (row.label_b, row.prediction_a, row.prediction_b)
    for marked, name in ((found.discarded, "discarded"), (found.tags.get("odd"), "odd")):
        only_a = frame.index[frame[f"{name}_a"] & ~frame[f"{name}_b"]].tolist()
        only_b = frame.index[frame[f"{name}_b"] & ~frame[f"{name}_a"]].tolist()
        if marked is None:
            assert only_a == only_b == []
            continue
        assert (marked.only_a, marked.only_b) == (len(only_a), len(only_b))
        assert (marked.first_a, marked.first_b) == (only_a[:FIRST], only_b[:FIRST])


def toy(count: int = 40) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": np.arange(count) % 3,
            "prediction": np.zeros(count, dtype=np.int64),
            "loss": np.linspace(0, 1, count, dtype=np.float32),
            "discarded": np.zeros(count, dtype=bool),
            "odd": np.zeros(count, dtype=bool),
        }
    )


def test_labels_and_weights_that_a_person_set() -> None:
    a, b = columns(toy()), columns(toy())
    corrected = np.full(40, -1)
    corrected[[3, 8]] = [2, 0]  # the class that sample 3 has is 0, that of 8 is 2
    weight = np.ones(40, dtype=np.float32)
    weight[5:9] = 2
    b.notes.set_state({"corrected": corrected, "weight": weight})
    found = split_difference(a, b, top=5)
    assert (found.labels, found.first_labels, found.weights) == (2, [3, 8], 4)
    assert found.got_wrong == 1 and found.got_right == 1, "by the labels that count"


def test_other_data_are_not_compared_sample_by_sample() -> None:
    a = columns(toy())
    for other in (columns(toy(), fingerprint="another"), columns(toy(39))):
        found = split_difference(a, other, top=5)
        assert not found.same_data and found.samples == (40, other.count)
        assert found.most_changed == found.by_class == []


def test_samples_of_other_data_are_known_by_their_names() -> None:
    one = toy().assign(discarded=np.arange(40) % 7 == 0)
    order = np.random.default_rng(1).permutation(40)[:30]
    a, b = columns(one), columns(one.iloc[order].reset_index(drop=True), fingerprint="another")
    a.keys, b.keys = SampleKeys([f"{n}.png" for n in range(40)]), SampleKeys([f"{n}.png" for n in order])
    found = split_difference(a, b, top=5)
    assert not found.same_data and found.matched == 30 and found.seen == (30, 30)
    assert found.most_changed == found.by_class == [] and found.labels == found.got_wrong == found.discarded.only_a == 0
    b.set_state({**b.state(), "loss": b.loss + np.where(np.arange(30) == 11, 2, 0).astype(np.float32)})
    b.discarded[4] = not b.discarded[4]
    found = split_difference(a, b, top=5)
    assert [each.sample for each in found.most_changed] == [11], "by its number in B"
    assert found.most_changed[0].losses[0] == pytest.approx(a.loss[order[11]])
    assert [*found.discarded.first_a, *found.discarded.first_b] == [4]
    b.keys = SampleKeys([f"{n}.jpg" for n in order])
    assert split_difference(a, b, top=5).matched == 0


def test_splits_that_both_have() -> None:
    a, b = columns(toy()), columns(toy())
    found = sample_differences({"train": a, "old": a}, {"new": b, "train": b})
    assert [each.split for each in found] == ["train"]
    assert json.dumps([vars(t) for t in found[0].by_class]) == "[]"


def test_a_million_samples_take_no_loop() -> None:
    """By what it answers, not by the clock: the few that are named of very many."""
    count = 1_000_000
    a = toy(count)
    b = a.assign(loss=a.loss + np.where(np.arange(count) == 777_777, 3, 0).astype(np.float32))
    found = split_difference(columns(a), columns(b), top=3)
    assert [each.sample for each in found.most_changed] == [777_777]
