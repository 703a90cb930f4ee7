"""One optimizer step, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.calling import called
from graybox.errors import GrayboxError
from graybox.experiment import Experiment
from graybox.randomness import mix, purpose, seed_everything
from graybox.sample_stream import SampleStream
from graybox.store.sample_columns import Ratings
from graybox.task import StepResult, wanted_classes
from graybox.tracking import TrackingMode, add_tracked_attrs_to_input_tensor


class NonFiniteLoss(GrayboxError):
    """The loss of a batch is NaN or infinite. The weights were not touched."""


@dataclass(frozen=True)
class BatchOutcome:
    """What a batch did, on the CPU.

    rows: int64 [batch]. losses: float32 [batch], NaN where unknown. predictions: int64 [batch] or None. loss: the
    scalar descended on. correct: how many predictions equal the target, None where there is none to compare. targets:
    the right classes, int64 [batch] or None. ratings: of these classes, or None.
    """

    rows: np.ndarray
    losses: np.ndarray
    predictions: np.ndarray | None
    loss: float
    correct: int | None
    targets: np.ndarray | None = None
    ratings: Ratings | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of correct predictions in [0, 1]; None for a problem without classes."""
        return None if self.correct is None else self.correct / len(self.rows)


class TrainingStep:
    """Makes optimizer steps of an experiment. A step that raises leaves the weights, running statistics, neuron
    statistics and the stream's position as they were; only where the optimizer's own step raises, the weights may
    have been changed in part."""

    def __init__(self, experiment: Experiment, stream: SampleStream, seed: int) -> None:
        self.experiment = experiment
        self.stream = stream
        self._step_seed = mix(seed, purpose("step"))
        self._buffers: list[tuple[nn.Module, str, torch.Tensor]] = []
        self._kept: list[torch.Tensor] = []

    def run(self, step: int) -> BatchOutcome:
        """Train on the next batch. step: how many were made before, from which this one's random numbers come.

        Raises SampleLoadError, NonFiniteLoss, Refused (nothing left to train on), or what the user's code raises.
        """
        experiment, model = self.experiment, self.experiment.model
        batch = self.stream.next()
        age = model.get_age()
        self._keep_buffers()
        model.set_tracking_mode(TrackingMode.TRAIN)
        model.ledger.hold(step)
        try:
            seed_everything(mix(self._step_seed, step))
            inputs, target = split_batch(experiment, batch.data, batch.rows)
            model.ledger.samples_are(batch.rows, target if isinstance(target, torch.Tensor) else None)
            result = experiment.task.evaluate(called(model, inputs), target)
            if result.predictions is not None:
                model.register_prediction(result.predictions, result.classes)
            # What is computed once more on the way back (activation checkpointing) is not counted twice.
            model.ledger.mode = TrackingMode.DISABLED
            experiment.optimizer.zero_grad(set_to_none=True)
            result.loss.backward()
            outcome = read_outcome(result, target, batch.rows.numpy())
            check_finite(outcome)
            experiment.optimizer.step()
        except BaseException:
            model.ledger.drop()
            self._put_buffers_back()
            model.set_age(age)
            self.stream.rewind()
            raise
        finally:
            model.set_tracking_mode(TrackingMode.DISABLED)
        model.ledger.commit()
        model.set_age(age + len(outcome.rows))
        self.stream.commit(batch)
        return outcome

    def _keep_buffers(self) -> None:
        found = [
            (module, name, buffer)
            for module in self.experiment.model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        if [id(buffer) for _, _, buffer in found] != [id(buffer) for _, _, buffer in self._buffers]:
            self._kept = [torch.empty_like(buffer) for _, _, buffer in found]
        self._buffers = found
        for kept, (_, _, buffer) in zip(self._kept, found, strict=True):
            kept.copy_(buffer)

    @torch.no_grad()
    def _put_buffers_back(self) -> None:
        for kept, (module, name, buffer) in zip(self._kept, self._buffers, strict=True):
            buffer.copy_(kept)
            module._buffers[name] = buffer  # forward may have put another tensor in its place


def split_batch(experiment: Experiment, data: Any, rows: torch.Tensor, split: str = "train") -> tuple[Any, Any]:
    """(input, target) of a collated batch on the experiment's device; input tensors say which samples they are. Labels
    that a person corrected stand in the place of the data set's."""
    inputs, target = experiment.task.split_batch(data)
    corrected = experiment.datasets[split].columns.notes.corrected
    if corrected is not None:
        target = with_corrections(target, corrected[rows.numpy()])
    inputs, target = to_device(inputs, experiment.device), to_device(target, experiment.device)
    if isinstance(inputs, torch.Tensor):
        add_tracked_attrs_to_input_tensor(inputs, in_id_batch=rows, label_batch=target)
    return inputs, target


def with_corrections(target: Any, corrected: np.ndarray) -> Any:
    """A target of class numbers [batch], or of probabilities [batch, classes], with other classes in the place of some.

    corrected: int64 [batch], -1 where the target stays. A target of any other kind stays as it is."""
    if not isinstance(target, torch.Tensor) or not (corrected >= 0).any():
        return target
    labels = torch.from_numpy(corrected).to(target.device)
    known = labels >= 0
    if target.dim() == 1 and not target.is_floating_point():
        return torch.where(known, labels.to(target.dtype), target)
    if target.dim() == 2 and target.is_floating_point() and int(labels.max()) < target.shape[1]:
        certain = torch.nn.functional.one_hot(labels.clamp(min=0), target.shape[1]).to(target.dtype)
        return torch.where(known[:, None], certain, target)
    return target


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors within tuples, lists and dicts moved to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [to_device(item, device) for item in value]
        return (
            type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        )  # a named tuple takes them apart
    return value


def read_outcome(result: StepResult, target: Any, rows: np.ndarray) -> BatchOutcome:
    """Bring a batch's results to the CPU: the one wait for the device of a step."""
    loss = result.loss.detach().reshape(1).double()
    parts = [loss, result.sample_losses.double()]
    if result.predictions is not None:
        parts.append(result.predictions.double())
        wanted = wanted_classes(target, len(result.predictions))
        if wanted is not None:
            parts.append(wanted.double())
        if result.ratings is not None:
            parts.append(result.ratings.double().flatten())
    # One transfer; float64 holds every class number exactly.
    taken = _Parts(torch.cat(parts).cpu().numpy())
    whole, count = float(taken(1)[0]), len(rows)
    losses = taken(count).astype(np.float32)
    if result.predictions is None:
        return BatchOutcome(rows, losses, None, whole, None)
    predictions = taken(count).astype(np.int64)
    targets = None if wanted is None else taken(count).astype(np.int64)
    correct = None if targets is None else int(np.count_nonzero(predictions == targets))
    ratings = None if result.ratings is None else Ratings(*taken(2 * count).astype(np.float32).reshape(2, count))
    return BatchOutcome(rows, losses, predictions, whole, correct, targets, ratings)


class _Parts:
    """An array, taken piece by piece."""

    def __init__(self, values: np.ndarray) -> None:
        self._left = values

    def __call__(self, count: int) -> np.ndarray:
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def check_finite(outcome: BatchOutcome) -> None:
    """Raises NonFiniteLoss, naming the samples it comes from."""
    if np.isfinite(outcome.loss):
        return
    wrong = outcome.rows[~np.isfinite(outcome.losses)]
    which = ""
    if 0 < len(wrong) < len(outcome.rows):
        shown = ", ".join(str(row) for row in wrong[:10]) + (" and others" if len(wrong) > 10 else "")
        which = f" (from training samples {shown})"
    raise NonFiniteLoss(
        f"the loss is {outcome.loss}{which}; the weights were not touched. Lower the learning rate, discard the "
        "samples or go back to a checkpoint, then resume"
    )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for a while; every module's own mode comes back afterwards."""
    # A network around another one (`graybox.operable`) shares its modules, but not its own mode.
    inner = getattr(model, "_plain", None)
    modules = [*model.modules(), *([inner] if isinstance(inner, nn.Module) else [])]
    modes = [(module, module.training) for module in modules]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
