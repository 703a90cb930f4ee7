"""Layers and neurons as the browser draws them."""

from __future__ import annotations

import math
from typing import Any

from graybox.dashboard.view import HEALTH_WORDS, count, optional
from graybox.proto import experiment_service_pb2 as pb

# A row's key, and the field of NeuronStatistics that may be unknown.
_MEASURED = {
    "mean": "train_mean",
    "std": "train_std",
    "eval_mean": "eval_mean",
    "eval_std": "eval_std",
    "recent": "window_trigger_rate",
    "recent_mean": "window_mean",
    "norm": "weight_norm",
    "gradient": "gradient_norm",
    "change": "relative_change",
}


def layer_rows(layers: list[pb.LayerRepresentation]) -> list[dict[str, Any]]:
    """The list of layers as the browser draws it, in the order of the network."""
    return [
        {
            "id": layer.layer_id,
            "name": layer.layer_name,
            "type": layer.layer_type,
            "neurons": layer.neurons_count,
            "shape": _shape(layer),
            "parameters": count(layer.parameter_count),
            "frozen": layer.frozen_count,
            "dead": layer.dead_count,
            "redundant": layer.redundant_count,
            "overfit": layer.overfit_count,
            "train": _rate(layer.train_trigger_rate),
            "eval": _rate(layer.eval_trigger_rate),
            "output": layer.is_output,
        }
        for layer in layers
    ]


def neuron_rows(layer: pb.LayerRepresentation, run_id: str) -> dict[str, Any]:
    """The neurons of one layer as the browser draws them; what is not known is None."""
    return {
        "run": run_id,
        "layer": layer.layer_id,
        "name": layer.layer_name,
        "output": layer.is_output,
        "incoming": layer.incoming_neurons_count,
        "frozen_incoming": sum(r.last - r.first + 1 for r in layer.frozen_incoming),
        "neurons": [_neuron_row(layer.layer_id, neuron) for neuron in layer.neurons],
    }


def _neuron_row(layer_id: str, neuron: pb.NeuronStatistics) -> dict[str, Any]:
    health, twin = HEALTH_WORDS.get(neuron.health, ""), optional(neuron, "redundant_with")
    rate = _short(neuron.learning_rate)
    # All that the cell of the health shows is its value, or the table would not see that it changed.
    state = [
        health,
        f"≈ {twin}" if health == "redundant" and twin is not None else "",
        "bias" if neuron.bias_frozen else "",
        f"× {rate:g}" if rate not in (1.0, None) else "",
    ]
    return {
        "key": f"{layer_id}/{neuron.neuron_id}",
        "id": neuron.neuron_id,
        "train": _rate(neuron.train_trigger_rate),
        "eval": _rate(neuron.eval_trigger_rate),
        "age": neuron.train_age,
        "eval_age": neuron.eval_age,
        "frozen": neuron.frozen,
        "bias_frozen": neuron.bias_frozen,
        "rate": rate,
        "health": health,
        "state": "|".join(state),
        "twin": twin,
        **{key: _short(optional(neuron, field)) for key, field in _MEASURED.items()},
    }


def _shape(layer: pb.LayerRepresentation) -> str:
    kernel = "×".join(str(size) for size in layer.kernel_size)
    return f"{layer.incoming_neurons_count} → {layer.neurons_count}" + (f", {kernel}" if kernel else "")


def _rate(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else 0.0


def _short(value: float | None) -> float | None:
    """JSON has no NaN, and nobody reads twelve digits."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
