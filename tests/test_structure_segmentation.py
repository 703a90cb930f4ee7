"""torchvision's segmentation networks with random weights: a map of classes instead of logits, backbones with dilated
convolutions, pyramids of pooling that are resized and concatenated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from graybox.errors import Refused
from graybox.neuron_ops import AddNeurons, RemoveNeurons
from graybox.operable_network import operable
from tests.small_networks import one_thread  # noqa: F401
from tests.structure_oracles import EXACT, NORMS, VISIBLE, calibrate, difference, logits, masked

NETWORKS = {  # where it is cut: in the backbone, on its residual stream, in the head
    "lraspp_mobilenet_v3_large": ("backbone.4.block.0.0", "backbone.3.block.2.0", "classifier.cbr.0"),
    "deeplabv3_mobilenet_v3_large": ("backbone.5.block.0.0", "backbone.12.block.3.0", "classifier.0.convs.1.0"),
    "fcn_resnet50": ("backbone.layer3.2.conv1", "backbone.layer2.0.conv3", "classifier.0"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[str, Any, torch.Tensor]:
    """In float64, with gains and shifts that show what a neuron does, and calibrated statistics."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = torchvision.models.get_model(request.param, weights=None, weights_backbone=None, num_classes=5)
        network = network.double()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, NORMS) and isinstance(module.weight, torch.Tensor):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.5)
        calibrate(network, [torch.randn(4, 3, 48, 48, dtype=torch.float64) for _ in range(2)])
        x = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    return request.param, operable(network.eval(), x), x


@pytest.mark.parametrize("place", range(3))
def test_neurons_go_and_come_exactly(case: tuple[str, Any, torch.Tensor], place: int) -> None:
    kind, network, x = case
    name = NETWORKS[kind][place]
    before = logits(network, x)
    surgeon = network.surgeon()

    plan = surgeon.plan(RemoveNeurons(name, (1, 5)))
    assert plan.change is not None
    expected = logits(masked(network, plan.change), x)
    assert difference(before, expected) >= VISIBLE
    removed = surgeon.apply(plan, seed=1)
    assert difference(logits(network, x), expected) <= EXACT
    surgeon.undo(removed.undo, removed.arrays)
    assert torch.equal(logits(network, x), before)

    added = surgeon.apply(surgeon.plan(AddNeurons(name, count=2)), seed=2)
    assert difference(logits(network, x), before) <= EXACT
    surgeon.undo(added.undo, added.arrays)
    assert torch.equal(logits(network, x), before)


@pytest.mark.slow
def test_every_layer_but_the_outputs_can_be_cut(case: tuple[str, Any, torch.Tensor]) -> None:
    _, network, _ = case
    surgeon, refused = network.surgeon(), []
    for name, layer in network.named_layers():
        if layer.neuron_count < 2:
            continue
        try:
            surgeon.plan(RemoveNeurons(name, (0,)))
        except Refused as refusal:
            refused.append(name)
            assert "answer" in str(refusal) or "output" in str(refusal)
    assert 1 <= len(refused) <= 2, refused
