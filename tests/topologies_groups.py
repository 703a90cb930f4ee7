"""Networks in which channels form groups: grouped convolutions, shuffles, splits, and numbers in the code."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from tests.topology import Images, Topology, Verdicts, channel_shuffle, conv_bn


class Depthwise(Topology):
    """Depthwise separable, as in MobileNet."""

    verdicts: ClassVar[Verdicts] = {
        "stem.0": "exact",
        "depthwise.0": "exact",
        "pointwise.0": "exact",
        "head": "refused:output",
    }
    multiplier = 1

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(2, 4)
        self.depthwise = conv_bn(4, 4 * self.multiplier, groups=4)
        self.pointwise = conv_bn(4 * self.multiplier, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pointwise(self.depthwise(self.stem(x))).mean((-2, -1)))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 5, 5)


class DepthwiseTwice(Depthwise):
    """Two neurons of the depthwise convolution for each channel it gets."""

    verdicts: ClassVar[Verdicts] = {**Depthwise.verdicts, "depthwise.0": "together"}
    multiplier = 2


class Grouped(Topology):
    """The middle of a ResNeXt block."""

    verdicts: ClassVar[Verdicts] = {
        "conv1.0": "together",
        "conv2.0": "together",
        "conv3.0": "exact",
        "head": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(2, 9)
        self.conv2 = conv_bn(9, 6, groups=3)
        self.conv3 = conv_bn(6, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv3(self.conv2(self.conv1(x))).mean((2, 3)))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 5, 5)


class Shuffled(Topology):
    """One channel shuffle between two convolutions: three channels of the first go together."""

    verdicts: ClassVar[Verdicts] = {"conv1": "together", "conv2": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 12, 3)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channel_shuffle(F.relu(self.bn1(self.conv1(x))), 3)
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 6, 6)


class PixelShuffled(Topology):
    """Four channels become one of twice the size."""

    verdicts: ClassVar[Verdicts] = {"conv1": "together", "conv2": "exact", "conv3": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.conv2 = nn.Conv2d(3, 4, 3)
        self.conv3 = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(F.relu(self.conv2(F.leaky_relu(self.shuffle(self.conv1(x))))))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4)


class ConstantView(Topology):
    """A number of channels written into the code."""

    verdicts: ClassVar[Verdicts] = {"conv1": "exact", "conv2": "refused:", "fc1": "exact", "fc2": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 8, 3, padding=1)
        self.fc1 = nn.Linear(8 * 4 * 4, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(x.view(x.shape[0], 8 * 4 * 4))))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4)


class Ungrouping(Topology):
    """Repeats, slices and pads channels on the way."""

    verdicts: ClassVar[Verdicts] = {"conv1": "any", "conv2": "any", "conv3": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x)).repeat_interleave(2, dim=1)
        x = F.pad(F.relu(self.conv2(x))[:, 1:], (0, 0, 0, 0, 1, 2))
        return self.head(F.silu(self.conv3(x)).mean((2, 3)))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 5, 5)


class ShuffleUnits(Images):
    """Two units of ShuffleNetV2, the second of which splits what the first shuffled."""

    verdicts: ClassVar[Verdicts] = {
        "branch1.0.0": "exact",
        "branch1.1.0": "exact",
        "branch2.0.0": "exact",
        "branch2.1.0": "exact",
        "stem.0": "any",
        "branch1.2.0": "any",
        "branch2.2.0": "any",
        "head.0": "exact",
        "fc": "refused:output",
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(2, 8)
        self.branch1 = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, groups=4), conv_bn(4, 4, 1))
        self.branch2 = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, groups=4), conv_bn(4, 4, 1))
        self.head = conv_bn(8, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for branch in (self.branch1, self.branch2):
            kept, changed = x.chunk(2, dim=1)
            x = channel_shuffle(torch.cat((kept, branch(changed)), dim=1), 2)
        return self.fc(self.head(x).mean((2, 3)))


class SplitSizes(Images):
    """Sizes of the parts in the code for the first layer, taken from the tensor for the second."""

    verdicts: ClassVar[Verdicts] = {
        "conv1": "refused:",
        "conv2": "together",
        "conv3": "exact",
        "conv4": "exact",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 3, 1)
        self.conv4 = nn.Conv2d(4, 3, 1)
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        two, three = self.conv1(x).split([2, 3], dim=1)
        x = self.conv2(torch.cat([three, two], 1))
        one, other = torch.split(x, x.shape[1] // 2, dim=1)
        return self.head((self.conv3(torch.tanh(one)) * self.conv4(F.relu(other))).mean((2, 3)))


GROUPS: tuple[type[Topology], ...] = (
    Depthwise,
    DepthwiseTwice,
    Grouped,
    Shuffled,
    PixelShuffled,
    ConstantView,
    Ungrouping,
    ShuffleUnits,
    SplitSizes,
)
