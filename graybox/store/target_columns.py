"""Columns of samples' own names, and of labels that are no classes, as queries ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import NotFound
from graybox.store import class_sets
from graybox.store.query import Column, Kind
from graybox.store.sample_columns import SplitColumns
from graybox.store.targets import LabelKind

KEY = "key"
DESCRIPTIONS = {
    KEY: "the sample's own name in its data set; where it has none, its id",
    "target": "the number that is right",
    "predicted": "the number that was predicted last",
    "error": "predicted less target",
    "labels": 'the true classes, as in "cat, dog"; "label:cat" in double quotes is whether a sample has one',
    "predicted_labels": 'the classes that were predicted last, likewise; "predicted:cat" is whether one was',
    "box_count": "how many boxes the sample has",
    "pixel_accuracy": "share of the pixels that were predicted right last",
    "iou": "intersection over union at the last prediction, the mean over the classes that are there or predicted",
}
_OF_KIND = {
    LabelKind.NUMBER: ("target", "predicted", "error"),
    LabelKind.CLASSES: ("labels", "predicted_labels"),
    LabelKind.MASK: ("labels", "predicted_labels", "pixel_accuracy", "iou"),
    LabelKind.BOXES: ("labels", "box_count"),
}
_STORED = {
    "target": "number",
    "labels": "classes",
    "predicted_labels": "predicted_classes",
    "box_count": "boxes",
    "predicted": "predicted",
    "pixel_accuracy": "pixel_accuracy",
    "iou": "iou",
}
_TEXTS = (KEY, "labels", "predicted_labels")
_HAS = {"label:": "classes", "predicted:": "predicted_classes"}


def names_of(splits: Sequence[SplitColumns]) -> list[str]:
    """Those that there are, in the order in which they are shown."""
    found = {KEY} if any(columns.keys is not None for columns in splits) else set()
    for columns in splits:
        found |= set(_OF_KIND.get(columns.targets.kind, ()))
        found |= {name for name, stored in _STORED.items() if columns.targets.column(stored) is not None}
    return [name for name in DESCRIPTIONS if name in found]


def has_class(name: str) -> bool:
    """Whether a column of this name is whether samples have a class: of those there are too many to list."""
    return name.startswith(tuple(_HAS))


def is_text(name: str) -> bool:
    """Whether a column of this name holds texts, which are no numbers to keep."""
    return name in _TEXTS


def kind_of(name: str) -> Kind | None:
    """Of one of these columns; None for any other."""
    if name.startswith(tuple(_HAS)):
        return Kind.BOOL
    if name not in DESCRIPTIONS:
        return None
    return Kind.TEXT if name in _TEXTS else Kind.NUMBER


def numbers_of(columns: SplitColumns, name: str) -> NDArray[Any]:
    """A column of numbers of one split, [count]; NaN for what is not known."""
    if name == "error":
        error = columns.targets.error()
        return np.full(columns.count, np.nan, dtype=np.float32) if error is None else error
    found = columns.targets.column(_STORED[name])
    if found is None:
        return np.full(columns.count, np.nan, dtype=np.float32)
    return np.where(found >= 0, found, np.nan) if name == "box_count" else found


def column_of(name: str, splits: Sequence[SplitColumns], class_names: Sequence[str]) -> Column:
    """One of these columns, of all splits one after the other. Raises NotFound for a class that there is not."""
    if name == KEY:
        return _keys(splits)
    if name.startswith(tuple(_HAS)):
        return _having(name, splits, class_names)
    if name not in _TEXTS:
        values = _together([numbers_of(columns, name) for columns in splits])
        return Column(name, Kind.NUMBER, values, DESCRIPTIONS[name])
    codes, texts = class_sets.as_texts(_bits(_STORED[name], splits), class_names)
    return Column(name, Kind.TEXT, codes, DESCRIPTIONS[name], texts=texts)


def _keys(splits: Sequence[SplitColumns]) -> Column:
    texts: list[str] = []
    for columns in splits:
        texts += map(str, range(columns.count)) if columns.keys is None else columns.keys.texts()
    place: dict[str, int] = {}
    codes = np.fromiter((place.setdefault(text, len(place)) for text in texts), np.int64, len(texts))
    return Column(KEY, Kind.TEXT, codes, DESCRIPTIONS[KEY], texts=tuple(place))


def _having(name: str, splits: Sequence[SplitColumns], class_names: Sequence[str]) -> Column:
    """Whether samples have, or were predicted to have, a class: "label:cat", "predicted:3"."""
    which, _, wanted = name.partition(":")
    stored = _HAS[f"{which}:"]
    if all(columns.targets.column(stored) is None for columns in splits):
        raise NotFound(f"there is no column {name[:100]!r}: the samples have no sets of classes")
    bits = _bits(stored, splits)
    if wanted in class_names:
        number = list(class_names).index(wanted)
    elif wanted.isascii() and wanted.isdecimal() and len(wanted) < 10:
        number = int(wanted)
    else:
        raise NotFound(f"there is no class {wanted[:100]!r}; there are {', '.join(class_names[:20]) or 'numbers only'}")
    return Column(name, Kind.BOOL, class_sets.has(bits, number), null=~class_sets.known(bits))


def _bits(stored: str, splits: Sequence[SplitColumns]) -> class_sets.Bits:
    found = [columns.targets.column(stored) for columns in splits]
    width = max((bits.shape[1] for bits in found if bits is not None), default=1)
    parts = [
        np.zeros((columns.count, width), np.uint8) if bits is None else class_sets.widened(bits, width)
        for columns, bits in zip(splits, found, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.uint8)


def _together(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0)
