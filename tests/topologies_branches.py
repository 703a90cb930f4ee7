"""Convolutional networks with branches: sums, concatenations, gates, several inputs of one layer, several outputs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from tests.topology import Images, Topology, Verdicts, conv_bn


class Residual(Images):
    verdicts: ClassVar[Verdicts] = {
        "stem": "exact",
        "conv1.0": "exact",
        "conv2": "exact",
        "conv3.0": "exact",
        "conv4": "exact",
        "head": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.conv1 = conv_bn(4, 5)
        self.conv2 = nn.Conv2d(5, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.conv3 = conv_bn(4, 3)
        self.conv4 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(x + self.bn2(self.conv2(self.conv1(x))))
        y = self.bn4(self.conv4(self.conv3(x)))
        y += x
        return self.head(F.adaptive_avg_pool2d(F.relu(y), 2).flatten(1))


class Bottleneck(nn.Module):
    def __init__(self, incoming: int, middle: int, neurons: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, neurons, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(neurons)
        self.downsample = (
            nn.Identity()
            if incoming == neurons
            else nn.Sequential(nn.Conv2d(incoming, neurons, 1), nn.BatchNorm2d(neurons))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(torch.add(self.bn3(self.conv3(y)), self.downsample(x)))


class Bottlenecks(Images):
    """The first block changes the number of channels, the second does not."""

    verdicts: ClassVar[Verdicts] = {
        "stem.0": "exact",
        "first.conv1": "exact",
        "first.conv2": "exact",
        "first.conv3": "exact",
        "first.downsample.0": "exact",
        "second.conv2": "exact",
        "second.conv3": "exact",
        "head": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(2, 4)
        self.first = Bottleneck(4, 3, 6)
        self.second = Bottleneck(6, 3, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.stem(x))).mean((2, 3)))


class PaddedShortcut(Images):
    """A shortcut that adds channels of zeros, as in the ResNets for CIFAR."""

    verdicts: ClassVar[Verdicts] = {"stem.0": "any", "conv1.0": "exact", "conv2": "any", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(2, 4)
        self.conv1 = conv_bn(4, 5, stride=2)
        self.conv2 = nn.Conv2d(5, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.bn2(self.conv2(self.conv1(x)))
        y = y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(F.relu(y).mean((2, 3)))


class Dense(Images):
    """Three layers that each get all that came before; the normalisation is over the concatenation."""

    verdicts: ClassVar[Verdicts] = {
        "stem": "exact",
        "convs.0": "exact",
        "convs.1": "exact",
        "convs.2": "exact",
        "head": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * i, 3, 3, padding=1, bias=False) for i in range(3))
        self.norm = nn.BatchNorm2d(13)
        self.head = nn.Linear(13, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for norm, convolution in zip(self.norms, self.convs, strict=True):
            features.append(convolution(F.relu(norm(torch.cat(features, 1)))))
        return self.head(F.relu(self.norm(torch.cat(features, dim=1))).mean((2, 3)))


class SqueezeExcitation(Images):
    verdicts: ClassVar[Verdicts] = {
        "conv1.0": "exact",
        "squeeze": "exact",
        "excite": "exact",
        "conv2": "exact",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(2, 5)
        self.squeeze = nn.Conv2d(5, 4, 1)
        self.excite = nn.Conv2d(4, 5, 1)
        self.conv2 = nn.Conv2d(5, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(F.relu(self.conv2(gate * x)).mean((2, 3)))


class UNet(Images):
    verdicts: ClassVar[Verdicts] = {
        "down1.0": "exact",
        "down2.0": "exact",
        "up": "exact",
        "join.0": "exact",
        "out": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.down1 = conv_bn(2, 4)
        self.down2 = conv_bn(4, 5)
        self.up = self.upwards()
        self.join = conv_bn(3 + 4, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def upwards(self) -> nn.Module:
        return nn.ConvTranspose2d(5, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down1(x)
        x = self.up(self.down2(F.max_pool2d(skip, 2)))
        return self.out(self.join(torch.cat([x, skip], dim=1)))


class UNetUpsample(UNet):
    verdicts: ClassVar[Verdicts] = {"down1.0": "exact", "down2.0": "exact", "up.1": "exact", "join.0": "exact"}

    def upwards(self) -> nn.Module:
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(5, 3, 1))


class Inception(Images):
    """Branches side by side, and a second classifier that is used in training only."""

    verdicts: ClassVar[Verdicts] = {
        "stem.0": "exact",
        "branch1.0": "exact",
        "branch2.0.0": "exact",
        "branch2.1.0": "exact",
        "branch3.0": "exact",
        "auxiliary.0": "exact",
        "last.0": "exact",
        "auxiliary_head": "refused:output",
        "head": "refused:output",
    }
    both_modes = True

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(2, 4)
        self.branch1 = conv_bn(4, 3, 1)
        self.branch2 = nn.Sequential(conv_bn(4, 3, 1), conv_bn(3, 4))
        self.branch3 = conv_bn(4, 2, 1)
        self.auxiliary = conv_bn(9, 4, 1)
        self.auxiliary_head = nn.Linear(4, 3)
        self.last = conv_bn(9, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1)
        x = torch.cat([self.branch1(x), self.branch2(x), self.branch3(pooled)], 1)
        logits = self.head(self.last(x).mean((2, 3)))
        if self.training:
            return logits, self.auxiliary_head(self.auxiliary(x).mean((2, 3)))
        return logits


class LayerScale(Images):
    """A learned factor for each channel of a residual branch, and a fixed shift of the channels."""

    verdicts: ClassVar[Verdicts] = {"stem": "exact", "block.0": "exact", "last": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 2)
        self.register_buffer("shift", torch.linspace(-1, 1, 4).view(1, 4, 1, 1))
        self.block = conv_bn(4, 5)
        self.last = nn.Conv2d(5, 4, 1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4).view(4, 1, 1))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x) + self.shift
        x = x + self.scale * self.last(self.block(x))
        return self.head(x.mean((2, 3)))


class ConvNeXtBlock(Images):
    """Channels last inside the block; the LayerNorm mixes the stream, after the depthwise convolution."""

    verdicts: ClassVar[Verdicts] = {
        "stem": "inexact:norm",
        "depthwise": "inexact:norm",
        "wide": "exact",
        "narrow": "inexact:norm",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(4)
        self.wide = nn.Linear(4, 7)
        self.narrow = nn.Linear(7, 4)
        self.scale = nn.Parameter(torch.full((4,), 0.7))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class SpatialAttention(Images):
    """Means over the channels gate the positions, as in CBAM."""

    verdicts: ClassVar[Verdicts] = {
        "conv1": "inexact-or-refused:",
        "conv2": "exact",
        "gate": "refused:",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.gate = nn.Conv2d(2, 1, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(F.relu(self.conv2(x * torch.sigmoid(self.gate(seen)))).mean((2, 3)))


class Outputs(Images):
    """A dict with a tuple in it; the features are an output too, so that nothing of them may go."""

    verdicts: ClassVar[Verdicts] = {
        "conv1": "exact",
        "conv2": "refused:output",
        "left": "refused:output",
        "right": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3)
        self.conv2 = nn.Conv2d(5, 4, 1)
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor | tuple[torch.Tensor, torch.Tensor]]:
        features = F.silu(self.conv2(F.silu(self.conv1(x))))
        pooled = features.mean((2, 3))
        return {"features": features, "logits": (self.left(pooled), self.right(pooled))}


class Shared(Images):
    """One convolution used twice on its own output, another on two different tensors."""

    verdicts: ClassVar[Verdicts] = {
        "stem": "exact",
        "again": "exact",
        "left": "exact",
        "right": "exact",
        "both": "exact",
        "head": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 5, 1)
        self.right = nn.Conv2d(4, 5, 3, padding=1)
        self.both = nn.Conv2d(5, 3, 1)
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.again(torch.tanh(self.again(F.silu(self.stem(x))))))
        y = torch.tanh(self.both(F.silu(self.left(x)))) * 0.5
        return self.head((y + self.both(F.silu(self.right(x)))).mean((2, 3)))


BRANCHES: tuple[type[Topology], ...] = (
    Residual,
    Bottlenecks,
    PaddedShortcut,
    Dense,
    SqueezeExcitation,
    UNet,
    UNetUpsample,
    Inception,
    LayerScale,
    ConvNeXtBlock,
    SpatialAttention,
    Outputs,
    Shared,
)
