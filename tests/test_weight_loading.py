from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from graybox.errors import Invalid, Refused
from graybox.launch import launch
from graybox.neuron_ops import RemoveNeurons
from graybox.operable_network import operable
from graybox.plain_network import same_answers
from graybox.weight_files import save_safetensors, save_state_dict
from graybox.weight_loading import load_weights
from tests.edited_networks import edited, shapes, watched
from tests.small_experiments import toy_experiment
from tests.small_networks import (
    ChainNet,
    bits,
    built,
    one_thread,  # noqa: F401
)
from tests.structure_oracles import check_attributes
from tests.surgery_cases import Desk
from tests.topologies import TOPOLOGIES

SAVES = {"state_dict": save_state_dict, "safetensors": save_safetensors}
AMBIGUOUS = {"GroupNorms"}
"""Their shapes alone leave open how many groups there are."""


def answers(network: nn.Module, x: torch.Tensor) -> Any:
    with torch.no_grad():
        return network.eval()(x)


def all_bits(network: nn.Module) -> dict[str, bytes]:
    return {name: bits(value) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("kind", SAVES)
def test_weights_of_the_same_sizes(kind: str, tmp_path: Path) -> None:
    desk = Desk("Residual")
    SAVES[kind](desk.network, tmp_path / "net")
    plain = TOPOLOGIES["Residual"]().double()
    load_weights(plain, tmp_path / "net")
    assert all_bits(plain) == all_bits(desk.plain)
    other = Desk("Residual", steps=6)
    parameters = list(other.network.parameters())
    assert all_bits(other.plain) != all_bits(desk.plain)
    load_weights(other.network, tmp_path / "net")
    assert all_bits(other.plain) == all_bits(desk.plain)
    assert all(a is b for a, b in zip(parameters, other.network.parameters(), strict=True)), "an optimizer holds them"


@pytest.mark.parametrize("kind", SAVES)
@pytest.mark.parametrize("name", sorted([*random.Random(1).sample(sorted(TOPOLOGIES), 12), "Depthwise", "GroupNorms"]))
def test_the_class_that_built_the_whole_network_takes_an_edited_one(name: str, kind: str, tmp_path: Path) -> None:
    desk = edited(name)
    SAVES[kind](desk.network, tmp_path / "net")
    plain = TOPOLOGIES[name]().double()
    if kind == "state_dict" and name in AMBIGUOUS:
        before = shapes(plain)
        with pytest.raises(Refused, match=r"do not tell how many groups .* has now: load a file of safetensors"):
            load_weights(plain, tmp_path / "net", resize=True)
        assert shapes(plain) == before
        return
    load_weights(plain, tmp_path / "net", resize=True)
    assert all_bits(plain) == all_bits(desk.plain)
    check_attributes(plain)
    assert same_answers(answers(plain, desk.x), answers(desk.network, desk.x))


def test_a_larger_network_and_training_goes_on(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 32, 32)
    network = watched(torchvision.models.resnet18(num_classes=5), x)
    save_safetensors(network, tmp_path / "net")
    plain = torchvision.models.resnet18(num_classes=5)
    load_weights(plain, tmp_path / "net", resize=True)
    assert same_answers(answers(plain, x), answers(network, x))
    optimizer = torch.optim.Adam(plain.parameters())
    plain.train()(x).sum().backward()
    optimizer.step()
    assert not same_answers(answers(plain, x), answers(network, x))


def test_a_network_with_neurons_takes_other_sizes_too(tmp_path: Path) -> None:
    source = built(ChainNet)
    source.surgeon().apply(source.surgeon().plan(RemoveNeurons("conv1", (2,))), 1)
    save_safetensors(source, tmp_path / "net")
    x = ChainNet.example(4)
    network = operable(built(ChainNet, seed=1), x)
    load_weights(network, tmp_path / "net", resize=True)
    layer = network.find_layer("conv1")[1]
    assert layer.neuron_count == len(layer.frozen) == 3 and len(network.find_layer("conv2")[1].incoming_frozen) == 3
    assert same_answers(answers(network, x), answers(source, x))
    network.surgeon().apply(network.surgeon().plan(RemoveNeurons("conv1", (1,))), 1)
    assert network.find_layer("conv2")[1].weight.shape[1] == 2


def test_every_difference_is_told_and_nothing_changes(tmp_path: Path) -> None:
    source = Desk("Chain")
    source.do(RemoveNeurons("conv1", (1,)))
    save_state_dict(source.network, tmp_path / "small.pt")
    torch.save({"conv1.weight": torch.zeros(5, 2, 3), "other": torch.zeros(1)}, tmp_path / "other.pt")
    target = Desk("Chain", steps=0)
    before = all_bits(target.plain)
    with pytest.raises(Invalid) as told:
        load_weights(target.network, tmp_path / "small.pt")
    message = str(told.value)
    wrong = {n for n, shape in shapes(source.plain).items() if shape != shapes(target.plain)[n]}
    assert len(wrong) >= 6
    assert all(f"{name} has the shape" in message for name in wrong)
    assert message.startswith("small.pt does not fit Chain") and "resize=True takes over other sizes" in message
    for resize in (False, True):
        with pytest.raises(Invalid) as told:
            load_weights(target.network, tmp_path / "other.pt", resize=resize)
        message = str(told.value)
        assert "other is not in this network" in message and "fc2.bias is missing there" in message
        assert "conv1.weight has the shape [5, 2, 3] there and [5, 2, 3, 3] here" in message
        assert "resize=True" not in message
    assert all_bits(target.plain) == before


def test_while_a_run_trains_the_network_nothing_is_loaded(root: Path, tmp_path: Path) -> None:
    experiment = toy_experiment()
    save_state_dict(experiment.model, tmp_path / "net.pt")
    training = launch(experiment, root_directory=root)
    training.trainer.tick()
    before = all_bits(experiment.model)
    with pytest.raises(Refused, match="a run trains this network, and could not replay this"):
        load_weights(experiment.model, tmp_path / "net.pt")
    assert all_bits(experiment.model) == before
    training.close()
    load_weights(experiment.model, tmp_path / "net.pt")
    assert all_bits(experiment.model) != before


def test_other_sizes_than_an_optimizer_knows_are_refused(tmp_path: Path) -> None:
    source = Desk("Chain")
    source.do(RemoveNeurons("conv1", (1,)))
    save_safetensors(source.network, tmp_path / "net")
    target = Desk("Chain")
    target.network.trained_by(target.surgeon)
    before = all_bits(target.plain)
    with pytest.raises(Refused, match="an optimizer trains this network, whose state would not fit"):
        load_weights(target.network, tmp_path / "net", resize=True)
    assert all_bits(target.plain) == before


class Rigid(nn.Module):
    """A number in its code says how many features there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).view(-1, 4))


def test_sizes_that_the_code_does_not_allow_are_refused_before_anything_changes(tmp_path: Path) -> None:
    small = nn.ModuleDict({"first": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    save_state_dict(small, tmp_path / "net.pt")
    network = operable(Rigid(), torch.ones(2, 3))
    before = shapes(network), all_bits(network)
    with pytest.raises(Refused, match="Rigid cannot have these sizes: RuntimeError"):
        load_weights(network, tmp_path / "net.pt", resize=True)
    assert (shapes(network), all_bits(network)) == before


def test_attributes_that_a_file_makes_up_are_not_set(tmp_path: Path) -> None:
    import json

    import safetensors.torch

    small = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    told = {"0": {"out_features": 3, "forward": 7, "training": 1, "weight": 3, "bias": None}, "9": {"in_features": 1}}
    metadata = {"attributes": json.dumps(told)}
    safetensors.torch.save_file(dict(small.state_dict()), tmp_path / "net", metadata=metadata)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    load_weights(network, tmp_path / "net", resize=True)
    assert network[0].out_features == 3 and "forward" not in vars(network[0]) and network[0].training is True
    assert same_answers(answers(network, torch.ones(1, 3)), answers(small, torch.ones(1, 3)))


def test_what_is_one_tensor_stays_one(tmp_path: Path) -> None:
    desk = edited("TiedEmbedding", seed=3, count=12)
    assert shapes(desk.plain) != shapes(TOPOLOGIES["TiedEmbedding"]())
    save_safetensors(desk.network, tmp_path / "net")
    plain: Any = TOPOLOGIES["TiedEmbedding"]().double()
    load_weights(plain, tmp_path / "net", resize=True)
    assert plain.out.weight is plain.embed.weight
