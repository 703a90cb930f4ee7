"""torchvision's classification networks with random weights, so that a difference of 1e-9 means something."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

SIDE = 64
"""Of an image, in pixels; small, so that many networks are run in little time."""
SIDES = {"maxvit_t": 224, "inception_v3": 299}
"""What cannot do with so few: windows of 7 in four halved stages; an auxiliary head that pools twice."""
SKIPPED = {
    "vit_h_14": "5 GB of weights in float64, four times that with gradients and Adam",
    "regnet_y_128gf": "5 GB of weights in float64, four times that with gradients and Adam",
}
"""Left out for memory, by name."""

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Subject:
    """A network in float64 and evaluation mode, and a batch of two images for it."""

    name: str
    network: nn.Module
    images: torch.Tensor


def names() -> list[str]:
    """Every classification model that torchvision knows, but for those that are skipped."""
    return [name for name in torchvision.models.list_models(module=torchvision.models) if name not in SKIPPED]


def subject(name: str, seed: int = 0) -> Subject:
    """Gains in [0.5, 1.5], shifts in [-0.3, 0.3] and layer scales of 0.5, not 1, 0 and 1e-6, and no weight that is all
    zero: these would hide what a neuron does. Running statistics are the averages over four batches of eight random
    images."""
    side = SIDES.get(name, SIDE)
    extra: dict[str, Any] = {}
    if name.startswith("vit_"):
        extra["image_size"] = side
    if name in ("googlenet", "inception_v3"):
        extra["init_weights"] = True  # it warns otherwise
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = torchvision.models.get_model(name, weights=None, **extra).double()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, NORMS) and isinstance(module.weight, torch.Tensor):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        for key, parameter in network.named_parameters():
            if key.endswith("layer_scale"):
                parameter.fill_(0.5)
            elif parameter.dim() > 1 and not parameter.any():  # the head of a vision transformer
                parameter.normal_(std=0.02)
        calibrate(network, [torch.randn(8, 3, side, side, dtype=torch.float64) for _ in range(4)])
        return Subject(name, network.eval(), torch.randn(2, 3, side, side, dtype=torch.float64))


def calibrate(network: nn.Module, batches: list[torch.Tensor]) -> None:
    """Running statistics become the averages over some batches."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain average
        norm.reset_running_stats()
    network.train()
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What it answers in evaluation mode."""
    network.eval()
    with torch.no_grad():
        answer: torch.Tensor = network(images)
    return answer


def difference(answer: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, relative to the largest logit; infinite where the shapes differ or a number is none."""
    if answer.shape != expected.shape or not bool(answer.isfinite().all()):
        return float("inf")
    return float((answer - expected).abs().max() / expected.abs().max())


def spread(count: int, wanted: int) -> list[int]:
    """Some numbers of range(count), the middle one first."""
    places = (count * k // (2 * wanted) for k in itertools.chain([wanted], range(1, 2 * wanted, 2)))
    return list(dict.fromkeys(places))
