"""A plain network's life under the trainer: edits of structure, undo, checkpoints of other shapes, a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from graybox.commands import (
    Command,
    DiscardSamples,
    EditNeurons,
    Pause,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    Undo,
)
from graybox.errors import Invalid, Refused
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.neuron_ops import AddNeurons, Freeze, OverrideBiases, RemoveNeurons, Select, SortByStat
from graybox.plan_summary import PlanSummary
from graybox.snapshot import TrainerState
from tests.small_experiments import toy_data, toy_experiment, weights, whole_state
from tests.small_networks import differences


class Plain(nn.Module):
    """Nothing of Graybox: a stem, a residual block and a head; a module named like a property of operable networks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)])
        self.norm = nn.BatchNorm2d(5)
        self.back = nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.layers[0](x))
        x = x + self.back(F.relu(self.norm(self.layers[1](x))))
        logits: torch.Tensor = self.head(F.max_pool2d(F.relu(x), 2).flatten(1))
        return logits


def experiment(**changes: Any) -> Experiment:
    torch.manual_seed(0)
    return toy_experiment(**{"model": Plain(), "optimizer_class": optim.Adam, "checkpoint_frequency": 0, **changes})


def ask(training: Training, command: Command) -> Any:
    future = training.trainer.submit(command)
    for _ in range(3):
        if not future.done():
            training.trainer.tick()
    return future.result(timeout=60)


def train(training: Training, steps: int) -> None:
    goal = training.trainer.session.step + steps
    while training.trainer.session.step < goal:
        training.trainer.tick()


def unfolded(state: dict[str, Any]) -> dict[str, Any]:
    """Entries that are young one by one: in which lists they are kept says nothing."""
    kept = {key: value for key, value in state.items() if not key.startswith("young/")}
    lists: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        if key.startswith("young/"):
            _, number, name = key.split("/", 2)
            lists.setdefault(number, {})[name] = value
    for entry in lists.values():
        scalars = {k: float(v) for k, v in entry.items() if k.startswith("scalars/")}
        for index in entry["indices"].tolist():
            kept[f"young/{entry['parameter']}/{entry['axis']}/{index}"] = (entry["steps"], sorted(scalars.items()))
    return kept


def test_a_plain_module_learns_what_a_plain_loop_learns(root: Path) -> None:
    """Being watched changes nothing: the same data, order and seed give the same bits."""
    ours = experiment()
    plain = Plain()
    plain.load_state_dict(ours.model.state_dict())  # the same names
    training = launch(ours, root_directory=root)
    session = training.trainer.session
    optimizer = optim.Adam(plain.parameters(), lr=session.learning_rate)
    data = toy_data().tensors
    for _ in range(12):
        train(training, 1)
        rows = torch.from_numpy(session.last_train.rows)
        optimizer.zero_grad()
        F.cross_entropy(plain(data[0][rows]), data[1][rows]).backward()
        optimizer.step()
    assert differences(weights(session), dict(plain.state_dict())) == []
    training.close()


def test_edits_undo_checkpoints_and_a_restart(root: Path) -> None:
    training = launch(experiment(), root_directory=root)
    session = training.trainer.session
    train(training, 6)
    first = ask(training, SaveCheckpoint("whole")).value
    ask(training, EditNeurons(Freeze("layers.0", (4,))))
    ask(training, EditNeurons(RemoveNeurons("layers.1", (1, 3))))
    train(training, 3)
    ask(training, EditNeurons(AddNeurons("layers.0", count=2)))
    train(training, 3)
    assert session.network.get_submodule("layers.0").weight.shape[0] == 8  # type: ignore[union-attr]
    assert session.network.get_submodule("layers.1").weight.shape == (3, 8, 3, 3)  # type: ignore[union-attr]
    ask(training, Pause())
    edited = ask(training, SaveCheckpoint("edited")).value
    before = whole_state(session)

    # Undo takes back one edit bit for bit when no step lies between.
    for command in (
        EditNeurons(SortByStat("layers.0", statistic="weight_norm")),
        EditNeurons(RemoveNeurons("layers.0", (7,))),
        EditNeurons(OverrideBiases("head", (1,), values=[3.5])),
        SetHyperParameters({"learning_rate": 0.5}),
        DiscardSamples((("train", "3"), ("train", "5"))),
    ):
        done = ask(training, command)
        assert differences(before, whole_state(session)) != []
        with pytest.raises(Refused, match="is not the last one"):
            ask(training, Undo(done.sequence - 1))
        ask(training, Undo(done.sequence))
        assert differences(unfolded(before), unfolded(whole_state(session))) == []

    # A checkpoint brings back the structure of its time, and so does one of later.
    ask(training, RestoreCheckpoint(f"{first.id}"))
    assert session.network.get_submodule("layers.1").weight.shape == (5, 6, 3, 3)  # type: ignore[union-attr]
    assert not session.network.find_layer("layers.0")[1].frozen.any()
    ask(training, RestoreCheckpoint(f"{edited.id}"))
    assert session.network.find_layer("layers.0")[1].frozen.tolist() == [i == 4 for i in range(8)]
    kept = {k: v for k, v in whole_state(session).items() if not k.startswith("samples/")}
    assert differences(unfolded({k: v for k, v in before.items() if k in kept}), unfolded(kept)) == []
    ask(training, Resume())
    train(training, 4)
    ask(training, EditNeurons(RemoveNeurons("layers.1", (0,))))
    train(training, 2)
    ask(training, Undo())
    train(training, 2)
    reached = whole_state(session)
    training.close()

    # The code builds the network whole again; recovery edits it to what it was.
    again = launch(experiment(), root_directory=root)
    while again.trainer.session.step < training.trainer.session.step:
        again.trainer.tick()
    assert differences(reached, whole_state(again.trainer.session)) == []
    again.close()


def crash(training: Training) -> None:
    """What a killed process leaves: nothing is kept on the way out."""
    training.stores.close()
    training._lock.release()


def test_summed_layers_sorted_by_what_a_checkpoint_does_not_hold_come_again(root: Path) -> None:
    """A gradient is gone after a restart: the order comes from the journal."""
    training = launch(experiment(), root_directory=root)
    train(training, 3)
    ask(training, Pause())
    ask(training, SaveCheckpoint())
    ask(training, EditNeurons(SortByStat("", statistic="gradient_norm"), Select(layers=("layers.0", "back"))))
    ask(training, Resume())
    train(training, 2)
    reached, step = whole_state(training.trainer.session), training.trainer.session.step
    crash(training)
    again = launch(experiment(), root_directory=root)
    train(again, step - again.trainer.session.step)
    while again.trainer.latest().state is TrainerState.RECOVERING:
        again.trainer.tick()
    assert again.trainer.session.step == step
    assert differences(reached, whole_state(again.trainer.session)) == []
    again.close()


def test_a_dry_run_measures_and_leaves_no_trace(root: Path) -> None:
    training = launch(experiment(), root_directory=root)
    train(training, 3)
    ask(training, Pause())
    before = whole_state(training.trainer.session)
    command = EditNeurons(RemoveNeurons("layers.1", (2,)), dry_run=True, measure=True)
    plan = ask(training, command).value
    assert isinstance(plan, PlanSummary)
    assert plan.parameters_after < plan.parameters_before and plan.multiply_adds_after < plan.multiply_adds_before
    assert plan.measured is not None and plan.measured.max_abs > 0
    dead = Select(lowest=2, statistic="weight_norm")
    several = ask(training, EditNeurons(RemoveNeurons(""), select=dead, dry_run=True)).value
    assert sum(last - first + 1 for found in several.neurons.values() for first, last in found) >= 2
    assert differences(before, whole_state(training.trainer.session)) == []
    training.close()


@pytest.mark.parametrize(
    ("edit", "kind", "message"),
    [
        (RemoveNeurons("layers.1", (0, 1, 2, 3, 4)), Refused, "leave at least one|keep at least one"),
        (RemoveNeurons("head", (0,)), Refused, "network's output"),
        (OverrideBiases("head", (1,), values=[1.0, 2.0]), Invalid, "1"),
    ],
)
def test_what_cannot_be_done_changes_nothing(edit: Any, kind: type[Exception], message: str, root: Path) -> None:
    training = launch(experiment(), root_directory=root)
    session = training.trainer.session
    train(training, 2)
    ask(training, Pause())
    before = whole_state(session)
    with pytest.raises(kind, match=message):
        ask(training, EditNeurons(edit))
    assert differences(before, whole_state(session)) == []
    training.close()
