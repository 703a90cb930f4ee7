"""Who feeds whom, neuron by neuron: read off the atoms that arrive, before sums unite them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graybox.structure.change import Fill, Follower, Outgoing, Reading, Region
from graybox.structure.layout import Array
from graybox.structure.rules import Contraction

if TYPE_CHECKING:
    from graybox.structure.structure import Structure

ROLE_FILLS = {"gain": Fill.ONE, "var": Fill.ONE, "shift": Fill.NOUGHT, "mean": Fill.NOUGHT}


def followers(structure: Structure, name: str) -> list[Follower]:
    """Tensors of normalisations that carry exactly this layer's neurons, and no other's."""
    layer = structure.layer(name)
    rows = structure.own.get((layer.weight, layer.out_axis))
    if rows is None:
        return []
    carried: dict[tuple[str, int], list[Array]] = {}
    roles = {}
    for norm in structure.norms:
        carried.setdefault((norm.tensor, norm.axis), []).append(norm.inputs)
        roles[norm.tensor, norm.axis] = norm.role
    return [
        Follower(tensor, axis, ROLE_FILLS[roles[tensor, axis]])
        for (tensor, axis), inputs in carried.items()
        if all(np.array_equal(given, rows) for given in inputs)
    ]


def outgoing(structure: Structure, name: str, neurons: Sequence[int]) -> Outgoing:
    """The entries of weights that multiply some of a layer's neurons."""
    layer = structure.layer(name)
    rows = structure.own.get((layer.weight, layer.out_axis))
    if rows is None:
        return Outgoing((), ())
    direct = structure.marked_atoms(rows[list(neurons)])
    classes = structure.classes.flags(structure.classes.of[rows[list(neurons)]])
    first = min((c.order for c in structure.contractions if c.weight == layer.weight), default=0)
    # What another layer gives, such as a grouped convolution that goes with this one's neurons, is none of these. A sum
    # has atoms of its own.
    given = [structure.own.get((other.weight, other.out_axis), rows) for other in structure.layers.values()]
    others_own = structure.marked_atoms(np.concatenate(given))
    regions, joined = [], bool(structure.classes.absorbed[rows[list(neurons)]].any())
    for contraction in structure.contractions:
        if contraction.inputs is None or contraction.order <= first:
            continue
        hit = direct[contraction.inputs]
        if hit.any():
            regions.append(_region(contraction, np.flatnonzero(hit), structure))
            # Used a second time, the same columns multiply what others give.
            joined = joined or any(
                other.inputs is not None and other.inputs.size == hit.size and not direct[other.inputs[hit]].all()
                for other in structure.contractions
                if (other.weight, other.out_axis) == (contraction.weight, contraction.out_axis) and not other.training
            )
        summed = classes[structure.classes.of[contraction.inputs]] & ~hit & ~others_own[contraction.inputs]
        joined = joined or bool(summed.any())
    others = []
    if joined:
        for other, known in structure.layers.items():
            labels = structure.labels(known.weight, known.out_axis)
            if other != name and labels is not None and classes[labels].any():
                others.append(other)
    return Outgoing(tuple(_distinct(regions)), tuple(others))


def _distinct(regions: Iterable[Region]) -> list[Region]:
    # A module that is used twice multiplies by the same entries.
    found: dict[object, Region] = {}
    for region in regions:
        found[region.tensor, tuple((axis, index.tobytes()) for axis, index in region.where.items())] = region
    return list(found.values())


def _region(contraction: Contraction, channels: Array, structure: Structure) -> Region:
    if contraction.groups == 1 or contraction.in_axis == 0:
        return Region(contraction.weight, {contraction.in_axis: channels})
    per_group = structure.shapes[contraction.weight][contraction.in_axis]
    rows = structure.shapes[contraction.weight][contraction.out_axis] // contraction.groups
    groups = np.unique(channels // per_group)
    out = (groups[:, None] * rows + np.arange(rows)).reshape(-1)
    if per_group == 1:
        return Region(contraction.weight, {contraction.out_axis: out})
    return Region(contraction.weight, {contraction.out_axis: out, contraction.in_axis: np.unique(channels % per_group)})


def incoming(structure: Structure, name: str) -> list[tuple[tuple[str, int], ...]]:
    """For each index along a layer's incoming axis the (layer, neuron) pairs that feed it, those that are summed
    before it together; () for the network's input."""
    layer = structure.layer(name)
    if layer.in_axis < 0:
        return []
    width = structure.shapes[layer.weight][layer.in_axis]
    feeding: list[dict[tuple[str, int], None]] = [{} for _ in range(width)]
    for contraction in structure.contractions:  # a module that is used twice is fed twice
        if (contraction.weight, contraction.out_axis) != (layer.weight, layer.out_axis):
            continue
        if contraction.inputs is None or contraction.inputs.size % width:
            continue
        # A grouped convolution's weight has one place for an input of each group.
        arriving = contraction.inputs.reshape(-1, width)
        owners = _owners(structure, before=contraction.order)
        for column in range(width):
            for atom in arriving[:, column]:
                of_class = owners.by_class.get(int(structure.classes.of[atom]), [])
                feeding[column].update(dict.fromkeys(owners.direct.get(int(atom)) or of_class))
    return [tuple(found) for found in feeding]


class _owners:
    """Which (layer, neuron) an atom is, and which ones of a class come before some call."""

    def __init__(self, structure: Structure, before: int) -> None:
        self.direct: dict[int, list[tuple[str, int]]] = {}
        self.by_class: dict[int, list[tuple[str, int]]] = {}
        order: dict[str, int] = {}
        for contraction in structure.contractions:
            order.setdefault(contraction.weight, contraction.order)
        for name, layer in structure.layers.items():
            rows = structure.own.get((layer.weight, layer.out_axis))
            if rows is None or order.get(layer.weight, 0) >= before:
                continue
            for neuron, (atom, label) in enumerate(
                zip(rows.tolist(), structure.classes.of[rows].tolist(), strict=True)
            ):
                self.direct.setdefault(atom, []).append((name, neuron))
                self.by_class.setdefault(label, []).append((name, neuron))


def reading(structure: Structure, name: str) -> Reading | None:
    """Where a layer's neurons are seen as the next weighted layer consumes them; None where no module sees them so.

    That is the first layer after it which gets them alone, else the first that gets them in a sum with others.
    """
    layer = structure.layer(name)
    rows = structure.own.get((layer.weight, layer.out_axis))
    if rows is None:
        return None
    of = structure.classes.of
    own_order = min((c.order for c in structure.contractions if c.weight == layer.weight), default=0)
    later = [pair for pair in structure.observed_inputs() if pair[1].order > own_order]
    marks, flags = structure.marked_atoms(rows), structure.classes.flags(of[rows])
    for alone in (True, False):
        for consumer, contraction in later:
            given = contraction.inputs
            if given is None or not (marks[given] if alone else flags[of[given]]).any():
                continue
            columns = _columns(rows, given) if alone else _columns(of[rows], of[given])
            if columns is not None:
                return Reading(consumer, structure.input_axis(consumer), columns)
    return None


def _columns(wanted: Array, given: Array) -> Array | None:
    """int64 [neurons, positions] of the places where each is found; None where some are not, or not equally often."""
    order = np.argsort(given, kind="stable")
    starts = np.searchsorted(given[order], wanted, side="left")
    stops = np.searchsorted(given[order], wanted, side="right")
    counts = stops - starts
    if not counts.size or counts.min() != counts.max() or counts[0] == 0:
        return None
    return np.asarray(order[starts[:, None] + np.arange(counts[0])])
