"""What a network of `tests.topologies` says about itself. Plain torch.nn, nothing of the project."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

Verdicts = dict[str, str]


class Topology(nn.Module):
    """A small network with what must be answered when one neuron of a layer is to be removed.

    verdicts, by the layer's name:
      "exact"        each neuron can go alone and the logits are those of the masked network
      "together"     refused alone, and the set that the refusal names can go, exactly
      "inexact:word" it can go, and a reason (one that has the word in it) says why the function changes by more
      "inexact-or-refused:word" the same, or refused with such a reason
      "refused:word" refused, with the word in the reason
      "any"          whatever is answered must be right
    Layers without a verdict are as "any".
    raw_in_axes: the axis of incoming neurons of parameters that no module of torch.nn holds.
    hooked: whether each product with a weight is a call of a module that has one weight, so that hooks see it.
    mixing: whether something between two layers mixes neurons (a normalisation over channels, a product of two).
    both_modes: whether training mode answers more than evaluation mode, so that both are to be compared.
    consumed_by_operators: whether an operator sums neurons, so that a mask belongs where they come from.
    """

    verdicts: ClassVar[Verdicts] = {}
    raw_in_axes: ClassVar[dict[str, int]] = {}
    hooked: ClassVar[bool] = True
    mixing: ClassVar[bool] = False
    both_modes: ClassVar[bool] = False
    consumed_by_operators: ClassVar[bool] = False

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        """An input of `batch` samples, float32 or indices int64, from torch's own random state."""
        raise NotImplementedError


class Images(Topology):
    """Takes small images of two channels."""

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4)


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(batch, -1, height, width)


def conv_bn(incoming: int, neurons: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """A convolution without bias that keeps the size, then BatchNorm and ReLU."""
    convolution = nn.Conv2d(incoming, neurons, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(neurons), nn.ReLU())
