"""Small experiments that the tests of data, training and checkpoints share."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from graybox.checkpoint import to_plain
from graybox.experiment import Experiment
from graybox.launch import Training
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps
from graybox.session import Session, Stores
from graybox.store.root import Root
from tests.small_networks import everything

# On tensors this small, threads cost more than they bring.
torch.set_num_threads(1)


class DropNet(NetworkWithOps):
    """All that has state of its own: convolution, normalisation, dropout, linear; [batch, 1, 4, 4] -> [batch, 3].

    failure: raised by forward in training mode; hurt: the answer is NaN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dWithNeuronOps(1, 4, 3)
        self.norm = BatchNorm2dWithNeuronOps(4)
        self.drop = nn.Dropout(0.5)
        self.out = LinearWithNeuronOps(16, 3)
        self.register_dependencies([(self.conv, self.norm, DepType.SAME), (self.norm, self.out, DepType.INCOMING)])
        self.register_buffer("replaced", torch.zeros(1))
        self.failure: Exception | None = None
        self.hurt = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        hidden = self.drop(F.relu(self.norm(self.conv(x))))
        if self.training:
            self.replaced = self.replaced + x.detach().mean()  # another tensor, as some users' statistics are kept
            if self.failure is not None:
                raise self.failure
        logits: torch.Tensor = self.out(hidden.flatten(1))
        return logits * float("nan") if self.hurt else logits


def toy_data(count: int = 50, seed: int = 0) -> TensorDataset:
    """Noise around one pattern per class: [count, 1, 4, 4], three classes."""
    numbers = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=numbers)
    patterns = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(99))
    return TensorDataset(patterns[labels] + 0.5 * torch.randn(count, 1, 4, 4, generator=numbers), labels)


class Augmented(Dataset[Any]):
    """Draws from torch, NumPy and Python's random; sample `broken` (a file that says which) raises."""

    def __init__(self, count: int, broken: Path | None = None) -> None:
        self.count = count
        self.broken = broken
        self.targets = [index % 3 for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.broken is not None and self.broken.exists() and index in map(int, self.broken.read_text().split()):
            raise OSError(f"file {index}.png is truncated")
        drawn = [float(torch.rand(())), float(np.random.rand()), random.random()]
        return torch.tensor([float(index), *drawn, *[0.0] * 12]).view(1, 4, 4), self.targets[index]


def toy_experiment(**changes: Any) -> Experiment:
    """The same experiment every time, but for what is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "model": DropNet(), "optimizer_class": optim.Adam, "train_dataset": toy_data(), "batch_size": 8,
            "eval_dataset": toy_data(20, seed=1), "learning_rate": 0.01, "training_steps_to_do": 1_000, "seed": 7,
            "full_eval_frequency": 0, "checkpoint_frequency": 0,
        }  # fmt: skip
        return Experiment(**{**options, **changes})


class Opened:
    """A session on a run of its own, without a trainer."""

    def __init__(self, root: Path, experiment: Experiment) -> None:
        self.stores = Stores.open(Root(root).create_run("toy"))
        self.session = Session(experiment, self.stores)
        self.session.look_at_network()

    def close(self) -> None:
        self.session.stream.close()
        self.stores.close()


def whole_state(session: Session) -> dict[str, Any]:
    """Everything that a step, an intervention or a checkpoint may change; compare with small_networks.differences."""
    experiment = session.experiment
    state = everything(session.network, experiment.optimizer, session.optimizer)
    state = {name: value for name, value in state.items() if not name.startswith("random/")}
    scheduler = experiment.scheduler
    state["scheduler"] = None if scheduler is None else repr(to_plain(scheduler.state_dict()))
    state["groups"] = [{k: v for k, v in group.items() if k != "params"} for group in experiment.optimizer.param_groups]
    for name in ("step", "age", "steps_left", "name", "learning_rate", "full_eval_frequency", "checkpoint_frequency"):
        state[name] = getattr(session, name)
    state["position"] = session.stream.position
    state["batch_size"] = session.stream.batch_size
    state |= {f"live/{name}": setting.read(session) for name, setting in session.live_settings.items()}
    state |= {f"samples/{name}": value.tobytes() for name, value in session.stores.samples.state().items()}
    state["task"] = experiment.task.state_dict()
    return state


def weights(session: Session) -> dict[str, Any]:
    """Copies of parameters and buffers."""
    return {name: value.clone() for name, value in session.network.state_dict().items()}


def crash(training: Training) -> None:
    """What a killed process leaves: nothing is kept on the way out."""
    training.stores.close()
    training._lock.release()
    training.close = lambda: None  # type: ignore[method-assign]
    training.trainer.end = lambda: None  # type: ignore[method-assign]


def tick_until(training: Training, done: Callable[[], bool], most: int = 10_000) -> None:
    """Tick as a user's own loop would. Fails when it takes more than `most` ticks."""
    for _ in range(most):
        if done():
            return
        training.trainer.tick()
    raise AssertionError(f"not reached within {most} ticks: {training.trainer.latest()}")
