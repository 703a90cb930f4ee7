"""The label and the prediction of a sample in words, whatever kind they are of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graybox.store import class_sets
from graybox.store.sample_columns import SplitColumns
from graybox.store.targets import LabelKind


def kind_of_label(split: SplitColumns, label: int) -> LabelKind:
    """What the labels of a split are. label: the class of the sample that is asked about, -1 none."""
    if split.targets.kind is not LabelKind.NONE:
        return split.targets.kind
    return LabelKind.CLASS if label >= 0 else LabelKind.NONE


def label_in_words(split: SplitColumns, row: int, label: int, names: Sequence[str]) -> str:
    """A class by its name or number, several as "cat, dog", a number, or how many boxes of which classes; empty for
    what is not known. label: the class that counts, -1 none. names: of the classes."""
    kind = kind_of_label(split, label)
    if kind is LabelKind.CLASS or label >= 0:
        return _class(label, names)
    if kind is LabelKind.NUMBER:
        return _number(split, "number", row)
    classes = _classes(split, "classes", row, names)
    boxes = split.targets.column("boxes")
    if kind is not LabelKind.BOXES or boxes is None:
        return classes
    count = int(boxes[row])
    if count < 0:
        return ""
    return f"{count} {'box' if count == 1 else 'boxes'}" + (f" ({classes})" if classes else "")


def prediction_in_words(split: SplitColumns, row: int, prediction: int, names: Sequence[str]) -> str:
    """Likewise, what was predicted last. prediction: the class, -1 none."""
    if prediction >= 0:
        return _class(prediction, names)
    if split.targets.kind is LabelKind.NUMBER:
        return _number(split, "predicted", row)
    return _classes(split, "predicted_classes", row, names)


def more_of(split: SplitColumns, row: int) -> dict[str, float]:
    """Numbers that belong to labels beyond classes, by their columns' names; what is not known is left out."""
    targets = split.targets
    stored = {"target": "number", "predicted": "predicted", "pixel_accuracy": "pixel_accuracy", "iou": "iou"}
    found = {name: float(c[row]) for name, column in stored.items() if (c := targets.column(column)) is not None}
    if "target" in found and "predicted" in found:
        found["error"] = float(np.float32(found["predicted"]) - np.float32(found["target"]))  # as the column has it
    boxes = targets.column("boxes")
    if boxes is not None and boxes[row] >= 0:
        found["box_count"] = int(boxes[row])
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _class(number: int, names: Sequence[str]) -> str:
    if number < 0:
        return ""
    return names[number] if number < len(names) else str(number)


def _number(split: SplitColumns, name: str, row: int) -> str:
    column = split.targets.column(name)
    return "" if column is None or math.isnan(column[row]) else f"{float(column[row]):.6g}"


def _classes(split: SplitColumns, name: str, row: int, names: Sequence[str]) -> str:
    column = split.targets.column(name)
    return "" if column is None else class_sets.words_of(column, row, names)
