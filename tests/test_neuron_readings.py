from __future__ import annotations

import pytest
import torch
from torch import nn

from graybox.neuron_readings import neuron_rows
from tests.small_networks import one_thread  # noqa: F401


@pytest.mark.parametrize(
    ("module", "axis", "neurons"),
    [
        (nn.Conv1d(4, 6, 3, groups=2), 0, 6),
        (nn.Conv3d(2, 3, 2), 0, 3),
        (nn.Linear(3, 5), 0, 5),
        (nn.Embedding(7, 4), 1, 4),
        (nn.ConvTranspose2d(4, 6, 3), 1, 6),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), 1, 6),
    ],
)
def test_a_row_is_all_that_leads_to_one_neuron(module: nn.Module, axis: int, neurons: int) -> None:
    """The oracle: which weights have a gradient from one neuron's output alone."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    if isinstance(module, nn.Embedding):
        outputs = module(torch.arange(7)).t()[None]
    else:
        incoming = 4 if not isinstance(module, nn.Linear | nn.Conv3d) else {nn.Linear: 3, nn.Conv3d: 2}[type(module)]
        spread = (1, incoming) if isinstance(module, nn.Linear) else (1, incoming, *[5] * (weight.dim() - 2))
        outputs = module(torch.randn(spread))
    number = torch.arange(weight.numel()).reshape(weight.shape)
    rows = neuron_rows(number, axis, neurons)
    assert rows.shape[0] == neurons and sorted(rows.flatten().tolist()) == list(range(weight.numel()))
    for neuron in range(neurons):
        (gradient,) = torch.autograd.grad(outputs[0, neuron].sum(), weight, retain_graph=True)
        assert sorted(number[gradient != 0].tolist()) == sorted(rows[neuron].flatten().tolist())
