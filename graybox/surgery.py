"""Plan an edit of neurons (printable), then apply it whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.errors import Refused
from graybox.model_with_ops import NetworkWithOps, has_rows
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_ops import Freeze, NeuronEdit, Reinitialize, SetLearningRate, Unfreeze
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.randomness import seeded


@dataclass(frozen=True)
class Touch:
    """Entries of one tensor that an edit changes: `indices` along `axis`."""

    tensor: str
    axis: int
    indices: tuple[int, ...]
    change: str

    def __str__(self) -> str:
        return f"{self.tensor}, axis {self.axis}, {_ranges(self.indices)}: {self.change}"


@dataclass(frozen=True)
class Plan:
    """What an edit would do. `str(plan)` is for people; parameters are counts over the whole network."""

    edit: NeuronEdit
    layer: str
    neurons: tuple[int, ...]
    touches: tuple[Touch, ...]
    parameters_before: int
    parameters_after: int

    def summary(self) -> str:
        """One line."""
        what = {
            "freeze": "Froze", "unfreeze": "Unfroze", "reinitialize": "Reinitialised",
            "change_learning_rate": "Set the learning rate of",
        }[self.edit.kind]  # fmt: skip
        some = "neuron" if len(self.neurons) == 1 else "neurons"
        line = f"{what} {some} {_ranges(self.neurons)} of {self.layer}"
        if isinstance(self.edit, SetLearningRate):
            return f"{line} to {self.edit.rate:g} times"
        if isinstance(self.edit, Reinitialize):
            ratio = self.edit.perturbation_ratio
            how = "" if ratio is None else f", each weight changed by up to {ratio:.0%}"
            return line + how + (", outgoing connections zeroed" if self.edit.zero_outgoing else "")
        return line

    def __str__(self) -> str:
        lines = [f"{self.edit.kind} {self.layer}, neurons {_ranges(self.neurons)}"]
        lines += [f"  {touch}" for touch in self.touches]
        return "\n".join([*lines, f"  parameters {self.parameters_before:,} -> {self.parameters_after:,}"])


@dataclass(frozen=True)
class Applied:
    """What undoes an edit: the values before it, by tensor name and axis."""

    plan: Plan
    undo: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


Write = tuple[str, torch.Tensor, int, torch.Tensor, torch.Tensor]
"""(name, tensor, axis, indices, new values) of entries to be overwritten."""


class Surgeon:
    """Plans and applies edits of one network together with its optimizer."""

    def __init__(self, network: NetworkWithOps, optimizer: OptimizerWithOps) -> None:
        self.network = network
        self.optimizer = optimizer

    def plan(self, edit: NeuronEdit) -> Plan:
        """What the edit would change. Raises NotFound for an unknown layer or neuron, Refused where it cannot be done
        exactly. Changes nothing."""
        name, layer = self.network.find_layer(edit.layer)
        neurons = edit.neurons or tuple(range(layer.neuron_count))
        layer.check_neurons(neurons)
        touches = self._reinitialize_touches(edit, layer, neurons) if isinstance(edit, Reinitialize) else (
            Touch(f"{name}.flags", 0, neurons, _flag_change(edit)),
        )  # fmt: skip
        count = self.network.get_parameter_count()
        return Plan(edit, name, tuple(neurons), tuple(touches), count, count)

    def apply(self, plan: Plan, seed: int) -> Applied:
        """Do what the plan says. seed: where the edit's random numbers come from; the global random state is left
        as it was."""
        _, layer = self.network.find_layer(plan.layer)
        index = layer.check_neurons(plan.neurons)
        if isinstance(plan.edit, Reinitialize):
            return self._reinitialize(plan, layer, index, seed)
        undo = {
            "frozen": layer.frozen[index].tolist(),
            "learning_rate": layer.neuron_learning_rate[index].tolist(),
        }
        if isinstance(plan.edit, Freeze):
            layer.frozen[index] = True
        elif isinstance(plan.edit, Unfreeze):
            layer.frozen[index] = False
        elif isinstance(plan.edit, SetLearningRate):
            layer.neuron_learning_rate[index] = plan.edit.rate
        self.optimizer.refresh()
        return Applied(plan, undo)

    # -- reinitialise ----------------------------------------------------------------------------------

    def _reinitialize_touches(self, edit: Reinitialize, layer: NeuronLayer, neurons: tuple[int, ...]) -> list[Touch]:
        self.optimizer.check_renewable()
        names = {id(m): n for n, m in self.network.named_modules()}
        how = "own initialisation" if edit.perturbation_ratio is None else f"times 1 +- {edit.perturbation_ratio:g}"
        touches = [Touch(f"{names[id(layer)]}.{n}", 0, neurons, how) for n, _ in layer.named_parameters(recurse=False)]
        for follower in self._renewed_followers(edit, layer):
            for key, _, neutral in neutral_values(follower, layer.neuron_count):
                touches.append(Touch(f"{names[id(follower)]}.{key}", 0, neurons, f"{neutral:g}"))
        if edit.zero_outgoing:
            consumers = self.network.consumers(layer)
            if not consumers:
                raise Refused(
                    f"nothing is declared to consume the neurons of {names[id(layer)]}, so that there is no outgoing "
                    "connection to zero; reinitialise without it"
                )
            for consumer in consumers:
                axis, indices = self._outgoing_entries(layer, consumer, neurons)
                touches.append(Touch(f"{names[id(consumer)]}.weight", axis, tuple(indices.tolist()), "zero"))
        return touches

    def _renewed_followers(self, edit: Reinitialize, layer: NeuronLayer) -> list[nn.Module]:
        # A perturbation keeps what the neuron is about, so its normalisation stays.
        return self.network.dependencies.followers(layer) if edit.perturbation_ratio is None else []

    def _outgoing_entries(
        self, layer: NeuronLayer, consumer: NeuronLayer, neurons: tuple[int, ...]
    ) -> tuple[int, torch.Tensor]:
        dependencies = self.network.dependencies
        if len(dependencies.producers(consumer)) > 1:
            names = {id(m): n for n, m in self.network.named_modules()}
            joined = ", ".join(names[id(p)] for p in dependencies.producers(consumer) if p is not layer)
            raise Refused(
                f"{names[id(consumer)]} gets these neurons joined with those of {joined}, so that zeroing their "
                "outgoing connections would take away more than what they contribute; reinitialise without it"
            )
        return outgoing_entries(layer, consumer, neurons, dependencies.positions(layer, consumer))

    @torch.no_grad()
    def _reinitialize(self, plan: Plan, layer: NeuronLayer, index: torch.Tensor, seed: int) -> Applied:
        edit = plan.edit
        assert isinstance(edit, Reinitialize)
        # Everything new is made before anything is touched: from the first copy on nothing can fail.
        with seeded(seed):
            if edit.perturbation_ratio is None:
                fresh = {k: v.index_select(0, index.to(v.device)) for k, v in layer.own_initialization().items()}
            else:
                fresh = perturbed(layer, index, edit.perturbation_ratio)
        writes: list[Write] = [
            (f"{plan.layer}.{name}", dict(layer.named_parameters(recurse=False))[name], 0, index, value)
            for name, value in fresh.items()
        ]
        names = {id(m): n for n, m in self.network.named_modules()}
        for follower in self._renewed_followers(edit, layer):
            for key, tensor, neutral in neutral_values(follower, layer.neuron_count):
                value = torch.full_like(tensor.index_select(0, index.to(tensor.device)), neutral)
                writes.append((f"{names[id(follower)]}.{key}", tensor, 0, index, value))
        if edit.zero_outgoing:
            for consumer in self.network.consumers(layer):
                axis, columns = self._outgoing_entries(layer, consumer, plan.neurons)
                old = consumer.weight.index_select(axis, columns.to(consumer.weight.device))
                name = f"{names[id(consumer)]}.weight"
                writes.append((name, consumer.weight, axis, columns, torch.zeros_like(old)))
        undo, arrays = self._what_undoes(layer, plan.neurons, writes)
        for _, tensor, axis, where, value in writes:
            tensor.index_copy_(axis, where.to(tensor.device), value)
            if isinstance(tensor, nn.Parameter) and self.optimizer.holds(tensor):
                self.optimizer.renew(tensor, axis, where)
        layer.train_dataset_tracker.reset(plan.neurons)
        layer.eval_dataset_tracker.reset(plan.neurons)
        return Applied(plan, undo, arrays)

    def _what_undoes(
        self, layer: NeuronLayer, neurons: tuple[int, ...], writes: list[Write]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(JSON, arrays) of everything that is about to be overwritten. Arrays by "tensor@axis" for values,
        "tensor@axis#key" for optimizer entries, "young/n/..." for entries that were young already, and "train/..." and
        "eval/..." for the neurons' statistics."""
        arrays: dict[str, np.ndarray] = {}
        young = [entry for entry in self.optimizer.state_dict() if entry["parameter"] in {name for name, *_ in writes}]
        for name, tensor, axis, where, _ in writes:
            arrays[f"{name}@{axis}"] = _as_array(tensor.index_select(axis, where.to(tensor.device)))
            if isinstance(tensor, nn.Parameter):
                for key, value in self.optimizer.entries(tensor, axis, where).items():
                    arrays[f"{name}@{axis}#{key}"] = _as_array(value)
        for number, entry in enumerate(young):
            arrays[f"young/{number}/indices"] = _as_array(entry["indices"])
            for key, value in entry["scalars"].items():
                arrays[f"young/{number}/{key}"] = _as_array(torch.as_tensor(value))
        for split, tracker in (("train", layer.train_dataset_tracker), ("eval", layer.eval_dataset_tracker)):
            state, index = tracker.state_dict(), torch.as_tensor(neurons, dtype=torch.int64)
            arrays[f"{split}/triggers"] = _as_array(state["triggers"][index])
            arrays[f"{split}/reset_at"] = _as_array(state["reset_at"][index])
        undo = {
            "indices": {f"{name}@{axis}": where.tolist() for name, _, axis, where, _ in writes},
            "young": [{key: entry[key] for key in ("parameter", "axis", "steps")} for entry in young],
        }
        return undo, arrays


def outgoing_entries(
    layer: NeuronLayer, consumer: NeuronLayer, neurons: tuple[int, ...], positions: int | None
) -> tuple[int, torch.Tensor]:
    """(axis, indices) of the consumer's weight that the layer's neurons feed, each flattened from so many positions
    (None: unknown). Raises Refused where they cannot be told apart."""
    if getattr(consumer, "groups", 1) != 1:
        raise Refused("the next layer is a grouped convolution, whose connections cannot be zeroed by neuron yet")
    if positions is None:
        raise Refused(
            f"the next layer's {consumer.incoming_neuron_count} inputs do not fit this layer's {layer.neuron_count} "
            "neurons one by one (a concatenation, or a view), so that its connections cannot be zeroed by neuron yet"
        )
    index = torch.as_tensor(neurons, dtype=torch.int64)
    position = torch.arange(positions)
    if layer.features_last:  # a linear layer's sequence is flattened position by position, an image channel by channel
        return 1, (position * layer.neuron_count + index[:, None]).flatten()
    return 1, (index[:, None] * positions + position).flatten()


def neutral_values(normalisation: nn.Module, neurons: int) -> list[tuple[str, torch.Tensor, float]]:
    """(name, tensor, value) of what a normalisation has for each neuron, and where it starts: gain 1, shift 0, running
    statistics of mean 0 and variance 1."""
    found = []
    for key, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        tensor = getattr(normalisation, key, None)
        if isinstance(tensor, torch.Tensor) and has_rows(tensor, neurons):
            found.append((key, tensor, value))
    return found


def perturbed(layer: NeuronLayer, index: torch.Tensor, ratio: float) -> dict[str, torch.Tensor]:
    """Rows `index` of the layer's parameters, each entry times 1 + u, u uniform in (-ratio, ratio), drawn on the CPU
    from the global random state, so that the same seed gives the same on every device."""
    fresh = {}
    for name, value in layer.named_parameters(recurse=False):
        rows = value.detach().index_select(0, index.to(value.device))
        u = (torch.rand(rows.shape, dtype=torch.float64) * 2 - 1) * ratio
        fresh[name] = (rows.to(torch.float64) * (1 + u.to(rows.device))).to(rows.dtype)
    return fresh


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    # NumPy has no bfloat16; float32 holds each of its values exactly.
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()


def _flag_change(edit: NeuronEdit) -> str:
    if isinstance(edit, SetLearningRate):
        return f"updates times {edit.rate:g}"
    return "no updates, normalisation gain and shift included" if isinstance(edit, Freeze) else "updates again"


def _ranges(indices: tuple[int, ...]) -> str:
    """3, 5-9 and so on; at most eight pieces."""
    pieces: list[list[int]] = []
    for i in sorted(indices):
        if pieces and i == pieces[-1][1] + 1:
            pieces[-1][1] = i
        else:
            pieces.append([i, i])
    text = [f"{a}" if a == b else f"{a}-{b}" for a, b in pieces]
    return ", ".join(text[:8]) + (f" and {len(text) - 8} more ranges" if len(text) > 8 else "")
