from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from graybox.initialisation import fresh_entries, has_own, perturbed


def drawn(module: nn.Module, axis: int, count: int) -> dict[str, torch.Tensor]:
    """Some new neurons behind the present ones."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    size = weight.shape[axis]
    index = torch.arange(size, size + count)
    shapes = {name: list(value.shape) for name, value in module.named_parameters(recurse=False)}
    shapes["weight"][axis] += count
    wanted = {"weight": (axis, index)}
    if "bias" in shapes:
        shapes["bias"][0] += count
        wanted["bias"] = (0, index)
    return fresh_entries(module, wanted, shapes)


@pytest.mark.parametrize(
    ("module", "grown"),
    [
        (nn.Linear(5, 3), nn.Linear(5, 2)),
        (nn.Linear(5, 3, bias=False), nn.Linear(5, 2, bias=False)),
        (nn.Conv1d(4, 3, 2), nn.Conv1d(4, 2, 2)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(4, 2, 3, groups=2)),
        (nn.Conv3d(2, 3, 2), nn.Conv3d(2, 2, 2)),
    ],
)
def test_only_what_is_wanted_is_drawn(module: nn.Module, grown: Any) -> None:
    torch.manual_seed(4)
    found = drawn(module, 0, 2)
    torch.manual_seed(4)
    grown.reset_parameters()
    assert found.keys() == dict(grown.named_parameters()).keys()
    assert all(torch.equal(found[name], value) for name, value in grown.named_parameters())


def test_features_of_an_embedding_are_drawn_with_its_padding() -> None:
    found = drawn(nn.Embedding(6, 4, padding_idx=2), 1, 3)
    assert found["weight"].shape == (6, 3)
    assert float(found["weight"][2].abs().max()) == 0 < float(found["weight"][3].abs().max())


def test_a_transposed_convolution_is_initialised_as_a_whole() -> None:
    module = nn.ConvTranspose2d(3, 4, 2)
    torch.manual_seed(1)
    found = drawn(module, 1, 2)
    torch.manual_seed(1)
    whole = nn.ConvTranspose2d(3, 6, 2)
    assert torch.equal(found["weight"], whole.weight[:, 4:]) and torch.equal(found["bias"], whole.bias[4:])


class Bare(nn.Module):
    """As Hugging Face's Conv1D: it knows nothing of its initialisation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(300, 40))
        self.bias = nn.Parameter(torch.ones(40))


def test_without_an_initialisation_new_neurons_are_spread_as_the_others_are() -> None:
    module = Bare()
    assert not has_own(module) and has_own(nn.Linear(2, 2))
    found = drawn(module, 1, 30)
    assert found["weight"].shape == (300, 30) and float(found["bias"].abs().max()) == 0
    assert float(found["weight"].std()) == pytest.approx(float(module.weight.detach().std()), rel=0.05)


def test_what_an_initialisation_leaves_alone_is_not_left_undefined() -> None:
    class Half(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.ones_(self.weight)

    module = nn.Linear.__new__(Half)
    nn.Module.__init__(module)
    module.in_features, module.out_features = 3, 2
    module.weight, module.bias = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))
    found = drawn(module, 0, 2)
    assert (found["weight"] == 1).all() and (found["bias"] == 0).all()


def test_the_layer_itself_is_not_touched() -> None:
    module = nn.BatchNorm2d(3)
    assert module.running_mean is not None
    module.running_mean.fill_(5.0)
    fresh_entries(module, {"weight": (0, torch.tensor([1]))}, {})
    assert module.running_mean.tolist() == [5.0] * 3


def test_a_perturbation_is_relative() -> None:
    rows = torch.tensor([[1.0, -2.0, 0.0, float("inf")]])
    torch.manual_seed(0)
    found = perturbed(rows, 0.1)
    assert found[0, 2] == 0 and found.dtype == rows.dtype
    assert 0 < float((found[0, :2] / rows[0, :2] - 1).abs().max()) <= 0.1
