"""An experiment as the user writes it: model, data, task, optimizer and how long to train."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from graybox.dash import Dash
from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid
from graybox.model_with_ops import NetworkWithOps
from graybox.monitoring import describe_network
from graybox.task import Criterion, Task, make_task

Collate = Callable[[list[Any]], Any]


class Experiment:
    """Everything a training needs, as values. `graybox_backend.py` (or `graybox.launch`) trains it.

    model: a NetworkWithOps. optimizer_class: called with (parameters, lr=learning_rate, **optimizer_options).
    train_dataset, eval_dataset, test_dataset: map-style data sets of (data, label) pairs.
    device: "cuda:0" falls back to the CPU, with a warning, where there is none.
    training_steps_to_do: optimizer steps. root_log_dir: where runs are kept. logger: for the user's own curves.
    skip_loading: start a new run instead of going on with the newest one under root_log_dir.
    criterion: function of (outputs, target); None: the task's own. task: "classification", "regression" or a Task.
    scheduler: called with the optimizer, answers a torch.optim scheduler, stepped once per step (ReduceLROnPlateau: once per
        pass over eval_dataset, with its loss).
    seed: of sample order, augmentation, dropout and edits; None: a new one for every run.
    workers: processes that load samples (0: this one). collate: as in torch.utils.data.DataLoader.
    full_eval_frequency: steps between two passes over eval_dataset; checkpoint_frequency: steps between two automatic
        checkpoints; 0: never.

    Raises Invalid, saying what would be right, for anything it cannot train.
    """

    def __init__(
        self,
        *,
        model: NetworkWithOps,
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
    ) -> None:
        check_model(model)
        self.device = available_device(device)
        self.model = model.to(self.device)
        self.task = make_task(task, criterion)
        self.learning_rate = in_range("learning_rate", learning_rate, 0.0, exclusive=True)
        self.batch_size = int(in_range("batch_size", batch_size, 1))
        self.training_steps_to_do = int(in_range("training_steps_to_do", training_steps_to_do, 0))
        self.full_eval_frequency = int(in_range("full_eval_frequency", full_eval_frequency, 0))
        self.checkpoint_frequency = int(in_range("checkpoint_frequency", checkpoint_frequency, 0))
        self.workers = int(in_range("workers", workers, 0))
        self.name = name
        self.root_log_dir = Path(root_log_dir)
        self.logger = logger if logger is not None else Dash(root_log_dir)
        self.skip_loading = skip_loading
        self.seed = seed
        self.collate = collate
        self.train_shuffle = train_shuffle
        self.optimizer = optimizer_class(model.parameters(), lr=learning_rate, **dict(optimizer_options or {}))
        self.scheduler = scheduler(self.optimizer) if scheduler is not None else None
        self.datasets: dict[str, DataSampleTrackingWrapper] = {}
        for split, dataset in (("train", train_dataset), ("val", eval_dataset), ("test", test_dataset)):
            if dataset is not None:
                self.datasets[split] = DataSampleTrackingWrapper(dataset)
        for split, wrapper in self.datasets.items():
            if len(wrapper) == 0:
                raise Invalid(f"the {split} data set is empty; it needs at least one sample")
        if "train" not in self.datasets:
            raise Invalid("train_dataset is None; an experiment needs samples to train on")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where the training set tells them."""
        return self.datasets["train"].class_names()

    def step_scheduler(self) -> None:
        """Tell the scheduler that a step was made; one that follows a metric waits for `scheduler_saw`."""
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def scheduler_saw(self, evaluation_loss: float) -> None:
        """Tell a scheduler that follows the evaluation loss what it was."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(evaluation_loss)

    def display_stats(self) -> None:
        """Print the network's layers with their trigger rates."""
        print(describe_network(self.model))


def check_model(model: object) -> None:
    """Raises Invalid when a model has no neurons to operate on."""
    if not isinstance(model, NetworkWithOps):
        raise Invalid(
            f"the model is a {type(model).__name__}; inherit from graybox.NetworkWithOps instead of torch.nn.Module"
        )
    if not model.layers:
        raise Invalid(
            f"{type(model).__name__} has no layer with neuron operations; build it with Conv2dWithNeuronOps and "
            "LinearWithNeuronOps from graybox in the place of torch.nn.Conv2d and torch.nn.Linear"
        )


def available_device(device: torch.device | str) -> torch.device:
    """The device itself, or the CPU with a warning where this machine does not have it. Raises Invalid for a name
    that torch does not know."""
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise Invalid(f"unknown device {device!r}: {error}") from None
    there = True
    if wanted.type == "cuda":
        there = torch.cuda.is_available() and (wanted.index or 0) < torch.cuda.device_count()
    elif wanted.type == "mps":
        there = torch.backends.mps.is_available()
    if there:
        return wanted
    warnings.warn(f"this machine has no {wanted}: training on the CPU instead", stacklevel=3)
    return torch.device("cpu")


def in_range(name: str, value: Any, minimum: float, *, exclusive: bool = False) -> float:
    """The value, if it is a finite number of at least `minimum` (above it when exclusive). Raises Invalid."""
    bound = f"above {minimum:g}" if exclusive else f"of at least {minimum:g}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0
    if not number or value < minimum or (exclusive and value == minimum):
        raise Invalid(f"{name} is a number {bound}, not {value!r}")
    return float(value)
