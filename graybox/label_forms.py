"""Labels as data sets and batches have them, made into columns: numbers, sets of classes, masks, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from graybox.annotations import objects_in
from graybox.multilabel import CLASS_NUMBERS, are_flags, is_class_list
from graybox.store import class_sets
from graybox.store.targets import LabelKind, Labels

MASK_IGNORED = 255
MIN_MASK_SIDE = 2


def as_values(found: Any) -> np.ndarray | None:
    """Numbers of a tensor (on any device) or an array; None for anything else."""
    if isinstance(found, torch.Tensor):
        if found.is_complex() or found.layout is not torch.strided:
            return None
        # NumPy has no bfloat16.
        return (
            (found.detach().float() if found.dtype in (torch.bfloat16, torch.float16) else found.detach()).cpu().numpy()
        )
    return found if isinstance(found, np.ndarray) and found.dtype.kind in "iufb" else None


def numbers(values: np.ndarray) -> Labels | None:
    """Of [n] or [n, 1] numbers."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        return None
    with np.errstate(over="ignore"):  # beyond float32 it is infinite
        return Labels(LabelKind.NUMBER, {"number": values.astype(np.float32)})


def flags(values: np.ndarray, *, soft: bool = False) -> Labels | None:
    """Of [n, classes] numbers that are 0 or 1. soft: also between, and above one half is one."""
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "iufb":
        return None
    if values.dtype != np.bool_:
        right = ((values >= 0) & (values <= 1)) if soft else ((values == 0) | (values == 1))
        if not right.all():
            return None
        values = values > 0.5
    return Labels(LabelKind.CLASSES, {"classes": class_sets.packed(values)})


def class_lists(lists: Sequence[Any]) -> Labels | None:
    """Of a list, tuple or set of class numbers for each sample. Where one of them can only be a 0 or 1 for each class,
    all are."""
    if not all(map(is_class_list, lists)):
        return None
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    values = np.fromiter(chain.from_iterable(lists), np.int64, int(lengths.sum()))
    alike = len(lists) > 0 and bool((lengths == lengths[0]).all()) and bool(((values == 0) | (values == 1)).all())
    if alike and any(map(are_flags, map(list, lists))):
        return flags(values.reshape(len(lists), -1))
    rows = np.repeat(np.arange(len(lists)), lengths)
    return Labels(LabelKind.CLASSES, {"classes": class_sets.from_pairs(rows, values, len(lists))})


def padded_classes(values: np.ndarray) -> Labels | None:
    """Of class numbers [n, most], below 0 where there are fewer."""
    if values.ndim != 2 or values.dtype.kind not in "iu":
        return None
    rows, places = np.nonzero(values >= 0)
    classes = values[rows, places].astype(np.int64)
    return Labels(LabelKind.CLASSES, {"classes": class_sets.from_pairs(rows, classes, len(values))})


def masks(values: np.ndarray) -> Labels | None:
    """Of class maps [n, height, width] or [n, 1, height, width]: which classes each has somewhere. Negative classes and
    255 are no class, as where pictures are shown."""
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3 or min(values.shape[1:]) < MIN_MASK_SIDE or values.dtype.kind not in "iufb":
        return None
    flat = values.reshape(len(values), -1)
    # As a loss of two classes wants them.
    if flat.dtype.kind == "f" and not (np.isfinite(flat).all() and (flat == np.floor(flat)).all()):
        return None
    flat = flat.astype(np.int64)
    kept = (flat >= 0) & (flat < class_sets.MAX_CLASSES) & (flat != MASK_IGNORED)
    width = int(flat.max(initial=-1, where=kept)) + 1
    rows = np.nonzero(kept)[0]
    present = np.bincount(rows * width + flat[kept], minlength=len(flat) * width).reshape(len(flat), -1) > 0
    return Labels(LabelKind.MASK, {"classes": class_sets.packed(present)})


def boxes(targets: Sequence[Any]) -> Labels | None:
    """Of targets that list boxes, as detection has them; None where one of them does not."""
    found = []
    for target in targets:
        objects = objects_in(target)
        if objects is None:
            return None
        found.append(objects)
    counts = np.fromiter((count for count, _ in found), np.int32, len(found))
    rows = np.repeat(np.arange(len(found)), [len(classes) for _, classes in found])
    classes = np.fromiter(chain.from_iterable(classes for _, classes in found), np.int64, len(rows))
    sets = class_sets.from_pairs(rows, classes, len(found))
    return Labels(LabelKind.BOXES, {"boxes": counts, "classes": sets})


def labels_of_batch(target: Any, count: int, kind: LabelKind | None) -> Labels | None:
    """What the target of a batch of `count` samples says of each; None where that is nothing that is kept. kind: what
    the task says that its labels are; None: it does not say."""
    if kind is LabelKind.CLASS or not count:
        return None
    if isinstance(target, dict) and CLASS_NUMBERS in target:
        values = as_values(target[CLASS_NUMBERS])
        return None if values is None else padded_classes(values)
    if isinstance(target, (list, tuple)):
        if len(target) != count:
            return None
        return boxes(target) or class_lists(target)
    values = as_values(target)
    if values is None or len(values) != count:
        return None
    if kind is LabelKind.NUMBER:
        return numbers(values)
    if kind is LabelKind.CLASSES:
        return flags(values, soft=True)
    if kind is LabelKind.MASK:
        return masks(values)
    if values.ndim > 2:
        return masks(values)
    # Whole numbers [n, m] may be anything, such as words.
    return numbers(values) if values.dtype.kind == "f" else flags(values) if values.dtype == np.bool_ else None
