"""Plans as values: ranges say what the indices say, and a summary survives JSON."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.plan_summary import LogitChange, PlanSummary, TensorTouch, plan_summary_from_json, ranges

INDICES = st.sets(st.integers(0, 60), max_size=40)


@given(INDICES)
def test_ranges_say_what_the_indices_say(indices: set[int]) -> None:
    found = ranges(indices)
    assert [i for first, last in found for i in range(first, last + 1)] == sorted(indices)
    assert all(following[0] > before[1] + 1 for before, following in itertools.pairwise(found))


@given(INDICES, st.one_of(st.none(), st.builds(LogitChange, st.floats(0, 1e6), st.floats(0, 10), st.integers(0, 64))))
def test_a_summary_survives_json(indices: set[int], measured: LogitChange | None) -> None:
    plan = PlanSummary(
        "Removed some",
        "Removed some\n  of conv",
        {"conv": ranges(indices)},
        (TensorTouch("conv.weight", 0, ranges(indices), "removed"), TensorTouch("fc.weight", 1, ((0, 3),), "removed")),
        100,
        90,
        1000,
        900,
        ("LayerNorm mixes the channels",),
        measured,
        ("the scheduler goes on",),
    )
    assert plan_summary_from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert str(plan) == plan.text


def test_indices_may_be_a_flat_list() -> None:
    value = {"summary": "s", "text": "t", "touches": [{"tensor": "w", "axis": 1, "indices": [4, 2, 3], "change": "c"}]}
    assert plan_summary_from_json(value).touches == (TensorTouch("w", 1, ((2, 4),), "c"),)


@pytest.mark.parametrize(
    "value",
    [{}, {"summary": "s"}, {"summary": "s", "text": "t", "touches": [{}]}, {"summary": "", "text": "", "neurons": 3}],
)
def test_a_malformed_plan_is_said_to_be(value: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="malformed plan"):
        plan_summary_from_json(value)
