"""Checkpoints of other structures: whatever edits lie between two of them, each brings back what was there to the bit,
forwards and backwards, with everything or the weights alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from graybox.checkpoint import read_payload
from graybox.commands import EditNeurons, Pause, RestoreCheckpoint, SaveCheckpoint, Undo
from graybox.errors import Invalid, NotFound, Refused
from graybox.launch import Training, launch
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    NeuronEdit,
    Reinitialize,
    RemoveNeurons,
    SetLearningRate,
    SortByStat,
    edit_from_json,
)
from graybox.session import Session
from graybox.training_step import evaluation_mode
from tests.small_experiments import toy_data, toy_experiment, whole_state
from tests.small_networks import differences
from tests.test_structural_life import Plain, ask, unfolded


class Attending(nn.Module):
    """A layer of a transformer over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)
        # Not in a state_dict, and changed by training all the same.
        self.register_buffer("seen", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += x.detach().mean()
        logits: torch.Tensor = self.head(self.layer(self.rows(x[:, 0])).mean(1))
        return logits + self.seen


class Depthwise(nn.Module):
    """A convolution per channel between two that mix them, and a shortcut that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.each = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.mix = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.cat((torch.relu(self.mix(self.each(x))), x), 1)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


NETWORKS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "residual": (Plain, ("layers.0", "layers.1", "back", "head")),
    "transformer": (Attending, ("rows", "layer.linear1", "layer.linear2", "head")),
    "depthwise": (Depthwise, ("first", "each", "mix", "head")),
}

edits = st.builds(
    lambda kind, layer, neuron, count: (kind, layer, neuron, count),
    st.sampled_from(["remove", "remove", "add", "add", "sort", "freeze", "reinitialise", "slow", "undo", "train"]),
    st.integers(0, 3),
    st.integers(0, 11),
    st.integers(1, 3),
)


def edit_of(kind: str, layer: str, neuron: int, count: int, size: int) -> NeuronEdit:
    neurons = tuple(sorted({(neuron + step) % size for step in range(count)}))
    made: dict[str, NeuronEdit] = {
        "remove": RemoveNeurons(layer, neurons),
        "add": AddNeurons(layer, count=count),
        "sort": SortByStat(layer, statistic="weight_norm"),
        "freeze": Freeze(layer, neurons),
        "reinitialise": Reinitialize(layer, neurons),
        "slow": SetLearningRate(layer, neurons, 0.5),
    }
    return made[kind]


def make(training: Training, layers: tuple[str, ...], edit: tuple[str, int, int, int]) -> None:
    """Do it, or nothing where it is refused, which is another test's matter."""
    kind, layer, neuron, count = edit
    session = training.trainer.session
    if kind == "train":
        session.train_one_step()
        return
    command: Any = Undo()
    if kind != "undo":
        size = session.network.find_layer(layers[layer])[1].neuron_count
        command = EditNeurons(edit_of(kind, layers[layer], neuron, count, size))
    with suppress(Refused, Invalid, NotFound):
        ask(training, command)


INPUTS = toy_data(16, seed=5).tensors[0]


def answers(session: Session) -> torch.Tensor:
    with evaluation_mode(session.network):
        found: torch.Tensor = session.network(INPUTS)
        return found.clone()


@contextmanager
def at_work(network: str) -> Iterator[Training]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as root:
        training = launch(toy_experiment(model=NETWORKS[network][0]()), root_directory=Path(root))
        try:
            ask(training, Pause())
            for _ in range(2):
                training.trainer.session.train_one_step()
            yield training
        finally:
            training.close()


@dataclass(frozen=True)
class Moment:
    """What was there when a checkpoint was made."""

    checkpoint: str
    logits: torch.Tensor
    weights: dict[str, torch.Tensor]
    state: dict[str, Any]
    shapes: list[list[Any]]


def moment(training: Training) -> Moment:
    session = training.trainer.session
    saved = ask(training, SaveCheckpoint()).value
    weights = {name: value.clone() for name, value in session.network.state_dict().items()}
    return Moment(saved.id, answers(session), weights, unfolded(whole_state(session)), session.structure())


@pytest.mark.parametrize("network", sorted(NETWORKS))
@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.lists(edits, min_size=1, max_size=5), min_size=2, max_size=3),
    walk=st.lists(st.tuples(st.integers(0, 3), st.booleans(), edits), min_size=4, max_size=7),
)
def test_every_moment_comes_back_whatever_edits_lie_between(
    network: str, parts: list[list[tuple[str, int, int, int]]], walk: list[tuple[int, bool, tuple[str, int, int, int]]]
) -> None:
    layers = NETWORKS[network][1]
    with at_work(network) as training:
        session = training.trainer.session
        moments = [moment(training)]
        for part in parts:
            for edit in part:
                make(training, layers, edit)
            session.train_one_step()
            moments.append(moment(training))
        for number, weights_only, edit in walk:
            there = moments[number % len(moments)]
            reference = f"{there.checkpoint}@@weights_step={session.stores.checkpoints.get(there.checkpoint).step}"
            ask(training, RestoreCheckpoint(reference if weights_only else there.checkpoint))
            assert torch.equal(answers(session), there.logits)
            assert differences(there.weights, dict(session.network.state_dict())) == []
            assert session.structure() == there.shapes
            if not weights_only:
                assert differences(there.state, unfolded(whole_state(session))) == []
            make(training, layers, edit)
            session.train_one_step()
            assert torch.isfinite(answers(session)).all()


@pytest.mark.parametrize("network", sorted(NETWORKS))
@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.lists(edits, min_size=1, max_size=5), min_size=1, max_size=3),
    back=st.lists(st.integers(0, 3), max_size=2),
)
def test_the_edits_in_a_checkpoint_lead_to_its_structure(
    network: str, parts: list[list[tuple[str, int, int, int]]], back: list[int]
) -> None:
    """Done one after the other to what the code builds, they give the shapes."""
    layers = NETWORKS[network][1]
    with at_work(network) as training:
        moments: list[Moment] = []
        for number, part in enumerate(parts):
            for edit in part:
                make(training, layers, edit)
            moments.append(moment(training))
            if number < len(back):
                ask(training, RestoreCheckpoint(moments[back[number] % len(moments)].checkpoint))
        folder = training.stores.checkpoints.folder
        payloads = [read_payload(folder / f"{each.checkpoint}.pt") for each in moments]
    for there, payload in zip(moments, payloads, strict=True):
        assert payload["structure"] == there.shapes
        with at_work(network) as fresh:
            session = fresh.trainer.session
            for told in payload["edits"]:
                session.surgeon.apply(session.surgeon.plan(edit_from_json(told["edit"])), seed=0)
            assert session.structure() == there.shapes
            sequences = [told["sequence"] for told in payload["edits"]]
            assert sequences == sorted(sequences) and all(told["summary"] for told in payload["edits"])
