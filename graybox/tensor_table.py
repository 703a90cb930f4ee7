"""The parameters and buffers of a network by name, found once: for edits that exchange many of them."""

from __future__ import annotations

import torch
from torch import nn

from graybox.errors import NotFound
from graybox.module_walk import named_walk

Table = dict[str, "nn.Parameter | None"] | dict[str, "torch.Tensor | None"]


class TensorTable:
    """Looks tensors up and exchanges them, in every module that shares them."""

    def __init__(self, network: nn.Module) -> None:
        self.modules: dict[str, nn.Module] = named_walk(network)
        self._places: dict[int, list[tuple[Table, str]]] = {}
        for module in self.modules.values():
            for table in (module._parameters, module._buffers):
                for key, value in table.items():
                    if value is not None:
                        self._places.setdefault(id(value), []).append((table, key))

    def get(self, name: str) -> torch.Tensor:
        """By qualified name. Raises NotFound."""
        owner, _, key = name.rpartition(".")
        module = self.modules.get(owner)
        value = None if module is None else module._parameters.get(key, module._buffers.get(key))
        if value is None:
            raise NotFound(f"no tensor {name!r} in this network")
        return value

    def put(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """`new` takes the place of `old`; a parameter that of a parameter."""
        places = self._places.pop(id(old))
        for table, key in places:
            table[key] = new  # type: ignore[assignment]  # each kind stays in its own table
        self._places[id(new)] = places
