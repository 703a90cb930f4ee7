"""Weights of a checkpoint come back into a network whose neurons came, went or moved since: flags stay with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from graybox.commands import EditNeurons, Pause, RestoreCheckpoint, Resume, SaveCheckpoint
from graybox.launch import Training, launch
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_identity import UNKNOWN, source_between
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    FreezeIncoming,
    NeuronEdit,
    RemoveNeurons,
    SetLearningRate,
    SortByStat,
)
from graybox.newcomers import begin_anew
from graybox.operable_network import operable
from graybox.refit import belonging
from graybox.snapshot import TrainerState
from tests.small_experiments import weights, whole_state
from tests.small_networks import differences
from tests.test_structural_life import ask, crash, experiment, train

OPTIMIZERS = [optim.Adam, optim.Adagrad, optim.SGD]


def edited(training: Training, edit: NeuronEdit) -> Any:
    """Do it; answers what the journal holds of it."""
    done = ask(training, EditNeurons(edit))
    return training.stores.journal.entries()[done.sequence - 1].arguments["edit"]


def layer(training: Training, name: str) -> NeuronLayer:
    return training.trainer.session.network.find_layer(name)[1]


def restored(training: Training, record: Any) -> str:
    """Weights only; answers what people are told."""
    message: str = ask(training, RestoreCheckpoint(f"{record.id}@@weights_step={record.step}")).message
    return message


def optimizer_state(training: Training) -> dict[str, dict[str, Any]]:
    names = {id(p): name for name, p in training.trainer.session.network.named_parameters()}
    state = training.trainer.session.experiment.optimizer.state
    return {names[id(p)]: {k: torch.as_tensor(v).clone() for k, v in kept.items()} for p, kept in state.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_flags_and_statistics_go_with_their_neurons_through_a_restore_of_weights(root: Path, optimizer: Any) -> None:
    training = launch(experiment(optimizer_class=optimizer), root_directory=root)
    train(training, 3)
    ask(training, Pause())
    saved = ask(training, SaveCheckpoint()).value
    before = weights(training.trainer.session)
    edited(training, Freeze("layers.0", (2,)))
    edited(training, SetLearningRate("layers.1", (3,), rate=0.5))
    edited(training, FreezeIncoming("layers.1", (1,)))
    order = edited(training, SortByStat("layers.0", statistic="weight_norm"))["neurons"]
    assert order != sorted(order)
    ask(training, Resume())
    train(training, 2)
    ask(training, Pause())
    triggers = layer(training, "layers.0").train_dataset_tracker.triggers.clone()
    others = {k: kept for k, kept in optimizer_state(training).items() if k in ("layers.1.bias", "norm.weight")}

    message = restored(training, saved)
    assert "neurons of layers.0, layers.1, back, head had come, gone or moved since" in message
    assert differences(before, weights(training.trainer.session)) == []
    # The checkpoint's order is the one in which the flags were set, so that the numbers are those of then.
    assert layer(training, "layers.0").frozen.nonzero().flatten().tolist() == [2]
    assert layer(training, "layers.1").neuron_learning_rate.tolist() == [1.0, 1.0, 1.0, 0.5, 1.0]
    assert layer(training, "layers.1").incoming_frozen.nonzero().flatten().tolist() == [1]
    found = layer(training, "layers.0").train_dataset_tracker.triggers
    assert torch.equal(found[torch.tensor(order)], triggers)
    # Moments of weights that are no longer there would move others.
    state = optimizer_state(training)
    for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight", "back.weight", "back.bias", "head.weight"):
        assert all(not value.any() for value in state.get(name, {}).values()), name
    for name, kept in others.items():
        assert all(torch.equal(state[name][key], value) for key, value in kept.items()), name

    ask(training, Resume())
    frozen = layer(training, "layers.0").weight.detach()[2].clone()
    train(training, 3)
    rows = layer(training, "layers.0").weight.detach()
    assert torch.equal(rows[2], frozen) and not torch.equal(rows[1], before["layers.0.weight"][1])
    training.close()


def test_who_was_removed_since_comes_back_as_it_was_and_who_was_added_is_gone(root: Path) -> None:
    training = launch(experiment(), root_directory=root)
    train(training, 2)
    edited(training, AddNeurons("layers.1", count=2))  # numbers 5 and 6
    edited(training, SetLearningRate("layers.1", (1,), rate=0.25))
    train(training, 2)
    ask(training, Pause())
    saved = ask(training, SaveCheckpoint()).value
    before, ages = weights(training.trainer.session), layer(training, "layers.1").train_dataset_tracker.ages().tolist()
    assert ages[5] < ages[0]
    edited(training, Freeze("layers.1", (4, 6)))
    edited(training, RemoveNeurons("layers.1", (0, 1)))
    edited(training, AddNeurons("layers.1", count=2))  # as many as were there
    edited(training, Freeze("layers.1", (5, 6)))
    edited(training, SortByStat("layers.1", statistic="weight_norm"))

    restored(training, saved)
    assert differences(before, weights(training.trainer.session)) == []
    assert layer(training, "layers.1").frozen.nonzero().flatten().tolist() == [4, 6]
    assert layer(training, "layers.1").neuron_learning_rate.tolist() == [1.0, 0.25, *[1.0] * 5]
    # Statistics of those that were there all along stay; who came back has none.
    found = layer(training, "layers.1").train_dataset_tracker.ages().tolist()
    assert found == [0, 0, *ages[2:]]
    ask(training, Resume())
    train(training, 2)
    training.close()


def test_where_no_neuron_moved_all_but_the_weights_stays(root: Path) -> None:
    training = launch(experiment(), root_directory=root)
    train(training, 3)
    edited(training, AddNeurons("layers.1", count=1))  # young in the optimizer for long
    train(training, 1)
    saved = ask(training, SaveCheckpoint()).value
    train(training, 2)
    edited(training, Freeze("layers.0", (2,)))
    sorting = edited(training, SortByStat("layers.0", statistic="weight_norm"))["neurons"]
    edited(training, SortByStat("layers.0", statistic="index", descending=False))
    assert sorting != sorted(sorting)
    ask(training, EditNeurons(SortByStat("layers.0", np.argsort(sorting).tolist())))  # back where they were
    ask(training, Pause())
    before = whole_state(training.trainer.session)
    assert any(name.startswith("young/") for name in before)
    assert "moved" not in restored(training, saved)
    changed = differences(before, whole_state(training.trainer.session))
    assert changed and all(name.startswith("model/") for name in changed)
    training.close()


def test_a_replay_restores_the_same(root: Path) -> None:
    training = launch(experiment(), root_directory=root)
    train(training, 2)
    edited(training, AddNeurons("layers.0", count=2))
    train(training, 1)
    saved = ask(training, SaveCheckpoint()).value
    edited(training, RemoveNeurons("layers.1", (2,)))
    edited(training, AddNeurons("layers.0", count=1))
    edited(training, Freeze("layers.0", (7, 8)))
    edited(training, SortByStat("layers.0", statistic="weight_norm"))
    train(training, 1)
    restored(training, saved)
    ask(training, Resume())
    train(training, 2)
    reached, step = whole_state(training.trainer.session), training.trainer.session.step
    assert layer(training, "layers.0").frozen.nonzero().flatten().tolist() == [7]
    crash(training)
    again = launch(experiment(), root_directory=root)
    for _ in range(1_000):
        if again.trainer.session.step >= step and again.trainer.latest().state is not TrainerState.RECOVERING:
            break
        again.trainer.tick()
    assert again.trainer.session.step == step
    assert differences(reached, whole_state(again.trainer.session)) == []
    again.close()


def test_a_neuron_of_unknown_origin_is_like_no_other() -> None:
    here, there = torch.tensor([3, UNKNOWN, 0]), torch.tensor([0, UNKNOWN, 3, 7])
    assert source_between(here, there).tolist() == [2, -1, 0, -1]


@pytest.mark.parametrize("steps", [0, 3])
def test_weights_of_a_later_time_come_into_an_earlier_one(root: Path, steps: int) -> None:
    """Where less was seen than when the weights were kept: statistics of then do not fit those of now."""
    training = launch(experiment(full_eval_frequency=6), root_directory=root)
    train(training, steps)
    early = ask(training, SaveCheckpoint()).value
    train(training, 7)
    edited(training, AddNeurons("layers.1", count=1))
    edited(training, Freeze("layers.1", (5,)))
    ask(training, Pause())
    late = ask(training, SaveCheckpoint()).value
    before = weights(training.trainer.session)
    ask(training, RestoreCheckpoint(f"{early.id}@@step={early.step}"))
    ages = layer(training, "layers.1").train_dataset_tracker.ages().tolist()

    restored(training, late)
    assert differences(before, weights(training.trainer.session)) == []
    assert layer(training, "layers.1").frozen.nonzero().flatten().tolist() == [5]
    assert layer(training, "layers.1").train_dataset_tracker.ages().tolist() == [*ages, 0]
    ask(training, Resume())
    train(training, 2)
    training.close()


class Beside(nn.Module):
    """Two layers whose neurons are consumed side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both: torch.Tensor = self.head(torch.cat([self.left(x).relu(), self.right(x).relu()], 1))
        return both


def test_the_neighbours_of_neurons_that_moved_do_not_belong_to_them() -> None:
    network = operable(Beside(), torch.randn(2, 3))
    assert belonging(network, ["left"], ["head"]) == {"left.weight", "left.bias", "head.weight"}
    assert belonging(network, [], ["head"]) == {"head.weight"}


class OwnDefaults(optim.Adagrad):
    """With an option that torch's own does not know."""

    def __init__(self, params: Any, *, mood: str = "good", **options: Any) -> None:
        super().__init__(params, **options)
        self.defaults["mood"] = mood


@pytest.mark.parametrize("make", [optim.Adagrad, OwnDefaults])
def test_adagrad_starts_anew_as_it_was_made(make: Any) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make([parameter], initial_accumulator_value=0.5)
    parameter.grad = torch.ones(3)
    optimizer.step()
    begin_anew(optimizer, parameter)
    expected = optim.Adagrad([parameter], initial_accumulator_value=0.5).state[parameter]
    assert differences(expected, optimizer.state[parameter]) == []
