"""A few recent activations of all neurons of a layer side by side, to see which of them do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graybox.neuron_columns import NeuronColumns

PROBE_ROWS = 128
"""So many activations are kept per neuron, a few of each batch, each at one position drawn anew per batch."""


class ActivationProbe:
    """Rows of activations, float32 [PROBE_ROWS, n] once there are any, NaN where there is none; all neurons of one
    row at the same sample and position. The oldest rows are overwritten."""

    def __init__(self, neurons: int, device: torch.device | str | None = None) -> None:
        empty = torch.zeros((0, neurons), dtype=torch.float32, device=device)
        self.columns = NeuronColumns({"rows": empty}, {"rows": torch.nan})
        self.written = 0

    @property
    def position(self) -> int:
        """Which position to probe next; any number, to be taken modulo the number of positions."""
        return (self.written * 2_654_435_761) % 2**31  # Knuth's multiplicative hash

    def add(self, rows: torch.Tensor) -> None:
        """rows: float [k, n]. Never waits for the device."""
        self.columns.lengthen("rows", PROBE_ROWS)
        rows = rows[:PROBE_ROWS]
        at = self.written % PROBE_ROWS
        first = min(len(rows), PROBE_ROWS - at)
        kept = self.columns["rows"]
        kept[at : at + first] = rows[:first]
        if first < len(rows):
            kept[: len(rows) - first] = rows[first:]
        self.written += len(rows)

    def merge(self, other: ActivationProbe) -> None:
        """Add what another one kept, which is newer."""
        other.columns.to(self.columns.device)
        rows, at = other.columns["rows"][: other.written], other.written % PROBE_ROWS
        self.add(rows if other.written <= PROBE_ROWS else rows.roll(-at, 0))

    def carry(self, source: torch.Tensor) -> None:
        self.columns.carry(source)

    def clear(self, index: torch.Tensor) -> None:
        self.columns.clear(index)

    def take(self, index: torch.Tensor) -> dict[str, np.ndarray]:
        return {**self.columns.take(index), "written": np.array([self.written])}

    def put(self, index: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> None:
        rows, written = arrays["rows"].copy(), int(arrays["written"][0])
        # Rows that were overwritten since are of samples at which these neurons were not there.
        since = min(self.written - written, PROBE_ROWS)
        rows[(written + np.arange(max(since, 0))) % PROBE_ROWS if len(rows) else slice(0)] = np.nan
        self.columns.put(index, {"rows": rows})

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        return {**self.columns.state_dict(copied=copied), "written": self.written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.columns.load_state_dict(state)
        self.written = int(state["written"])

    def same_as(self, other: ActivationProbe) -> bool:
        return self.written == other.written and self.columns.same_as(other.columns)
