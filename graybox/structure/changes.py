"""What has to go, come or move together with some neurons of a layer, as a Change; or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from graybox.errors import Invalid, NotFound, Refused
from graybox.structure.attributes import CONVOLUTIONS, TRANSPOSED, attributes_for
from graybox.structure.change import Attribute, AxisChange, Change, Fill
from graybox.structure.classes import Mixer, moved, unique, with_copies
from graybox.structure.layout import Array
from graybox.structure.verification import verdict

if TYPE_CHECKING:
    from graybox.structure.structure import Structure

PAST = {"remove": "removed", "add": "given company", "reorder": "moved"}


@dataclass(frozen=True)
class _Edit:
    """How every array of labels in a group is rearranged: labels -> (source, like)."""

    kind: str
    classes: Array
    rearrange: Callable[[Array], tuple[Array, Array]]
    copies: int = 0
    targets: Array | None = None


def together(structure: Structure, layer: str, neurons: Sequence[int]) -> list[int]:
    """The smallest set of a layer's neurons, with these among them, that can go together."""
    labels = structure.neuron_labels(layer)
    classes = _whole(structure, _classes(layer, labels, neurons))
    return [int(i) for i in np.flatnonzero(np.isin(labels, classes))]


def removal(structure: Structure, layer: str, neurons: Sequence[int]) -> Change:
    """As Structure.removal."""
    labels = structure.neuron_labels(layer)
    classes = _classes(layer, labels, neurons)
    _refuse_fixed(structure, layer, classes, "remove")
    flags = structure.classes.flags(classes)
    hit = np.flatnonzero(flags[labels])
    if hit.size == labels.size:
        raise Refused(f"all neurons of {layer} would go; keep at least one")
    if hit.size > len(set(neurons)):
        raise _only_together(structure, layer, neurons)
    _refuse_uneven(structure, layer, neurons, flags)
    _refuse_numbered_groups(structure, layer, flags, "remove")

    def rearrange(found: Array) -> tuple[Array, Array]:
        kept = np.flatnonzero(~flags[found])
        return kept, kept

    edit = _Edit("remove", classes, rearrange)
    change = _change(structure, layer, edit, _torn(structure, flags))
    single = next((axis.tensor for axis in change.axes if axis.source.size == 1), None)
    if single is not None:
        # A dimension of one entry is broadcast as if it were none: nobody could tell what belongs to it any more.
        raise Refused(f"one single entry of {single} would be left without these neurons of {layer}; keep at least two")
    return _verified(structure, change, edit)


def addition(structure: Structure, layer: str, count: int) -> Change:
    """As Structure.addition."""
    if count < 1:
        raise Invalid(f"the number of neurons to add is 1 or more, not {count}")
    labels = structure.neuron_labels(layer)
    classes = _whole(structure, labels[-1:], only_uneven=True)
    _refuse_fixed(structure, layer, classes, "add")
    flags = structure.classes.flags(classes)
    unit = int(flags[labels].sum())
    if count % unit:
        addition(structure, layer, unit)  # what is named has to be right
        fitting = sorted({max(unit, count // unit * unit), (count // unit + 1) * unit})
        raise Refused(
            f"neurons of {layer} come in groups of {unit}; add {' or '.join(map(str, fitting))}",
            details={"together": unit},
        )

    def rearrange(found: Array) -> tuple[Array, Array]:
        like, copy = with_copies(flags[found], count // unit)
        return np.where(copy > 0, -1, like), like

    edit = _Edit("add", classes, rearrange, count // unit)
    mixers = [m for m in structure.classes.mixers if len(m.members) == 1 and _hit(structure, m.members[0], flags).any()]
    reasons = {_why(mixer) for mixer in mixers}
    if (structure.classes.summed & flags[structure.classes.of]).any():
        reasons.add("they are added up, so that a new one changes the sum")
    _refuse_numbered_groups(structure, layer, flags, "add")
    return _verified(structure, _change(structure, layer, edit, tuple(sorted(reasons))), edit)


def reordering(structure: Structure, layer: str, order: Sequence[int]) -> Change:
    """As Structure.reordering."""
    labels = structure.neuron_labels(layer)
    if sorted(order) != list(range(labels.size)):
        raise Invalid(f"the order of {layer} names each of its {labels.size} neurons once, from 0 on")
    to: dict[int, int] = {}
    for place, taker in zip(labels.tolist(), labels[list(order)].tolist(), strict=True):
        if to.setdefault(place, taker) != taker:
            raise Refused(f"neurons of {layer} stay in their groups; move whole groups")
    to = {place: taker for place, taker in to.items() if place != taker}
    classes = np.array(list(to), dtype=np.int64)
    targets = np.array(list(to.values()), dtype=np.int64)
    _refuse_fixed(structure, layer, classes, "reorder")
    for mixer in structure.classes.mixers:
        rows = [frozenset(structure.classes.of[members].tolist()) for members in mixer.members]
        if len(rows) > 1 and any(frozenset(to.get(c, c) for c in row) not in rows for row in rows):
            raise Refused(f"neurons of {layer} stay in their groups, since {mixer.why}; move whole groups")
    if not np.array_equal(moved_or_refused(labels, classes, targets, layer), np.asarray(order)):
        raise Refused(f"neurons within a group of {layer} keep their order; move whole groups")

    def rearrange(found: Array) -> tuple[Array, Array]:
        source = moved_or_refused(found, classes, targets, layer)
        return source, source

    return _change(structure, layer, _Edit("reorder", classes, rearrange, targets=targets), ())


# -- what can and what cannot ----------------------------------------------------------------------------


def _classes(layer: str, labels: Array, neurons: Sequence[int]) -> Array:
    if not len(neurons):
        raise Invalid(f"no neuron of {layer} was named; name at least one of 0 to {labels.size - 1}")
    wrong = [i for i in neurons if not 0 <= i < labels.size]
    if wrong:
        raise NotFound(f"no neuron {wrong[0]} in {layer}: it has {labels.size}, numbered from 0")
    return np.unique(labels[list(neurons)])


def _refuse_fixed(structure: Structure, layer: str, classes: Array, kind: str) -> None:
    reason = structure.classes.why_fixed(classes)
    if reason:
        raise Refused(f"these neurons of {layer} cannot be {PAST[kind]}: {reason}")


def _only_together(structure: Structure, layer: str, neurons: Sequence[int]) -> Refused:
    whole = together(structure, layer, neurons)
    if 0 < len(whole) < structure.neuron_labels(layer).size and set(whole) != set(neurons):
        try:
            removal(structure, layer, whole)
        except Refused as refusal:  # what is named has to be right
            return refusal
    shown = ", ".join(map(str, whole[:64])) + (f" and {len(whole) - 64} more" if len(whole) > 64 else "")
    if len(whole) == structure.neuron_labels(layer).size:
        return Refused(
            f"the neurons of {layer} can only go all together (the code cuts or joins them at fixed places), and one "
            "has to stay"
        )
    return Refused(
        f"these neurons of {layer} go only together with others, as a whole group or head: name {shown}",
        details={"together": whole},
    )


def _hit(structure: Structure, members: Array, flags: Array) -> Array:
    return np.asarray(flags[structure.classes.of[members]])


def _why(mixer: Mixer) -> str:
    return mixer.why + (f" ({mixer.tensor.rpartition('.')[0]})" if mixer.tensor else "")


def _whole(structure: Structure, classes: Array, *, only_uneven: bool = False) -> Array:
    """With all that share a group of a group normalisation with them.

    only_uneven: unless the same number is among each group's already.
    """
    while True:
        flags = structure.classes.flags(classes)
        more = [classes]
        for mixer in structure.classes.mixers:
            if len(mixer.members) > 1:
                counts = [int(_hit(structure, row, flags).sum()) for row in mixer.members]
                if not (only_uneven and len(set(counts)) == 1):
                    more += [
                        structure.classes.of[row] for row, n in zip(mixer.members, counts, strict=True) if n
                    ]  # fmt: skip
        grown = unique(more)
        if grown.size == classes.size:
            return grown
        classes = grown


def _torn(structure: Structure, flags: Array) -> tuple[str, ...]:
    """Why removing these changes the function by more than what they contribute."""
    reasons = set()
    for mixer in structure.classes.mixers:
        for members in mixer.members:
            hit = _hit(structure, members, flags)
            if hit.any() and not hit.all():
                reasons.add(_why(mixer))
    return tuple(sorted(reasons))


def _refuse_uneven(structure: Structure, layer: str, neurons: Sequence[int], flags: Array) -> None:
    for mixer in structure.classes.mixers:
        if len(mixer.members) > 1:
            left = {int((~_hit(structure, members, flags)).sum()) for members in mixer.members} - {0}
            if len(left) > 1:
                raise _only_together(structure, layer, neurons)


def _refuse_numbered_groups(structure: Structure, layer: str, flags: Array, kind: str) -> None:
    """Whole groups of a normalisation can go or come only where a module tells how many there are."""
    for mixer in structure.classes.mixers:
        whole = len(mixer.members) > 1 and any(bool(_hit(structure, row, flags).all()) for row in mixer.members)
        if whole and not any(
            isinstance(structure.modules[name], nn.GroupNorm) for name, _ in structure.owners.get(mixer.tensor, [])
        ):
            raise Refused(
                f"these neurons of {layer} cannot be {PAST[kind]}: {mixer.why}, and the number of its groups stands in "
                "the code"
            )


def moved_or_refused(labels: Array, classes: Array, targets: Array, layer: str) -> Array:
    """As `moved`. Raises Refused where the neurons have different numbers of places."""
    source = moved(labels, classes, targets)
    if source is None:
        raise Refused(f"neurons of {layer} cannot change places: they take up different numbers of them elsewhere")
    return source


# -- the change itself -----------------------------------------------------------------------------------


def _change(structure: Structure, layer: str, edit: _Edit, inexact: tuple[str, ...]) -> Change:
    known = structure.layers[layer]
    shapes: dict[str, list[int]] = {}
    axes: dict[tuple[str, int], AxisChange] = {}
    for tensor, axis in structure.group_of(known.weight, known.out_axis):
        labels = structure.classes.of[structure.own[tensor, axis]]
        source, like = edit.rearrange(labels)
        if source.size == labels.size and np.array_equal(source, np.arange(labels.size)):
            continue
        if not source.size:
            raise Refused(f"nothing of {tensor} would be left with these neurons of {layer} gone; keep at least one")
        fill = structure.fills.get((tensor, axis), Fill.LIKE)
        axes[tensor, axis] = AxisChange(tensor, axis, source, like, fill, labels.size)
        shapes.setdefault(tensor, list(structure.shapes[tensor]))[axis] = source.size
    neurons = {}
    for name, other in structure.layers.items():
        found = axes.get((other.weight, other.out_axis))
        if found is not None:
            neurons[name] = {"remove": found.removed, "add": found.added}.get(edit.kind, found.source)
    if edit.kind == "reorder" and layer not in neurons:
        neurons[layer] = np.arange(structure.shapes[known.weight][known.out_axis])
    new = {name: tuple(shape) for name, shape in shapes.items()}
    before = structure.parameter_count()
    grown = sum(
        math.prod(shape) - math.prod(structure.shapes[name])
        for name, shape in new.items()
        if structure.is_parameter(name)
    )
    return Change(
        edit.kind,
        layer,
        # Rows before columns: what a new row starts with is drawn for as many columns as there were.
        tuple(sorted(axes.values(), key=lambda change: change.fill is Fill.ZERO)),
        neurons,
        _attributes(structure, new, edit),
        inexact,
        before,
        before + grown,
        structure.multiply_adds(),
        structure.multiply_adds(new, lambda atoms: edit.rearrange(structure.classes.of[atoms])[0].size),
        tuple(edit.classes.tolist()),
        () if edit.targets is None else tuple(edit.targets.tolist()),
        edit.copies,
    )


def _attributes(structure: Structure, shapes: Mapping[str, tuple[int, ...]], edit: _Edit) -> tuple[Attribute, ...]:
    touched: dict[str, dict[str, str]] = {}
    for tensor in shapes:
        for module, key in structure.owners[tensor]:
            touched.setdefault(module, {})[key] = tensor
    found = []
    for name, own in touched.items():
        module = structure.modules[name]
        sizes = {key: shapes[tensor] for key, tensor in own.items()}
        groups = _new_groups(structure, module, own, shapes, edit)
        for key, value in attributes_for(module, sizes, groups).items():
            found.append(Attribute(name, key, getattr(module, key), value))
    return tuple(found)


def _new_groups(
    structure: Structure,
    module: nn.Module,
    own: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    edit: _Edit,
) -> int | None:
    """Of a grouped convolution or normalisation, once whole groups have gone or come."""
    weight = own.get("weight")
    if weight is None:
        return None
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and module.groups > 1:
        return module.groups * shapes[weight][0] // structure.shapes[weight][0]
    if isinstance(module, nn.GroupNorm):
        if module.num_groups == module.num_channels:
            return shapes[weight][0]
        flags = structure.classes.flags(edit.classes)
        rows = [row for mixer in structure.classes.mixers if mixer.tensor == weight for row in mixer.members]
        whole = sum(1 for row in rows[: module.num_groups] if _hit(structure, row, flags).all())
        return module.num_groups + whole * {"remove": -1, "add": edit.copies}.get(edit.kind, 0)
    return None


def _verified(structure: Structure, change: Change, edit: _Edit) -> Change:
    """Run the network as it would be once, without numbers, and compare what it does: a trace can hide a number in the
    code. The verdict holds for the whole group of axes."""
    if structure.example is None or not change.axes:
        return change
    known = structure.layers[change.layer]
    group = structure.group_number(known.weight, known.out_axis)
    # An axis of length 1 is another matter to code that squeezes or broadcasts.
    key = (change.kind, group, *sorted({(a.tensor, a.axis) for a in change.axes if a.source.size == 1}))
    if key not in structure.verdicts:
        shapes = dict(structure.shapes)
        for axis in change.axes:
            shape = list(shapes[axis.tensor])
            shape[axis.axis] = axis.source.size
            shapes[axis.tensor] = tuple(shape)
        structure.verdicts[key] = verdict(
            structure.network,
            structure.example,
            shapes,
            change.attributes,
            # What the user declared wins over what a run would tell, as long as it runs.
            {} if structure.declared else _expected(structure, group, edit),
            structure.numbers if not structure.declared else (),
            structure.cuts,
        )
    found = structure.verdicts[key]
    if found.refusal:
        raise Refused(f"these neurons of {change.layer} cannot be {PAST[change.kind]}: {found.refusal}")
    if found.inexact and not structure.declared:
        return replace(change, inexact=(*change.inexact, found.inexact))
    return change


def _expected(structure: Structure, group: int, edit: _Edit) -> dict[tuple[str, int], Array]:
    """The class of each entry of the group's axes after the edit; copies get numbers of their own."""
    beyond = int(structure.classes.of.max()) + 1
    flags = structure.classes.flags(edit.classes)
    found = {}
    for axis in structure.groups[group]:
        labels = structure.classes.of[structure.own[axis]]
        if edit.kind == "remove":
            found[axis] = labels[~flags[labels]]
        else:
            like, copy = with_copies(flags[labels], edit.copies)
            found[axis] = labels[like] + copy * beyond
    return found
