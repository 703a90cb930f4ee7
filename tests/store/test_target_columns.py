"""Labels of every kind as columns of the table that queries are asked of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound
from graybox.store.class_sets import from_pairs, packed
from graybox.store.query import QueryError, answer, check, parse, rows
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_keys import SampleKeys
from graybox.store.sample_note_writer import check_column_name
from graybox.store.sample_table import SampleTable, check_copied, copied_column, description_of, kind_of
from graybox.store.target_columns import DESCRIPTIONS
from graybox.store.targets import Answers, LabelKind, Labels

NAMES = ("cat", "dog", "caterpillar")
Sets = list[frozenset[int] | None]


def split(name: str, told: Sets, found: Sets) -> SplitColumns:
    columns = SplitColumns(name, len(told))
    for wanted, put in (
        (told, lambda r, b: columns.targets.learn(r, Labels(LabelKind.CLASSES, {"classes": b}))),
        (found, lambda r, b: columns.targets.answer(r, Answers({"predicted_classes": b}))),
    ):
        known = np.flatnonzero([each is not None for each in wanted])
        pairs = [(row, number) for row, index in enumerate(known) for number in sorted(wanted[index] or ())]
        listed = [np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1)]
        put(known, from_pairs(*listed, len(known)))
    return columns


def asked(query: str, splits: list[SplitColumns]) -> list[int]:
    table = SampleTable(splits, NAMES)
    parsed = parse(query)
    check(parsed, table)
    return rows(parsed, table).tolist()


sets = st.lists(st.none() | st.frozensets(st.integers(0, 4), max_size=3), min_size=1, max_size=6)


@settings(max_examples=40)
@given(sets, sets, st.data())
def test_sets_of_classes_are_asked_for(one: Sets, other: Sets, data: st.DataObject) -> None:
    told = [*one, *other]
    found = [data.draw(st.none() | st.just(each) | st.frozensets(st.integers(0, 4))) for each in told]
    splits = [split("train", one, found[: len(one)]), split("val", other, found[len(one) :])]

    def where(condition: Any, of: Sets = told) -> list[int]:
        return [row for row, each in enumerate(of) if each is not None and condition(each)]

    assert asked('"label:cat"', splits) == where(lambda each: 0 in each)
    assert asked('"label:4" and not "predicted:dog"', splits) == [
        row for row in where(lambda each: 4 in each) if row not in where(lambda each: 1 in each, found)
    ]
    words = [", ".join(NAMES[n] if n < 3 else str(n) for n in sorted(each or ())) for each in told]
    assert asked("labels like '%cat%'", splits) == [r for r in where(lambda _: True) if "cat" in words[r]]
    assert asked("labels is null", splits) == [row for row, each in enumerate(told) if each is None]
    assert asked("labels == predicted_labels", splits) == [
        row for row, each in enumerate(told) if each is not None and each == found[row]
    ]
    assert asked("correct", splits) == asked("labels == predicted_labels", splits)
    assert asked("correct == false", splits) == [
        row for row, each in enumerate(told) if each is not None and found[row] is not None and each != found[row]
    ]


def test_numbers_are_calculated_with() -> None:
    train, val = SplitColumns("train", 4), SplitColumns("val", 1)
    numbers = np.array([1, 2, 3, np.nan], np.float32)
    train.targets.learn(np.arange(4), Labels(LabelKind.NUMBER, {"number": numbers}))
    train.targets.answer(np.array([0, 1]), Answers({"predicted": np.array([1.5, -2], np.float32)}))
    assert asked("abs(error) > 1", [train, val]) == [1]
    assert asked("abs(error) >= p100", [train, val]) == [1]
    assert asked("target is not null sortby target desc", [train, val]) == [2, 1, 0]
    assert asked("predicted == 1.5", [train, val]) == [0]
    table = SampleTable([train, val])
    found = answer(parse("show mean(error)"), table, np.arange(5))
    assert "-1.75" in found.text()
    check_copied([train, val], "error")
    kind = kind_of("error", [train, val])
    np.testing.assert_array_equal(copied_column(train, "error", kind), np.array([0.5, -4, np.nan, np.nan], np.float32))
    assert np.isnan(copied_column(val, "error", kind)).all()


def test_boxes_and_masks() -> None:
    train = SplitColumns("train", 3)
    boxes = {"boxes": np.array([2, 0], np.int32), "classes": packed(np.array([[1, 0], [0, 0]]))}
    train.targets.learn(np.array([0, 2]), Labels(LabelKind.BOXES, boxes))
    assert asked("box_count > 1", [train]) == [0] and asked("box_count is null", [train]) == [1]
    assert asked('"label:cat" and box_count == 2', [train]) == [0] and asked("labels == ''", [train]) == [2]
    mask = SplitColumns("train", 2)
    mask.targets.learn(np.array([1]), Labels(LabelKind.MASK, {"classes": packed(np.array([[0, 1]]))}))
    mask.targets.answer(np.array([1]), Answers({"iou": np.array([0.25], np.float32)}))
    assert asked('iou < 0.5 and "label:dog"', [mask]) == [1] and asked("pixel_accuracy is null", [mask]) == [0, 1]


def test_samples_are_asked_for_by_their_names() -> None:
    train, val = SplitColumns("train", 2), SplitColumns("val", 2)
    assert asked("key == '1'", [train, val]) == [1, 3]  # their ids, where they have no names
    assert "key" not in SampleTable([train, val]).names()
    train.keys = SampleKeys(["a/x.png", "b/x.png"])
    assert asked("key like 'b/%' or key == '1'", [train, val]) == [1, 3]
    assert "key" in SampleTable([train, val]).names()
    assert asked("key in ('a/x.png') sortby key", [train, val]) == [0]


def test_a_table_lists_only_what_there_is() -> None:
    plain = SplitColumns("train", 2, labels=[0, 1])
    assert not set(DESCRIPTIONS) & set(SampleTable([plain], NAMES).names())
    for name in ("label:cat", "labels", "error"):
        with pytest.raises(NotFound):
            SampleTable([plain], NAMES).column(name)
    sets = split("train", [frozenset([0])], [None])
    with pytest.raises(QueryError, match="there is no column 'label:mouse'"):
        asked('"label:mouse"', [sets])
    for name in SampleTable([sets, plain], NAMES).names():
        assert description_of(name)
    with pytest.raises(Invalid, match="column 'labels' holds texts"):
        check_copied([sets], "labels")
    with pytest.raises(Invalid, match="a column 'iou' already"):
        check_column_name(plain, "iou")
