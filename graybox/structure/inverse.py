"""What takes a committed change back, and how a structure follows it without looking at the network anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graybox.structure.change import Attribute, AxisChange, Change
from graybox.structure.classes import moved, unique
from graybox.structure.holders import Axis, Holder
from graybox.structure.layout import Array
from graybox.structure.verification import CALCULATES

if TYPE_CHECKING:
    from graybox.structure.structure import Structure

REMEMBERED = 32
"""Of so many removals a structure remembers what they took."""


def inverse(structure: Structure, change: Change) -> Change:
    """As Structure.insertion. Its classes are those of the entries that go again, or move back; it has none where a
    removal is taken back, or the structure cannot tell."""
    axes = []
    for axis in reversed(change.axes):
        if change.kind == "remove":
            source = np.full(axis.size, -1, dtype=np.int64)
            source[axis.source] = np.arange(axis.source.size)
        elif change.kind == "add":
            source = np.flatnonzero(axis.source >= 0)
        else:
            source = np.argsort(axis.source)
        axes.append(replace(axis, source=source, like=source, size=axis.source.size))
    kind = {"remove": "add", "add": "remove", "reorder": "reorder"}[change.kind]
    attributes = tuple(Attribute(a.module, a.name, a.new, a.old) for a in change.attributes)
    neurons = dict(change.neurons)
    if change.kind == "reorder":
        neurons = {name: np.argsort(order) for name, order in change.neurons.items()}
    known = kind != "add" and CALCULATES not in change.inexact  # with other numbers it has to be looked at
    classes, targets = _classes(structure, change.layer, kind, axes) if known else ((), ())
    return Change(
        kind, change.layer, tuple(axes), neurons, attributes, (), change.parameters_after, change.parameters_before,
        change.multiply_adds_after, change.multiply_adds_before, classes, targets,
    )  # fmt: skip


def _classes(
    structure: Structure, layer: str, kind: str, axes: Sequence[AxisChange]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(classes, targets) whose commit does just what the sources of the axes say; empty where that cannot be told."""
    known, nothing = structure.layers[layer], ((), ())
    group = structure.group_of(known.weight, known.out_axis)
    labels = {axis: structure.classes.of[structure.own[axis]] for axis in group}
    sources = {axis: np.arange(of.size) for axis, of in labels.items()}
    for change in axes:
        of = labels.get((change.tensor, change.axis))
        if of is None or of.size != change.size:
            return nothing
        sources[change.tensor, change.axis] = change.source
    if kind == "remove":
        classes = unique(np.delete(of, sources[axis]) for axis, of in labels.items())
        flags = structure.classes.flags(classes)
        right = all(np.array_equal(np.flatnonzero(~flags[of]), sources[axis]) for axis, of in labels.items())
        return (tuple(classes.tolist()), ()) if right else nothing
    to: dict[int, int] = {}
    for axis, of in labels.items():
        to.update(zip(of.tolist(), of[sources[axis]].tolist(), strict=True))
    classes = np.array([place for place, taker in to.items() if place != taker], dtype=np.int64)
    targets = np.array([to[place] for place in classes.tolist()], dtype=np.int64)
    for axis, of in labels.items():
        found = moved(of, classes, targets)
        if found is None or not np.array_equal(found, sources[axis]):
            return nothing
    return tuple(classes.tolist()), tuple(targets.tolist())


class GroupAtoms:
    """The atoms of one group of axes, and of all that holds them, at one moment."""

    def __init__(self, own: Mapping[Axis, Array], axes: Iterable[Axis], holders: Iterable[Holder]) -> None:
        self.own = {axis: own[axis] for axis in axes}
        # Arrays, and lists of them, are exchanged and never changed.
        self._held = [(holder, dict(vars(holder)), holder.arrays()) for holder in holders]

    def same(self, other: GroupAtoms) -> bool:
        """Whether all are the same, in the same places."""
        if self.own.keys() != other.own.keys() or len(self._held) != len(other._held):
            return False
        pairs = [(atoms, other.own[axis]) for axis, atoms in self.own.items()]
        for (_, _, mine), (_, _, theirs) in zip(self._held, other._held, strict=True):
            if len(mine) != len(theirs):
                return False
            pairs += zip(mine, theirs, strict=True)
        return all(one is two or np.array_equal(one, two) for one, two in pairs)

    def put_back(self, own: dict[Axis, Array]) -> None:
        """As they were at that moment."""
        own.update(self.own)
        for holder, values, _ in self._held:
            vars(holder).update(values)


def returned(removals: list[tuple[GroupAtoms, GroupAtoms]], change: Change, present: GroupAtoms) -> GroupAtoms | None:
    """The atoms of before the removal that a change takes back; None where what is there is not what it left.

    removals: (atoms before, atoms after) of each, which those that are found and all later ones leave.
    """
    while removals:
        before, after = removals.pop()
        if present.same(after) and all(
            (known := before.own.get((axis.tensor, axis.axis))) is not None
            and known.size == axis.source.size
            and np.array_equal(known[axis.source >= 0], after.own[axis.tensor, axis.axis])
            for axis in change.axes
        ):
            return before
    return None
