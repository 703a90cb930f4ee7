"""Layers of complex numbers train, are edited and are left out of what is counted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.utils.data import TensorDataset

from graybox.commands import EditNeurons
from graybox.experiment import Experiment
from graybox.neuron_ops import AddNeurons, Freeze, NeuronEdit, Reinitialize, RemoveNeurons, SetLearningRate
from graybox.neuron_statistics import layer_statistics
from graybox.operable_network import operable


class Spectral(nn.Module):
    """Two complex layers between two of real numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 12)
        self.wave = nn.Linear(12, 10, dtype=torch.complex64)
        self.phase = nn.Linear(10, 8, dtype=torch.complex64)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x)).to(torch.complex64)
        answer: torch.Tensor = self.last(self.phase(torch.tanh(self.wave(x))).abs())
        return answer


@pytest.fixture
def experiment(root: Path) -> Any:
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    data = TensorDataset(x, torch.randint(0, 4, (64,)))
    made = Experiment(
        model=operable(Spectral(), x[:1]), optimizer_class=optim.Adam, train_dataset=data, eval_dataset=data,
        device="cpu", learning_rate=1e-2, batch_size=16, training_steps_to_do=100, root_log_dir=root, seed=1,
    )  # fmt: skip
    yield made
    made.close()


def test_it_trains_and_says_once_what_is_not_recorded(experiment: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        experiment.train_n_steps(6)
        experiment.eval_full()
    assert [r.message for r in caplog.records if "complex" in r.message] == [
        "activations that are complex numbers are not recorded: what triggers is a positive value"
    ]
    layers = dict(experiment.model.named_layers())
    assert layers["wave"].train_dataset_tracker.get_neuron_age(0) == 0  # nothing is said of what was not looked at
    assert layers["phase"].train_dataset_tracker.get_neuron_age(0) == 96  # read where it is real again
    for name, layer in layers.items():
        statistics = layer_statistics(experiment.model, name, layer, name == "last", fresh=True)
        rows = layer.weight.detach()
        lengths = torch.linalg.vector_norm(torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows, dim=1)
        assert np.allclose(statistics.weight_norm, lengths.numpy(), rtol=1e-6)
        assert np.isfinite(statistics.gradient_norm).all() and np.isfinite(statistics.relative_change).all()


@pytest.mark.parametrize("layer", ["wave", "phase"])
def test_its_neurons_are_edited_as_others(experiment: Experiment, layer: str) -> None:
    experiment.train_n_steps(2)
    network = experiment.model
    probe = torch.randn(8, 16)

    def answer() -> torch.Tensor:
        network.eval()
        with torch.no_grad():
            return network(probe)

    def edit(what: NeuronEdit) -> None:
        experiment.loop().command(EditNeurons(what))

    before = answer()
    edit(AddNeurons(layer, count=2))
    torch.testing.assert_close(answer(), before)
    consumer = network.find_layer("phase" if layer == "wave" else "last")[1]
    with torch.no_grad():
        column = consumer.weight[:, 3].clone()
        consumer.weight[:, 3] = 0
        expected = answer()
        consumer.weight[:, 3] = column
    edit(RemoveNeurons(layer, (3,)))
    torch.testing.assert_close(answer(), expected)
    edit(Freeze(layer, (0,)))
    edit(SetLearningRate(layer, (1,), rate=0.5))
    edit(Reinitialize(layer, (2,)))
    module = network.find_layer(layer)[1]
    frozen, free = module.weight[0].detach().clone(), module.weight[1].detach().clone()
    experiment.train_n_steps(3)
    assert torch.equal(module.weight[0], frozen) and not torch.equal(module.weight[1], free)
