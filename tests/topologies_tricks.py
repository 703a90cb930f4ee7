"""Networks whose code does what a trace does not easily show: numbers, constants, writes in place, sums over neurons.

Most may be refused; what is allowed must be right all the same.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from tests.topology import Images, Topology, Verdicts


class Vectors(Topology):
    """Takes three features."""

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 3)


class TwoLayers(Vectors):
    """Two linear layers, and something between them."""

    verdicts: ClassVar[Verdicts] = {"first": "any", "head": "refused:output"}
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 6)
        self.head = nn.Linear(6, 2)

    def between(self, y: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.between(torch.tanh(self.first(x))))


class SizeAsNumber(TwoLayers):
    verdicts: ClassVar[Verdicts] = {"first": "inexact-or-refused:", "head": "refused:output"}

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y / y.shape[1]


class ConstantShift(TwoLayers):
    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y + torch.arange(y.shape[1], dtype=y.dtype)


class Cumulated(TwoLayers):
    """Each neuron reaches all later ones; the last could go."""

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y.cumsum(1)


class Summed(TwoLayers):
    """What a neuron gives to the sum is gone with it, but a new one gives to it too."""

    consumed_by_operators = True

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y * y.sum(1, keepdim=True)


class Mirrored(TwoLayers):
    verdicts: ClassVar[Verdicts] = {"first": "together", "head": "refused:output"}

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y + y.flip(1)


class PartInPlace(TwoLayers):
    def between(self, y: torch.Tensor) -> torch.Tensor:
        other = y[:, 3:].sin()
        y = y.clone()
        y[:, :3] += other
        return y


class Squeezed(TwoLayers):
    """Runs with every number of neurons but one."""

    verdicts: ClassVar[Verdicts] = {"first": "exact", "head": "refused:output"}

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y.unsqueeze(2).squeeze()


class RootMeanSquare(TwoLayers):
    verdicts: ClassVar[Verdicts] = {"first": "inexact-or-refused:", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(6)

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return self.norm(y)


class PlainProduct(TwoLayers):
    """A product with a weight, written as a sum of products."""

    consumed_by_operators = True
    hooked = False

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 6))

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return (y.unsqueeze(2) * self.w).sum(1)


class FixedHalf(TwoLayers):
    """The code names the place at which it cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 12)

    def between(self, y: torch.Tensor) -> torch.Tensor:
        return y[:, :6]


class GroupsInCode(Images):
    """A group normalisation whose number of groups is in the code: it stays when a group goes."""

    verdicts: ClassVar[Verdicts] = {"conv": "inexact-or-refused:", "head": "refused:output"}
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.silu(F.group_norm(self.conv(x), 2)).mean((2, 3)))


class Circular(Images):
    """Padding that copies parts of the image to its edges."""

    verdicts: ClassVar[Verdicts] = {"conv1": "any", "conv2": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.conv2(torch.tanh(self.conv1(x)))).mean((2, 3)))


class Repeated(Images):
    """A tensor joined with itself, under one normalisation, and a normalisation used twice."""

    verdicts: ClassVar[Verdicts] = {"conv1": "exact", "conv2": "exact", "conv3": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 5, 1)
        self.norm2 = nn.BatchNorm2d(5)
        self.conv3 = nn.Conv2d(5, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        x = F.silu(self.norm1(torch.cat([x, -x, x * 2], 1)))
        x = torch.tanh(self.norm2(self.conv2(x)))
        return self.head(torch.tanh(self.norm2(self.conv3(x))).mean((2, 3)))


class GroupsOfGroups(Images):
    """Two groups, then four: half of all goes together, and then one group is left."""

    verdicts: ClassVar[Verdicts] = {"conv1": "any", "conv2": "any", "conv3": "any", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.conv3 = nn.Conv2d(8, 8, 1, groups=4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.conv2(torch.tanh(self.conv1(x))))
        return self.head(torch.tanh(self.conv3(x)).mean((2, 3)))


class GroupedTransposed(Images):
    """Groups share the weight's axis of outputs: it is followed, but is no layer with neurons of its own."""

    verdicts: ClassVar[Verdicts] = {"conv1": "together", "conv3": "exact", "head": "refused:output"}
    hooked = False

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3)
        self.conv2 = nn.ConvTranspose2d(6, 9, 2, groups=3)
        self.conv3 = nn.Conv2d(9, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.conv2(torch.tanh(self.conv1(x))))
        return self.head(torch.tanh(self.conv3(x)).mean((2, 3)))


TRICKS: tuple[type[Topology], ...] = (
    SizeAsNumber,
    ConstantShift,
    Cumulated,
    Summed,
    Mirrored,
    PartInPlace,
    Squeezed,
    RootMeanSquare,
    PlainProduct,
    FixedHalf,
    GroupsInCode,
    Circular,
    Repeated,
    GroupsOfGroups,
    GroupedTransposed,
)
