"""How often a layer's neurons triggered and how strongly they answered, over a recent window and over all time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graybox.neuron_columns import NeuronColumns
from graybox.observation import Observation

BLOCK_SAMPLES = 4_096
"""The recent window covers the block of so many samples that is being filled, and the one before it."""

_BEFORE, _LAST, _PRESENT = range(3)


class ActivationTotals:
    """Sums per neuron in three generations of samples: the block being filled, the last one, and all before.

    The recent window is the first two, between one and two blocks long; a lifetime is all three. Sums are float64
    [3, 3, n] (generation; shares of positive positions, mean activations, mean squares), counts int64 [3, 2, n] on
    the CPU (generation; samples with shares, samples with activations). What was a non-finite activation leaves the
    window as it moves on, and a lifetime by a reset.
    """

    def __init__(self, neurons: int, device: torch.device | str | None = None) -> None:
        self.sums = NeuronColumns({"sums": torch.zeros(3, 3, neurons, dtype=torch.float64, device=device)})
        self.counts = NeuronColumns({"counts": torch.zeros(3, 2, neurons, dtype=torch.int64)})
        self.filled = [0, 0]  # of the present block: samples with shares, samples with activations

    def add(self, found: Observation) -> None:
        """Add a batch; a block that is full moves on first."""
        if max(self.filled) >= BLOCK_SAMPLES:
            self._move_on()
        present, counts = self.sums["sums"][_PRESENT], self.counts["counts"][_PRESENT]
        if found.shares is not None:
            present[0] += found.shares
            counts[0] += found.samples
            self.filled[0] += found.samples
        if found.moments is not None:
            present[1:] += found.moments
            counts[1] += found.samples
            self.filled[1] += found.samples

    def _move_on(self) -> None:
        for tensor in (self.sums["sums"], self.counts["counts"]):
            tensor[_BEFORE] += tensor[_LAST]
            tensor[_LAST] = tensor[_PRESENT]
            tensor[_PRESENT] = 0
        self.filled = [0, 0]

    def merge(self, other: ActivationTotals) -> None:
        """Add what another one saw, as if it had been seen just now."""
        both = [mine + theirs for mine, theirs in zip(self.filled, other.filled, strict=True)]
        if max(both) > BLOCK_SAMPLES:
            self._move_on()
            both = list(other.filled)
        other.sums.to(self.sums.device)
        self.sums["sums"].add_(other.sums["sums"])
        self.counts["counts"].add_(other.counts["counts"])
        self.filled = both

    def rates(self, *, recent: bool) -> torch.Tensor:
        """Trigger rates in [0, 1], float64 [n], NaN where nothing was seen, on the device. Never waits."""
        sums, counts = self._over(recent)
        return (sums[0] / counts[0]).clamp_(0.0, 1.0)

    def means(self, *, recent: bool) -> torch.Tensor:
        """Mean activation, float64 [n], NaN where nothing was measured, on the device. Never waits."""
        sums, counts = self._over(recent)
        return sums[1] / counts[1]

    def deviations(self, *, recent: bool) -> torch.Tensor:
        """Standard deviation of the activation (of the whole population seen), as `means`."""
        sums, counts = self._over(recent)
        mean = sums[1] / counts[1]
        return (sums[2] / counts[1] - mean * mean).clamp_(min=0.0).sqrt_()

    def _over(self, recent: bool) -> tuple[torch.Tensor, torch.Tensor]:
        first = _LAST if recent else _BEFORE
        counts = self.counts["counts"][first:].sum(0).to(torch.float64)
        return self.sums["sums"][first:].sum(0), counts.to(self.sums.device, non_blocking=True)

    def carry(self, source: torch.Tensor) -> None:
        self.sums.carry(source)
        self.counts.carry(source)

    def clear(self, index: torch.Tensor) -> None:
        self.sums.clear(index)
        self.counts.clear(index)

    def take(self, index: torch.Tensor) -> dict[str, np.ndarray]:
        return {**self.sums.take(index), **self.counts.take(index)}

    def put(self, index: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> None:
        self.sums.put(index, arrays)
        self.counts.put(index, arrays)

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        sums, counts = self.sums.state_dict(copied=copied), self.counts.state_dict(copied=copied)
        return {**sums, **counts, "filled": list(self.filled)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums.load_state_dict(state)
        self.counts.load_state_dict(state)
        self.filled = [int(count) for count in state["filled"]]

    def same_as(self, other: ActivationTotals) -> bool:
        return self.filled == other.filled and self.sums.same_as(other.sums) and self.counts.same_as(other.counts)
