"""One optimizer step, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.calling import called
from graybox.errors import Invalid, Refused, StorageError
from graybox.experiment import Experiment
from graybox.failing_samples import NonFiniteLoss as NonFiniteLoss
from graybox.failing_samples import SampleError, bad_rows, fails_alone, non_finite, one_of, step_error
from graybox.fingerprints import StepFingerprints
from graybox.met_labels import MetLabels
from graybox.randomness import mix, purpose, seed_everything, seeded
from graybox.sample_stream import SampleStream
from graybox.store import class_sets
from graybox.store.sample_columns import Ratings
from graybox.store.targets import SCORES, Answers
from graybox.task import StepResult, wanted_classes
from graybox.tracking import TrackingMode, add_tracked_attrs_to_input_tensor


@dataclass(frozen=True)
class BatchOutcome:
    """What a batch did, on the CPU.

    rows: int64 [batch]. losses: float32 [batch], NaN where unknown. predictions: int64 [batch] or None. loss: the
    scalar descended on. correct: how many predictions equal the target, None where there is none to compare. targets:
    the right classes, int64 [batch] or None. ratings: of these classes, or None. answers: what else was predicted.
    met: labels that were not known before.
    """

    rows: np.ndarray
    losses: np.ndarray
    predictions: np.ndarray | None
    loss: float
    correct: int | None
    targets: np.ndarray | None = None
    ratings: Ratings | None = None
    answers: Answers | None = None
    met: MetLabels | None = None

    @property
    def scores(self) -> dict[str, float]:
        """The means of what else the samples are scored by, by name; of those that have a score."""
        columns = {} if self.answers is None else self.answers.columns
        known = {name: columns[name][np.isfinite(columns[name])] for name in SCORES if name in columns}
        return {name: float(values.mean(dtype=np.float64)) for name, values in known.items() if len(values)}

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
        self.fingerprints: StepFingerprints | None = None

    def run(self, step: int) -> BatchOutcome:
        """Train on the next batch. step: how many were made before, from which this one's random numbers come.

        Raises SampleLoadError, SampleStepError and NonFiniteLoss, which name samples, Refused (nothing left to train
        on), or what the user's code raises.
        """
        experiment, model = self.experiment, self.experiment.model
        batch = self.stream.next()
        age = model.get_age()
        self._keep_buffers()
        model.set_tracking_mode(TrackingMode.TRAIN)
        model.ledger.hold(step)
        parts: Parts | None = None
        try:
            seed = mix(self._step_seed, step)
            seed_everything(seed)
            parts = inputs, target = split_batch(experiment, batch.data, batch.rows)
            if self.fingerprints is not None:
                self.fingerprints.begin(step, seed, batch.rows, inputs, target)
            model.ledger.samples_are(batch.rows, target if isinstance(target, torch.Tensor) else None)
            result = experiment.task.evaluate(called(model, inputs), target)
            if result.predictions is not None:
                model.register_prediction(result.predictions, result.classes)
            # What is computed once more on the way back (activation checkpointing) is not counted twice.
            model.ledger.mode = TrackingMode.DISABLED
            experiment.optimizer.zero_grad(set_to_none=True)
            result.loss.backward()
            outcome = read_outcome(result, target, batch.rows.numpy())
            outcome = replace(outcome, met=labels_met(experiment, "train", batch.rows, target))
            check_finite(outcome)
            if self.fingerprints is not None:
                self.fingerprints.learnt(outcome.loss)
            experiment.optimizer.step()
        except BaseException as error:
            model.ledger.drop()
            self._put_buffers_back()  # or they would spoil what follows
            named = blamed(error, experiment, "train", batch.rows, parts)
            self._put_buffers_back()
            model.set_age(age)
            self.stream.rewind()
            if named is not None:
                raise named from error
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


Parts = tuple[Any, Any]
"""The inputs of the model and the target, of a batch."""


def blamed(
    error: BaseException, experiment: Experiment, split: str, rows: torch.Tensor, parts: Parts | None
) -> SampleError | None:
    """What to raise instead of what a pass over a batch raised, where that comes from some of its samples: those for
    which it is raised alone too (or whose loss alone is no finite number), in evaluation mode. None where it is not
    about samples, or names them already. parts: None where the batch was not taken apart; put together as samples
    usually are, it is none because they are none. Leaves no trace but in the user's own objects."""
    if not isinstance(error, Exception) or isinstance(error, (Refused, StorageError)):
        return None
    if isinstance(error, SampleError) and (error.rows or not isinstance(error, NonFiniteLoss)):
        return None
    if parts is None:
        as_usual = experiment.collate in (None, getattr(experiment.task, "collate", None))
        return step_error(split, rows.tolist(), error) if as_usual and isinstance(error, Invalid) else None
    count, model = len(rows), experiment.model

    def alone(number: int) -> None:
        inputs, target = (one_of(part, number, count) for part in parts)
        loss = experiment.task.evaluate(called(model, inputs), target).loss
        if isinstance(error, NonFiniteLoss) and not bool(torch.isfinite(loss)):
            raise error

    model.set_tracking_mode(TrackingMode.DISABLED)
    with seeded(0), evaluation_mode(model):
        bad = rows[fails_alone(count, alone)].tolist()
    if not bad:
        return None
    return non_finite(split, error.loss, bad) if isinstance(error, NonFiniteLoss) else step_error(split, bad, error)


def split_batch(experiment: Experiment, data: Any, rows: torch.Tensor, split: str = "train") -> tuple[Any, Any]:
    """(input, target) of a collated batch on the experiment's device; input tensors say which samples they are. Labels
    that a person corrected stand in the place of the data set's."""
    inputs, target = experiment.task.split_batch(data)
    corrected = experiment.datasets[split].columns.notes.corrected
    if corrected is not None:
        target = with_corrections(target, corrected[rows.numpy()])
    if experiment.device.type != "cpu":
        check_classes(experiment, split, rows, target)
    inputs, target = to_device(inputs, experiment.device), to_device(target, experiment.device)
    if isinstance(inputs, torch.Tensor):
        add_tracked_attrs_to_input_tensor(inputs, in_id_batch=rows, label_batch=target)
    return inputs, target


def check_classes(experiment: Experiment, split: str, rows: torch.Tensor, target: Any) -> None:
    """Raises SampleStepError where a target, still on the CPU, has a class that the network does not have: looked up on
    a GPU, it would end the process. Where the number of classes may have changed since, nothing is said."""
    output, tell = experiment.model.output_layer(), getattr(experiment.task, "beyond", None)
    if tell is None or output is None or output.neuron_count != getattr(experiment.task, "classes", 0):
        return
    beyond = tell(target)
    if beyond is not None and bool(beyond.any()):
        raise step_error(
            split, rows[beyond.cpu()].tolist(), Invalid(f"a class is beyond the {output.neuron_count} of the network")
        )


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


def labels_met(experiment: Experiment, split: str, rows: torch.Tensor, target: Any) -> MetLabels | None:
    """What the target of a batch tells of samples whose labels were not known. Waits for the device where there are
    any."""
    known = experiment.datasets[split].columns.targets
    return experiment.label_reader.read(split, known, rows.numpy(), target)


def read_outcome(result: StepResult, target: Any, rows: np.ndarray) -> BatchOutcome:
    """Bring a batch's results to the CPU: the one wait for the device of a step."""
    parts = {"loss": result.loss.detach().reshape(1), "losses": result.sample_losses}
    parts |= {name: each for name, each in result.scores.items() if name in SCORES}
    if result.predictions is not None:
        parts["predictions"] = result.predictions
        wanted = wanted_classes(target, len(result.predictions))
        if wanted is not None:
            parts["targets"] = wanted
        if result.ratings is not None:
            parts["ratings"] = result.ratings
    for name, each in (("predicted", result.numbers), ("right", result.right)):
        if each is not None:
            parts[name] = each
    # One transfer; float64 holds every class number exactly.
    flat = torch.cat([part.double().flatten() for part in parts.values()]).cpu().numpy()
    ends = np.cumsum([part.numel() for part in parts.values()])
    taken = dict(zip(parts, np.split(flat, ends[:-1]), strict=True))
    predictions, targets = (
        taken[name].astype(np.int64) if name in taken else None for name in ("predictions", "targets")
    )
    right = taken.get("right", None if targets is None else predictions == targets)
    ratings = taken["ratings"].astype(np.float32).reshape(2, -1) if "ratings" in taken else None
    found: dict[str, np.ndarray] = {
        name: taken[name].astype(np.float32) for name in ("predicted", *SCORES) if name in taken
    }
    if result.sets is not None:
        found["predicted_classes"] = class_sets.packed(result.sets.cpu().numpy())
    return BatchOutcome(
        rows,
        taken["losses"].astype(np.float32),
        predictions,
        float(taken["loss"][0]),
        None if right is None else int(np.count_nonzero(right)),
        targets,
        None if ratings is None else Ratings(*ratings),
        Answers(found) if found else None,
    )


def check_finite(outcome: BatchOutcome) -> None:
    """Raises NonFiniteLoss, naming the samples it comes from."""
    if not np.isfinite(outcome.loss):
        raise non_finite("train", outcome.loss, bad_rows(outcome.loss, outcome.rows, outcome.losses))


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
