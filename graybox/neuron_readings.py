"""What is read off a layer's weights: norms, how far they moved, and which neurons do the same."""

from __future__ import annotations

import time
from typing import Any

import torch

from graybox.neuron_health import HealthThresholds, redundancy
from graybox.neuron_records import NeuronRecords

READING_SHARE = 0.02
"""Working them out takes at most this share of the time: what took long is not done anew for a while."""


def neuron_rows(weight: torch.Tensor, out_axis: int, neurons: int) -> torch.Tensor:
    """A layer's weight as [neurons, ...], a view where possible. A grouped transposed convolution's weight [incoming,
    neurons / groups, ...] is taken apart. Complex numbers are taken as two, [neurons, ..., 2]."""
    groups = neurons // max(weight.shape[out_axis], 1)
    if groups > 1:
        apart = weight.unflatten(1 - out_axis, (groups, -1))  # [groups, incoming / groups, neurons / groups, ...]
        weight, out_axis = apart.movedim(2, 1).flatten(0, 1), 0
    rows: torch.Tensor = weight.movedim(out_axis, 0)
    return torch.view_as_real(rows.resolve_conj()) if rows.is_complex() else rows


def rows_of(layer: Any, weight: torch.Tensor | None = None) -> torch.Tensor:
    """The weight of a layer with neuron operations, or a copy of it, as [neurons, ...]."""
    found = layer.weight if weight is None else weight
    return neuron_rows(found.detach(), getattr(layer, "out_axis", 0), layer.neuron_count)


def weight_readings(
    layer: Any, records: NeuronRecords, comparable: torch.Tensor, thresholds: HealthThresholds, *, fresh: bool = False
) -> dict[str, torch.Tensor]:
    """By name, float64 [neurons] on the layer's device: weight_norm, gradient_norm (of the last step; NaN without
    gradients), relative_change (since the last checkpoint; NaN unknown), redundant_with, similarity as
    `redundancy` answers. Never waits for the device.

    fresh: not the ones worked out before, however long it takes. comparable: bool [neurons], as `redundancy` takes.
    """
    start = time.monotonic()
    if not fresh and records.readings and start < records.readings_due:
        return records.readings
    with torch.no_grad():
        found = _work_out(layer, records, comparable, thresholds)
    end = time.monotonic()
    records.readings, records.readings_due = found, end + (end - start) / READING_SHARE
    return found


def _work_out(
    layer: Any, records: NeuronRecords, comparable: torch.Tensor, thresholds: HealthThresholds
) -> dict[str, torch.Tensor]:
    rows = rows_of(layer)
    device, axis = rows.device, getattr(layer, "out_axis", 0)
    gradient = layer.weight.grad
    unknown = torch.full((len(rows),), torch.nan, dtype=torch.float64, device=device)
    norm = unknown if gradient is None else _lengths(neuron_rows(gradient.detach(), axis, len(rows)))
    bias = getattr(layer, "bias", None)
    vectors = rows.flatten(1).to(torch.float32)
    if isinstance(bias, torch.Tensor) and bias.shape == rows.shape[:1]:
        shifts = neuron_rows(bias.detach(), 0, len(rows)).reshape(len(rows), -1)
        vectors = torch.cat((vectors, shifts.to(torch.float32)), 1)
    activations = records.train.probe.columns["rows"].to(device)
    return {
        "weight_norm": _lengths(rows),
        "gradient_norm": norm,
        "relative_change": records.relative_change(rows),
        **redundancy(vectors, activations, comparable.to(device), thresholds),
    }


def _lengths(rows: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = torch.linalg.vector_norm(rows.flatten(1).to(torch.float32), dim=1).to(torch.float64)
    return lengths
