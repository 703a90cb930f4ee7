"""The samples that excite each neuron most, kept as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graybox.neuron_columns import NeuronColumns, same
from graybox.observation import Observation

TOP_SAMPLES = 8
"""So many samples are kept per neuron."""
WAITING_SAMPLES = 128
"""So many samples are gathered before they are sorted in: sorting is dear, and dearer the more often it is done."""


class ExcitingSamples:
    """Per neuron the ids and mean activations of the samples that excited it most, each as it was last seen.

    A sample seen again counts with its newest activation, so that what excited a neuron long ago, and no longer does,
    makes room within one round through the data. A sample whose activation is not a number is left out. `values`,
    `ids`: float32 and int64 [TOP_SAMPLES, n]; `waiting`: float32 [WAITING_SAMPLES or 0, n].
    """

    def __init__(self, neurons: int, device: torch.device | str | None = None) -> None:
        shape = (TOP_SAMPLES, neurons)
        self.columns = NeuronColumns(
            {
                "values": torch.full(shape, -torch.inf, dtype=torch.float32, device=device),
                "ids": torch.full(shape, -1, dtype=torch.int64, device=device),
                "waiting": torch.zeros((0, neurons), dtype=torch.float32, device=device),
            },
            {"values": -torch.inf, "ids": -1, "waiting": -torch.inf},
        )
        self._waiting_ids = torch.zeros(0, dtype=torch.int64, device=device)
        self._number_waiting = 0
        self._times_sorted = 0

    @torch.no_grad()
    def add(self, found: Observation) -> None:
        """Add a batch whose samples' ids are known; any other is left out. Never waits for the device."""
        if found.means is None or found.batch is None or found.samples == 0:
            return
        ids = found.batch.on(found.means.device).ids
        if ids is None or len(ids) != found.samples:
            return
        if len(self._waiting_ids) == 0:
            self.columns.lengthen("waiting", WAITING_SAMPLES)
            with torch.inference_mode(False):
                self._waiting_ids = torch.zeros(WAITING_SAMPLES, dtype=torch.int64, device=self.columns.device)
        size = WAITING_SAMPLES if found.samples > WAITING_SAMPLES else found.samples
        for means, some in zip(found.means.split(size), ids.split(size), strict=True):
            if self._number_waiting + len(some) > WAITING_SAMPLES:
                self._sort_in()
            rows = slice(self._number_waiting, self._number_waiting + len(some))
            self.columns["waiting"][rows] = means
            self._waiting_ids[rows] = some
            self._number_waiting = rows.stop

    def _sort_in(self) -> None:
        values, ids = self._sorted()
        self.columns["values"].copy_(values)
        self.columns["ids"].copy_(ids)
        self._number_waiting = 0
        self._times_sorted += 1

    @torch.no_grad()
    def _sorted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(values, ids) as they are with what waits sorted in. Never waits for the device."""
        kept_values, kept_ids = self.columns["values"], self.columns["ids"]
        if self._number_waiting == 0:
            return kept_values, kept_ids
        values, ids = self.columns["waiting"][: self._number_waiting], self._waiting_ids[: self._number_waiting]
        # Of a sample that waits twice the newer counts: the last one of its run, in a stable order.
        in_order, order = ids.sort(stable=True)
        newest = torch.ones_like(ids, dtype=torch.bool)
        newest[:-1] = in_order[1:] != in_order[:-1]
        left_out = ~torch.zeros_like(newest).scatter_(0, order, newest)[:, None] | values.isnan()
        # A kept sample that waits too counts as it is now, for the neurons that were there.
        place = torch.searchsorted(in_order, kept_ids, right=True).sub_(1).clamp_(min=0)
        now = values.gather(0, order[place])
        again = (in_order[place] == kept_ids) & (now > -torch.inf)
        kept_values = torch.where(again, -torch.inf, kept_values)
        return _best(kept_values, kept_ids, torch.where(left_out, -torch.inf, values), ids[:, None])

    def to(self, device: torch.device) -> None:
        if self.columns.device != device:
            self.columns.to(device)
            with torch.inference_mode(False):
                self._waiting_ids = self._waiting_ids.to(device)

    def merge(self, other: ExcitingSamples) -> None:
        """Add what another one kept, which is newer."""
        self._sort_in()
        other.to(self.columns.device)
        newer_values, newer_ids = other._sorted()
        values, ids = self.columns["values"], self.columns["ids"]
        again = ((ids[:, None] == newer_ids[None]) & (newer_ids >= 0)[None]).any(1)
        values, ids = _best(torch.where(again, -torch.inf, values), ids, newer_values, newer_ids)
        self.columns["values"].copy_(values)
        self.columns["ids"].copy_(ids)

    def top(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids int64, mean activations float32), each [n, TOP_SAMPLES], the most exciting first, -1 and -inf where
        there were fewer, on the device. Never waits, and changes nothing."""
        values, ids = self._sorted()
        return ids.t(), values.t()

    def carry(self, source: torch.Tensor) -> None:
        self.columns.carry(source)

    def clear(self, index: torch.Tensor) -> None:
        self.columns.clear(index)

    def take(self, index: torch.Tensor) -> dict[str, np.ndarray]:
        values, ids = (tensor.index_select(1, index.to(tensor.device)).cpu().numpy() for tensor in self._sorted())
        times = np.array([self._times_sorted])
        return {**self.columns.take(index), "sorted_values": values, "sorted_ids": ids, "times_sorted": times}

    def put(self, index: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> None:
        if int(arrays["times_sorted"][0]) == self._times_sorted:
            waiting = arrays["waiting"].copy()
            waiting[self._number_waiting :] = -np.inf
            self.columns.put(index, {**arrays, "waiting": waiting})
        else:  # what waits now are other samples
            none = np.zeros((0, len(index)), dtype=np.float32)
            self.columns.put(index, {"values": arrays["sorted_values"], "ids": arrays["sorted_ids"], "waiting": none})

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        """Copies on the CPU. copied=False: the tensors themselves, for who copies them before anything changes them,
        and `waiting` and its ids as far as something waits; `waiting_rows` says how many rows there are."""
        columns = self.columns.state_dict(copied=copied)
        number = self._number_waiting
        told: dict[str, Any] = {"number_waiting": number, "times_sorted": self._times_sorted}
        if not copied:
            told["waiting_rows"] = len(self._waiting_ids)
            columns["waiting"] = columns["waiting"][:number]
            return {**columns, "waiting_ids": self._waiting_ids[:number], **told}
        # Rows where nothing waits hold whatever was there.
        columns["waiting"][number:] = -torch.inf
        waiting_ids = self._waiting_ids.cpu().clone()
        waiting_ids[number:] = 0
        return {**columns, "waiting_ids": waiting_ids, **told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.columns.load_state_dict(state)
        ids = state["waiting_ids"].to(self.columns.device, copy=True)
        rows = int(state.get("waiting_rows", len(ids)))
        self.columns.lengthen("waiting", rows)
        self._waiting_ids = torch.nn.functional.pad(ids, (0, rows - len(ids)))
        self._number_waiting = int(state["number_waiting"])
        self._times_sorted = int(state["times_sorted"])

    @torch.no_grad()
    def renumber(self, place: torch.Tensor) -> None:
        """The samples have other ids: place int64 [samples before], -1 for one that is gone, which makes room."""
        place = torch.cat((place, place.new_full((1,), -1))).to(self.columns.device)
        last = len(place) - 1
        ids = place[self.columns["ids"].clamp(-1, last)]  # -1 is the last place, which leads to none
        # Those that make room go to the end.
        values, order = self.columns["values"].masked_fill(ids < 0, -torch.inf).topk(TOP_SAMPLES, dim=0)
        self.columns["values"].copy_(values)
        self.columns["ids"].copy_(ids.gather(0, order))
        waiting = place[self._waiting_ids[: self._number_waiting].clamp(-1, last)]
        self._waiting_ids[: self._number_waiting] = waiting
        self.columns["waiting"][: self._number_waiting].masked_fill_((waiting < 0)[:, None], -torch.inf)

    def same_as(self, other: ExcitingSamples) -> bool:
        return all(same(one, two) for one, two in zip(self.top(), other.top(), strict=True))


def _best(
    values: torch.Tensor, ids: torch.Tensor, more_values: torch.Tensor, more_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest TOP_SAMPLES of both along axis 0, with their ids (more_ids may be one column for all), -1 at -inf."""
    best, where = torch.cat((values, more_values)).topk(TOP_SAMPLES, dim=0)
    later = (where - len(values)).clamp_(min=0)
    more = more_ids[later, 0] if more_ids.shape[1] != more_values.shape[1] else more_ids.gather(0, later)
    chosen = torch.where(where < len(values), ids.gather(0, where.clamp(max=len(values) - 1)), more)
    return best, torch.where(best > -torch.inf, chosen, -1)
