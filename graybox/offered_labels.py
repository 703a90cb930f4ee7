"""Labels that a data set tells without loading any sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from graybox import label_forms
from graybox.store.targets import LabelKind, Labels

NAMES = ("targets", "labels", "y")
"""Attributes that are looked at, in this order; then the pairs in `samples`, then the second tensor of `tensors`."""


def told(dataset: Any) -> Any:
    """What a data set has for labels of all samples; None where it has nothing of that kind."""
    for name in NAMES:
        found = getattr(dataset, name, None)
        if found is not None:
            return None if callable(found) else found
    samples = listed_samples(dataset)
    if samples:
        return [sample[1] for sample in samples]
    tensors = getattr(dataset, "tensors", None)
    return tensors[1] if isinstance(tensors, tuple) and len(tensors) >= 2 else None


def listed_samples(dataset: Any) -> Sequence[Any]:
    """The (file, label) pairs of a torchvision folder data set; nothing for any other."""
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], (tuple, list)) and len(samples[0]) >= 2:
        return samples
    return ()


def read_labels(dataset: Any) -> np.ndarray | None:
    """Class labels, int64 [samples], from `targets`, `labels`, `y`, `samples` or a TensorDataset; through Subset and
    through `target_transform`. None where they would have to be loaded sample by sample, or are not one whole number
    each."""
    if isinstance(dataset, Subset):
        inner = read_labels(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, dtype=np.int64)]
    found = told(dataset)
    if found is None:
        return None
    try:
        values = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    except (TypeError, ValueError):  # lists of different lengths
        return None
    if values.shape != (len(dataset),) or values.dtype.kind not in "iu":
        return None
    transform = getattr(dataset, "target_transform", None)
    return values.astype(np.int64) if transform is None else _transformed(values, transform)


def _transformed(labels: np.ndarray, transform: Callable[[int], Any]) -> np.ndarray | None:
    """The labels as the transform makes them, called once per class; None where that gives no whole numbers."""
    classes, where = np.unique(labels, return_inverse=True)
    try:
        made = np.asarray([int(transform(int(label))) for label in classes], dtype=np.int64)
    except Exception:  # the user's own code, made for training: without it the labels are unknown, no more
        return None
    return made[where]


def offered_labels(dataset: Any, kind: LabelKind | None) -> Labels | None:
    """Labels of all samples that are no single class: numbers, a matrix of 0 and 1 or lists of class numbers, targets
    that list boxes; through Subset. None where the data set does not tell them, as one with a `target_transform`, or
    has others. kind: what the task says that its labels are; None: it does not say."""
    if kind in (LabelKind.CLASS, LabelKind.MASK):
        return None  # a mask would have to be decoded
    if isinstance(dataset, Subset):
        inner = offered_labels(dataset.dataset, kind)
        return None if inner is None else inner.take(np.asarray(dataset.indices, dtype=np.int64))
    found = told(dataset)
    if found is None or getattr(dataset, "target_transform", None) is not None:
        return None
    try:
        return _read(found, len(dataset), kind)
    except Exception:  # the user's own objects: what cannot be read is learnt as samples are met
        return None


def _read(found: Any, count: int, kind: LabelKind | None) -> Labels | None:
    if isinstance(found, (list, tuple)):
        if len(found) != count or not found:
            return None
        if kind in (None, LabelKind.BOXES) and (listed := label_forms.boxes(found)) is not None:
            return listed
        if kind in (None, LabelKind.CLASSES) and (lists := label_forms.class_lists(found)) is not None:
            return lists
        if isinstance(found[0], torch.Tensor):
            found = torch.stack(list(found)) if found[0].dim() <= 1 else None  # not masks, of which copies are dear
        else:
            found = np.asarray(found)
    values = label_forms.as_values(found)
    if values is None or values.shape[:1] != (count,):
        return None
    if kind is LabelKind.CLASSES or (kind is None and values.dtype == np.bool_):
        return label_forms.flags(values, soft=True)
    if kind is LabelKind.NUMBER or values.dtype.kind == "f":
        return label_forms.numbers(values)
    return None
