"""Labels beyond classes are kept as plain Python values would be, whatever happens to the store."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.store.class_sets import packed
from graybox.store.sample_columns import SplitColumns
from graybox.store.samples import SampleStore
from graybox.store.targets import Answers, LabelKind, Labels, SampleTargets

COUNT = 5
flags = st.lists(st.booleans(), min_size=1, max_size=12)
floats = st.floats(-4, 4, width=32)
rows = st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=4)


def sets(wanted: list[list[bool]]) -> np.ndarray:
    width = max(map(len, wanted))
    return packed(np.array([[*each, *[False] * (width - len(each))] for each in wanted]))


@st.composite
def learning(draw: st.DrawFn) -> tuple[Any, ...]:
    kind = draw(st.sampled_from([LabelKind.NUMBER, LabelKind.CLASSES, LabelKind.BOXES]))
    where = draw(rows)
    values = {"numbers": draw(st.lists(floats, min_size=len(where), max_size=len(where)))}
    values["sets"] = draw(st.lists(flags, min_size=len(where), max_size=len(where)))
    values["boxes"] = draw(st.lists(st.integers(0, 9), min_size=len(where), max_size=len(where)))
    return "learn", kind, where, values


@st.composite
def answering(draw: st.DrawFn) -> tuple[Any, ...]:
    where = draw(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=4, unique=True))
    size = len(where)
    found: dict[str, Any] = {}
    if draw(st.booleans()):
        found["predicted"] = draw(st.lists(floats, min_size=size, max_size=size))
    if draw(st.booleans()):
        found["predicted_classes"] = draw(st.lists(flags, min_size=size, max_size=size))
    if draw(st.booleans()):
        found["iou"] = draw(st.lists(st.floats(0, 1, width=32), min_size=size, max_size=size))
    return "answer", where, found


class Oracle:
    """One split in dicts."""

    def __init__(self) -> None:
        self.kind = LabelKind.NONE
        self.told: list[dict[str, Any]] = [{} for _ in range(COUNT)]
        self.answered: list[dict[str, Any]] = [{} for _ in range(COUNT)]

    def learn(self, kind: LabelKind, where: list[int], values: dict[str, Any]) -> None:
        if self.kind in (LabelKind.NONE, kind):
            self.kind = kind
            for index, row in enumerate(where):
                if kind is LabelKind.NUMBER:
                    self.told[row]["number"] = values["numbers"][index]
                else:
                    self.told[row]["classes"] = frozenset(np.flatnonzero(values["sets"][index]).tolist())
                if kind is LabelKind.BOXES:
                    self.told[row]["boxes"] = values["boxes"][index]

    def answer(self, where: list[int], found: dict[str, Any]) -> None:
        for name, values in found.items():
            for row, value in zip(where, values, strict=True):
                plain = frozenset(np.flatnonzero(value).tolist()) if name == "predicted_classes" else value
                self.answered[row][name] = plain


def read(targets: SampleTargets, row: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("number", "boxes", "predicted", "iou"):
        column = targets.column(name)
        if column is not None and not (math.isnan(column[row]) or (name == "boxes" and column[row] < 0)):
            found[name] = column[row].item()
    for name in ("classes", "predicted_classes"):
        column = targets.column(name)
        if column is not None and column[row, 0] & 1:
            found[name] = frozenset(np.flatnonzero(np.unpackbits(column[row], bitorder="little")[1:]).tolist())
    return found


def columns_of(kind: LabelKind, values: dict[str, Any]) -> dict[str, np.ndarray]:
    if kind is LabelKind.NUMBER:
        return {"number": np.array(values["numbers"], np.float32)}
    found: dict[str, np.ndarray] = {"classes": sets(values["sets"])}
    return found | ({"boxes": np.array(values["boxes"])} if kind is LabelKind.BOXES else {})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(learning(), answering(), answering(), st.sampled_from([("open",), ("snapshot",), ("keep",), ("load",)])), max_size=14))  # fmt: skip  # noqa: E501
def test_the_store_keeps_what_dicts_would(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, oracle = SampleStore(folder), Oracle()
        store.add_split("train", COUNT, None, "f")
        kept: tuple[Any, Any] = (store.state(), [{} for _ in range(COUNT)])
        for action in script:
            match action:
                case ("learn", kind, where, values):
                    store.learn_targets("train", where, Labels(kind, columns_of(kind, values)))
                    oracle.learn(kind, where, values)
                case ("answer", where, found):
                    as_columns = {
                        n: sets(v) if n == "predicted_classes" else np.array(v, np.float32) for n, v in found.items()
                    }
                    store.record_answers("train", where, Answers(as_columns), 7)
                    oracle.answer(where, found)
                case ("open",):
                    store.close()
                    store = SampleStore(folder)
                    store.add_split("train", COUNT, None, "f")
                case ("snapshot",):
                    store.snapshot()
                case ("keep",):
                    kept = (store.state(), [dict(each) for each in oracle.answered])
                case ("load",):
                    store.load_state(kept[0])
                    oracle.answered = [dict(each) for each in kept[1]]
            for each in (store, SampleStore(folder, read_only=True)):
                targets = each.splits["train"].targets
                assert targets.kind is oracle.kind
                assert [read(targets, row) for row in range(COUNT)] == [
                    {**told, **answered} for told, answered in zip(oracle.told, oracle.answered, strict=True)
                ]
                right = [
                    -1 if oracle.kind is not LabelKind.CLASSES or "classes" not in t or "predicted_classes" not in a
                    else int(t["classes"] == a["predicted_classes"])
                    for t, a in zip(oracle.told, oracle.answered, strict=True)
                ]  # fmt: skip
                assert targets.right().tolist() == right == each.splits["train"].rightness().tolist()
        store.close()


def test_being_right_is_remembered_as_for_classes() -> None:
    """The same history by sets of one class each, and by classes."""
    random = np.random.default_rng(3)
    label = random.integers(0, 4, 30)
    by_class, by_set = SplitColumns("a", 30, labels=label), SplitColumns("b", 30)
    by_set.targets.learn(np.arange(30), Labels(LabelKind.CLASSES, {"classes": packed(np.eye(4, dtype=bool)[label])}))
    for age in range(1, 60):
        some = random.permutation(30)[:8]
        predicted = random.integers(0, 4, 8)
        losses = np.zeros(8, np.float32)
        by_class.record(some, losses, predicted, age)
        by_set.record(some, losses, None, age)
        by_set.record_answers(some, Answers({"predicted_classes": packed(np.eye(4, dtype=bool)[predicted])}), age)
    for name in ("forgetting", "first_learnt", "right"):
        np.testing.assert_array_equal(by_set.column(name), by_class.column(name))
    assert by_class.column("forgetting").sum() > 10 and by_set.summary() == by_class.summary()
    np.testing.assert_array_equal(by_set.rightness(), by_class.rightness())


def test_memory_is_taken_only_where_it_is_needed() -> None:
    targets = SampleTargets(1_000)
    assert not targets.state() and not targets.of_data()
    targets.learn(np.arange(1_000), Labels(LabelKind.NUMBER, {"number": np.zeros(1_000, np.float32)}))
    targets.answer(np.arange(10), Answers({"predicted": np.zeros(10, np.float32)}))
    assert sum(column.nbytes for column in (*targets.state().values(), *targets.of_data().values())) == 8 * 1_000 + 1
    targets = SampleTargets(1_000)
    for many in (80, 3):
        targets.learn(np.arange(5), Labels(LabelKind.CLASSES, {"classes": packed(np.ones((5, many), dtype=bool))}))
    assert targets.of_data()["target:classes"].nbytes == (80 + 1 + 7) // 8 * 1_000
