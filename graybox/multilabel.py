"""Several classes per sample, each of which is there or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import default_collate

from graybox.calling import input_and_target, logits_of
from graybox.errors import Invalid
from graybox.failing_samples import described, odd_items
from graybox.store.targets import LabelKind
from graybox.task import Criterion, PairTask, StepResult, losses_of, unreduced

CLASS_NUMBERS = "class_numbers"
"""Under this name a target has the classes of each sample by number, int64 [batch, most], -1 where there are fewer."""


def collate_class_lists(items: list[Any]) -> Any:
    """As default_collate, for labels that are lists (tuples, sets) of class numbers, of any length each: the target is
    then {CLASS_NUMBERS: int64 [batch, most]}. A list that has only 0 and 1, and one of them twice, has a number for
    each class; then all have to.

    Labels that are tensors, arrays or anything else are collated as ever. Raises Invalid where labels are mixed."""
    odd = odd_items(items)
    if odd:
        raise Invalid(f"the data set answers {described(items[odd[0]])}; a sample is a pair (data, label) or a dict")
    pairs = [input_and_target(item) for item in items]
    if not pairs or any(pair is None or not is_class_list(pair[1]) for pair in pairs):
        return default_collate(items)
    labels = [list(pair[1]) for pair in pairs if pair is not None]
    inputs = default_collate([pair[0] for pair in pairs if pair is not None])
    flags = [are_flags(label) for label in labels]
    if any(flags):
        if len({len(label) for label in labels}) > 1 or any(
            number not in (0, 1) for label in labels for number in label
        ):
            raise Invalid(
                f"one label is {labels[flags.index(True)]}, a 0 or 1 for each class, and another one of its batch is "
                "not; give all as lists of class numbers, or all as tensors with a number for each class"
            )
        return inputs, torch.tensor(labels, dtype=torch.float32)
    padded = torch.full((len(labels), max(map(len, labels))), -1, dtype=torch.int64)
    for row, label in enumerate(labels):
        padded[row, : len(label)] = torch.tensor(label, dtype=torch.int64)
    return inputs, {CLASS_NUMBERS: padded}


def is_class_list(label: object) -> bool:
    """Whether a label is a list, tuple or set of whole numbers."""
    return isinstance(label, (list, tuple, set, frozenset)) and all(type(number) is int for number in label)


def are_flags(label: Sequence[int]) -> bool:
    """Whether a list of numbers can only be a 0 or 1 for each class: no list of classes names one twice."""
    return len(set(label)) < len(label) and all(number in (0, 1) for number in label)


class MultiLabel(PairTask):
    """Several classes per sample. The network answers logits [batch, classes]; a class is predicted where its
    probability is above one half. A target is a number (0 or 1; soft ones between are fine) for each class,
    [batch, classes], or a list of class numbers for each sample.

    criterion: any function of (logits, target float [batch, classes]); by default the binary cross-entropy, its mean
    over the classes for each sample.
    """

    name = "multilabel"
    label_kind = LabelKind.CLASSES
    collate = staticmethod(collate_class_lists)

    def __init__(self, criterion: Criterion | None = None) -> None:
        self.criterion = criterion
        self._per_sample = unreduced(criterion)
        self.classes = 0

    def prepare(self, outputs: Any) -> None:
        outputs = logits_of(outputs)
        if outputs.dim() != 2:
            raise Invalid(f"a network for several classes answers [batch, classes], this one {list(outputs.shape)}")
        self.classes = int(outputs.shape[1])

    def evaluate(self, outputs: Any, target: Any) -> StepResult:
        logits = logits_of(outputs)
        self.classes = int(logits.shape[1])
        wanted = class_flags(target, logits)
        if self.criterion is None:
            losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
            loss = losses.mean()
        else:
            loss, losses = losses_of(self.criterion, self._per_sample, logits, wanted)
        sets = logits.detach() > 0
        right = (sets == (wanted > 0.5)).all(1)
        return StepResult(loss, losses.detach().float(), None, sets=sets, right=right)

    def beyond(self, target: Any) -> torch.Tensor | None:
        listed = target.get(CLASS_NUMBERS) if isinstance(target, Mapping) else None
        return (listed >= self.classes).any(1) if isinstance(listed, torch.Tensor) and self.classes else None


def class_flags(target: Any, logits: torch.Tensor) -> torch.Tensor:
    """The target in the type of the logits, [batch, classes]. Raises Invalid, saying what is there instead."""
    if isinstance(target, Mapping) and CLASS_NUMBERS in target:
        numbers = target[CLASS_NUMBERS]
        if logits.shape[1] == 2 and numbers.shape[1] == 2 and bool((numbers >= 0).all(1).any()):
            raise Invalid(
                "of two classes a label such as [0, 1] may be a list of both, or a 0 or 1 for each; give labels as "
                "tensors with a number for each class"
            )
        flags = logits.new_zeros((len(logits), logits.shape[1] + 1))
        # What is not there goes to a column of its own. A class that the network does not have is an error of scatter.
        flags.scatter_(1, torch.where(numbers < 0, logits.shape[1], numbers + (numbers >= logits.shape[1])), 1.0)
        return flags[:, :-1]
    if not isinstance(target, torch.Tensor) or target.shape != logits.shape or target.is_complex():
        what = f"{str(target.dtype).removeprefix('torch.')} {list(target.shape)}" if isinstance(
            target, torch.Tensor
        ) else type(target).__name__  # fmt: skip
        raise Invalid(
            f"the target of several classes is a number for each class, {list(logits.shape)}, or a list of class "
            f"numbers for each sample, not {what}; mend the data set, or pass task= to the Experiment"
        )
    return target.to(logits.dtype)
