"""Arrays with one column per neuron, that follow the neurons through every edit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from graybox.errors import Invalid


class NeuronColumns:
    """Named tensors [..., neurons] on one device, each with the value that a new neuron starts from."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], fills: Mapping[str, float] | None = None) -> None:
        self.tensors = dict(tensors)
        self._fills = dict(fills or {})

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    @property
    def neurons(self) -> int:
        return int(next(iter(self.tensors.values())).shape[-1])

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    def to(self, device: torch.device) -> None:
        """Move there what is elsewhere."""
        if self.device != device:
            with torch.inference_mode(False):
                self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}

    def lengthen(self, name: str, rows: int) -> None:
        """Give a tensor so many rows (its first axis), new ones as for a new neuron; never fewer than it has."""
        tensor = self.tensors[name]
        if tensor.shape[0] < rows:
            with torch.inference_mode(False):
                more = tensor.new_full((rows - tensor.shape[0], *tensor.shape[1:]), self._fills.get(name, 0))
                self.tensors[name] = torch.cat((tensor, more))

    def carry(self, source: torch.Tensor) -> None:
        """Column i becomes what column source[i] was (int64 [new count]); -1 starts a new neuron."""
        with torch.inference_mode(False):
            new = (source < 0).nonzero().flatten().to(self.device)
            old = source.clamp(min=0).to(self.device)
            for name, tensor in self.tensors.items():
                if tensor.shape[-1] == 0:
                    self.tensors[name] = tensor.new_full((*tensor.shape[:-1], len(old)), self._fills.get(name, 0))
                    continue
                self.tensors[name] = tensor.index_select(-1, old)
                if len(new):
                    self.tensors[name].index_fill_(-1, new, self._fills.get(name, 0))

    def clear(self, index: torch.Tensor) -> None:
        """Columns `index` start anew."""
        index = index.to(self.device)
        for name, tensor in self.tensors.items():
            tensor.index_fill_(-1, index, self._fills.get(name, 0))

    def take(self, index: torch.Tensor) -> dict[str, np.ndarray]:
        """Copies of columns `index`, on the CPU. Waits for the device."""
        index = index.to(self.device)
        return {name: tensor.index_select(-1, index).cpu().numpy() for name, tensor in self.tensors.items()}

    def put(self, index: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> None:
        """Write back what `take` answered. Rows that came since are as for a new neuron."""
        index = index.to(self.device)
        for name, tensor in self.tensors.items():
            values = torch.from_numpy(np.ascontiguousarray(arrays[name])).to(tensor.device, tensor.dtype)
            if values.shape[:-1] != tensor.shape[:-1]:
                whole = torch.full((*tensor.shape[:-1], len(index)), self._fills.get(name, 0), dtype=tensor.dtype)
                values = torch.cat((values, whole.to(tensor.device)[len(values) :]))
            tensor.index_copy_(-1, index, values)

    def state_dict(self, *, copied: bool = True) -> dict[str, torch.Tensor]:
        """Copies on the CPU; copied=False: the tensors themselves, for who copies them before anything changes them."""
        return {name: tensor.cpu().clone() for name, tensor in self.tensors.items()} if copied else dict(self.tensors)

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over copies of what `state_dict` answered. Raises Invalid when the number of neurons differs."""
        check_neurons(state[next(iter(self.tensors))].shape[-1], self.neurons)
        self.tensors = {name: state[name].to(self.device, copy=True) for name in self.tensors}

    def same_as(self, other: NeuronColumns) -> bool:
        """Whether every entry is the same, NaN like NaN. Waits for the device."""
        return self.tensors.keys() == other.tensors.keys() and all(
            same(tensor, other.tensors[name]) for name, tensor in self.tensors.items()
        )


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same shape, type and entries, NaN like NaN. Waits for the device."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.cpu(), other.cpu()
    return bool(((one == other) | ((one != one) & (other != other))).all())


def check_neurons(given: int, expected: int) -> None:
    """Raises Invalid where statistics are of another number of neurons."""
    if given != expected:
        raise Invalid(f"statistics of {given} neurons do not fit {expected}")


def as_index(neurons: Iterable[int] | torch.Tensor | np.ndarray) -> torch.Tensor:
    """Indices of neurons, as given, int64 on the CPU."""
    if isinstance(neurons, torch.Tensor):
        return neurons.to("cpu", torch.int64).flatten()
    if isinstance(neurons, np.ndarray):
        return torch.from_numpy(neurons.astype(np.int64)).flatten()
    return torch.as_tensor(list(neurons), dtype=torch.int64)
