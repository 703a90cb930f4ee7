"""Edits that leave the structure as it is: which entries of which tensors they overwrite, and which flags they set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.entry_sets import EntryIndex, checked_where
from graybox.errors import Invalid, Refused
from graybox.initialisation import fresh_entries, perturbed
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_ops import (
    Freeze,
    FreezeBias,
    FreezeIncoming,
    NeuronEdit,
    OverrideBiases,
    OverrideWeights,
    Reinitialize,
    SetLearningRate,
    Unfreeze,
    Zerofy,
)
from graybox.structure.change import Fill
from graybox.transaction import Transaction
from graybox.undo import UndoLog


@dataclass(frozen=True)
class Overwrite:
    """Entries of a tensor and what becomes of them. where: indices by axis, of which the product is meant. value: the
    new value of them all; None where each gets its own. change: for people."""

    tensor: str
    where: Mapping[int, tuple[int, ...]]
    change: str
    value: float | None = None

    def indices(self) -> dict[int, torch.Tensor]:
        """int64 by axis."""
        return {axis: torch.tensor(found, dtype=torch.int64) for axis, found in self.where.items()}


@dataclass(frozen=True)
class FlagChange:
    """Entries of one of a layer's flags and what they become."""

    attribute: str
    indices: tuple[int, ...]
    value: float
    change: str


# -- flags -----------------------------------------------------------------------------------------------


def flag_changes(edit: NeuronEdit, name: str, layer: NeuronLayer, neurons: tuple[int, ...]) -> list[FlagChange]:
    """What an edit of flags sets; empty for other edits. Raises Refused where there is nothing to freeze."""
    match edit:
        case Freeze():
            text = "no updates, normalisation gain and shift included"
            return [FlagChange("frozen", neurons, 1.0, text)]
        case FreezeBias():
            if getattr(layer, "bias", None) is None:
                raise Refused(f"{name} has no bias to freeze; freeze the neurons instead")
            return [FlagChange("bias_frozen", neurons, 1.0, "no updates of the bias")]
        case FreezeIncoming():
            return [FlagChange("incoming_frozen", neurons, 1.0, "no updates of the connections from these")]
        case SetLearningRate():
            return [FlagChange("neuron_learning_rate", neurons, edit.rate, f"updates times {edit.rate:g}")]
        case Unfreeze():
            rows = tuple(n for n in neurons if n < layer.neuron_count)
            columns = tuple(n for n in neurons if n < len(layer.incoming_frozen))
            if not edit.neurons:
                columns = tuple(range(len(layer.incoming_frozen)))
            found = [
                FlagChange("frozen", rows, 0.0, "updates again"),
                FlagChange("bias_frozen", rows, 0.0, "updates of the bias again"),
                FlagChange("incoming_frozen", columns, 0.0, "updates of the connections from these again"),
            ]
            return [flag for flag in found if flag.indices]
    return []


def set_flags(tx: Transaction, name: str, layer: NeuronLayer, changes: Sequence[FlagChange], log: UndoLog) -> None:
    """Do it."""
    for change in changes:
        index = torch.tensor(change.indices, dtype=torch.int64)
        old: torch.Tensor = getattr(layer, change.attribute)
        log.add("flags", layer=name, attribute=change.attribute, index=index, old=old[index])
        new = old.clone()
        new[index] = change.value
        tx.set_attribute(layer, change.attribute, new)


def unset_flags(tx: Transaction, entry: Mapping[str, Any]) -> None:
    """Take it back."""
    _, layer = tx.network.find_layer(entry["layer"])
    new = getattr(layer, entry["attribute"]).clone()
    new[entry["index"]] = entry["old"].to(new.dtype)
    tx.set_attribute(layer, entry["attribute"], new)


# -- which entries ---------------------------------------------------------------------------------------


def overwrites(
    edit: NeuronEdit, network: NetworkWithOps, name: str, layer: NeuronLayer, neurons: tuple[int, ...]
) -> list[Overwrite]:
    """What an edit of values overwrites, in order. Raises Refused or Invalid, with what would be right."""
    match edit:
        case Reinitialize():
            return _reinitialized(edit, network, name, layer, neurons)
        case Zerofy():
            return _zeroed(edit, network, name, layer, neurons)
        case OverrideWeights():
            shape = tuple(layer.weight.shape)
            axis = layer.out_axis
            _given(edit, layer.weight, len(neurons), (*shape[:axis], *shape[axis + 1 :]), "weights")
            return [Overwrite(_names(network, name)[0], {axis: neurons}, "the given weights")]
        case OverrideBiases():
            _given(edit, _bias(layer, name), len(neurons), (), "biases")
            return [Overwrite(_names(network, name)[1], {0: neurons}, "the given biases")]
    return []


def _names(network: NetworkWithOps, name: str) -> tuple[str, str]:
    """The names of a layer's weight and bias, which attention calls otherwise."""
    known = network.structure.layers.get(name)
    return (f"{name}.weight", f"{name}.bias") if known is None else (known.weight, known.bias or f"{name}.bias")


def own_tensors(layer: NeuronLayer) -> dict[str, int]:
    """The layer's parameters with something for each of its neurons: by name, the axis of neurons."""
    found = {}
    for key, parameter in layer.named_parameters(recurse=False):
        if parameter is layer.weight:
            found[key] = layer.out_axis
        elif parameter.dim() == 1 and parameter.shape[0] == layer.neuron_count:
            found[key] = 0
    return found


def _reinitialized(
    edit: Reinitialize, network: NetworkWithOps, name: str, layer: NeuronLayer, neurons: tuple[int, ...]
) -> list[Overwrite]:
    ratio = edit.perturbation_ratio
    how = "own initialisation" if ratio is None else f"times 1 +- {ratio:g}"
    found = [Overwrite(f"{name}.{key}", {axis: neurons}, how) for key, axis in own_tensors(layer).items()]
    if ratio is None:  # a perturbation keeps what the neuron is about, so its normalisation stays
        for follower in network.structure.followers(name):
            value = 1.0 if follower.fill is Fill.ONE else 0.0
            found.append(Overwrite(follower.tensor, {follower.axis: neurons}, f"{value:g}", value))
    if edit.zero_outgoing:
        outgoing = network.structure.outgoing(name, neurons)
        if outgoing.joined:
            raise Refused(
                f"what consumes {name} gets its neurons joined with those of {', '.join(outgoing.joined)}, so that "
                "zeroing their outgoing connections would take away more than what they contribute; reinitialise "
                "without it"
            )
        if not outgoing.regions:
            raise Refused(
                f"nothing consumes the neurons of {name}, so that there is no outgoing connection to zero; "
                "reinitialise without it"
            )
        for region in outgoing.regions:
            where = {axis: tuple(int(i) for i in indices) for axis, indices in region.where.items()}
            found.append(Overwrite(region.tensor, where, "zero", 0.0))
    return found


def _zeroed(
    edit: Zerofy, network: NetworkWithOps, name: str, layer: NeuronLayer, neurons: tuple[int, ...]
) -> list[Overwrite]:
    if edit.whole:
        return [Overwrite(f"{name}.{key}", {axis: neurons}, "zero", 0.0) for key, axis in own_tensors(layer).items()]
    if layer.in_axis < 0:
        raise Refused(f"{name} has no incoming neurons; zero whole neurons instead")
    count = layer.weight.shape[layer.in_axis]
    wrong = [i for i in edit.incoming if not 0 <= i < count]
    if wrong:
        raise Invalid(f"no incoming neuron {wrong[0]} in {name}: it has {count}, numbered from 0")
    columns: dict[tuple[int, ...], list[int]] = {}
    matched = _Sources(network, name, layer) if edit.from_frozen or edit.from_older else None
    for neuron in neurons:
        chosen = set(edit.incoming)
        if matched is not None:
            chosen |= matched.of(neuron, frozen=edit.from_frozen, older=edit.from_older)
        if chosen:
            columns.setdefault(tuple(sorted(chosen)), []).append(neuron)
    if not columns:
        what = " or ".join(["frozen"] * edit.from_frozen + ["older"] * edit.from_older)
        raise Refused(f"none of these neurons of {name} has a connection from a neuron that is {what}; nothing to zero")
    return [
        Overwrite(_names(network, name)[0], {layer.out_axis: tuple(rows), layer.in_axis: chosen}, "zero", 0.0)
        for chosen, rows in columns.items()
    ]


class _Sources:
    """What feeds each incoming index of a layer: whether all of it is frozen, and how old the youngest of it is."""

    def __init__(self, network: NetworkWithOps, name: str, layer: NeuronLayer) -> None:
        layers = dict(network.named_layers())
        ages = {key: found.train_dataset_tracker.ages().tolist() for key, found in layers.items()}
        self._own_ages = ages[name]
        self._columns = int(layer.weight.shape[layer.in_axis])
        self._per_group = layer.neuron_count // max(1, int(getattr(layer, "groups", 1)))
        fed = [[pair for pair in pairs if pair[0] in layers] for pairs in network.structure.incoming(name)]
        self._frozen = [bool(pairs) and all(bool(layers[key].frozen[n]) for key, n in pairs) for pairs in fed]
        self._youngest = [min((ages[key][n] for key, n in pairs), default=-1) for pairs in fed]

    def of(self, neuron: int, *, frozen: bool, older: bool) -> set[int]:
        """Incoming indices that match, for one neuron."""
        # A grouped convolution's incoming indices may be told by group, one after the other.
        first = neuron // self._per_group * self._columns if len(self._frozen) > self._columns else 0
        return {
            column
            for column in range(self._columns)
            if (frozen and self._frozen[first + column])
            or (older and self._youngest[first + column] > self._own_ages[neuron])
        }


def _bias(layer: NeuronLayer, name: str) -> torch.Tensor:
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, torch.Tensor):
        raise Refused(f"{name} has no bias; override its weights only")
    return bias


def _given(
    edit: OverrideWeights | OverrideBiases, target: torch.Tensor, count: int, rest: tuple[int, ...], what: str
) -> torch.Tensor:
    """The given values in the target's own type. Raises Invalid for a wrong shape, or a number that it cannot hold."""
    values = torch.from_numpy(edit.values.copy())
    allowed = [(count, *rest)] + ([rest] if count == 1 and rest else [])
    if tuple(values.shape) not in allowed:
        shapes = " or ".join(str(list(shape)) for shape in allowed)
        raise Invalid(f"the {what} of {count} neurons here have the shape {shapes}, not {list(values.shape)}")
    cast = values.to(target.dtype).reshape(count, *rest)
    if not bool(torch.isfinite(cast).all()):
        raise Invalid(f"the {what} are of type {str(target.dtype).removeprefix('torch.')}, which cannot hold them all")
    return cast


# -- overwriting -----------------------------------------------------------------------------------------


def new_values(
    edit: NeuronEdit, layer: NeuronLayer, neurons: tuple[int, ...], planned: Sequence[Overwrite]
) -> list[torch.Tensor | float]:
    """What goes into each of the planned entries. Draws from the global random state: the caller seeds it."""
    index = torch.tensor(neurons, dtype=torch.int64)
    own = own_tensors(layer)
    drawn: dict[str, torch.Tensor] = {}
    if isinstance(edit, Reinitialize) and edit.perturbation_ratio is None:
        drawn = fresh_entries(layer, {key: (axis, index) for key, axis in own.items()}, {})
    found: list[torch.Tensor | float] = []
    for each in planned:
        key = each.tensor.rpartition(".")[2]
        if each.value is not None:
            found.append(each.value)
        elif isinstance(edit, Reinitialize) and edit.perturbation_ratio is not None:
            parameter = layer.get_parameter(key).detach()
            rows = parameter.index_select(own[key], index.to(parameter.device))
            found.append(perturbed(rows, edit.perturbation_ratio))
        elif isinstance(edit, OverrideWeights):
            shape = layer.weight.shape
            axis = layer.out_axis
            rest = (*shape[:axis], *shape[axis + 1 :])
            found.append(_given(edit, layer.weight, len(neurons), tuple(rest), "weights").movedim(0, axis))
        elif isinstance(edit, OverrideBiases):
            found.append(_given(edit, _bias(layer, "this layer"), len(neurons), (), "biases"))
        else:
            found.append(drawn[key])
    return found


def overwrite(tx: Transaction, planned: Overwrite, value: torch.Tensor | float, log: UndoLog) -> None:
    """Put the value in, and let the optimizer's entries start anew where it treats each one on its own."""
    tensor = tx.tensors.get(planned.tensor)
    where = checked_where(tensor.shape, planned.indices())
    old = EntryIndex(tensor.shape, where, tensor.device).take(tensor.detach())
    new = value if isinstance(value, torch.Tensor) else torch.full_like(old, value)
    kept: dict[str, Any] = {"tensor": planned.tensor, "where": where, "old": old}
    renewed = tensor if isinstance(tensor, nn.Parameter) and tx.optimizer.holds(tensor) and tx.renewable else None
    if renewed is not None:
        kept["entries"] = tx.optimizer.entries_at(renewed, where)
        kept["young"] = tx.optimizer.young_at(renewed, where)
    log.add("overwrite", **kept)
    tx.overwrite(tensor, where, new)
    if renewed is not None:
        tx.renew(renewed, where)


def put_back(tx: Transaction, entry: Mapping[str, Any]) -> None:
    """Take it back."""
    tensor = tx.tensors.get(entry["tensor"])
    where = entry["where"]
    tx.overwrite(tensor, where, entry["old"])
    if "entries" in entry and isinstance(tensor, nn.Parameter) and tx.optimizer.holds(tensor):
        tx.put_entries(tensor, where, entry["entries"], entry["young"])


def forget(tx: Transaction, name: str, layer: NeuronLayer, neurons: tuple[int, ...], log: UndoLog) -> None:
    """The neurons' statistics start anew."""
    if not tx.commits:
        return
    index = np.array(neurons, dtype=np.int64)
    log.add("records", layer=name, neurons=index, taken=layer.records.take(index))
    tx.reset_records(layer, index)


def remember(tx: Transaction, entry: Mapping[str, Any]) -> None:
    """Take it back."""
    _, layer = tx.network.find_layer(entry["layer"])
    tx.put_records(layer, entry["neurons"], entry["taken"])
