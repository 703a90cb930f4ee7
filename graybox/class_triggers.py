"""How often a layer's neurons trigger on each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graybox.neuron_columns import NeuronColumns
from graybox.observation import Observation


class ClassTriggers:
    """Sums of shares per class and neuron, made when the first labels come: 16 bytes for each of the pairs.

    Row 0 stands for labels that are no class, row c + 1 for class c. `sums`, `before`: float64 [classes + 1, n];
    `seen`: float64 [classes + 1], samples of each class; `before`: how many there were when a neuron began.
    """

    def __init__(self, neurons: int, device: torch.device | str | None = None) -> None:
        self.columns = NeuronColumns(
            {name: torch.zeros(1, neurons, dtype=torch.float64, device=device) for name in ("sums", "before")}
        )
        self.seen = torch.zeros(1, dtype=torch.float64, device=device)

    @property
    def classes(self) -> int:
        """So many classes are known of."""
        return int(self.seen.shape[0]) - 1

    def add(self, found: Observation) -> None:
        """Add a batch whose samples' classes are known; any other is left out. Never waits for the device."""
        if found.counts is None or found.batch is None:
            return
        batch = found.batch.on(found.counts.device)
        if batch.classes is None or batch.class_counts is None or len(batch.classes) != found.samples:
            return
        self._grow(len(batch.class_counts))
        rows = found.counts.to(torch.float64) / max(found.positions, 1)
        self.columns["sums"].index_add_(0, batch.classes, rows)
        self.seen += batch.class_counts

    def _grow(self, rows: int) -> None:
        more = rows - self.seen.shape[0]
        if more > 0:
            for name in ("sums", "before"):
                self.columns.lengthen(name, rows)
            with torch.inference_mode(False):
                self.seen = torch.nn.functional.pad(self.seen, (0, more))

    def to(self, device: torch.device) -> None:
        if self.seen.device != device:
            self.columns.to(device)
            with torch.inference_mode(False):
                self.seen = self.seen.to(device)

    def merge(self, other: ClassTriggers) -> None:
        """Add what another one saw, of the same neurons all along."""
        other.to(self.seen.device)
        self._grow(other.seen.shape[0])
        rows = other.seen.shape[0]
        self.columns["sums"][:rows] += other.columns["sums"]
        self.columns["before"][:rows] += other.columns["before"]
        self.seen[:rows] += other.seen

    def rates(self) -> torch.Tensor:
        """Trigger rates in [0, 1], float64 [n, classes], NaN for a class not seen, on the device. Never waits."""
        samples = self.seen[1:, None] - self.columns["before"][1:]
        return (self.columns["sums"][1:] / samples).clamp_(0.0, 1.0).t()

    def carry(self, source: torch.Tensor) -> None:
        self.columns.carry(source)
        new = (source < 0).to(self.seen.device)
        before = self.columns["before"]
        before.copy_(torch.where(new, self.seen[:, None], before))

    def clear(self, index: torch.Tensor) -> None:
        self.columns.clear(index)
        index = index.to(self.seen.device)
        self.columns["before"].index_copy_(-1, index, self.seen[:, None].expand(-1, len(index)).contiguous())

    def take(self, index: torch.Tensor) -> dict[str, np.ndarray]:
        taken = self.columns.take(index)
        # Samples since the neuron began, which stay right while others are seen.
        return {"sums": taken["sums"], "since": self.seen.cpu().numpy()[:, None] - taken["before"]}

    def put(self, index: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> None:
        self._grow(len(arrays["sums"]))
        seen = self.seen.cpu().numpy()[:, None]
        before = np.repeat(seen, len(index), 1)  # of a class that turned up since it has seen nothing
        before[: len(arrays["since"])] -= arrays["since"]
        self.columns.put(index, {"sums": arrays["sums"], "before": before})

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        return {**self.columns.state_dict(copied=copied), "seen": self.seen.cpu().clone() if copied else self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.columns.load_state_dict(state)
        self.seen = state["seen"].to(self.seen.device, copy=True)

    def same_as(self, other: ClassTriggers) -> bool:
        return self.columns.same_as(other.columns) and torch.equal(self.seen.cpu(), other.seen.cpu())
