"""Weights that a file holds, brought into a network: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graybox.errors import Invalid, Refused
from graybox.index_selection import in_format_of
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.plain_network import called_with, copy_of, inner_network
from graybox.structure.attributes import CONVOLUTIONS, FOLLOWING, TRANSPOSED, attributes_for
from graybox.training_step import evaluation_mode
from graybox.weight_files import Attributes, Shape, differences, read_weights


def load_weights(model: nn.Module, path: Path | str, *, resize: bool = False) -> None:
    """Load a state_dict or safetensors into a network, with Graybox or without. Number types are the network's own.

    resize: take over the sizes, too, from a network that was pruned or has grown: its tensors are exchanged for such of
    the file's shapes, and its modules' numbers (out_channels and so on) follow. What the network's own code says about
    sizes cannot follow; where it has an example input it is tried on that first.

    Raises NotFound or StorageError for a file that cannot be read; Invalid naming every difference at once (names,
    shapes, types); Refused while a run trains the network, whose journal would not know of it, and where other sizes
    cannot be taken over. Nothing has changed then.
    """
    if getattr(model, "_journalled", None) is not None:
        raise Refused("a run trains this network, and could not replay this: load weights before the run begins")
    tensors, metadata = read_weights(path)
    network = inner_network(model)
    wanted = network.state_dict()
    told = differences(wanted, tensors, any_size=resize)
    if told:
        only_sizes = not resize and not differences(wanted, tensors, any_size=True)
        hint = " (resize=True takes over other sizes)" if only_sizes else ""
        raise Invalid(f"{Path(path).name} does not fit {type(network).__name__}: {'; '.join(told)}{hint}")
    others = {n: v for n, v in tensors.items() if isinstance(v, torch.Tensor) and wanted[n].shape != v.shape}
    if others:
        _take_over_sizes(model, others, metadata)
    network.load_state_dict(tensors)


def _take_over_sizes(model: nn.Module, others: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    if getattr(model, "_surgeon", None) is not None:
        raise Refused("an optimizer trains this network, whose state would not fit; load other sizes into a new one")
    network = inner_network(model)
    shapes = {name: tuple(value.shape) for name, value in others.items()}
    told = metadata.get("attributes")
    attributes = _checked(network, told) if isinstance(told, Mapping) else _inferred(network, shapes)
    example = getattr(model, "example_input", None)
    if example is not None:
        trial = copy_of(model)
        exchange(trial, shapes, attributes)
        try:
            with evaluation_mode(trial):
                called_with(trial, example)
        except Exception as error:  # the user's own code
            raise Refused(
                f"{type(network).__name__} cannot have these sizes: {type(error).__name__}: {error}"
            ) from error
    exchange(network, shapes, attributes)
    if isinstance(model, NetworkWithOps):
        model.forget_structure()


def exchange(network: nn.Module, shapes: Mapping[str, Shape], attributes: Attributes) -> None:
    """Put tensors of these shapes, with nothing in them, into the place of those of these names, and set the modules'
    attributes."""
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    wanted = {id(value): shapes[name] for name, value in named if name in shapes}
    made: dict[int, torch.Tensor] = {}
    for _, old in named:
        if id(old) in wanted and id(old) not in made:
            empty = in_format_of(old.detach(), old.detach().new_zeros(wanted[id(old)]))
            learns = isinstance(old, nn.Parameter)
            made[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad) if learns else empty
    for name, module in network.named_modules():
        for table in (module._parameters, module._buffers):
            for key, known in table.items():
                if known is not None and id(known) in made:
                    table[key] = made[id(known)]  # each kind stays in its own table
        for attribute, value in attributes.get(name, {}).items():
            setattr(module, attribute, value)
    for module in network.modules():
        if isinstance(module, NeuronLayer):
            known_sizes = module.frozen.shape[0], module.incoming_frozen.shape[0]
            if known_sizes != (module.neuron_count, module.incoming_places):
                module.resize_ops()


def _checked(network: nn.Module, told: Mapping[str, Any]) -> Attributes:
    """What a file says of modules' sizes, as far as it may: numbers that follow shapes, of modules that have them."""
    modules = dict(network.named_modules())
    found: Attributes = {}
    for name, values in told.items():
        module = modules.get(name)
        if module is None or not isinstance(values, Mapping):
            continue
        for key, value in values.items():
            number = tuple(value) if isinstance(value, list) else value
            numbers = number if isinstance(number, tuple) else (number,)
            if key in FOLLOWING and key in vars(module) and all(type(each) is int for each in numbers):
                found.setdefault(name, {})[key] = number
    return found


def _inferred(network: nn.Module, shapes: Mapping[str, Shape]) -> Attributes:
    """What modules' sizes must be for these shapes. Raises Refused where they leave it open."""
    found: Attributes = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        tables = {**module._parameters, **module._buffers}
        now = {key: tuple(value.shape) for key, value in tables.items() if value is not None}
        own = {key: shapes.get(prefix + key, shape) for key, shape in now.items()}
        if own != now:
            found[name] = dict(attributes_for(module, own, _groups(name, module, now, own)))
    return found


def _groups(name: str, module: nn.Module, now: Mapping[str, Shape], own: Mapping[str, Shape]) -> int | None:
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and module.groups > 1:
        along, within = now["weight"][:2], own["weight"][:2]
        size = along[0] // module.groups
        if along[1] == within[1] and within[0] % size == 0:  # whole groups have come or gone
            return int(within[0] // size)
    elif not isinstance(module, nn.GroupNorm):
        return None
    raise Refused(
        f"the shapes alone do not tell how many groups {name} has now: load a file of safetensors that Graybox wrote"
    )
