"""The layers of a network: modules whose weight is multiplied with activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import nn

from graybox.structure.change import WeightedLayer
from graybox.structure.layout import Array
from graybox.structure.rules import Contraction

Axis = tuple[str, int]


def find_layers(
    modules: Mapping[str, nn.Module], contractions: Iterable[Contraction], own: Mapping[Axis, Array], labels: Array
) -> dict[str, WeightedLayer]:
    """By name, in the order in which they are first used.

    own: the atoms of each axis of each tensor; labels: the class of each atom. A layer is named by its module; where
    a module has several such weights (nn.MultiheadAttention), the others by the weight itself.
    """
    owners = tensor_owners(modules)
    layers: dict[str, WeightedLayer] = {}
    seen: set[tuple[str, int]] = set()
    for contraction in sorted(contractions, key=lambda c: c.order):
        if (contraction.weight, contraction.out_axis) in seen:
            continue
        seen.add((contraction.weight, contraction.out_axis))
        if contraction.in_axis == 0 and contraction.groups > 1:
            continue  # a grouped transposed convolution: its groups share the axis of its outputs
        candidates = owners.get(contraction.weight, [])
        name = next((module for module, _ in candidates if module and module not in layers), contraction.weight)
        key = next((key for module, key in candidates if module == name), contraction.weight.rpartition(".")[2])
        bias = _bias_of(modules.get(name), name, key, contraction, own, labels)
        layers[name] = WeightedLayer(
            name, contraction.weight, contraction.out_axis, contraction.in_axis, bias, contraction.groups
        )
    return layers


def tensor_owners(modules: Mapping[str, nn.Module]) -> dict[str, list[tuple[str, str]]]:
    """By a tensor's first name: (module name, its own key there) of every module that has it."""
    first: dict[int, str] = {}
    owners: dict[str, list[tuple[str, str]]] = {}
    for name, module in modules.items():
        for key, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is not None:
                full = first.setdefault(id(value), f"{name}.{key}" if name else key)
                owners.setdefault(full, []).append((name, key))
    return owners


def _bias_of(
    module: nn.Module | None, name: str, key: str, contraction: Contraction, own: Mapping[Axis, Array], labels: Array
) -> str | None:
    """The tensor beside the weight with one entry for each neuron: `weight` -> `bias`, `in_proj_weight` -> ..."""
    if module is None or "weight" not in key:
        return None
    bias_key = key.replace("weight", "bias")
    if module._parameters.get(bias_key) is None:
        return None
    bias = f"{name}.{bias_key}"
    rows, shifts = own.get((contraction.weight, contraction.out_axis)), own.get((bias, 0))
    if rows is None or shifts is None:
        return bias if rows is None and shifts is None else None
    fits = rows.size == shifts.size and np.array_equal(labels[rows], labels[shifts])
    # The transposed grouped convolution's weight holds one group's outputs, its bias all of them.
    return bias if fits else None
