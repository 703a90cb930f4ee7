"""Everything known of one layer's neurons; it follows them through every edit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graybox.neuron_columns import as_index, check_neurons
from graybox.observation import Layout, Observation, observe, predicted
from graybox.tracking import Ledger, TrackingMode
from graybox.triggers_tracker import TriggersTrackerClazzAndSampleID, within

_PLAIN = Layout()


class NeuronRecords:
    """What a layer's neurons did in training and in evaluation, and the weights that the last checkpoint kept."""

    def __init__(self, neurons: int, device: torch.device | str | None = None) -> None:
        self.train = TriggersTrackerClazzAndSampleID(neurons, device)
        self.eval = TriggersTrackerClazzAndSampleID(neurons, device)
        self._kept: torch.Tensor | None = None
        self.readings: dict[str, torch.Tensor] = {}
        """What was last worked out from the weights, see `graybox.neuron_readings`."""
        self.readings_due = 0.0

    @property
    def neurons(self) -> int:
        return self.train.number_of_neurons

    def tracker(self, mode: TrackingMode) -> TriggersTrackerClazzAndSampleID | None:
        """The tracker that a mode adds to."""
        return {TrackingMode.TRAIN: self.train, TrackingMode.EVAL: self.eval}.get(mode)

    def observe(self, ledger: Ledger, values: torch.Tensor, layout: Layout = _PLAIN, *, triggers: bool = True) -> None:
        """Record a batch of activations, as the ledger's mode and settings say. values: as `layout` says. triggers:
        False where a positive value is no trigger (the output layer, whose prediction is: `observe_prediction`).
        Raises Invalid when the shape does not fit. Never waits for the device."""
        observe_together((self,), ledger, values, layout, triggers=triggers)

    def observe_prediction(self, ledger: Ledger, predictions: torch.Tensor) -> None:
        """Record which neurons of the output layer were the prediction, int64 [batch]. Never waits."""
        tracker = self.tracker(ledger.mode)
        if tracker is not None:
            samples = predictions.shape[0]
            due = ledger.due
            found = predicted(predictions, self.neurons, ledger.batch) if due else Observation(samples, samples)
            ledger.post(tracker, found)

    # -- following the neurons -------------------------------------------------------------------------

    def reset(self, neurons: Iterable[int] | None = None) -> None:
        """Forget what these neurons (None: all) did. What the last checkpoint kept stays."""
        chosen = None if neurons is None else as_index(neurons).tolist()
        self.train.reset(chosen)
        self.eval.reset(chosen)
        self.expire()

    def carry(self, source: Iterable[int] | torch.Tensor | np.ndarray) -> None:
        """Neuron i becomes what neuron source[i] was; -1 is a new neuron, at age 0 and of nothing known."""
        index = as_index(source)
        self.train.carry(index)
        self.eval.carry(index)
        if self._kept is not None:
            self._kept = _selected(self._kept, 0, index, torch.nan)
        self.expire()

    def carry_incoming(self, source: Iterable[int] | torch.Tensor | np.ndarray, axis: int = 1) -> None:
        """The layer's inputs were exchanged likewise: axis counts with the neurons' own as 0. Without it, how much
        the weights changed is unknown until the next checkpoint."""
        if self._kept is not None:
            self._kept = _selected(self._kept, axis, as_index(source), 0.0)
        self.expire()

    def take(self, neurons: Iterable[int] | torch.Tensor | np.ndarray) -> dict[str, np.ndarray]:
        """Everything known of these neurons, by name. Waits for the device."""
        index = as_index(neurons)
        arrays = {f"train/{name}": array for name, array in self.train.take(index).items()}
        arrays |= {f"eval/{name}": array for name, array in self.eval.take(index).items()}
        if self._kept is not None:
            arrays["kept"] = self._kept.index_select(0, index.to(self._kept.device)).cpu().numpy()
        return arrays

    def put(self, neurons: Iterable[int] | torch.Tensor | np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Write back what `take` answered, bit for bit; what the neurons missed since, they missed."""
        index = as_index(neurons)
        self.train.put(index, within(arrays, "train"))
        self.eval.put(index, within(arrays, "eval"))
        kept, before = self._kept, arrays.get("kept")
        if kept is not None and before is not None and before.shape[1:] == kept.shape[1:]:
            values = torch.from_numpy(before.copy()).to(kept.device, kept.dtype)
            self._kept = kept.index_copy(0, index.to(kept.device), values)  # anew: it may be the checkpoint's
        self.expire()

    # -- weights since the last checkpoint -------------------------------------------------------------

    @torch.no_grad()
    def keep_weights(self, rows: torch.Tensor, *, copied: bool = True) -> None:
        """A checkpoint keeps (or brings back) these weights, [neurons, ...]: changes count from here. Never waits.
        copied=False: they are a copy already, which stays as it is until the next call."""
        check_neurons(rows.shape[0], self.neurons)
        low = rows.dtype in (torch.bfloat16, torch.float16)
        self._kept = rows.detach().to(torch.float32 if low else rows.dtype, copy=copied)
        self.expire()

    @torch.no_grad()
    def relative_change(self, rows: torch.Tensor) -> torch.Tensor:
        """How far each neuron's weights [neurons, ...] moved since the last checkpoint, as a share of the length they
        had; float64 [n] on their device, NaN where that is unknown. Never waits."""
        kept = self._kept
        if kept is None or kept.shape != rows.shape:
            return torch.full((rows.shape[0],), torch.nan, dtype=torch.float64, device=rows.device)
        kept = self._kept = kept.to(rows.device)
        before = torch.linalg.vector_norm(kept.flatten(1), dim=1).to(torch.float64)
        moved: torch.Tensor = torch.linalg.vector_norm((rows - kept).flatten(1), dim=1).to(torch.float64) / before
        return moved

    def expire(self) -> None:
        """What was worked out from the weights is worked out anew when somebody looks."""
        self.readings, self.readings_due = {}, 0.0

    # -- keeping ---------------------------------------------------------------------------------------

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        """Copies on the CPU, "train" and "eval"; copied=False: see `TriggersTracker.state_dict`."""
        return {"train": self.train.state_dict(copied=copied), "eval": self.eval.state_dict(copied=copied)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` answered, of this or an older version. Raises Invalid when the number of neurons
        differs."""
        self.train.load_state_dict(state["train"])
        self.eval.load_state_dict(state["eval"])
        self.expire()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeuronRecords):
            return NotImplemented
        return self.train == other.train and self.eval == other.eval

    __hash__ = None  # type: ignore[assignment]  # mutable, compared by value


def observe_together(
    records: Sequence[NeuronRecords],
    ledger: Ledger,
    values: torch.Tensor,
    layout: Layout = _PLAIN,
    *,
    triggers: bool = True,
) -> None:
    """Record one tensor for several layers that it carries the neurons of, as behind a residual addition: measured
    once. All have the same number of neurons and the same layout. Complex values are not recorded, and that is said
    once: none of them is positive or negative."""
    if values.is_complex():
        ledger.say_once("activations that are complex numbers are not recorded: what triggers is a positive value")
        return
    trackers = [tracker for one in records if (tracker := one.tracker(ledger.mode)) is not None]
    if not trackers:
        return
    if not ledger.due:
        found = Observation(values.shape[0], values.shape[0] if triggers else 0)
    else:
        found = observe(
            values,
            records[0].neurons,
            layout,
            everything=ledger.everything,
            triggers=triggers,
            batch=ledger.batch,
            probed_position=trackers[0].probe.position,
        )
    for tracker in trackers:
        ledger.post(tracker, found)


def _selected(tensor: torch.Tensor, axis: int, source: torch.Tensor, fill: float) -> torch.Tensor:
    chosen = source.to(tensor.device)
    found = tensor.index_select(axis, chosen.clamp(min=0))
    return found.index_fill_(axis, (chosen < 0).nonzero().flatten(), fill)
