"""Mistakes that were made once."""

from __future__ import annotations

import torch
from torch import nn

from graybox.structure import Structure


class Gated(nn.Module):
    """A depthwise convolution, squeeze and excitation, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.wide = nn.Conv2d(6, 8, 1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.narrow = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.deep(self.wide(x).relu())
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        answer: torch.Tensor = self.head(x + self.narrow(y))
        return answer


def test_what_goes_with_a_neuron_is_not_summed_with_it() -> None:
    # A depthwise convolution goes with the layer before it, but gives neurons of its own: the layer's outgoing
    # weights are the depthwise ones, and zeroing them takes away what the neuron contributes and nothing else.
    structure = Structure.trace(Gated(), torch.randn(1, 3, 5, 5))
    found = structure.outgoing("wide", [3])
    assert found.joined == ()
    assert [(region.tensor, {axis: list(i) for axis, i in region.where.items()}) for region in found.regions] == [
        ("deep.weight", {0: [3]})
    ]
    assert [region.tensor for region in structure.outgoing("deep", [3]).regions] == ["squeeze.weight", "narrow.weight"]
    assert structure.outgoing("deep", [3]).joined == ()


def test_what_is_multiplied_or_summed_with_others_is_joined_with_them() -> None:
    structure = Structure.trace(Gated(), torch.randn(1, 3, 5, 5))
    assert "deep" in structure.outgoing("excite", [3]).joined
    assert "narrow" in structure.outgoing("stem", [3]).joined
    assert "stem" in structure.outgoing("narrow", [3]).joined
    structure.commit(structure.addition("excite", 2))
    assert "deep" in structure.outgoing("excite", [9]).joined
    assert structure.outgoing("wide", [9]).joined == ()
