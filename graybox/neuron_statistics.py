"""A copy of what is known of the neurons, for whoever watches: one wait for the device, however many the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_health import (
    DEAD,
    DEFAULT_THRESHOLDS,
    FROZEN,
    GOOD,
    OVERFIT,
    REDUNDANT,
    YOUNG,
    HealthThresholds,
    health,
)
from graybox.neuron_readings import weight_readings
from graybox.neuron_records import NeuronRecords
from graybox.snapshot import LayerInfo, LayerStatistics, NeuronStatistics

__all__ = [
    "DEAD", "FROZEN", "GOOD", "OVERFIT", "REDUNDANT", "YOUNG",
    "copy_statistics", "health", "layer_info", "layer_statistics",
]  # fmt: skip

COPIED_CLASSES = 100
"""With more classes than this their rates are left out of copies, which are made twice a second; ask the records."""


def copy_statistics(
    model: NetworkWithOps, step: int, thresholds: HealthThresholds = DEFAULT_THRESHOLDS, *, fresh: bool = False
) -> NeuronStatistics:
    """All layers at this moment. Waits for the device once; for the owner, between two steps. fresh: also what takes
    long to work out is of this moment, not of the last few seconds."""
    output = model.output_layer()  # asked once: it looks through the whole network
    layers = model.named_layers()
    read = fetched([on_device(layer, thresholds, fresh=fresh) for _, layer in layers])
    return NeuronStatistics(
        step,
        {
            layer.get_module_id(): _statistics(
                layer_info(model, name, layer, layer is output), layer, values, thresholds
            )
            for (name, layer), values in zip(layers, read, strict=True)
        },
    )


def layer_statistics(
    model: NetworkWithOps,
    name: str,
    layer: NeuronLayer,
    is_output: bool,
    thresholds: HealthThresholds = DEFAULT_THRESHOLDS,
    *,
    fresh: bool = False,
) -> LayerStatistics:
    """One layer's neurons. Waits for the device once."""
    values = fetched([on_device(layer, thresholds, fresh=fresh)])[0]
    return _statistics(layer_info(model, name, layer, is_output), layer, values, thresholds)


def on_device(layer: NeuronLayer, thresholds: HealthThresholds, *, fresh: bool) -> dict[str, torch.Tensor]:
    """What is read off tensors on the layer's device, by name. Never waits for it."""
    records: NeuronRecords | None = getattr(layer, "records", None)
    train, evaluation = layer.train_dataset_tracker, layer.eval_dataset_tracker
    found = {"train_triggers": train.triggers, "eval_triggers": evaluation.triggers}
    if records is None:
        return found
    totals = records.train.totals
    recent = totals.rates(recent=True)
    comparable = (recent >= thresholds.dead_below) & (train.ages() >= thresholds.young_below).to(recent.device)
    ids, values = records.train.exciting.top()
    found |= {
        "window_rate": recent,
        "eval_window_rate": records.eval.totals.rates(recent=True),
        "train_mean": totals.means(recent=False),
        "train_std": totals.deviations(recent=False),
        "window_mean": totals.means(recent=True),
        "window_std": totals.deviations(recent=True),
        "eval_mean": records.eval.totals.means(recent=False),
        "eval_std": records.eval.totals.deviations(recent=False),
        "top_samples": ids,
        "top_values": values,
        **weight_readings(layer, records, comparable, thresholds, fresh=fresh),
    }
    if 0 < records.train.classes.classes <= COPIED_CLASSES:
        found["class_rates"] = records.train.classes.rates()
    return found


def fetched(found: Sequence[Mapping[str, torch.Tensor]]) -> list[dict[str, np.ndarray]]:
    """The same on the CPU, as float64 (which holds every id exactly up to 2**53), in one transfer per device."""
    tensors = [tensor for group in found for tensor in group.values()]
    values: list[np.ndarray] = [np.empty(0)] * len(tensors)
    for device in dict.fromkeys(tensor.device for tensor in tensors):
        mine = [place for place, tensor in enumerate(tensors) if tensor.device == device]
        flat = torch.cat([tensors[place].flatten().to(torch.float64) for place in mine]).cpu().numpy()
        ends = np.cumsum([tensors[place].numel() for place in mine])
        for place, part in zip(mine, np.split(flat, ends[:-1]), strict=True):
            values[place] = part.reshape(tensors[place].shape)
    remaining = iter(values)
    return [{name: next(remaining) for name in group} for group in found]


def _statistics(
    info: LayerInfo, layer: NeuronLayer, read: dict[str, np.ndarray], thresholds: HealthThresholds
) -> LayerStatistics:
    train, evaluation = layer.train_dataset_tracker, layer.eval_dataset_tracker
    train_rate = _rates(read.pop("train_triggers"), train.counted().numpy())
    eval_rate = _rates(read.pop("eval_triggers"), evaluation.counted().numpy())
    train_age, eval_age = train.ages().numpy(), evaluation.ages().numpy()
    frozen = layer.frozen.numpy().copy()
    measured: dict[str, Any] = dict(read)
    for name in ("top_samples", "redundant_with"):
        if name in measured:
            measured[name] = measured[name].astype(np.int64)
    for name in ("bias_frozen", "incoming_frozen"):
        flags = getattr(layer, name, None)
        measured[name] = flags.numpy().copy() if isinstance(flags, torch.Tensor) else None
    return LayerStatistics(
        info=info,
        train_rate=train_rate,
        train_age=train_age,
        eval_rate=eval_rate,
        eval_age=eval_age,
        frozen=frozen,
        learning_rate=layer.neuron_learning_rate.numpy().copy(),
        health=health(
            _known(read.get("window_rate"), train_rate),
            train_age,
            frozen,
            thresholds,
            eval_rate=_known(read.get("eval_window_rate"), eval_rate),
            eval_age=eval_age,
            redundant_with=measured.get("redundant_with"),
        ),
        **measured,
    )


def _rates(triggers: np.ndarray, counted: np.ndarray) -> np.ndarray:
    return np.clip(np.where(counted > 0, triggers / np.maximum(counted, 1), 0.0), 0.0, 1.0)


def _known(recent: np.ndarray | None, lifetime: np.ndarray) -> np.ndarray:
    """Recent rates, lifetime's where there are none."""
    return lifetime if recent is None else np.where(np.isnan(recent), lifetime, recent)


def layer_info(model: NetworkWithOps, name: str, layer: NeuronLayer, is_output: bool) -> LayerInfo:
    """How a layer is built."""
    return LayerInfo(
        layer_id=layer.get_module_id(),
        name=name,
        layer_type=type(layer).__name__.removesuffix("WithNeuronOps"),
        neurons=layer.neuron_count,
        incoming_neurons=layer.incoming_neuron_count,
        kernel_size=_sizes(layer, "kernel_size"),
        stride=_sizes(layer, "stride"),
        parameter_count=sum(p.numel() for p in layer.parameters(recurse=False)),
        is_output=is_output,
        consumers=tuple(consumer.get_module_id() for consumer in model.consumers(layer)),
    )


def _sizes(layer: torch.nn.Module, name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in getattr(layer, name, ()))
