"""The structure of torchvision's networks, with random weights, on a few layers of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torch.utils._pytree import tree_leaves

from graybox.errors import Refused
from graybox.structure import Structure
from graybox.structure.change import Change
from tests.small_networks import one_thread  # noqa: F401
from tests.structure_cases import answered, unit
from tests.structure_oracles import (
    EXACT,
    NORMS,
    VISIBLE,
    apply_change,
    calibrate,
    check_attributes,
    check_change,
    difference,
    logits,
    masked,
    tensors,
)

pytestmark = pytest.mark.slow

LAYERS_OF_EACH = 5

# By name: the side of the image, and how many of the layers that are looked at must have an exact answer.
MODELS: dict[str, tuple[int, int]] = {
    "alexnet": (64, 4),
    "convnext_tiny": (64, 2),
    "densenet121": (64, 4),
    "efficientnet_b0": (64, 4),
    "googlenet": (64, 4),
    "inception_v3": (128, 4),
    "maxvit_t": (224, 1),
    "mnasnet0_5": (64, 4),
    "mobilenet_v2": (64, 4),
    "mobilenet_v3_small": (64, 4),
    "regnet_y_400mf": (64, 4),
    "resnet18": (64, 4),
    "resnext50_32x4d": (64, 4),
    "shufflenet_v2_x0_5": (64, 3),
    "squeezenet1_1": (64, 4),
    "swin_t": (64, 1),
    "vgg11_bn": (32, 4),
    "vit_b_16": (224, 1),
    "fcn_resnet50": (64, 4),
    "lraspp_mobilenet_v3_large": (64, 4),
}


# Layers that are looked at too, where those of the residual stream are most and are refused.
ALSO = {"vit_b_16": ["encoder.layers.encoder_layer_5.mlp.0"], "swin_t": ["features.3.0.mlp.0"]}


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """(the network in float64 and evaluation mode, two images), with statistics that are not the first ones."""
    side = MODELS[name][0]
    extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if name in ("fcn_resnet50", "lraspp_mobilenet_v3_large"):
        extra = {"weights_backbone": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None, **extra).double()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, NORMS) and isinstance(module.weight, torch.Tensor):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        with torch.no_grad():
            for name_of, parameter in network.named_parameters():
                if name_of.endswith("layer_scale"):  # 1e-6 hides what a neuron does
                    parameter.fill_(0.5)
        batches = [torch.randn(4, 3, side, side, dtype=torch.float64) for _ in range(2)]
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
            with torch.no_grad():
                calibrate(network, batches)
        return network.eval(), batches[0][:2]


def spread(layers: list[str]) -> list[str]:
    """Some of them, evenly by depth; not the last one, which is the output, nor those that only training uses."""
    inner = [layer for layer in layers[:-1] if "aux" not in layer.lower()]
    return [inner[(len(inner) - 1) * place // (LAYERS_OF_EACH - 1)] for place in range(LAYERS_OF_EACH)]


@pytest.mark.parametrize("name", MODELS)
def test_a_neuron_of_a_torchvision_model_goes_exactly_or_not_at_all(name: str) -> None:
    network, x = built(name)
    structure = Structure.trace(network, x[:1])
    weighted = [key for key, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    unseen = {key for key in weighted if "out_proj" in key or "aux" in key.lower()}
    assert set(weighted) - set(structure.layers) <= unseen
    exact = 0
    for layer in [*spread(list(structure.layers)), *ALSO.get(name, ())]:
        known = structure.layers[layer]
        middle = tensors(network)[known.weight].shape[known.out_axis] // 2
        # Several, since the one in the middle may be dead behind a ReLU.
        for more in range(6):
            answer = judged(network, x, removal(structure, layer, middle + more))
            if answer != "invisible":
                break
        assert answer != "invisible", layer
        exact += answer == "exact"
    assert exact >= MODELS[name][1]


def judged(network: nn.Module, x: torch.Tensor, change: Change | None) -> str:
    if change is None:
        return "refused"
    check_change(network, change)
    edited = apply_change(network, change)
    check_attributes(edited)
    if not change.inexact:
        mask = logits(masked(network, change), x)
        error = difference(logits(edited, x), mask)
        assert error <= EXACT, f"{change.layer}{change.neurons[change.layer]}: the logits are off by {error:.3g}"
        if difference(logits(network, x), mask) < VISIBLE:
            return "invisible"
    learns(edited, x)
    return "inexact" if change.inexact else "exact"


def removal(structure: Structure, layer: str, neuron: int) -> Change | None:
    answer = answered(lambda: structure.removal(layer, [neuron]))
    if isinstance(answer, Refused):
        together = unit(answer, neuron)
        return structure.removal(layer, together) if together else None
    return answer


def learns(network: nn.Module, x: torch.Tensor) -> None:
    """Forward and backward in training mode; every parameter gets a gradient of its own shape."""
    network.train()
    answers: list[torch.Tensor] = [leaf for leaf in tree_leaves(network(x)) if isinstance(leaf, torch.Tensor)]
    torch.stack([answer.square().mean() for answer in answers]).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("edit", ["add", "reorder"])
def test_neurons_of_a_torchvision_model_come_and_change_places(name: str, edit: str) -> None:
    network, x = built(name)
    structure = Structure.trace(network, x[:1])
    expected = logits(network, x)
    done = 0
    for layer in spread(list(structure.layers)):
        known = structure.layers[layer]
        size = tensors(network)[known.weight].shape[known.out_axis]
        change = other(structure, layer, size, edit)
        if change is None or change.inexact:
            continue
        edited = apply_change(network, change)
        assert difference(logits(edited, x), expected) <= EXACT, layer
        check_attributes(edited)
        learns(edited, x)
        done += 1
    assert done >= 3


def other(structure: Structure, layer: str, size: int, edit: str) -> Change | None:
    def ask(count: int) -> Callable[[], Change]:
        if edit == "add":
            return lambda: structure.addition(layer, count)
        return lambda: structure.reordering(layer, [*range(size // 2, size), *range(size // 2)])

    answer = answered(ask(2))
    if isinstance(answer, Refused):
        more = getattr(answer, "details", {}).get("together", 0) if edit == "add" else 0
        return ask(more)() if more else None
    return answer
