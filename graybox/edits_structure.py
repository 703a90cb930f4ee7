"""Neurons come, go and move: every tensor, optimizer entry, flag and statistic that belongs to them with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.index_selection import selected
from graybox.initialisation import fresh_entries
from graybox.layer_edits import COLUMN_FLAGS, ROW_FLAGS
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_identity import new_identities
from graybox.structure.change import AxisChange, Change, Fill
from graybox.tensor_table import TensorTable
from graybox.transaction import Transaction, inverted
from graybox.undo import UndoLog


@dataclass(frozen=True)
class Step:
    """One axis of one tensor: `new` takes the place of `old`. gone: old indices without a successor; came: new ones
    without a predecessor."""

    change: AxisChange
    old: torch.Tensor
    new: torch.Tensor
    gone: np.ndarray
    came: np.ndarray


def make(tx: Transaction, change: Change, log: UndoLog, *, skip_initialization: bool = False) -> None:
    """Do what a change says. New weights are drawn from the global random state, which the caller seeds."""
    drawn = {} if skip_initialization else _drawn(tx.tensors, change)
    fresh = [_fresh(tx.tensors, axis, drawn.get(n)) for n, axis in enumerate(change.axes)]
    steps = _staged(tx.tensors, change.axes, fresh)
    slabs = []
    for step in steps:
        slabs.append(_slab(tx, step))
        _exchange(tx, step)
    _put(tx, change, steps)
    flags, records = _carry(tx, steps, None)
    log.add("change", change=change, slabs=slabs, flags=flags, records=records)
    tx.commit(change)


def unmake(tx: Transaction, entry: Mapping[str, Any]) -> None:
    """Take back what `make` did: what came is gone, what went is back with its bits, all else as it is by now."""
    change: Change = entry["change"]
    axes, slabs = [], []
    for axis, slab in reversed(list(zip(change.axes, entry["slabs"], strict=True))):
        back = inverted(axis.source, axis.size)
        axes.append(replace(axis, source=back, like=np.maximum(back, 0), size=len(axis.source)))
        slabs.append(slab)
    steps = _staged(tx.tensors, axes, [slab.get("values") for slab in slabs])
    for step, slab in zip(steps, slabs, strict=True):
        _exchange(tx, step)
        added = torch.from_numpy(step.came)
        if len(added) and isinstance(step.new, nn.Parameter) and "entries" in slab:
            where = {step.change.axis: added}
            tx.put_entries(step.new, where, slab["entries"], slab["young"])
    inverse = tx.network.structure.insertion(change)
    _put(tx, inverse, steps)
    _carry(tx, steps, entry)
    tx.commit(inverse)


# -- tensors ---------------------------------------------------------------------------------------------


def _staged(tensors: TensorTable, axes: Sequence[AxisChange], fresh: Sequence[torch.Tensor | None]) -> list[Step]:
    """All new tensors, before anything is touched."""
    current: dict[str, torch.Tensor] = {}
    steps = []
    for axis, values in zip(axes, fresh, strict=True):
        old = current.get(axis.tensor)
        old = tensors.get(axis.tensor) if old is None else old
        if values is not None:
            values = values.to(old.device, old.dtype)
        new = selected(old.detach(), axis.axis, axis.source, values)
        if isinstance(old, nn.Parameter):
            new = _parameter_like(old, new, axis)
        current[axis.tensor] = new
        gone = np.flatnonzero(inverted(axis.source, axis.size) < 0)
        steps.append(Step(axis, old, new, gone, np.flatnonzero(axis.source < 0)))
    return steps


def _parameter_like(old: nn.Parameter, value: torch.Tensor, axis: AxisChange) -> nn.Parameter:
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)  # marks of the user's, such as which to leave out of weight decay
    if old.grad is not None:
        gradient = old.grad.to_dense() if old.grad.is_sparse else old.grad
        new.grad = selected(gradient, axis.axis, axis.source)
    return new


def _drawn(tensors: TensorTable, change: Change) -> dict[int, torch.Tensor]:
    """Own initialisation of what comes, by the number of the axis change: weight and bias of a layer in one go."""
    modules: dict[str, dict[str, int]] = {}
    for number, axis in enumerate(change.axes):
        if axis.fill is Fill.INIT and len(axis.added):
            owner, _, key = axis.tensor.rpartition(".")
            modules.setdefault(owner, {}).setdefault(key, number)
    found = {}
    for owner, keys in modules.items():
        wanted, shapes = {}, {}
        for key, number in keys.items():
            axis = change.axes[number]
            wanted[key] = (axis.axis, torch.from_numpy(axis.added))
            # Rows come before columns, so that these are drawn for the columns of before.
            shapes[key] = list(tensors.get(axis.tensor).shape)
            shapes[key][axis.axis] = len(axis.source)
        values = fresh_entries(tensors.modules[owner], wanted, shapes)
        found.update({number: values[key] for key, number in keys.items()})
    return found


def _fresh(tensors: TensorTable, axis: AxisChange, drawn: torch.Tensor | None) -> torch.Tensor | None:
    """What new entries start with; None where there are none, or where they are zero."""
    added = axis.added
    if not len(added) or axis.fill in (Fill.ZERO, Fill.NOUGHT):
        return None
    if axis.fill is Fill.INIT:
        return drawn
    tensor = tensors.get(axis.tensor).detach()
    if axis.fill is Fill.LIKE:
        return tensor.index_select(axis.axis, torch.from_numpy(axis.like[added]).to(tensor.device))
    return tensor.new_ones((*tensor.shape[: axis.axis], len(added), *tensor.shape[axis.axis + 1 :]))


def _slab(tx: Transaction, step: Step) -> dict[str, Any]:
    """Everything of what goes along one axis, before it does."""
    if not len(step.gone):
        return {}
    where = {step.change.axis: torch.from_numpy(step.gone)}
    slab: dict[str, Any] = {
        "values": step.old.detach().index_select(step.change.axis, where[step.change.axis].to(step.old.device))
    }
    if isinstance(step.old, nn.Parameter) and tx.optimizer.holds(step.old):
        slab["entries"] = tx.optimizer.entries_at(step.old, where)
        slab["young"] = tx.optimizer.young_at(step.old, where)
    return slab


def _exchange(tx: Transaction, step: Step) -> None:
    if isinstance(step.old, nn.Parameter) and isinstance(step.new, nn.Parameter) and tx.optimizer.holds(step.old):
        tx.exchange(step.old, step.new, step.change.axis, step.change.source)


def _put(tx: Transaction, change: Change, steps: Sequence[Step]) -> None:
    for name, value in {step.change.tensor: step.new for step in steps}.items():
        tx.put_tensor(name, value)
    for attribute in change.attributes:
        tx.set_attribute(tx.tensors.modules[attribute.module], attribute.name, attribute.new)


# -- flags and statistics --------------------------------------------------------------------------------


def _carry(
    tx: Transaction, steps: Sequence[Step], saved: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flags and statistics follow the neurons of every layer. Answers those of neurons that went, by layer; saved: what
    it answered when those went that come back now."""
    gone_flags: dict[str, Any] = {}
    gone_records: dict[str, Any] = {}
    if not tx.commits:
        return gone_flags, gone_records
    for name, known in tx.network.structure.layers.items():
        layer = tx.tensors.modules.get(name)
        if not isinstance(layer, NeuronLayer):
            continue
        for step in steps:
            place = (step.change.tensor, step.change.axis)
            if place == (known.weight, known.out_axis):
                flags = gone_flags.setdefault(name, {})
                flags.update(_carry_flags(tx, layer, ROW_FLAGS, step, _of(saved, "flags", name)))
                gone_records[name] = _carry_records(tx, layer, step, _of(saved, "records", name))
            elif place == (known.weight, known.in_axis):
                flags = gone_flags.setdefault(name, {})
                flags.update(_carry_flags(tx, layer, COLUMN_FLAGS, step, _of(saved, "flags", name)))
                tx.carry_incoming(layer, step.change.source, known.in_axis + (known.in_axis < known.out_axis))
    return gone_flags, gone_records


def _of(saved: Mapping[str, Any] | None, what: str, name: str) -> Mapping[str, Any] | None:
    return None if saved is None else saved[what].get(name, {})


def _carry_flags(
    tx: Transaction,
    layer: NeuronLayer,
    defaults: Mapping[str, float],
    step: Step,
    saved: Mapping[str, torch.Tensor] | None,
) -> dict[str, torch.Tensor]:
    source = torch.from_numpy(step.change.source)
    kept, gone = source >= 0, torch.from_numpy(step.gone)
    taken = {}
    for attribute, default in defaults.items():
        old: torch.Tensor = getattr(layer, attribute)
        taken[attribute] = old[gone]
        new = old.new_full((len(source),), default)
        new[kept] = old[source[kept]]
        if saved is None and attribute.endswith("identity") and len(step.came):
            new[~kept] = new_identities(len(step.came))
        elif saved is not None and len(saved.get(attribute, ())):
            new[~kept] = saved[attribute].to(new.dtype)
        tx.set_attribute(layer, attribute, new)
    return taken


def _carry_records(
    tx: Transaction, layer: NeuronLayer, step: Step, saved: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    taken = tx.carry_records(layer, step.change.source, step.change.size)
    if saved:
        tx.put_records(layer, step.came, dict(saved))
    return taken
