"""What is measured of a pass over samples, beyond loss and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graybox.calling import logits_of
from graybox.errors import Invalid
from graybox.metric_choice import ACCURACY, CALIBRATION, CONFUSION, MACRO_F1, PER_CLASS, Chosen
from graybox.store.evaluation_report import ClassTable
from graybox.task import Regression, StepResult, Task, wanted_classes

if TYPE_CHECKING:
    from graybox.training_step import BatchOutcome

_COUNTED = (MACRO_F1, PER_CLASS, CONFUSION)
MAX_CLASSES = 1_000
"""Counting which class was predicted to be which takes 8 bytes for each pair."""
BINS = 15
"""Of equal width, that the calibration error compares confidence and accuracy in (Guo et al., "On Calibration of Modern
Neural Networks", 2017)."""
MAX_NUMBERS = 1_000
"""So many numbers at most of one metric."""


@dataclass(frozen=True)
class Measured:
    """values: numbers by name. classes, confusion: see graybox.store.evaluation_report; None where not asked for."""

    values: dict[str, float] = field(default_factory=dict)
    classes: ClassTable | None = None
    confusion: NDArray[np.int64] | None = None


class MetricSet:
    """Measures one pass.

    chosen: what. strict: what cannot be measured here raises Invalid; otherwise it is left out. Metrics of a person's
    own are copied, so that each pass begins with an empty one. They are updated with (probabilities [n, classes], class
    numbers int64 [n]) in a problem with classes, samples without a class left out, and with (outputs, target) in any
    other.
    """

    def __init__(self, chosen: Chosen, task: Task, device: torch.device, *, strict: bool = True) -> None:
        self._task = task
        self._device = device
        self._strict = strict
        self._names = [name for name, metric in chosen.items() if metric is None and name != ACCURACY]
        self._own = {name: metric.clone().to(device) for name, metric in chosen.items() if metric is not None}
        for metric in self._own.values():
            metric.reset()
        self._prepared = False
        self._classes = 0
        self._confusion: Any = None
        self._calibration: Any = None
        self._counted = 0

    def update(self, outputs: Any, target: Any, result: StepResult) -> None:
        """Take in one batch. Raises Invalid, saying why, for what cannot be measured of it."""
        truth = None if result.predictions is None else wanted_classes(target, len(result.predictions))
        if not self._prepared:
            self._prepare(result, truth)
            self._prepared = True
        if result.predictions is not None and truth is not None:
            self._take_classes(outputs, truth.long(), result.predictions)
        else:
            self._take_others(outputs, target)

    def _prepare(self, result: StepResult, truth: torch.Tensor | None) -> None:
        classes = self._classes = result.classes
        kept = []
        for name in self._names:
            reason = self._why_not(name, truth, classes)
            if reason and self._strict:
                raise Invalid(f"{name} cannot be measured here: {reason}")
            if not reason:
                kept.append(name)
        self._names = kept
        if not kept:
            return
        from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

        if any(name in _COUNTED for name in kept):
            self._confusion = MulticlassConfusionMatrix(classes, validate_args=False).to(self._device)
        if CALIBRATION in kept:
            self._calibration = MulticlassCalibrationError(classes, n_bins=BINS, norm="l1", validate_args=False)
            self._calibration.to(self._device)

    def _why_not(self, name: str, truth: torch.Tensor | None, classes: int) -> str:
        if truth is None or classes < 1:
            return f"a {self._task.name} problem has no classes to compare"
        if name in _COUNTED and classes > MAX_CLASSES:
            return f"there are {classes:,} classes, and at most {MAX_CLASSES:,} are counted each"
        if name == CALIBRATION and not hasattr(self._task, "log_probabilities"):
            return "its task tells no probabilities (log_probabilities)"
        return ""

    def _take_classes(self, outputs: Any, truth: torch.Tensor, predictions: torch.Tensor) -> None:
        classes = self._classes
        known = (truth >= 0) & (predictions >= 0)
        if classes:
            known &= (truth < classes) & (predictions < classes)
        count = int(known.sum())
        self._counted += count
        if not count:
            return
        truth, predictions = truth[known], predictions[known]
        if self._confusion is not None:
            self._confusion.update(predictions, truth)
        if self._calibration is None and not self._own:
            return
        scores = self._probabilities(outputs)
        scores = predictions if scores is None else scores[known]
        if self._calibration is not None:
            self._calibration.update(scores, truth)
        for metric in self._own.values():
            metric.update(scores, truth)

    def _probabilities(self, outputs: Any) -> torch.Tensor | None:
        """[batch, classes], of at least single precision; None where the task does not tell any."""
        told = getattr(self._task, "log_probabilities", None)
        if told is None:
            return None
        answers = logits_of(outputs).detach()
        if answers.dtype in (torch.float16, torch.bfloat16):
            answers = answers.float()
        # A probability that rounds to more than 1 would be taken for a logit.
        found: torch.Tensor = told(answers).exp().clamp(0.0, 1.0)
        return found

    def _take_others(self, outputs: Any, target: Any) -> None:
        if not self._own:
            return
        if isinstance(self._task, Regression):
            outputs = logits_of(outputs)
            target = target.to(outputs.dtype).reshape(outputs.shape)
        self._counted += len(target) if isinstance(target, torch.Tensor) else 1
        for metric in self._own.values():
            metric.update(outputs, target)

    def measured(self, whole: BatchOutcome) -> Measured:
        """What was measured. whole: of all samples of the pass. Raises Invalid for a metric of a person's own that
        answers no numbers, or what it raises."""
        if not self._counted:
            return Measured()
        values: dict[str, float] = {}
        classes = confusion = None
        if self._confusion is not None:
            counts = self._confusion.compute().cpu().numpy().astype(np.int64)
            table = class_table(counts, whole)
            if MACRO_F1 in self._names:
                values[MACRO_F1] = macro_f1(table)
            classes = table if PER_CLASS in self._names else None
            confusion = counts if CONFUSION in self._names else None
        if self._calibration is not None:
            values[CALIBRATION] = float(self._calibration.compute())
        for name, metric in self._own.items():
            values |= numbers_of(name, metric.compute())
        return Measured(values, classes, confusion)


def class_table(counts: NDArray[np.int64], whole: BatchOutcome) -> ClassTable:
    """Per class, from how often which class (down) was predicted to be which (across), int64 [classes, classes], and
    the losses of the samples."""
    right, support, predicted = np.diagonal(counts).copy(), counts.sum(1), counts.sum(0)
    classes = len(counts)
    loss = np.full(classes, np.nan)
    if whole.targets is not None:
        known = (whole.targets >= 0) & (whole.targets < classes)
        targets = whole.targets[known]
        sums = np.bincount(targets, weights=whole.losses[known].astype(np.float64), minlength=classes)
        loss = _ratio(sums, np.bincount(targets, minlength=classes))
    return ClassTable(
        support=support,
        precision=_ratio(right, predicted),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, support + predicted),
        mean_loss=loss,
    )


def macro_f1(table: ClassTable) -> float:
    """The mean over the classes that a sample has, or that was predicted."""
    met = table.f1[~np.isnan(table.f1)]
    return float(met.mean()) if len(met) else float("nan")


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found


def numbers_of(name: str, value: Any) -> dict[str, float]:
    """What a metric computed as numbers: one under its name, of several each under NAME/KEY or NAME/PLACE. Raises
    Invalid for anything else, and for too many."""
    found = dict(_numbers(name, value))
    if len(found) > MAX_NUMBERS:
        raise Invalid(f"metric {name} computes {len(found):,} numbers; at most {MAX_NUMBERS:,} are shown")
    return found


def _numbers(name: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, (tuple, list)):
        parts = list(enumerate(value))
    elif isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 1:
        parts = list(enumerate(value.tolist()))
    else:
        try:
            return [(name, float(value))]
        except (TypeError, ValueError, RuntimeError):
            raise Invalid(
                f"metric {name} computes {type(value).__name__} {list(getattr(value, 'shape', ()))}; what is shown is "
                "a number, or several in a vector, a list or a dict"
            ) from None
    return [number for key, part in parts for number in _numbers(f"{name}/{key}", part)]
