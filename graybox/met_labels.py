"""Labels that a data set tells only when its samples are loaded, read off the targets of batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graybox.label_forms import labels_of_batch
from graybox.store.class_sets import widened
from graybox.store.targets import Answers, LabelKind, Labels, SampleTargets


@dataclass(frozen=True)
class MetLabels:
    """Labels of some samples. rows: int64 [n]."""

    rows: np.ndarray
    labels: Labels


class LabelReader:
    """Reads each sample's label once: when it is met for the first time, of a split whose data set does not tell it.

    kind: what the task says that its labels are; None: it does not say. A split whose first target says nothing that is
    kept is not looked at again.
    """

    def __init__(self, kind: LabelKind | None) -> None:
        self.kind = kind
        self._nothing: set[str] = set()

    def read(self, split: str, known: SampleTargets, rows: np.ndarray, target: Any) -> MetLabels | None:
        """What the target of a batch tells of samples, int64 [n], whose labels are not known yet."""
        if self.kind is LabelKind.CLASS or split in self._nothing:
            return None
        new = np.flatnonzero(~known.is_known(rows))
        if not len(new):
            return None
        if len(new) < len(rows):
            target = some_of(target, new, len(rows))
        try:
            labels = labels_of_batch(target, len(new), self.kind)
        except Exception:  # the user's own objects: an odd target is no reason to stop
            labels = None
        if labels is None:
            if known.kind is LabelKind.NONE:
                self._nothing.add(split)
            return None
        return MetLabels(rows[new], labels)


def some_of(target: Any, index: np.ndarray, count: int) -> Any:
    """The part of a batch's target that is of some of its `count` samples."""
    if isinstance(target, (list, tuple)) and len(target) == count:
        return [target[number] for number in index.tolist()]
    if isinstance(target, dict):
        return {key: some_of(part, index, count) for key, part in target.items()}
    return target[torch.from_numpy(index)] if isinstance(target, torch.Tensor) and len(target) == count else target


def joined_labels(found: Sequence[MetLabels | None]) -> MetLabels | None:
    """Those of several batches as one; of one kind, that of the first."""
    met = [each for each in found if each is not None]
    met = [each for each in met if each.labels.kind is met[0].labels.kind]
    if not met:
        return None
    rows = np.concatenate([each.rows for each in met])
    return MetLabels(rows, Labels(met[0].labels.kind, _together([each.labels.columns for each in met])))


def joined_answers(found: Sequence[Answers | None]) -> Answers | None:
    """Those of several batches as one; None where one has none, or others than the first."""
    answers = [each for each in found if each is not None]
    if not answers or len(answers) < len(found) or any(a.columns.keys() != answers[0].columns.keys() for a in answers):
        return None
    return Answers(_together([each.columns for each in answers]))


def _together(columns: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    found = {}
    for name in columns[0]:
        parts = [each[name] for each in columns]
        if parts[0].ndim == 2:
            width = max(part.shape[1] for part in parts)
            parts = [widened(part, width) for part in parts]
        found[name] = np.concatenate(parts)
    return found
