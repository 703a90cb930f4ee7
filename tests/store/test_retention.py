from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.store.retention import REMOVABLE, KeepCheckpoints


@dataclass(frozen=True)
class Made:
    id: str
    step: int = 0
    branch: int = 0
    name: str = ""
    reason: str = "automatic"
    metrics: dict[str, float] = field(default_factory=dict)


def run(*steps: int, **values: Any) -> list[Made]:
    """Automatic checkpoints of one branch, numbered from 1."""
    return [Made(f"{number:06d}", step, **values) for number, step in enumerate(steps, 1)]


def left(rule: KeepCheckpoints, records: list[Made], needed: frozenset[str] = frozenset()) -> list[int]:
    gone = rule.going(records, needed)
    return [int(record.id) for record in records if record.id not in gone]


def test_the_newest_stay() -> None:
    assert left(KeepCheckpoints(last=2), run(10, 20, 30, 40)) == [3, 4]
    assert left(KeepCheckpoints(), run(*range(15))) == list(range(6, 16))
    assert left(KeepCheckpoints(last=99), run(10, 20)) == [1, 2]
    assert left(KeepCheckpoints(last=1), []) == []


def test_of_every_so_many_steps_the_first_stays() -> None:
    assert left(KeepCheckpoints(last=1, every=100), run(0, 50, 100, 130, 190, 200, 210, 430, 440, 445)) == [
        1, 3, 6, 8, 10,
    ]  # fmt: skip
    two = [*run(100, 150), Made("000003", 110, branch=1), Made("000004", 160, branch=1), Made("000005", 170, branch=1)]
    assert left(KeepCheckpoints(last=1, every=100), two) == [1, 2, 3, 5]  # the second is the end of its branch


def test_the_best_stay() -> None:
    losses = [0.5, 0.2, math.nan, 0.2, 0.9, -math.inf, 0.3]
    records = [Made(f"{n:06d}", 10 * n, metrics={"val/loss": loss}) for n, loss in enumerate(losses, 1)]
    records += [Made("000008", 80), Made("000009", 90)]
    assert left(KeepCheckpoints(last=1, best="val/loss"), records) == [2, 9]
    assert left(KeepCheckpoints(last=1, best="val/loss", best_count=3), records) == [2, 4, 7, 9]
    assert left(KeepCheckpoints(last=1, best="val/loss", mode="max", best_count=2), records) == [1, 5, 9]
    assert left(KeepCheckpoints(last=1, best="val/accuracy"), records) == [9]


def test_what_a_person_asked_for_and_the_ends_of_branches_stay() -> None:
    records = [
        Made("000001", reason="start"), Made("000002", 5), Made("000003", 10, name="good"),
        Made("000004", 15, reason="asked"), Made("000005", 20, reason="before restore"),
        Made("000006", 5, branch=1, reason="branch"), Made("000007", 10, branch=1), Made("000008", 15, branch=1),
        Made("000009", 15, branch=1, reason="exit"), Made("000010", 20, branch=1, reason="of a later version"),
    ]  # fmt: skip
    assert left(KeepCheckpoints(last=1), records) == [1, 3, 4, 5, 9, 10]
    assert left(KeepCheckpoints(last=1), records, frozenset({"000002", "000007"})) == [1, 2, 3, 4, 5, 7, 9, 10]


made = st.builds(
    Made,
    id=st.just(""),
    step=st.integers(0, 60),
    branch=st.integers(0, 2),
    name=st.sampled_from(["", "", "", "mine"]),
    reason=st.sampled_from([*sorted(REMOVABLE), "automatic", "automatic", "asked", "start"]),
    metrics=st.dictionaries(
        st.sampled_from(["val/loss", "train/loss"]), st.floats(-2, 2) | st.just(math.nan), max_size=2
    ),
)
rules = st.builds(
    KeepCheckpoints,
    last=st.integers(1, 6),
    every=st.sampled_from([0, 0, 1, 7, 20]),
    best=st.sampled_from(["", "val/loss", "train/loss"]),
    mode=st.sampled_from(["min", "max"]),
    best_count=st.integers(1, 3),
)


@given(st.lists(made, max_size=25), rules, st.sets(st.integers(1, 25), max_size=3))
def test_step_by_step_or_at_once_the_wanted_stay(made: list[Made], rule: KeepCheckpoints, needed: set[int]) -> None:
    """The rule is applied after each checkpoint; none that it wants in the end may have gone before."""
    ids = frozenset(f"{number:06d}" for number in needed)
    present: list[Made] = []
    everything: list[Made] = []
    for number, each in enumerate(made, 1):
        record = Made(f"{number:06d}", each.step, each.branch, each.name, each.reason, each.metrics)
        present.append(record)
        everything.append(record)
        gone = rule.going(present, ids)
        present = [one for one in present if one.id not in gone]
        assert rule.going(present, ids) == []
        # All that nobody asked for is bounded: by the rule, and by what people did.
        unasked = [one for one in present if one.reason in REMOVABLE and not one.name and one.id not in ids]
        branches = {one.branch for one in everything}
        windows = {(one.branch, one.step // rule.every) for one in everything} if rule.every else set()
        best = rule.best_count if rule.best else 0
        assert len(unasked) <= rule.last + len(branches) + len(windows) + best
    wanted = [one for one in everything if one.id not in rule.going(everything, ids)]
    assert [one for one in wanted if one not in present] == []
    assert {one.id for one in present} >= {one.id for one in everything if one.name or one.reason not in REMOVABLE}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 0}, "last of KeepCheckpoints is a whole number of 1 or more, not 0"),
        ({"last": 2.0}, r"last of KeepCheckpoints is a whole number of 1 or more, not 2\.0"),
        ({"last": True}, "not True"),
        ({"every": -1}, "every of KeepCheckpoints is a whole number of 0 or more, not -1"),
        ({"best_count": 0}, "best_count of KeepCheckpoints"),
        ({"best": "loss"}, "best of KeepCheckpoints names a metric as its split and itself, such as 'val/loss', not"),
        ({"best": None}, "not None"),
        ({"best": "val/loss", "mode": "least"}, "mode of KeepCheckpoints is 'min' or 'max', not 'least'"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        KeepCheckpoints(**options)
