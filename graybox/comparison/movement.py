"""How far weights moved from one state of a network to another, neuron by neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graybox.neuron_identity import source_between


@dataclass(frozen=True)
class NeuronMovement:
    """change: |b - a| / |a| over the neuron's weights and bias, of the connections that both have; infinite where it
    came from zero. a, b: its number in either."""

    layer: str
    a: int
    b: int
    change: float


@dataclass(frozen=True)
class Movement:
    """layers: relative change by layer, of the neurons and connections that both have. tensors: by name, the same of
    all other tensors of the same shape (normalisations, running statistics). neurons: those that moved most."""

    layers: dict[str, float]
    tensors: dict[str, float]
    neurons: list[NeuronMovement]


def movement(a: Mapping[str, Any], b: Mapping[str, Any], top: int = 20) -> Movement:
    """Of two checkpoints' payloads. top: so many neurons at most, over all layers."""
    layers: dict[str, float] = {}
    neurons: list[NeuronMovement] = []
    seen: set[str] = set()
    for name in (name for name in a["layers"] if name in b["layers"]):
        found = _matched(name, a, b)
        if found is None:
            continue
        rows, one, other, used = found
        seen |= used
        moved, size = _norms(other - one), _norms(one)
        layers[name] = relative(moved.norm(), size.norm())
        changes = torch.where(size > 0, moved / size.clamp(min=torch.finfo(size.dtype).tiny), moved * torch.inf)
        changes = changes.nan_to_num(nan=0.0, posinf=torch.inf)  # of zero to zero
        best = torch.topk(changes, min(top, len(changes)))
        for place, change in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            if change > 0:
                neurons.append(NeuronMovement(name, int(rows[0][place]), int(rows[1][place]), change))
    neurons.sort(key=lambda each: (-each.change, each.layer, each.b))
    return Movement(layers, _tensors(a["model"], b["model"], seen), neurons[:top])


def _tensors(one: Mapping[str, Any], other: Mapping[str, Any], seen: set[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in one.items():
        there = other.get(name)
        if name in seen or not isinstance(value, torch.Tensor) or not isinstance(there, torch.Tensor):
            continue
        if value.shape == there.shape and (value.is_floating_point() or value.is_complex()):
            found[name] = relative(_wide(there - value).norm(), _wide(value).norm())
    return found


def _matched(
    name: str, a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor, set[str]] | None:
    """((numbers in a, numbers in b) of the neurons that both have, what each of them has in a, and in b: [neurons,
    connections that both have and bias], names of the tensors); None where they cannot be told."""
    states = a["layers"][name], b["layers"][name]
    weight = next((f"{name}.{key}" for key in ("weight", "in_proj_weight") if f"{name}.{key}" in a["model"]), "")
    if weight not in a["model"] or weight not in b["model"]:
        return None
    rows = _common(*states, "neuron_identity")
    columns = _common(*states, "incoming_identity")
    bias = weight.removesuffix("weight") + "bias"
    parts: list[torch.Tensor] = []
    for side, payload in enumerate((a, b)):
        found = _oriented(payload["model"][weight], states[side])
        if found is None:
            return None
        values = found.index_select(0, rows[side])
        if len(states[side]["incoming_identity"]):
            values = values.index_select(1, columns[side])
        values = values.flatten(1)
        own = payload["model"].get(bias)
        if isinstance(own, torch.Tensor) and len(own) == len(states[side]["neuron_identity"]):
            values = torch.cat([values, _wide(own).index_select(0, rows[side])[:, None]], 1)
        parts.append(values)
    if parts[0].shape != parts[1].shape:  # another kernel, or a bias in one only
        return None
    return rows, parts[0], parts[1], {weight, bias}


def _common(a: Mapping[str, Any], b: Mapping[str, Any], what: str) -> tuple[torch.Tensor, torch.Tensor]:
    source = source_between(a[what], b[what])
    there = (source >= 0).nonzero().flatten()
    return source[there], there


def _oriented(weight: torch.Tensor, state: Mapping[str, Any]) -> torch.Tensor | None:
    """A layer's weight as [neurons, incoming places, ...], in double precision; None where neither axis fits.

    A checkpoint does not say which axis is which. Where both fit, it is a convolution's or linear layer's.
    """
    neurons, places = len(state["neuron_identity"]), len(state["incoming_identity"])
    sizes = tuple(weight.shape[:2])
    if sizes[:1] == (neurons,) and (sizes[1:] == (places,) or (not places and sizes[1:] != (neurons,))):
        return _wide(weight)
    if sizes == (places, neurons) or (not places and sizes[1:] == (neurons,)):
        return _wide(weight).transpose(0, 1)
    return None


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def _norms(rows: torch.Tensor) -> torch.Tensor:
    """Of each row, float64."""
    return torch.linalg.vector_norm(rows, dim=1) if rows.shape[1] else torch.zeros(len(rows), dtype=torch.float64)


def relative(moved: torch.Tensor, size: torch.Tensor) -> float:
    """moved / size; 0 for nothing of nothing, infinite for something of nothing."""
    return float(moved / size) if size else (float("inf") if moved else 0.0)
