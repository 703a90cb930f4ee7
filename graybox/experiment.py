"""An experiment as the user writes it: model, data, task, optimizer and how long to train."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from graybox.calling import arguments_of
from graybox.checks import whole_in_range
from graybox.dash import Dash
from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid
from graybox.experiment_loop import ExperimentLoop
from graybox.met_labels import LabelReader
from graybox.metric_choice import checked_metrics
from graybox.model_with_ops import NetworkWithOps
from graybox.randomness import seeded
from graybox.sample_loader import Collate
from graybox.store.retention import KeepCheckpoints
from graybox.task import Criterion, Task, make_task
from graybox.tracking import RecordSettings
from graybox.tunable import RESERVED, RESERVED_BEGINNINGS, Tunable

MAX_WORKERS = 1_024
MAX_SEED = 2**63 - 1


class Experiment(ExperimentLoop):
    """Everything a training needs, as values. `graybox_backend.py` (or `graybox.launch`) trains it; or a loop of one's
    own does, with the methods of ExperimentLoop (train_n_steps, eval_full, dump, set_learning_rate and so on).

    model: any torch.nn.Module; one that is no NetworkWithOps yet is made operable by running it once, without numbers,
        on the first training sample, or on `example_input` (see graybox.operable).
    optimizer_class: called with (parameters, lr=learning_rate, **optimizer_options).
    train_dataset, eval_dataset, test_dataset: map-style data sets of (data, label) pairs.
    device: "cuda:0" falls back to the CPU, with a warning, where there is none.
    training_steps_to_do: optimizer steps. root_log_dir: where runs are kept. logger: for the user's own curves.
    skip_loading: start a new run instead of going on with the newest one under root_log_dir.
    criterion: function of (outputs, target); None: the task's own. task: "classification", "regression", "multilabel",
        "segmentation" or a Task; docs/samples.md says what labels each takes.
    scheduler: called with the optimizer, answers a torch.optim scheduler, stepped once per step (ReduceLROnPlateau:
        once per pass over eval_dataset, with its loss).
    seed: of sample order, augmentation, dropout and edits; None: a new one for every run.
    workers: processes that load samples (0: this one). collate: as in torch.utils.data.DataLoader.
    full_eval_frequency: steps between two passes over eval_dataset; checkpoint_frequency: steps between two automatic
        checkpoints; 0: never.
    checkpoints: which automatic checkpoints stay; None: the newest ten, see graybox.KeepCheckpoints.
    record: which statistics of neurons are kept, and on every so many-th step; None: all of them, on every step.
    metrics: what a pass over samples measures beyond loss and accuracy: "macro_f1", "calibration_error", "per_class",
        "confusion_matrix", and metrics of torchmetrics; a dict gives them names of one's own. See docs/evaluation.md.
    hyper_parameters: of one's own, to be changed while it trains: see Tunable.

    Raises Invalid, saying what would be right, for anything it cannot train.
    """

    schedule_runs = True
    """Whether the schedule goes on changing the learning rate."""

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer_class: Callable[..., optim.Optimizer],
        train_dataset: Any,
        eval_dataset: Any,
        device: torch.device | str = "cpu",
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        training_steps_to_do: int = 10_000,
        name: str = "experiment",
        root_log_dir: str | Path = "graybox-runs",
        logger: Dash | None = None,
        skip_loading: bool = False,
        criterion: Criterion | None = None,
        task: Task | str | None = None,
        scheduler: Callable[[optim.Optimizer], LRScheduler] | None = None,
        seed: int | None = None,
        workers: int = 0,
        collate: Collate | None = None,
        train_shuffle: bool = True,
        test_dataset: Any = None,
        optimizer_options: Mapping[str, Any] | None = None,
        full_eval_frequency: int = 100,
        checkpoint_frequency: int = 500,
        checkpoints: KeepCheckpoints | None = None,
        example_input: Any = None,
        record: RecordSettings | None = None,
        metrics: Sequence[Any] | Mapping[str, Any] | None = None,
        hyper_parameters: Iterable[Tunable] = (),
    ) -> None:
        check_model(model)
        # Everything is checked before the model moves: who mends a mistake finds it where it was.
        super().__init__(
            learning_rate=learning_rate, batch_size=batch_size, name=name, training_steps_to_do=training_steps_to_do
        )
        self.full_eval_frequency = whole_in_range("full_eval_frequency", full_eval_frequency, 0)
        self.checkpoint_frequency = whole_in_range("checkpoint_frequency", checkpoint_frequency, 0)
        self.checkpoints = checked_rule(checkpoints)
        self.workers = whole_in_range("workers", workers, 0, MAX_WORKERS)
        self.seed = None if seed is None else whole_in_range("seed", seed, 0, MAX_SEED)
        self.logger = checked_logger(logger, root_log_dir)
        self.datasets = wrap_datasets({"train": train_dataset, "val": eval_dataset, "test": test_dataset})
        self.root_log_dir = Path(root_log_dir)
        self.skip_loading = skip_loading
        self.train_shuffle = train_shuffle
        self.record = record or RecordSettings()
        self.device = available_device(device)
        self.task = make_task(task, on_device(criterion, self.device))
        self.collate: Collate | None = collate or getattr(self.task, "collate", None)
        self.label_reader = LabelReader(getattr(self.task, "label_kind", None))
        self.metrics = checked_metrics(metrics, self.task)
        self.model = self._in_training(self._operable(model.to(self.device), example_input), model)
        self.optimizer = optimizer_class(model.parameters(), lr=learning_rate, **(optimizer_options or {}))
        check_optimizer(self.optimizer)
        self.scheduler = scheduler(self.optimizer) if scheduler else None
        self.hyper_parameters = checked_tunables(hyper_parameters)

    def _in_training(self, operable: NetworkWithOps, model: nn.Module) -> NetworkWithOps:
        if not model.training:
            model.train()  # after a look at what it answers; single modules may stay in evaluation mode
        return operable

    def _operable(self, model: nn.Module, example_input: Any) -> NetworkWithOps:
        """The model with neurons, and with an input on which it can be looked at. Raises Invalid where it cannot."""
        from graybox.evaluation import example_inputs  # it knows experiments
        from graybox.operable_network import operable
        from graybox.training_step import to_device

        if isinstance(model, NetworkWithOps) and model.is_traceable:
            return model
        if example_input is None:
            try:
                with seeded(0):
                    example_input = example_inputs(self, 1)
            except Exception as error:  # the user's own data, whatever it raises
                if isinstance(model, NetworkWithOps):
                    return model  # the step that needs the sample says so
                raise Invalid(
                    f"no sample to look at the model with ({type(error).__name__}: {error}); mend it, or pass "
                    "example_input"
                ) from error
            example_input = arguments_of(model, example_input)  # as a step calls the model
        return operable(model, to_device(example_input, self.device))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where the training set tells them."""
        return self.datasets["train"].class_names()

    def step_scheduler(self) -> None:
        """Tell the scheduler that a step was made; one that follows a metric waits for `scheduler_saw`. A one-cycle
        schedule that is through leaves the learning rate where it ended."""
        scheduler = self.scheduler
        if scheduler is None or isinstance(scheduler, ReduceLROnPlateau) or not self.schedule_runs:
            return
        if isinstance(scheduler, OneCycleLR) and scheduler.last_epoch + 1 >= scheduler.total_steps:
            return
        scheduler.step()

    def scheduler_saw(self, evaluation_loss: float) -> None:
        """Tell a scheduler that follows the evaluation loss what it was."""
        if isinstance(self.scheduler, ReduceLROnPlateau) and self.schedule_runs:
            self.scheduler.step(evaluation_loss)


def on_device(criterion: Criterion | None, device: torch.device) -> Criterion | None:
    """The criterion, its class weights where the outputs are."""
    return criterion.to(device) if isinstance(criterion, nn.Module) else criterion


def check_model(model: object) -> None:
    """Raises Invalid when a model has no neurons to operate on."""
    if not isinstance(model, nn.Module):
        raise Invalid(f"the model is a {type(model).__name__}; pass a torch.nn.Module")
    if not any(parameter.dim() > 1 for parameter in model.parameters()):
        raise Invalid(
            f"{type(model).__name__} has no layer with neurons: no parameter that could be a weight; build it with "
            "convolutions or linear layers"
        )


def check_optimizer(optimizer: object) -> None:
    """Raises Invalid for what is no optimizer, or one that wants to run the model by itself."""
    if not isinstance(optimizer, optim.Optimizer):
        raise Invalid(f"optimizer_class makes a {type(optimizer).__name__}; pass a class from torch.optim")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise Invalid(
            f"{type(optimizer).__name__} runs the model several times within one step, which Graybox does not do yet; "
            "choose another optimizer, for example torch.optim.Adam"
        )


def checked_rule(rule: object) -> KeepCheckpoints:
    """The rule, or the usual one. Raises Invalid for what is none."""
    if rule is None:
        return KeepCheckpoints()
    if not isinstance(rule, KeepCheckpoints):
        raise Invalid(
            f"checkpoints is a graybox.KeepCheckpoints, for example KeepCheckpoints(last=5, best='val/loss'), not a "
            f"{type(rule).__name__}"
        )
    return rule


def checked_tunables(given: Iterable[Tunable]) -> tuple[Tunable, ...]:
    """Raises Invalid for what is no Tunable, or has a name that is taken."""
    found = tuple(given)
    for each in found:
        if not isinstance(each, Tunable):
            raise Invalid(
                f"hyper_parameters holds a {type(each).__name__}; pass such as "
                "graybox.Tunable('loss.alpha', 0.3, minimum=0, maximum=1)"
            )
        if each.name in RESERVED or each.name.split(".")[0] in RESERVED_BEGINNINGS:
            raise Invalid(f"a hyper-parameter of one's own cannot be named {each.name!r}: that name is taken")
    return found


def checked_logger(logger: object, root: str | Path) -> Dash:
    """The logger, or a new one. Raises Invalid for what is none of ours."""
    if logger is None:
        return Dash(root)
    if not isinstance(logger, Dash):
        raise Invalid(f"logger is a graybox.Dash, for example Dash({str(root)!r}), not a {type(logger).__name__}")
    return logger


def wrap_datasets(datasets: Mapping[str, Any]) -> dict[str, DataSampleTrackingWrapper]:
    """The data sets by split, those that are None left out. Raises Invalid for one that cannot be used."""
    if datasets["train"] is None:
        raise Invalid("train_dataset is None; an experiment needs samples to train on")
    wrapped: dict[str, DataSampleTrackingWrapper] = {}
    for split, data in datasets.items():
        if data is None:
            continue
        # What a wrapper knows of its samples is the run's beginning. Two splits have a memory each.
        known = isinstance(data, DataSampleTrackingWrapper) and all(data is not other for other in wrapped.values())
        wrapped[split] = data if known else DataSampleTrackingWrapper(data)
        if len(wrapped[split]) == 0:
            raise Invalid(f"the {split} data set is empty; it needs at least one sample")
        wrapped[split].names()  # one that names two samples alike says so here
    return wrapped


def available_device(device: torch.device | str) -> torch.device:
    """The device itself, or the CPU with a warning where this machine does not have it. Raises Invalid for a name
    that torch does not know."""
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise Invalid(
            f"unknown device {device!r}; right are 'cpu', 'cuda:0' and other names of torch ({reason})"
        ) from None
    if wanted.type == "meta":
        raise Invalid("the device 'meta' holds no numbers; use 'cpu' or 'cuda:0'")
    try:
        torch.empty(1, device=wanted)
        return wanted
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        # Each kind of device says in its own way that it is not there.
        pass
    warnings.warn(f"this machine has no {wanted}: training on the CPU instead", stacklevel=3)
    return torch.device("cpu")
