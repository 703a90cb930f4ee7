"""Layers and neurons as the wire tells them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graybox.errors import Invalid, NotFound, Refused
from graybox.plan_summary import ranges
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.plans import index_ranges
from graybox.snapshot import LayerStatistics

# Fields of NeuronStatistics that may be unknown, and the arrays [neurons] they come from.
_MEASURED = {
    "train_mean": "train_mean",
    "train_std": "train_std",
    "eval_mean": "eval_mean",
    "eval_std": "eval_std",
    "window_trigger_rate": "window_rate",
    "window_mean": "window_mean",
    "window_std": "window_std",
    "eval_window_trigger_rate": "eval_window_rate",
    "similarity": "similarity",
    "weight_norm": "weight_norm",
    "gradient_norm": "gradient_norm",
    "relative_change": "relative_change",
}
TOP_SAMPLES_SPLIT = "train"


def layer(statistics: LayerStatistics) -> pb.LayerRepresentation:
    """A layer as the list shows it."""
    info = statistics.info
    health = np.asarray(statistics.health)
    incoming = _optional(statistics, "incoming_frozen")
    return pb.LayerRepresentation(
        layer_id=str(info.layer_id),
        layer_name=info.name,
        layer_type=info.layer_type,
        neurons_count=info.neurons,
        incoming_neurons_count=info.incoming_neurons,
        kernel_size=info.kernel_size,
        stride=info.stride,
        parameter_count=info.parameter_count,
        frozen_count=int(np.count_nonzero(statistics.frozen)),
        dead_count=int(np.count_nonzero(health == pb.DEAD)),
        redundant_count=int(np.count_nonzero(health == pb.REDUNDANT)),
        overfit_count=int(np.count_nonzero(health == pb.OVERFIT)),
        young_count=int(np.count_nonzero(health == pb.YOUNG)),
        train_trigger_rate=_mean(statistics.train_rate),
        eval_trigger_rate=_mean(statistics.eval_rate),
        is_output=info.is_output,
        outgoing_layer_ids=[str(consumer) for consumer in info.consumers],
        frozen_incoming=() if incoming is None else index_ranges(ranges(np.flatnonzero(incoming))),
    )


def neurons(
    statistics: LayerStatistics, wanted: Sequence[int] = (), *, details: bool = False
) -> list[pb.NeuronStatistics]:
    """The layer's neurons, or those wanted; with details also what is long.

    Raises NotFound for a neuron that the layer does not have, Invalid for one wanted twice or below 0, Refused for
    more details than fit into an answer.
    """
    count = len(statistics.train_rate)
    if len(set(wanted)) != len(wanted) or min(wanted, default=0) < 0:
        raise Invalid("single_layer_neuron_ids are 0 or more, each named once")
    for neuron in wanted:
        if neuron >= count:
            raise NotFound(f"layer {statistics.info.name} has no neuron {neuron}; they run from 0 to {count - 1}")
    found = _plain(statistics, list(wanted) if wanted else range(count))
    if details:
        _add_details(statistics, found)
    return found


def _plain(statistics: LayerStatistics, chosen: Sequence[int]) -> list[pb.NeuronStatistics]:
    index = np.asarray(chosen, dtype=np.int64)
    columns: dict[str, list[Any]] = {
        "neuron_id": list(chosen),
        "train_trigger_rate": statistics.train_rate[index].tolist(),
        "eval_trigger_rate": statistics.eval_rate[index].tolist(),
        "train_age": statistics.train_age[index].tolist(),
        "eval_age": statistics.eval_age[index].tolist(),
        "frozen": statistics.frozen[index].tolist(),
        "learning_rate": statistics.learning_rate[index].tolist(),
        "health": statistics.health[index].tolist(),
    }
    bias_frozen = _optional(statistics, "bias_frozen")
    if bias_frozen is not None:
        columns["bias_frozen"] = bias_frozen[index].tolist()
    for field, name in _MEASURED.items():
        values = _optional(statistics, name)
        if values is not None:
            columns[field] = [v if math.isfinite(v) else None for v in values[index].tolist()]
    partner = _optional(statistics, "redundant_with")
    if partner is not None:
        columns["redundant_with"] = [p if p >= 0 else None for p in partner[index].tolist()]
    names = tuple(columns)
    return [pb.NeuronStatistics(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _add_details(statistics: LayerStatistics, found: list[pb.NeuronStatistics]) -> None:
    rates, samples = _optional(statistics, "class_rates"), _optional(statistics, "top_samples")
    width = sum(array.shape[1] for array in (rates, samples) if array is not None)
    if len(found) * width > limits.MAX_NEURON_DETAILS:
        raise Refused(
            f"the details of {len(found)} neurons are more than fit into one answer; "
            "name fewer of them by single_layer_neuron_ids"
        )
    values = _optional(statistics, "top_values")
    for neuron in found:
        n = neuron.neuron_id
        if rates is not None:
            neuron.class_trigger_rates.extend(rates[n].tolist())
        if samples is None:
            continue
        for place, row in enumerate(samples[n].tolist()):
            if row < 0:  # fewer samples than places so far
                continue
            activation = None if values is None else float(values[n, place])
            neuron.top_samples.append(
                pb.ExcitingSample(sample_id=str(row), origin=TOP_SAMPLES_SPLIT, activation=activation)
            )


def _optional(statistics: LayerStatistics, name: str) -> np.ndarray | None:
    value = getattr(statistics, name)
    return None if value is None else np.asarray(value)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else 0.0
