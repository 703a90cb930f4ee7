"""The same as a trace, from what the user declared about who follows whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from graybox.structure.layout import Array, Block, Layout
from graybox.structure.rules import Contraction, Norm, Tracing
from graybox.structure.rules_layers import connect_channels
from graybox.structure.tracer import OUTPUT, Trace, named_tensors, own_layout

NORM_ROLES = {"weight": "gain", "bias": "shift", "running_mean": "mean", "running_var": "var"}


@dataclass(frozen=True)
class Declared:
    """A weighted layer as declared.

    name: of its module. out_axis, in_axis: of its weight. features_last: whether it takes its input's last axis.
    followers: names of the normalisations behind it. producers: names of the layers it consumes.
    same: names of layers whose neurons are the same (a sum).
    """

    name: str
    out_axis: int
    in_axis: int
    groups: int
    features_last: bool
    followers: tuple[str, ...]
    producers: tuple[str, ...]
    same: tuple[str, ...]


def declared_trace(network: nn.Module, layers: Iterable[Declared], rates: Mapping[str, float]) -> Trace:
    """What a trace would have found. rates: multiply-adds for each entry of a weight, by its name, where known."""
    tensors = named_tensors(network)
    tracing = Tracing()
    own = {name: own_layout(tracing, name, value) for name, value in tensors.items()}
    trace = Trace(tracing, tensors, own)
    known = {layer.name: layer for layer in layers}
    rows = {name: _rows(own, f"{name}.weight", layer.out_axis) for name, layer in known.items()}
    consumed = {producer for layer in known.values() for producer in layer.producers}
    for order, layer in enumerate(known.values(), 1):
        weight = f"{layer.name}.weight"
        inputs = _inputs(trace, layer, known, rows)
        columns = _axis(own[weight], layer.in_axis) if layer.in_axis >= 0 else None
        shape = own[weight].shape
        if layer.in_axis >= 0:
            width = shape[layer.in_axis] * layer.groups
            given = Layout((1, width), () if inputs is None else (Block((1,), inputs),))
            out = _axis(own[weight], layer.out_axis)
            connect_channels(tracing, inputs, out, columns, layer.groups, layer.in_axis == 0, given, 1)
            trace.inputs[layer.name] = given
        tracing.contractions.append(
            Contraction(weight, layer.out_axis, layer.in_axis, layer.groups, inputs, order, rates.get(weight, 0.0))
        )
        _bias(tracing, own, layer, rows[layer.name])
        for other in layer.same:
            if rows[other].size == rows[layer.name].size:
                tracing.atoms.unite(rows[layer.name], rows[other])
        for follower in layer.followers:
            _follow(tracing, own, follower, rows[layer.name], order)
        if layer.name not in consumed:
            tracing.atoms.fix(rows[layer.name], OUTPUT)
    for name, layout in own.items():
        if not any(name.startswith(f"{layer}.") for layer in (*known, *_norms(known.values()))):
            tracing.atoms.fix_layout(layout, f"nothing is declared about {name}")
    return trace


def _norms(layers: Iterable[Declared]) -> list[str]:
    return [follower for layer in layers for follower in layer.followers]


def _axis(layout: Layout, axis: int) -> Array | None:
    block = layout.block(axis)
    return None if block is None else block.atoms


def _rows(own: Mapping[str, Layout], weight: str, axis: int) -> Array:
    atoms = _axis(own[weight], axis)
    return np.empty(0, dtype=np.int64) if atoms is None else atoms


def _inputs(trace: Trace, layer: Declared, known: Mapping[str, Declared], rows: Mapping[str, Array]) -> Array | None:
    """Atoms of what each incoming channel or feature consumes: one layer's neurons, flattened from positions where
    there are more of them; several layers' side by side where they fill the input exactly, else their sum."""
    if layer.in_axis < 0 or not layer.producers:
        return None
    width = trace.own[f"{layer.name}.weight"].shape[layer.in_axis] * layer.groups
    arriving = [(rows[name], known[name].features_last) for name in layer.producers]
    total = sum(atoms.size for atoms, _ in arriving)
    if len(arriving) > 1 and width == total:
        return np.concatenate([atoms for atoms, _ in arriving])
    fitting = [atoms.size and width % atoms.size == 0 for atoms, _ in arriving]
    if not all(fitting):
        names = ", ".join(layer.producers)
        for atoms, _ in arriving:
            trace.tracing.atoms.fix(
                atoms, f"the inputs of {layer.name} do not fit the declared {names} neuron by neuron"
            )
        return None
    spread = [_flattened(atoms, width // atoms.size, last) for atoms, last in arriving]
    if len(spread) == 1:
        return spread[0]
    summed = trace.tracing.atoms.new([width])
    for atoms in spread:
        trace.tracing.atoms.unite(summed, atoms)
    return summed


def _flattened(atoms: Array, positions: int, features_last: bool) -> Array:
    return np.tile(atoms, positions) if features_last else np.repeat(atoms, positions)


def _bias(tracing: Tracing, own: Mapping[str, Layout], layer: Declared, rows: Array) -> None:
    bias = own.get(f"{layer.name}.bias")
    atoms = None if bias is None else _axis(bias, 0)
    if atoms is not None and atoms.size == rows.size:
        tracing.atoms.unite(atoms, rows)


def _follow(tracing: Tracing, own: Mapping[str, Layout], follower: str, rows: Array, order: int) -> None:
    for key, role in NORM_ROLES.items():
        layout = own.get(f"{follower}.{key}")
        atoms = None if layout is None else _axis(layout, 0)
        if atoms is not None and atoms.size == rows.size:
            tracing.atoms.unite(atoms, rows)
            tracing.norms.append(Norm(f"{follower}.{key}", 0, role, rows, order))
