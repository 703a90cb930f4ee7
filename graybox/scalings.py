"""Factors on the optimizer's update that the layers' flags ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn

if TYPE_CHECKING:
    from graybox.model_with_ops import NetworkWithOps
    from graybox.modules_with_ops import NeuronLayer


@dataclass(frozen=True)
class Scaling:
    """Factors on the update of a parameter's entries along one axis: float64 [size of the axis], on the CPU."""

    parameter: nn.Parameter
    axis: int
    factors: torch.Tensor


def update_scalings(network: NetworkWithOps) -> list[Scaling]:
    """Those that are not 1 everywhere: of the neurons (their weight, bias and normalisation), of the biases alone, and
    of the incoming connections."""
    found = []
    for layer in network.layers:
        if _is_plain(layer):
            continue
        if layer.frozen.numpy().any() or (layer.neuron_learning_rate.numpy() != 1.0).any():
            rows = layer.update_factors()
            for parameter in network.neuron_parameters(layer):
                found.append(Scaling(parameter, layer.out_axis if parameter is layer.weight else 0, rows))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, nn.Parameter) and layer.bias_frozen.numpy().any() and bias.shape == layer.bias_frozen.shape:
            found.append(Scaling(bias, 0, layer.bias_factors()))
        if layer.incoming_frozen.numpy().any() or (layer.incoming_learning_rate.numpy() != 1.0).any():
            columns = layer.incoming_factors()
            assert isinstance(layer.weight, nn.Parameter)
            found.append(Scaling(layer.weight, layer.in_axis, columns))
    return found


_FLAGS = ("frozen", "neuron_learning_rate", "bias_frozen", "incoming_frozen", "incoming_learning_rate")
_PLAIN: WeakKeyDictionary[NeuronLayer, tuple[tuple[torch.Tensor, int], ...]] = WeakKeyDictionary()
"""The flags of layers that were found to ask for nothing, each with its count of changes in place."""


def _is_plain(layer: NeuronLayer) -> bool:
    """Whether no flag of a layer asks for a factor; looked at again only where one was changed."""
    flags: list[torch.Tensor] = [getattr(layer, name) for name in _FLAGS]
    known = _PLAIN.get(layer)
    if known and all(flag is old and flag._version == was for flag, (old, was) in zip(flags, known, strict=True)):
        return True
    # Asked of NumPy, which is many times faster at it than torch for so few numbers.
    plain = not any((flag.numpy() != (flag.dtype is torch.float64)).any() for flag in flags)
    if plain:
        _PLAIN[layer] = tuple((flag, flag._version) for flag in flags)
    else:
        _PLAIN.pop(layer, None)
    return plain
