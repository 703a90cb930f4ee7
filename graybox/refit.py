"""Give a network the shapes that it had in another state of its life, as a checkpoint kept them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from graybox.index_selection import in_format_of
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer


def refit(
    network: NetworkWithOps,
    optimizer: optim.Optimizer,
    structure: Sequence[Sequence[Any]],
    attributes: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Exchange every tensor of another shape for an empty one, in the optimizer too, which forgets what it knew of it.

    structure: [name, shape] of parameters and buffers; attributes: by module name, what goes with them. Their values,
    the layers' flags and statistics are for the caller to load. Answers whether anything was exchanged.
    """
    present = {**dict(network.named_buffers()), **network.state_dict(keep_vars=True)}
    exchanged: dict[nn.Parameter, nn.Parameter] = {}
    changed = False
    for name, shape in structure:
        old = present.get(name)
        if not isinstance(old, torch.Tensor) or list(old.shape) == list(shape):
            continue
        changed = True
        value = in_format_of(old.detach(), old.detach().new_zeros(tuple(shape)))
        if not isinstance(old, nn.Parameter):
            network.put_tensor(name, value)
        elif old not in exchanged:
            exchanged[old] = nn.Parameter(value, requires_grad=old.requires_grad)
            exchanged[old].__dict__.update(old.__dict__)  # marks of the user's
            network.put_tensor(name, exchanged[old])
    if not changed:
        return False
    for group in optimizer.param_groups:
        group["params"] = [exchanged.get(parameter, parameter) for parameter in group["params"]]
    for old in exchanged:
        optimizer.state.pop(old, None)
    modules = dict(network.named_modules())
    for name, values in attributes.items():
        for key, value in values.items():
            setattr(modules[name], key, tuple(value) if isinstance(value, (list, tuple)) else value)
    for module in modules.values():
        if not isinstance(module, NeuronLayer):
            continue
        known = module.frozen.shape[0], module.incoming_frozen.shape[0]
        if known != (module.neuron_count, module.incoming_places):
            module.resize_ops()
    network.forget_structure()
    return True


def belonging(network: NetworkWithOps, rows: Iterable[str], columns: Iterable[str]) -> set[str]:
    """Names of all parameters with entries of the neurons of some layers (rows), and of the weights of those whose
    incoming neurons are meant (columns)."""
    rows, layers = list(rows), dict(network.named_layers())
    found = {id(layers[name].weight) for name in (*rows, *columns)}
    found |= {id(getattr(layers[name], "bias", None)) for name in rows}
    if rows and (network.dependencies.edges or network.is_traceable):
        structure = network.structure
        for name in rows:
            known = structure.layers.get(name)
            own = None if known is None else structure.labels(known.weight, known.out_axis)
            if known is None or own is None:
                continue
            # A group of axes holds others, too, such as what these neurons are concatenated with.
            for tensor, axis in structure.group_of(known.weight, known.out_axis):
                labels = structure.labels(tensor, axis)
                if labels is not None and np.isin(labels, own).any():
                    found.add(id(network.tensor(tensor)))
    return {name for name, parameter in network.named_parameters() if id(parameter) in found}
