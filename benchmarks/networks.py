"""The same networks twice: from plain torch.nn layers, and from layers with neuron operations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps


@dataclass(frozen=True)
class Layers:
    """What to build from."""

    base: Any
    conv: Any
    norm: Any
    linear: Any


PLAIN = Layers(nn.Module, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
WATCHED = Layers(NetworkWithOps, Conv2dWithNeuronOps, BatchNorm2dWithNeuronOps, LinearWithNeuronOps)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, as in ResNet-18 (He et al., 2015)."""

    def __init__(self, layers: Layers, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.conv1 = layers.conv(incoming, outgoing, 3, stride=stride, padding=1, bias=False)
        self.bn1 = layers.norm(outgoing)
        self.conv2 = layers.conv(outgoing, outgoing, 3, padding=1, bias=False)
        self.bn2 = layers.norm(outgoing)
        self.short = None
        if stride != 1 or incoming != outgoing:
            self.short = layers.conv(incoming, outgoing, 1, stride=stride, bias=False)
            self.short_bn = layers.norm(outgoing)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.short is None else self.short_bn(self.short(x))))


def resnet18(layers: Layers, classes: int = 100) -> nn.Module:
    """ResNet-18 for images [batch, 3, 64, 64]."""

    class ResNet18(layers.base):  # type: ignore[misc, name-defined]  # plain or watched
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = layers.conv(3, 64, 7, stride=2, padding=3, bias=False)
            self.bn1 = layers.norm(64)
            widths = [64, 64, 128, 128, 256, 256, 512, 512]
            incoming = [64, *widths[:-1]]
            self.blocks = nn.ModuleList(
                Block(layers, i, o, 1 if i == o else 2) for i, o in zip(incoming, widths, strict=True)
            )
            self.fc = layers.linear(512, classes)

        def forward(self, x: torch.Tensor) -> Any:
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
            for block in self.blocks:
                x = block(x)
            return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    net = ResNet18()
    if isinstance(net, NetworkWithOps):
        net.register_dependencies(_resnet_edges(net))
    return net


def _resnet_edges(net: Any) -> list[tuple[nn.Module, nn.Module, DepType]]:
    edges = [(net.conv1, net.bn1, DepType.SAME)]
    sources = [net.bn1]
    for block in net.blocks:
        consumers = [block.conv1] if block.short is None else [block.conv1, block.short]
        edges += [(source, consumer, DepType.INCOMING) for source in sources for consumer in consumers]
        edges += [
            (block.conv1, block.bn1, DepType.SAME),
            (block.bn1, block.conv2, DepType.INCOMING),
            (block.conv2, block.bn2, DepType.SAME),
        ]
        sources = [block.bn2]
        if block.short is not None:
            edges.append((block.short, block.short_bn, DepType.SAME))
            sources.append(block.short_bn)
    return edges + [(source, net.fc, DepType.INCOMING) for source in sources]


def cifar_net(layers: Layers, classes: int = 10) -> nn.Module:
    """A plain convolutional network for images [batch, 3, 32, 32]."""

    class CifarNet(layers.base):  # type: ignore[misc, name-defined]  # plain or watched
        def __init__(self) -> None:
            super().__init__()
            widths = [3, 32, 64, 128]
            self.convs = nn.ModuleList(layers.conv(i, o, 3, padding=1) for i, o in itertools.pairwise(widths))
            self.norms = nn.ModuleList(layers.norm(o) for o in widths[1:])
            self.fc1 = layers.linear(128 * 4 * 4, 128)
            self.fc2 = layers.linear(128, classes)

        def forward(self, x: torch.Tensor) -> Any:
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = F.max_pool2d(F.relu(norm(conv(x))), 2)
            return self.fc2(F.relu(self.fc1(x.flatten(1))))

    net = CifarNet()
    if isinstance(net, NetworkWithOps):
        weighted = [*net.convs, net.fc1]
        edges = [(conv, norm, DepType.SAME) for conv, norm in zip(net.convs, net.norms, strict=True)]
        edges += [(norm, after, DepType.INCOMING) for norm, after in zip(net.norms, weighted[1:], strict=True)]
        net.register_dependencies([*edges, (net.fc1, net.fc2, DepType.INCOMING)])
    return net


def digits_net(layers: Layers) -> nn.Module:
    """The network of the default experiment, for images [batch, 3, 8, 8]."""
    if layers is WATCHED:
        from graybox.examples.digits import SimpleConvNet

        net = SimpleConvNet()
        net.define_deps()
        return net
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.25), nn.Linear(64, 10),
    )  # fmt: skip
