"""What neurons did: how often each one triggered, in training and in evaluation.

A neuron triggers where it is positive on the tensor that the next weighted layer consumes. Over an image or a
sequence the share of positive positions counts, so that a trigger rate lies in [0, 1] for every layer type.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from graybox.errors import Invalid


class TrackingMode(enum.Enum):
    """Which statistics a forward pass adds to."""

    DISABLED = 0
    TRAIN = 1
    EVAL = 2


def add_tracked_attrs_to_input_tensor(
    tensor: torch.Tensor, *, in_id_batch: torch.Tensor | None = None, label_batch: torch.Tensor | None = None
) -> torch.Tensor:
    """Attach which samples (ids [batch]) and labels ([batch]) a tensor's rows belong to. Answers the same tensor."""
    tensor.in_id_batch = in_id_batch  # type: ignore[attr-defined]  # a tensor takes attributes; that is the API
    tensor.label_batch = label_batch  # type: ignore[attr-defined]
    return tensor


class Scratch:
    """A reusable float buffer per device: counting into it is several times faster than summing booleans."""

    def __init__(self) -> None:
        self._buffers: dict[torch.device, torch.Tensor] = {}

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """An uninitialised float32 tensor of the same shape and device, valid until the next call."""
        count = tensor.numel()
        buffer = self._buffers.get(tensor.device)
        if buffer is None or buffer.numel() < count:
            # Outside a user's inference mode, or the buffer could never be written to again outside of one.
            with torch.inference_mode(False):
                buffer = torch.empty(count, dtype=torch.float32, device=tensor.device)
            self._buffers[tensor.device] = buffer
        return buffer[:count].view(tensor.shape)


_SCRATCH = Scratch()


@torch.no_grad()
def trigger_shares(
    values: torch.Tensor, neurons: int, *, features_last: bool = False, flat_features_last: bool = False
) -> torch.Tensor:
    """Sum over the batch of each neuron's share of positive values; float64 [neurons], on the device of `values`.

    values: [batch, neurons, ...] (a convolution's side), or with features_last [batch, ..., neurons] (a linear layer's
        side); or [batch, neurons * positions], flattened from the former, with flat_features_last from the latter.
    Raises Invalid when the shape does not fit the number of neurons. Never waits for the device.
    """
    if features_last and values.dim() > 2:
        if values.shape[-1] != neurons:
            raise Invalid(f"a tensor of shape {tuple(values.shape)} does not end in {neurons} neurons")
        values = values.transpose(1, -1)
    elif values.dim() == 2 and values.shape[1] != neurons:
        if neurons == 0 or values.shape[1] % neurons:
            raise Invalid(f"{values.shape[1]} features cannot be flattened from {neurons} neurons")
        batch, positions = values.shape[0], values.shape[1] // neurons
        if flat_features_last:
            values = values.reshape(batch, positions, neurons).transpose(1, 2)
        else:
            values = values.reshape(batch, neurons, positions)
    elif values.dim() < 2 or values.shape[1] != neurons:
        raise Invalid(f"a tensor of shape {tuple(values.shape)} does not have {neurons} neurons in dimension 1")
    positive = torch.gt(values, 0, out=_SCRATCH.like(values))
    if positive.dim() == 2:
        return positive.sum(0, dtype=torch.float64)
    positions = math.prod(values.shape[2:])
    # Positions first: contiguous, and exact in float32 up to 2**24 positions; the rest in float64.
    return positive.flatten(2).sum(2).sum(0, dtype=torch.float64).div_(positions)


class Ledger:
    """Where the layers of one network look up the mode, and leave their counts until a step is complete."""

    def __init__(self) -> None:
        self.mode = TrackingMode.DISABLED
        self.prediction_registered = False
        # Grows with every change of a freeze or a per-neuron learning rate, so that the optimizer notices.
        self.flags_version = 0
        self._holding = False
        self._pending: list[tuple[TriggersTracker, torch.Tensor, int]] = []

    def add(self, tracker: TriggersTracker, shares: torch.Tensor, samples: int) -> None:
        """Add sums of shares (float64 [n]) over so many samples, at once or when `commit` comes."""
        if self._holding:
            self._pending.append((tracker, shares, samples))
        else:
            tracker.add(shares, samples)

    def hold(self) -> None:
        """From now on counts wait for `commit`, so that a failed step leaves none."""
        self._pending.clear()
        self._holding = True
        self.prediction_registered = False

    def commit(self) -> None:
        """Add what waited, and count at once again."""
        for tracker, shares, samples in self._pending:
            tracker.add(shares, samples)
        self.drop()

    def take(self) -> list[tuple[TriggersTracker, torch.Tensor, int]]:
        """What waited, for the caller to add later; count at once again."""
        waited = list(self._pending)
        self.drop()
        return waited

    def drop(self) -> None:
        """Forget what waited, and count at once again."""
        self._pending.clear()
        self._holding = False


class TriggersTracker:
    """Counts of one layer's triggers, for one of training and evaluation.

    triggers: float64 [n], sum of shares; samples: how many samples were seen; a neuron's age counts those since its
    last reset.
    """

    def __init__(self, number_of_neurons: int, device: torch.device | str | None = None) -> None:
        self.number_of_neurons = number_of_neurons
        self.triggers = torch.zeros(number_of_neurons, dtype=torch.float64, device=device)
        self.samples = 0
        self._reset_at = torch.zeros(number_of_neurons, dtype=torch.int64)

    def update(self, tensor: torch.Tensor) -> None:
        """Count a batch: values [batch, n, ...]; a positive value is a trigger."""
        self.add(trigger_shares(tensor, self.number_of_neurons), tensor.shape[0])

    def add(self, shares: torch.Tensor, samples: int) -> None:
        """Add sums of shares (float64 [n]) over so many samples."""
        if self.triggers.device != shares.device:
            with torch.inference_mode(False):
                self.triggers = self.triggers.to(shares.device)
        self.triggers += shares
        self.samples += samples

    def get_neuron_number(self) -> int:
        return self.number_of_neurons

    def get_neuron_triggers(self, neuron: int) -> float:
        """Sum of trigger shares since the neuron's last reset. Waits for the device."""
        return float(self.triggers[neuron])

    def get_neuron_age(self, neuron: int) -> int:
        """Samples seen since the neuron's last reset."""
        return self.samples - int(self._reset_at[neuron])

    def get_neuron_stats(self, neuron: int) -> float:
        """The neuron's trigger rate in [0, 1]; 0 when it has seen nothing. Waits for the device."""
        age = self.get_neuron_age(neuron)
        return self.get_neuron_triggers(neuron) / age if age else 0.0

    def ages(self) -> torch.Tensor:
        """Samples per neuron, int64 [n], on the CPU."""
        return self.samples - self._reset_at

    def rates(self) -> torch.Tensor:
        """Trigger rates, float64 [n], on the CPU, 0 where nothing was seen. Waits for the device."""
        ages = self.ages()
        rates = self.triggers.cpu() / ages.clamp(min=1)
        return torch.where(ages > 0, rates, torch.zeros_like(rates)).clamp_(0.0, 1.0)

    def reset(self, neurons: Iterable[int] | None = None) -> None:
        """Forget what the given neurons (None: all) did."""
        index = torch.arange(self.number_of_neurons) if neurons is None else torch.as_tensor(sorted(neurons))
        if index.numel():
            self.triggers[index.to(self.triggers.device)] = 0.0
            self._reset_at[index] = self.samples

    def state_dict(self) -> dict[str, Any]:
        """Copies on the CPU: `triggers` float64 [n], `reset_at` int64 [n], `samples` int."""
        return {"triggers": self.triggers.cpu().clone(), "reset_at": self._reset_at.clone(), "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` answered. Raises Invalid when the number of neurons differs."""
        if state["triggers"].shape[0] != self.number_of_neurons:
            raise Invalid(f"statistics of {state['triggers'].shape[0]} neurons do not fit {self.number_of_neurons}")
        self.triggers = state["triggers"].to(self.triggers.device, copy=True)
        self._reset_at = state["reset_at"].clone()
        self.samples = int(state["samples"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TriggersTracker):
            return NotImplemented
        return (
            self.samples == other.samples
            and torch.equal(self._reset_at, other._reset_at)
            and torch.equal(self.triggers.cpu(), other.triggers.cpu())
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, compared by value
