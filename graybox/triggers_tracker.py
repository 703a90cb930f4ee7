"""What one layer's neurons did in one of training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch

from graybox.activation_probe import ActivationProbe
from graybox.activation_totals import ActivationTotals
from graybox.class_triggers import ClassTriggers
from graybox.exciting_samples import ExcitingSamples
from graybox.neuron_columns import NeuronColumns, as_index, check_neurons
from graybox.observation import Layout, Observation, SampleBatch, observe, trigger_shares


class TriggersTracker:
    """Counts of one layer's triggers, for one of training and evaluation.

    triggers: float64 [n], sum of shares; samples: how many samples were seen; a neuron's age counts those since its
    last reset. Where not every batch is counted, its rate is taken over those that were.
    """

    def __init__(self, number_of_neurons: int, device: torch.device | str | None = None) -> None:
        self.samples = 0
        self._sums = NeuronColumns({"triggers": torch.zeros(number_of_neurons, dtype=torch.float64, device=device)})
        # On the CPU: the owner knows them without asking the device.
        zeros = torch.zeros(number_of_neurons, dtype=torch.int64)
        self._counts = NeuronColumns({"age": zeros, "skipped": zeros.clone()})

    @property
    def number_of_neurons(self) -> int:
        return self._sums.neurons

    @property
    def triggers(self) -> torch.Tensor:
        """Sum of trigger shares since each neuron's last reset, float64 [n]."""
        return self._sums["triggers"]

    def update(self, tensor: torch.Tensor) -> None:
        """Count a batch: values [batch, n, ...]; a positive value is a trigger."""
        self.add(trigger_shares(tensor, self.number_of_neurons), tensor.shape[0])

    def add(self, shares: torch.Tensor | None, samples: int) -> None:
        """Add sums of shares (float64 [n]) over so many samples; None where these were seen but not counted."""
        if shares is not None:
            self._sums.to(shares.device)
            self._sums["triggers"].add_(shares)
        else:
            self._counts["skipped"].add_(samples)
        self.samples += samples
        self._counts["age"].add_(samples)

    def observe(self, found: Observation) -> None:
        """Add what a batch did. Never waits for the device."""
        if found.shares is not None or found.seen:
            self.add(found.shares, found.seen)

    def merge(self, other: TriggersTracker) -> None:
        """Add what another tracker of the same neurons saw, as if it had been seen just now."""
        check_neurons(other.number_of_neurons, self.number_of_neurons)
        self._sums.to(other._sums.device)
        for mine, theirs in ((self._sums, other._sums), (self._counts, other._counts)):
            for name, tensor in mine.tensors.items():
                tensor.add_(theirs[name])
        self.samples += other.samples

    def empty(self) -> Self:
        """A tracker of the same kind for as many neurons, that saw nothing."""
        return type(self)(self.number_of_neurons, self._sums.device)

    # -- reading ---------------------------------------------------------------------------------------

    def get_neuron_number(self) -> int:
        return self.number_of_neurons

    def get_neuron_triggers(self, neuron: int) -> float:
        """Sum of trigger shares since the neuron's last reset. Waits for the device."""
        return float(self.triggers[neuron])

    def get_neuron_age(self, neuron: int) -> int:
        """Samples seen since the neuron's last reset."""
        return int(self._counts["age"][neuron])

    def get_neuron_stats(self, neuron: int) -> float:
        """The neuron's trigger rate in [0, 1]; 0 when it has seen nothing. Waits for the device."""
        return float(self.rates()[neuron])

    def ages(self) -> torch.Tensor:
        """Samples per neuron, int64 [n], on the CPU."""
        return self._counts["age"].clone()

    def counted(self) -> torch.Tensor:
        """Samples per neuron that its trigger rate is taken over, int64 [n], on the CPU."""
        return self._counts["age"] - self._counts["skipped"]

    def rates(self) -> torch.Tensor:
        """Trigger rates, float64 [n], on the CPU, 0 where nothing was seen. Waits for the device."""
        counted = self.counted()
        rates = self.triggers.cpu() / counted.clamp(min=1)
        return torch.where(counted > 0, rates, torch.zeros_like(rates)).clamp_(0.0, 1.0)

    # -- following the neurons -------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        """Everything kept per neuron: each with carry, clear, take, put, state_dict, load_state_dict, same_as."""
        return {"sums": self._sums, "counts": self._counts}

    def carry(self, source: Iterable[int] | torch.Tensor) -> None:
        """Neuron i becomes what neuron source[i] was; -1 is a new neuron, at age 0."""
        index = as_index(source)
        for part in self._parts().values():
            part.carry(index)

    def reorder(self, order: Iterable[int]) -> None:
        """Neuron i becomes what neuron order[i] was."""
        self.carry(order)

    def prune(self, neurons: Iterable[int]) -> None:
        """Forget these neurons; those behind them move up."""
        gone = {int(neuron) for neuron in neurons}
        self.carry([neuron for neuron in range(self.number_of_neurons) if neuron not in gone])

    def add_neurons(self, count: int) -> None:
        """So many new neurons behind the others."""
        self.carry([*range(self.number_of_neurons), *[-1] * count])

    def reset(self, neurons: Iterable[int] | None = None) -> None:
        """Forget what the given neurons (None: all) did."""
        index = torch.arange(self.number_of_neurons) if neurons is None else torch.as_tensor(sorted(neurons))
        if index.numel():
            for part in self._parts().values():
                part.clear(index)

    def take(self, neurons: Iterable[int] | torch.Tensor) -> dict[str, np.ndarray]:
        """Everything known of these neurons, on the CPU, by "part/name". Waits for the device."""
        index = as_index(neurons)
        return {
            f"{name}/{key}": array for name, part in self._parts().items() for key, array in part.take(index).items()
        }

    def put(self, neurons: Iterable[int] | torch.Tensor, arrays: Mapping[str, np.ndarray]) -> None:
        """Write back what `take` answered, bit for bit; what the neurons missed since, they missed."""
        index = as_index(neurons)
        for name, part in self._parts().items():
            part.put(index, within(arrays, name))

    # -- keeping ---------------------------------------------------------------------------------------

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        """Copies on the CPU: `triggers` float64 [n], `reset_at` int64 [n] (samples when the neuron began), `skipped`
        int64 [n] (samples not counted), `samples` int. copied=False: the tensors themselves, where there are such, for
        who copies them before anything changes them."""
        skipped = self._counts["skipped"]
        return {
            **self._sums.state_dict(copied=copied),
            "reset_at": self.samples - self._counts["age"],
            "skipped": skipped.clone() if copied else skipped,
            "samples": self.samples,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` answered. Raises Invalid when the number of neurons differs."""
        self._sums.load_state_dict(state)
        self.samples = int(state["samples"])
        reset_at = state["reset_at"]
        skipped = state.get("skipped", torch.zeros_like(reset_at))  # not in older checkpoints
        self._counts.load_state_dict({"age": self.samples - reset_at, "skipped": skipped})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TriggersTracker):
            return NotImplemented
        mine, theirs = self._parts(), other._parts()
        return (
            self.samples == other.samples
            and mine.keys() == theirs.keys()
            and all(part.same_as(theirs[name]) for name, part in mine.items())
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, compared by value


class TriggersTrackerClazzAndSampleID(TriggersTracker):
    """A tracker that also knows how strongly neurons answer, what they did recently, on which classes they trigger,
    and which samples excite them most."""

    def __init__(self, number_of_neurons: int, device: torch.device | str | None = None) -> None:
        super().__init__(number_of_neurons, device)
        self.totals = ActivationTotals(number_of_neurons, device)
        self.classes = ClassTriggers(number_of_neurons, device)
        self.exciting = ExcitingSamples(number_of_neurons, device)
        self.probe = ActivationProbe(number_of_neurons, device)

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), **self._more_parts()}

    def _more_parts(self) -> dict[str, Any]:
        return {"totals": self.totals, "classes": self.classes, "exciting": self.exciting, "probe": self.probe}

    def update(self, tensor: torch.Tensor) -> None:
        """Count a batch: values [batch, n, ...], with everything there is to know; samples and labels as attached by
        `add_tracked_attrs_to_input_tensor`. Waits for the device to learn how many classes the labels name."""
        ids, labels = getattr(tensor, "in_id_batch", None), getattr(tensor, "label_batch", None)
        classes = self.classes.classes
        if isinstance(labels, torch.Tensor) and labels.dim() == 1 and labels.numel() and not labels.is_floating_point():
            classes = max(classes, int(labels.max()) + 1)
        batch = SampleBatch.of(ids, labels, classes)
        n, position = self.number_of_neurons, self.probe.position
        self.observe(observe(tensor, n, Layout(), everything=True, batch=batch, probed_position=position))

    def add(self, shares: torch.Tensor | None, samples: int) -> None:
        self.observe(Observation(samples, samples, shares))

    def observe(self, found: Observation) -> None:
        if found.shares is not None or found.seen:
            super().add(found.shares, found.seen)
        measured = found.shares if found.shares is not None else found.moments
        if measured is None:
            return
        self.to(measured.device)
        self.totals.add(found)
        self.classes.add(found)
        self.exciting.add(found)
        if found.probe is not None:
            self.probe.add(found.probe)

    def to(self, device: torch.device) -> None:
        """Move there what is elsewhere."""
        self.totals.sums.to(device)
        self.classes.to(device)
        self.exciting.to(device)
        self.probe.columns.to(device)

    def merge(self, other: TriggersTracker) -> None:
        super().merge(other)
        if isinstance(other, TriggersTrackerClazzAndSampleID):
            self.to(other.totals.sums.device)
            self.totals.merge(other.totals)
            self.classes.merge(other.classes)
            self.exciting.merge(other.exciting)
            self.probe.merge(other.probe)

    def state_dict(self, *, copied: bool = True) -> dict[str, Any]:
        """What the plain tracker's holds, and a dictionary for each of the parts."""
        parts = {name: part.state_dict(copied=copied) for name, part in self._more_parts().items()}
        return {**super().state_dict(copied=copied), **parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` answered, or a plain tracker's. Raises Invalid when the number of neurons
        differs."""
        super().load_state_dict(state)
        for name, part in self._more_parts().items():
            if name in state:
                part.load_state_dict(state[name])


def within(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays under "prefix/", by what follows."""
    start = f"{prefix}/"
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
