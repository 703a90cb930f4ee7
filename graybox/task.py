"""The kind of problem: what a batch is, its loss per sample, its prediction, its metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from graybox.calling import input_and_target, logits_of
from graybox.class_loss import ClassLoss
from graybox.errors import Invalid
from graybox.store.targets import LabelKind

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class StepResult:
    """What a forward pass says of a batch.

    loss: a scalar to descend on. sample_losses: float32 [batch], NaN where the criterion tells only the whole.
    predictions: int64 [batch], or None for a problem without classes. classes: how many there are (0: none).
    ratings: float [2, batch], or None: the probability given to the true class, and the true class's logit less the
    largest of the others; NaN for a sample without a true class.
    numbers: float [batch], the number predicted of each sample. sets: bool [batch, classes], the classes predicted.
    right: bool [batch], whether the prediction is the target, where that is not to be seen in `predictions`. scores:
    further ones by name, float [batch], of graybox.store.targets.SCORES.
    """

    loss: torch.Tensor
    sample_losses: torch.Tensor
    predictions: torch.Tensor | None
    classes: int = 0
    ratings: torch.Tensor | None = None
    numbers: torch.Tensor | None = None
    sets: torch.Tensor | None = None
    right: torch.Tensor | None = None
    scores: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Task(Protocol):
    """One kind of problem.

    It may also have `label_kind`, a graybox.store.targets.LabelKind: what its labels are, where they alone do not tell;
    `collate`, a function like torch's default_collate, which is used where the Experiment gets none; and
    `beyond(target)`, which tells before a step, bool [batch], whose target has a class that the network does not have,
    where that would end the process on a GPU (None: nothing can be told), with `classes`, how many it had last.
    """

    name: str

    def split_batch(self, batch: Any) -> tuple[Any, Any]:
        """(input of the model, target) of a collated batch."""
        ...

    def prepare(self, outputs: Any) -> None:
        """Look once at what the network answers, before training starts."""
        ...

    def evaluate(self, outputs: Any, target: Any) -> StepResult:
        """Loss and predictions of what the network answers. Never waits for the device."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `prepare` found out, for the checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class PairTask:
    """Base of the tasks here. Batches are (input, target, ...), or dicts whose "labels" (or "label") is the target and
    whose rest is the input."""

    name = ""

    def split_batch(self, batch: Any) -> tuple[Any, Any]:
        found = input_and_target(batch)
        if found is not None:
            return found
        raise Invalid(
            f"a batch is a pair (input, target) or a dict with labels, not {type(batch).__name__}; return such from "
            "the data set or its collate function, or pass task= to the Experiment"
        )

    def prepare(self, outputs: Any) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Classification(PairTask):
    """One class per sample.

    criterion: any function of (outputs [batch, classes], target int64 [batch]); by default the cross-entropy, of
    logits, probabilities (a network that ends in softmax) or log-probabilities, whichever the network answers.
    """

    name = "classification"
    label_kind = LabelKind.CLASS

    def __init__(self, criterion: Criterion | None = None, *, output_kind: str = "auto") -> None:
        if output_kind not in ("auto", "logits", "probabilities", "log_probabilities"):
            raise Invalid(f"output_kind is auto, logits, probabilities or log_probabilities, not {output_kind!r}")
        self.criterion = criterion
        self.output_kind = output_kind
        self._per_sample = unreduced(criterion)
        self.class_loss = ClassLoss()
        self.classes = 0

    def prepare(self, outputs: Any) -> None:
        outputs = logits_of(outputs)
        if outputs.dim() != 2:
            raise Invalid(f"a classifier answers [batch, classes], this network answers {list(outputs.shape)}")
        self.classes = int(outputs.shape[1])
        if self.output_kind == "auto":
            self.output_kind = output_kind(outputs)

    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [batch, classes], whatever the network answers."""
        if self.output_kind == "probabilities":
            # Where softmax rounds to 0 the logarithm would be infinite and its gradient undefined.
            return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
        if self.output_kind == "log_probabilities":
            return outputs
        return F.log_softmax(outputs, dim=1)

    def evaluate(self, outputs: Any, target: Any) -> StepResult:
        outputs = logits_of(outputs)
        if self.output_kind == "auto":
            # Nobody could look before: the first samples failed to load.
            self.prepare(outputs)
        if self.criterion is None:
            known = self.log_probabilities(outputs)
            loss, losses = self.class_loss(known, class_numbers(target, outputs))
        else:
            loss, losses = losses_of(self.criterion, self._per_sample, outputs, target)
            known = self.log_probabilities(outputs.detach())
        self.classes = int(outputs.shape[1])
        ratings = true_class_ratings(known.detach(), target)
        return StepResult(loss, losses.detach().float(), outputs.detach().argmax(1), self.classes, ratings)

    def beyond(self, target: Any) -> torch.Tensor | None:
        if not isinstance(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss | None) or not self.classes:
            return None
        if not isinstance(target, torch.Tensor) or target.dim() != 1 or target.is_floating_point():
            return None
        ignored = getattr(self.criterion, "ignore_index", -100)  # as torch has it where nothing is said
        return ((target >= self.classes) | (target < 0)) & (target != ignored)

    def state_dict(self) -> dict[str, Any]:
        return {"output_kind": self.output_kind}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.output_kind = state["output_kind"]


class Regression(PairTask):
    """Numbers per sample; by default the mean squared error. The prediction is kept where it is one number; of several
    numbers only the loss is."""

    name = "regression"
    label_kind = LabelKind.NUMBER

    def __init__(self, criterion: Criterion | None = None) -> None:
        self.criterion: Criterion = criterion or nn.MSELoss()
        self._per_sample = unreduced(self.criterion)

    def evaluate(self, outputs: Any, target: Any) -> StepResult:
        outputs = logits_of(outputs)
        if target.numel() != outputs.numel():
            raise Invalid(
                f"this network answers {list(outputs.shape)} and its targets are {list(target.shape)}; a regression "
                "compares number by number, so that both need the same shape"
            )
        target = target.to(outputs.dtype).reshape(outputs.shape)
        loss, losses = losses_of(self.criterion, self._per_sample, outputs, target)
        numbers = outputs.detach().flatten() if outputs.numel() == outputs.shape[0] else None
        return StepResult(loss, losses.detach().float(), None, numbers=numbers)


def make_task(task: Task | str | None, criterion: Criterion | None) -> Task:
    """A task from what the user passed: a task, or "classification" (also for None), "regression", "multilabel" or
    "segmentation"."""
    from graybox.multilabel import MultiLabel  # they are made of what is here
    from graybox.segmentation import Segmentation

    if isinstance(task, str) or task is None:
        kinds: dict[str, Callable[[Criterion | None], Task]] = {
            "classification": Classification, "regression": Regression, "multilabel": MultiLabel,
            "segmentation": Segmentation,
        }  # fmt: skip
        name = task or "classification"
        if name not in kinds:
            raise Invalid(f"task is one of {', '.join(kinds)}, or an object like graybox.task.Task, not {name!r}")
        return kinds[name](criterion)
    if criterion is not None:
        raise Invalid("pass the criterion to the task object, not beside it")
    return task


def output_kind(outputs: torch.Tensor) -> str:
    """Whether rows [batch, classes] are "probabilities", "log_probabilities" or "logits". Waits for the device."""
    values = outputs.detach().double()
    tolerance = 1e-3 if outputs.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < tolerance).all()):
        return "probabilities"
    if bool((values <= 0).all()) and bool((values.logsumexp(1).abs() < tolerance).all()):
        return "log_probabilities"
    return "logits"


def true_class_ratings(log_probabilities: torch.Tensor, target: Any) -> torch.Tensor | None:
    """[2, batch]: the probability of the true class, and its log-probability (as good as its logit: they differ by the
    same number for all classes) less the largest of the others. log_probabilities: [batch, classes]. target: class
    numbers [batch] or probabilities [batch, classes], whose largest counts; None for anything else. Never waits."""
    classes = log_probabilities.shape[1]
    true = wanted_classes(target, len(log_probabilities))
    if true is None or classes < 2:
        return None
    known = (true >= 0) & (true < classes)
    place = true.clamp(0, classes - 1).to(torch.int64)[:, None]
    mine = log_probabilities.gather(1, place)
    others = log_probabilities.scatter(1, place, -torch.inf).amax(1)
    found = torch.stack((mine[:, 0].exp(), mine[:, 0] - others))
    return torch.where(known, found, torch.nan)


def wanted_classes(target: Any, batch: int) -> torch.Tensor | None:
    """The right class per sample, [batch] of whole numbers, from class numbers or from probabilities [batch, classes];
    None where the target is something else."""
    if not isinstance(target, torch.Tensor):
        return None
    if target.dim() == 2 and target.is_floating_point():
        target = target.argmax(1)
    whole = not target.is_floating_point() and not target.is_complex()
    return target if whole and target.shape == (batch,) else None


def class_numbers(target: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """The target as int64 [batch]. Raises Invalid, saying what is there instead, unless it is one whole number each."""
    if target.dim() != 1 or target.is_floating_point() or target.is_complex() or len(target) != len(outputs):
        raise Invalid(
            f"the target of a classifier is one class number per sample, int64 [{len(outputs)}], not "
            f"{str(target.dtype).removeprefix('torch.')} {list(target.shape)}; mend the data set, or pass criterion="
        )
    return target.long()


def unreduced(criterion: Criterion | None) -> Criterion | None:
    """The same loss per sample, where the criterion is a module with a `reduction`."""
    if isinstance(criterion, nn.Module) and hasattr(criterion, "reduction"):
        per_sample = copy.deepcopy(criterion)
        per_sample.__dict__["reduction"] = "none"
        return per_sample
    return None


def losses_of(
    criterion: Criterion, per_sample: Criterion | None, outputs: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scalar loss, losses [batch]) of a user's criterion."""
    loss = criterion(outputs, target)
    batch = outputs.shape[0]
    losses = loss.detach()
    if loss.dim() == 0 and per_sample is not None:
        with torch.no_grad():
            losses = per_sample(outputs, target)
    if losses.dim() > 0 and losses.shape[0] == batch:
        return loss.mean(), losses.reshape(batch, -1).mean(1)
    # It tells only the whole.
    return loss.mean(), torch.full((batch,), torch.nan, device=outputs.device)
