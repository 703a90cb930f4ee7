from __future__ import annotations

import numpy as np
import pytest

from graybox.store.class_sets import packed
from graybox.store.label_words import kind_of_label, label_in_words, more_of, prediction_in_words
from graybox.store.sample_columns import SplitColumns
from graybox.store.targets import Answers, LabelKind, Labels

NAMES = ["cat", "dog"]
SETS = packed(np.array([[1, 0, 1], [0, 0, 0]]))


def of(kind: LabelKind, columns: dict[str, np.ndarray], answers: dict[str, np.ndarray]) -> SplitColumns:
    split = SplitColumns("train", 3)
    split.targets.learn(np.array([0, 1]), Labels(kind, columns))
    split.targets.answer(np.array([0, 1]), Answers(answers))
    return split


@pytest.mark.parametrize(
    ("split", "kind", "labels", "predictions"),
    [
        (SplitColumns("train", 3), "none", ["", "", ""], ["", "", ""]),
        (of(LabelKind.CLASSES, {"classes": SETS}, {"predicted_classes": SETS[::-1]}), "classes",
         ["cat, 2", "", ""], ["", "cat, 2", ""]),
        (of(LabelKind.NUMBER, {"number": np.array([1 / 3, np.nan])}, {"predicted": np.array([2.0, 1e9])}), "number",
         ["0.333333", "", ""], ["2", "1e+09", ""]),
        (of(LabelKind.MASK, {"classes": SETS}, {"predicted_classes": SETS}), "mask",
         ["cat, 2", "", ""], ["cat, 2", "", ""]),
        (of(LabelKind.BOXES, {"boxes": np.array([3, 1]), "classes": SETS}, {}), "boxes",
         ["3 boxes (cat, 2)", "1 box", ""], ["", "", ""]),
    ],
)  # fmt: skip
def test_labels_of_every_kind(split: SplitColumns, kind: str, labels: list[str], predictions: list[str]) -> None:
    assert [label_in_words(split, row, -1, NAMES) for row in range(3)] == labels
    assert [prediction_in_words(split, row, -1, NAMES) for row in range(3)] == predictions
    assert kind_of_label(split, -1).value == kind


def test_classes_are_named_or_numbered() -> None:
    split = SplitColumns("train", 1, labels=[1])
    assert (label_in_words(split, 0, 1, NAMES), prediction_in_words(split, 0, 7, NAMES)) == ("dog", "7")
    assert kind_of_label(split, 1) is LabelKind.CLASS and more_of(split, 0) == {}


def test_numbers_that_belong_to_labels() -> None:
    split = of(LabelKind.NUMBER, {"number": np.array([0.1, np.nan])}, {"predicted": np.array([0.7, 1])})
    error = float(split.targets.error()[0])  # type: ignore[index]
    assert more_of(split, 0) == {"target": float(np.float32(0.1)), "predicted": float(np.float32(0.7)), "error": error}
    assert more_of(split, 1) == {"predicted": 1.0} and more_of(split, 2) == {}
    boxes = of(LabelKind.BOXES, {"boxes": np.array([3, 0]), "classes": SETS}, {"iou": np.array([0.5, np.nan])})
    assert more_of(boxes, 0) == {"box_count": 3, "iou": 0.5} and more_of(boxes, 1) == {"box_count": 0}
