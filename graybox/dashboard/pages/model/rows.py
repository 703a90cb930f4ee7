"""Layers and neurons as the browser draws them, and edits as the wire wants them."""

from __future__ import annotations

import math
from typing import Any

from graybox.dashboard.view import HEALTH_WORDS, count
from graybox.proto import experiment_service_pb2 as pb


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
            "train": _rate(layer.train_trigger_rate),
            "eval": _rate(layer.eval_trigger_rate),
            "output": layer.is_output,
        }
        for layer in layers
    ]


def neuron_rows(layer: pb.LayerRepresentation, run_id: str) -> dict[str, Any]:
    """The neurons of one layer as the browser draws them."""
    return {
        "run": run_id,
        "layer": layer.layer_id,
        "name": layer.layer_name,
        "output": layer.is_output,
        "neurons": [
            {
                "key": f"{layer.layer_id}/{neuron.neuron_id}",
                "id": neuron.neuron_id,
                "train": _rate(neuron.train_trigger_rate),
                "eval": _rate(neuron.eval_trigger_rate),
                "age": neuron.train_age,
                "eval_age": neuron.eval_age,
                "frozen": neuron.frozen,
                "rate": float(f"{neuron.learning_rate:.6g}"),
                "health": HEALTH_WORDS.get(neuron.health, ""),
            }
            for neuron in layer.neurons
        ],
    }


def _shape(layer: pb.LayerRepresentation) -> str:
    kernel = "×".join(str(size) for size in layer.kernel_size)
    return f"{layer.incoming_neurons_count} → {layer.neurons_count}" + (f", {kernel}" if kernel else "")


def _rate(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else 0.0


OPERATIONS = {
    "freeze": pb.FREEZE,
    "unfreeze": pb.UNFREEZE,
    "reinitialise": pb.REINITIALIZE,
    "set-learning-rate": pb.CHANGE_LEARNING_RATE,
}


def edit_request(
    button: str, selection: dict[str, Any], ratio: str, zero_outgoing: bool, factor: str
) -> pb.ManipulateWeightsRequest:
    """The edit that a button stands for. Raises ValueError with a message for people.

    An empty selection is refused here: on the wire it would mean all neurons of the layer.
    """
    neurons = selection.get("neurons") or []
    if not selection.get("layer") or not neurons:
        raise ValueError("Select at least one neuron first.")
    request = pb.ManipulateWeightsRequest(
        operation=OPERATIONS[button], layer_id=str(selection["layer"]), neuron_ids=neurons
    )
    if button == "reinitialise":
        request.zero_outgoing = zero_outgoing
        if ratio.strip():
            request.perturbation_ratio = _number(ratio, "The perturbation ratio is a number between 0 and 1")
    if button == "set-learning-rate":
        request.learning_rate = _number(factor, "The factor on the learning rate is a number of 0 or more, such as 0.5")
    return request


def _number(text: str, rule: str) -> float:
    try:
        return float(text.strip())
    except ValueError:
        raise ValueError(f"{rule}, not {text.strip()!r}.") from None
