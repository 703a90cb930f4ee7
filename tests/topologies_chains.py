"""Networks whose layers follow each other, with everything that may lie between two of them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from tests.topology import Topology, Verdicts


class Chain(Topology):
    verdicts: ClassVar[Verdicts] = {"conv1": "exact", "conv2": "exact", "fc1": "exact", "fc2": "refused:output"}
    bias = True

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1, bias=self.bias)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 6, 3, padding=1, bias=self.bias)
        self.bn2 = nn.BatchNorm2d(6)
        self.fc1 = nn.Linear(6 * 2 * 2, 7, bias=self.bias)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(F.silu(self.fc1(torch.flatten(x, 1))))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 8, 8)


class ChainWithoutBias(Chain):
    bias = False


class ChainWithoutNorm(Topology):
    verdicts: ClassVar[Verdicts] = {"layers.0": "exact", "layers.3": "exact", "layers.6": "refused:output"}
    bias = True

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=self.bias),
            nn.LeakyReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 2, stride=2, bias=self.bias),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(5, 3, bias=self.bias),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 7, 7)


class ChainWithoutNormOrBias(ChainWithoutNorm):
    bias = False


class Chain1d(Topology):
    verdicts: ClassVar[Verdicts] = {"conv1": "exact", "conv2": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(3, 5, 3, dilation=2)
        self.bn1 = nn.BatchNorm1d(5)
        self.conv2 = nn.Conv1d(5, 4, 3)
        self.head = nn.Linear(4 * 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool1d(F.gelu(self.bn1(self.conv1(x))), 2)
        x = F.adaptive_avg_pool1d(F.silu(self.conv2(x)), 3)
        return self.head(x.reshape(x.shape[0], -1))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 3, 16)


class Chain3d(Topology):
    verdicts: ClassVar[Verdicts] = {"conv1": "exact", "conv2": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 4, 2)
        self.bn1 = nn.BatchNorm3d(4)
        self.conv2 = nn.Conv3d(4, 3, 2)
        self.head = nn.Linear(3 * 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.elu(self.bn1(self.conv1(x)))
        x = F.max_pool3d(self.conv2(x), (1, 2, 2))
        return self.head(x.flatten(1))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 1, 4, 4, 4)


class Autoencoder(Topology):
    """Its middle is a linear layer viewed as an image: one channel of the image is four neurons of the layer."""

    verdicts: ClassVar[Verdicts] = {
        "down1": "exact",
        "down2": "exact",
        "code": "exact",
        "image": "together",
        "up1": "exact",
        "up2": "refused:one neuron",
    }

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.code = nn.Linear(6 * 2 * 2, 5)
        self.image = nn.Linear(5, 3 * 2 * 2)
        self.up1 = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.bn1 = nn.BatchNorm2d(4)
        self.up2 = nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.down2(F.leaky_relu(self.down1(x))))
        x = F.silu(self.image(F.silu(self.code(x.flatten(1)))))
        return self.up2(F.relu(self.bn1(self.up1(x.unflatten(1, (-1, 2, 2))))))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 1, 8, 8)


class Mlp(Topology):
    verdicts: ClassVar[Verdicts] = {"fc1": "exact", "fc2": "exact", "fc3": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.bn1 = nn.BatchNorm1d(8)
        self.prelu = nn.PReLU(8)
        self.fc2 = nn.Linear(8, 7, bias=False)
        self.fc3 = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.fc1(x)))
        return F.log_softmax(self.fc3(torch.sigmoid(self.fc2(x))), dim=-1)

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 6)


class FlatNorm(Topology):
    """The normalisation sees the channels already flattened: four entries of it for each of them."""

    verdicts: ClassVar[Verdicts] = {"conv": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.norm = nn.BatchNorm1d(5 * 4)
        self.head = nn.Linear(5 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.conv(x).flatten(1))))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4)


class MlpLayerNorm(Topology):
    verdicts: ClassVar[Verdicts] = {"fc1": "inexact:norm", "fc2": "exact", "fc3": "refused:output"}
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.fc2 = nn.Linear(8, 5)
        self.fc3 = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(F.gelu(self.fc2(self.norm(self.fc1(x)))))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 6)


class GroupNorms(Topology):
    """Groups of four channels; a group of each channel; one group of all."""

    verdicts: ClassVar[Verdicts] = {
        "conv1": "together",
        "conv2": "exact",
        "conv3": "inexact:norm3",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3)
        self.norm1 = nn.GroupNorm(2, 8)
        self.conv2 = nn.Conv2d(8, 5, 3)
        self.norm2 = nn.GroupNorm(5, 5)
        self.conv3 = nn.Conv2d(5, 6, 1)
        self.norm3 = nn.GroupNorm(1, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.relu(self.norm3(self.conv3(x)))
        return self.head(x.mean((2, 3)))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 8, 8)


class InstanceNorms(Topology):
    verdicts: ClassVar[Verdicts] = {"conv1": "exact", "conv2": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3)
        self.norm1 = nn.InstanceNorm2d(5, affine=True)
        self.conv2 = nn.Conv2d(5, 4, 3)
        self.norm2 = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean(dim=[2, 3]))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 8, 8)


CHAINS: tuple[type[Topology], ...] = (
    Chain,
    ChainWithoutBias,
    ChainWithoutNorm,
    ChainWithoutNormOrBias,
    Chain1d,
    Chain3d,
    Autoencoder,
    Mlp,
    FlatNorm,
    MlpLayerNorm,
    GroupNorms,
    InstanceNorms,
)
