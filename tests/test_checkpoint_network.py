from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graybox.checkpoint_network import bring_network_to, weights_in
from graybox.commands import EditNeurons, Pause, SaveCheckpoint
from graybox.comparison.side import checkpoint_of
from graybox.errors import Refused
from graybox.neuron_ops import AddNeurons, RemoveNeurons, SortByStat
from graybox.weight_files import weights_of
from tests.compared_runs import ask, train, training
from tests.edited_networks import shapes
from tests.small_networks import bits
from tests.test_structural_life import Plain, experiment


class WithBuffer(Plain):
    """A buffer of as many numbers as a layer has neurons, which no state_dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 6)[:, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.layers[0](x)) * self.scale
        x = x + self.back(torch.relu(self.norm(self.layers[1](x))))
        answer: torch.Tensor = self.head(torch.max_pool2d(torch.relu(x), 2).flatten(1))
        return answer


def edited_run(root: Path, model: nn.Module) -> tuple[dict[str, bytes], torch.Tensor, torch.Tensor]:
    """A run with a checkpoint after edits: (its weights, an input, what the network answers)."""
    with training(root, model=model) as made:
        train(made, 2)
        ask(made, EditNeurons(RemoveNeurons("layers.1", (1, 3))))
        ask(made, EditNeurons(AddNeurons("layers.0", count=2)))
        train(made, 2)
        ask(made, EditNeurons(SortByStat("layers.0", statistic="weight_norm")))
        ask(made, Pause())
        ask(made, SaveCheckpoint("edited"))
        network = made.experiment.model
        x = torch.randn(3, 1, 4, 4)
        with torch.no_grad():
            network.eval()
            answer = network(x)
            network.train()
        return {name: bits(value) for name, value in network.state_dict().items()}, x, answer


def test_weights_of_a_checkpoint_come_without_any_code(root: Path) -> None:
    kept, _, _ = edited_run(root, Plain())
    place, record, payload = checkpoint_of(str(root))
    weights = weights_in(payload, record, ["a", "b", "c"])
    assert {name: bits(value) for name, value in weights.tensors.items()} == kept
    changes = weights.changes()
    built = shapes(Plain())
    assert changes is not None and {name: tuple(change["built"] or ()) for name, change in changes.items()} == {
        name: shape for name, shape in built.items() if shape != tuple(weights.tensors[name].shape)
    }
    assert weights.attributes["layers.1"]["out_channels"] == 3 and weights.attributes["layers.0"]["out_channels"] == 8
    assert weights.others["step"] == str(record.step) and weights.others["run"] == place.run.run_id


@pytest.mark.parametrize("make", [Plain, WithBuffer])
def test_the_users_network_is_brought_to_a_checkpoint(make: Any, root: Path) -> None:
    kept, x, answer = edited_run(root, make())
    _, record, payload = checkpoint_of(str(root))
    fresh = experiment(model=make())
    bring_network_to(fresh, payload, record)
    assert {name: bits(value) for name, value in fresh.model.state_dict().items()} == kept
    fresh.model.eval()
    with torch.no_grad():
        assert bits(fresh.model(x)) == bits(answer)
    assert weights_of(fresh.model).attributes == weights_in(payload, record).attributes


def test_another_network_is_refused_with_every_difference(root: Path) -> None:
    edited_run(root, Plain())
    _, record, payload = checkpoint_of(str(root))
    other: Any = Plain()
    other.back = nn.Conv2d(5, 6, 1, bias=False)
    other.more = nn.Linear(2, 2)
    fresh = experiment(model=other)
    before = {name: bits(value) for name, value in fresh.model.state_dict().items()}
    with pytest.raises(Refused) as told:
        bring_network_to(fresh, payload, record)
    message = str(told.value)
    assert message.startswith(f"checkpoint {record.id} was made with another network: ")
    assert "back.bias is [6] there and missing here" in message
    assert "more.weight is missing there and [2, 2] here" in message and "layers.0" not in message
    assert {name: bits(value) for name, value in fresh.model.state_dict().items()} == before
