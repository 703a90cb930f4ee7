"""A copy of what the neurons did, for whoever watches."""

from __future__ import annotations

import numpy as np
import torch

from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.snapshot import LayerInfo, LayerStatistics, NeuronStatistics

YOUNG_BELOW = 1_000
"""A neuron that has seen fewer training samples since it began or was reinitialised is not judged."""
DEAD_BELOW = 0.001
"""A neuron whose training trigger rate is below this is dead: it answers less than one sample in a thousand."""

GOOD, YOUNG, DEAD, FROZEN = 1, 2, 3, 4


def copy_statistics(model: NetworkWithOps, step: int) -> NeuronStatistics:
    """All layers at this moment. Waits for the device; for the owner, between two steps."""
    output = model.output_layer()  # asked once: it looks through the whole network
    layers = model.named_layers()
    return NeuronStatistics(
        step, {layer.get_module_id(): layer_statistics(model, name, layer, layer is output) for name, layer in layers}
    )


def layer_statistics(model: NetworkWithOps, name: str, layer: NeuronLayer, is_output: bool) -> LayerStatistics:
    """One layer's neurons; arrays of shape [neurons]."""
    train, evaluation = layer.train_dataset_tracker, layer.eval_dataset_tracker
    train_rate, train_age = train.rates().numpy(), train.ages().numpy().copy()
    frozen = layer.frozen.numpy().copy()
    return LayerStatistics(
        info=layer_info(model, name, layer, is_output),
        train_rate=train_rate,
        train_age=train_age,
        eval_rate=evaluation.rates().numpy(),
        eval_age=evaluation.ages().numpy().copy(),
        frozen=frozen,
        learning_rate=layer.neuron_learning_rate.numpy().copy(),
        health=health(train_rate, train_age, frozen),
    )


def health(train_rate: np.ndarray, train_age: np.ndarray, frozen: np.ndarray) -> np.ndarray:
    """A verdict per neuron (int64 [neurons], numbers of NeuronHealth): frozen before young before dead before good."""
    verdict = np.where(train_rate < DEAD_BELOW, DEAD, GOOD)
    verdict = np.where(train_age < YOUNG_BELOW, YOUNG, verdict)
    return np.where(frozen, FROZEN, verdict)


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
