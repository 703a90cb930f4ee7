"""Layers in memory and everything that can be done to their neurons, small enough to be right by reading."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from graybox import neuron_ops as ops
from graybox.errors import Invalid, NotFound, Refused
from graybox.plan_summary import LogitChange, PlanSummary, TensorTouch, ranges
from graybox.snapshot import LayerInfo, LayerStatistics

DEAD, FROZEN, REDUNDANT = 3, 4, 6
PAIRED = "features.conv2"
"""Its neurons 2n and 2n + 1 can only go together."""


@dataclass
class ToyLayer:
    info: LayerInfo
    weight: np.ndarray
    bias: np.ndarray
    frozen: np.ndarray
    rate: np.ndarray
    bias_frozen: np.ndarray
    incoming_frozen: np.ndarray

    @property
    def trigger_rate(self) -> np.ndarray:
        return np.linspace(0, 1, len(self.bias))


def make_layer(layer_id: int, name: str, kind: str, shape: tuple[int, ...], consumers: tuple[int, ...]) -> ToyLayer:
    rng = np.random.default_rng(layer_id)
    info = LayerInfo(
        layer_id=layer_id,
        name=name,
        layer_type=kind,
        neurons=shape[0],
        incoming_neurons=shape[1],
        kernel_size=shape[2:],
        stride=(1,) * len(shape[2:]),
        parameter_count=int(np.prod(shape)) + shape[0],
        is_output=not consumers,
        consumers=consumers,
    )
    return ToyLayer(
        info,
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=shape[0]).astype(np.float32),
        np.zeros(shape[0], dtype=bool),
        np.ones(shape[0]),
        np.zeros(shape[0], dtype=bool),
        np.zeros(shape[1], dtype=bool),
    )


class ToyNetwork:
    """Three layers in a chain. Edits are planned, then applied whole; a copy undoes them."""

    def __init__(self) -> None:
        self.layers = [
            make_layer(0, "conv1", "Conv2d", (4, 1, 3, 3), (1,)),
            make_layer(1, PAIRED, "Conv2d", (6, 4, 3, 3), (2,)),
            make_layer(2, "fc", "Linear", (3, 6), ()),
        ]

    def layer(self, name: str) -> ToyLayer:
        for layer in self.layers:
            if name in (str(layer.info.layer_id), layer.info.name):
                return layer
        raise NotFound(f"there is no layer {name!r}")

    def parameters(self) -> int:
        return sum(layer.weight.size + layer.bias.size for layer in self.layers)

    def multiply_adds(self) -> int:
        return sum(layer.weight.size for layer in self.layers)

    def copy(self) -> ToyNetwork:
        return copy.deepcopy(self)

    def resolve(self, edit: ops.NeuronEdit, select: ops.Select | None) -> list[ops.NeuronEdit]:
        """The edits of single layers, with their neurons, that are meant. Refused where nothing is."""
        if select is None:
            return [edit.at(self.layer(edit.layer).info.name, edit.neurons)]
        layers = [self.layer(name) for name in select.layers] or self.layers
        if isinstance(edit, (ops.SortByStat, ops.AddNeurons)):
            return [edit.at(layer.info.name, ()) for layer in layers]
        if select.statistic != "trigger_rate":
            raise Invalid(f"there is no statistic {select.statistic!r}; there is trigger_rate")
        found = [
            (layer.trigger_rate[n], layer.info.name, n)
            for layer in layers
            for n in range(len(layer.bias))
            if (not select.neurons or n in select.neurons)
            and (not select.health or (select.health == "dead") == (layer.trigger_rate[n] == 0))
        ]
        amount = select.lowest if select.share is None else max(1, int(select.share * len(found)))
        if amount is not None:
            found = sorted(found, key=lambda row: row[0], reverse=select.highest)[:amount]
        if not found:
            raise Refused("the selection matches no neuron; nothing was changed")
        names = list(dict.fromkeys(name for _, name, _ in found))
        return [edit.at(name, tuple(sorted(n for _, at, n in found if at == name))) for name in names]

    def plan(self, edits: list[ops.NeuronEdit], measure: bool) -> PlanSummary:
        """What the edits would do, found out by doing them to a copy."""
        trial = self.copy()
        touches: list[TensorTouch] = []
        neurons = {}
        for edit in edits:
            layer = self.layer(edit.layer)
            indices = trial.apply(edit)
            neurons[layer.info.name] = ranges(indices)
            touches.append(TensorTouch(f"{layer.info.name}.weight", 0, ranges(indices), edit.kind))
            if isinstance(edit, (ops.RemoveNeurons, ops.AddNeurons)):
                touches += [
                    TensorTouch(f"{self.layers[consumer].info.name}.weight", 1, ranges(indices), edit.kind)
                    for consumer in layer.info.consumers
                ]
        said = "; ".join(f"{e.kind} of {e.layer}: neurons {list(e.neurons) or 'all'}" for e in edits)
        return PlanSummary(
            summary=said,
            text=said,
            neurons=neurons,
            touches=tuple(touches),
            parameters_before=self.parameters(),
            parameters_after=trial.parameters(),
            multiply_adds_before=self.multiply_adds(),
            multiply_adds_after=trial.multiply_adds(),
            inexact=("a normalisation mixes the channels",) if edits[0].kind == "sort_by_stat" else (),
            measured=LogitChange(0.25, 0.125, 8) if measure else None,
        )

    def apply(self, edit: ops.NeuronEdit) -> list[int]:
        """Do it; the neurons it was about (new ones in the new numbering)."""
        layer = self.layer(edit.layer)
        along = layer.weight.shape[1] if isinstance(edit, ops.FreezeIncoming) else len(layer.bias)
        for neuron in edit.neurons:
            if neuron >= along:
                raise NotFound(f"layer {edit.layer!r} has no neuron {neuron}; it has {along}")
        neurons = list(edit.neurons) or list(range(along))
        structural: dict[type, Callable[[], list[int]]] = {
            ops.RemoveNeurons: lambda: self._remove(layer, neurons, len(edit.neurons) == 0),
            ops.AddNeurons: lambda: self._add(layer, getattr(edit, "count", 0)),
            ops.SortByStat: lambda: self._sort(layer, getattr(edit, "descending", True)),
        }
        if type(edit) in structural:
            return structural[type(edit)]()
        _apply_in_place(layer, edit, neurons)
        return neurons

    def _remove(self, layer: ToyLayer, neurons: list[int], everything: bool) -> list[int]:
        if everything or len(neurons) == len(layer.bias):
            raise Refused(f"these are all neurons of {layer.info.name}; keep at least one")
        if layer.info.name == PAIRED:
            whole = sorted({pair for n in neurons for pair in (n // 2 * 2, n // 2 * 2 + 1)})
            if whole != sorted(neurons):
                error = Refused(f"the neurons of {PAIRED} go in pairs; {whole} can go together")
                error.details = {"together": {PAIRED: whole}}  # type: ignore[attr-defined]
                raise error
        self._take(layer, np.setdiff1d(np.arange(len(layer.bias)), neurons))
        return neurons

    def _add(self, layer: ToyLayer, count: int) -> list[int]:
        before = len(layer.bias)
        for name in ("weight", "bias", "frozen", "rate", "bias_frozen"):
            old = getattr(layer, name)
            fill = np.ones if name == "rate" else np.zeros
            setattr(layer, name, np.concatenate([old, fill((count, *old.shape[1:]), old.dtype)]))
        for number in layer.info.consumers:
            consumer = self.layers[number]
            new = np.zeros((len(consumer.weight), count, *consumer.weight.shape[2:]), np.float32)
            consumer.weight = np.concatenate([consumer.weight, new], axis=1)
            consumer.incoming_frozen = np.concatenate([consumer.incoming_frozen, np.zeros(count, dtype=bool)])
        self._count()
        return list(range(before, before + count))

    def _sort(self, layer: ToyLayer, descending: bool) -> list[int]:
        order = np.argsort(-layer.trigger_rate if descending else layer.trigger_rate, kind="stable")
        self._take(layer, order)
        return order.tolist()

    def _take(self, layer: ToyLayer, source: np.ndarray) -> None:
        for name in ("weight", "bias", "frozen", "rate", "bias_frozen"):
            setattr(layer, name, getattr(layer, name)[source])
        for number in layer.info.consumers:
            consumer = self.layers[number]
            consumer.weight = consumer.weight[:, source]
            consumer.incoming_frozen = consumer.incoming_frozen[source]
        self._count()

    def _count(self) -> None:
        for layer in self.layers:
            size = layer.weight.size + layer.bias.size
            counts = {"neurons": len(layer.bias), "incoming_neurons": layer.weight.shape[1], "parameter_count": size}
            layer.info = replace(layer.info, **counts)


def _apply_in_place(layer: ToyLayer, edit: ops.NeuronEdit, neurons: list[int]) -> None:
    match edit:
        case ops.Freeze():
            layer.frozen[neurons] = True
        case ops.Unfreeze():
            layer.frozen[neurons] = layer.bias_frozen[neurons] = False
            layer.incoming_frozen[[n for n in neurons if n < len(layer.incoming_frozen)]] = False
        case ops.FreezeBias():
            layer.bias_frozen[neurons] = True
        case ops.FreezeIncoming():
            layer.incoming_frozen[neurons] = True
        case ops.SetLearningRate():
            layer.rate[neurons] = edit.rate
        case ops.Reinitialize():
            layer.weight[neurons] = 0 if edit.perturbation_ratio is None else layer.weight[neurons] * 1.01
        case ops.Zerofy():
            if edit.whole:
                layer.weight[neurons] = layer.bias[neurons] = 0
            for incoming in edit.incoming:
                if incoming >= layer.weight.shape[1]:
                    raise NotFound(f"layer {layer.info.name} has no incoming neuron {incoming}")
                layer.weight[neurons, incoming] = 0
        case ops.OverrideWeights() | ops.OverrideBiases():
            target = layer.weight if isinstance(edit, ops.OverrideWeights) else layer.bias
            if edit.values.shape != target[neurons].shape:
                raise Invalid(f"the values have the shape {edit.values.shape}, not {target[neurons].shape}")
            target[neurons] = edit.values
        case _:
            raise AssertionError(f"unknown edit {edit}")


def statistics_of(layer: ToyLayer) -> LayerStatistics:
    count = len(layer.bias)
    rate = layer.trigger_rate
    redundant = np.where(np.arange(count) == 2, 1, -1)
    health = np.where(rate == 0, DEAD, np.where(redundant >= 0, REDUNDANT, 1))
    health = np.where(layer.frozen, FROZEN, health)
    top = np.arange(count * 3).reshape(count, 3) % 40
    top[:, 2] = -1
    return LayerStatistics(
        info=layer.info,
        train_rate=rate,
        train_age=np.full(count, 64, dtype=np.int64),
        eval_rate=rate / 2,
        eval_age=np.full(count, 12, dtype=np.int64),
        frozen=layer.frozen.copy(),
        learning_rate=layer.rate.copy(),
        health=health,
        train_mean=rate * 2,
        train_std=rate * 3,
        eval_mean=np.where(rate == 0, np.nan, rate),
        window_rate=rate / 4,
        window_mean=rate / 5,
        class_rates=np.stack([rate, rate / 2, np.full(count, np.nan)], axis=1),
        top_samples=top,
        weight_norm=np.sqrt((layer.weight.reshape(count, -1) ** 2).sum(1)),
        relative_change=rate / 10,
        redundant_with=redundant,
        bias_frozen=layer.bias_frozen.copy(),
        incoming_frozen=layer.incoming_frozen.copy(),
    )
