"""Plan an edit of neurons (printable), then apply it whole or not at all, and undo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graybox import edits_structure, edits_values
from graybox.compiled import forget_compiled
from graybox.edits_values import Overwrite
from graybox.errors import Invalid, NotFound, Refused
from graybox.initialisation import has_own, without_own
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_ops import (
    STRUCTURAL,
    AddNeurons,
    FreezeIncoming,
    NeuronEdit,
    Reinitialize,
    RemoveNeurons,
    Select,
    Several,
    SortByStat,
    Unfreeze,
)
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.plan import Plan, Touch
from graybox.plan_summary import LogitChange
from graybox.preview import answer, change_of, quiet
from graybox.randomness import mix, seeded
from graybox.selection import resolve, sorted_order
from graybox.structure.change import Change
from graybox.transaction import Transaction, inverted, rewire
from graybox.undo import UndoLog, read_log

__all__ = ["Applied", "Plan", "Surgeon", "Touch"]


@dataclass(frozen=True)
class Applied:
    """What was done. undo (JSON) and arrays: what `Surgeon.undo` takes it back with, also after a restart."""

    plan: Plan
    undo: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Surgeon:
    """Plans, applies and undoes edits of one network together with its optimizer. Used by their owner, between two
    steps."""

    def __init__(self, network: NetworkWithOps, optimizer: OptimizerWithOps) -> None:
        self.network = network
        self.optimizer = optimizer
        self._version = 0

    # -- looking -------------------------------------------------------------------------------------

    def plan(self, edit: NeuronEdit, select: Select | None = None) -> Plan:
        """What the edit would do. select: which neurons, instead of the edit's own.

        Raises NotFound for an unknown layer or neuron, Invalid for values that do not fit, Refused, with the reason
        and what would be allowed, where it cannot be done. Changes nothing.
        """
        if select is not None:
            edit = self.selected(edit, select)
        if not isinstance(edit, Several):
            return self._plan(edit)
        # Each part changes what the next one finds, so that only doing them shows whether they go together.
        rehearsed = self._rehearsed(edit) if isinstance(edit.edits[0], STRUCTURAL) and len(edit.edits) > 1 else ()
        return self._together(edit, tuple(self._plan(part) for part in edit.edits), rehearsed)

    def selected(self, edit: NeuronEdit, select: Select) -> NeuronEdit:
        """The edit done to the neurons that a selection is about: one edit, or several as one."""
        found = resolve(self.network, select, structural=isinstance(edit, STRUCTURAL))
        whole = isinstance(edit, (AddNeurons, SortByStat))
        edits = [edit.at(layer, () if whole else neurons) for layer, neurons in found.items()]
        return edits[0] if len(edits) == 1 else Several(edits=tuple(edits))

    def preview(self, plan: Plan, batch: Any, seed: int = 0) -> LogitChange:
        """How far the logits would move on a batch (what the network is called with): measured in evaluation mode with
        the edit applied, which is then put back, bit for bit."""
        with quiet(self.network):
            before = answer(self.network, batch)
            # Parts see what the parts before them did; a single edit need not tell the structure.
            with Transaction(self.network, self.optimizer, commits=bool(plan.parts)) as tx:
                tx.on_failure(self._structure_changed)
                self._perform(tx, self._fresh(plan), seed, UndoLog())
                after = answer(self.network, batch)
        return change_of(before, after)

    # -- doing ---------------------------------------------------------------------------------------

    def apply(self, plan: Plan, seed: int) -> Applied:
        """Do what the plan says, whole or, whatever is raised, not at all. seed: where the edit's random numbers come
        from; the global random state is left as it was."""
        plan = self._fresh(plan)
        log = UndoLog()
        with Transaction(self.network, self.optimizer) as tx:
            tx.on_failure(self._structure_changed)
            self._perform(tx, plan, seed, log)
            self._finish(tx, structural=_structural(plan))
            tx.keep()
        return Applied(plan, {"entries": log.entries, "summary": plan.summary()}, log.arrays)

    def undo(self, undo: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
        """Take back exactly one applied edit: what it removed or overwrote is back with its bits, everything else
        stays as it is by now. Later edits must have been undone before. Answers a line for people.

        Raises Invalid for an undo that is incomplete.
        """
        entries = read_log(undo["entries"], arrays)
        structural = False
        with Transaction(self.network, self.optimizer) as tx:
            tx.on_failure(self._structure_changed)
            for entry in reversed(entries):
                structural = structural or entry["kind"] == "change"
                _TAKE_BACK[entry["kind"]](tx, entry)
            self._finish(tx, structural=structural)
            tx.keep()
        return f"Undid: {undo['summary']}"

    def _finish(self, tx: Transaction, *, structural: bool) -> None:
        self.optimizer.refresh()
        if structural:
            self._structure_changed()
            tx.on_failure(forget_compiled)
            forget_compiled()
            rewire(self.network)
            self.network.announce_architecture_change()

    def _structure_changed(self) -> None:
        """Plans made before are made anew: the structure numbers its entries in its own way."""
        self._version += 1

    def _fresh(self, plan: Plan) -> Plan:
        """The plan, made anew when the structure has changed since."""
        parts = [part for part in plan.parts or (plan,) if part.change is not None]
        same = all(part.structure is self.network.structure for part in parts)
        return plan if same and plan.version == self._version else self.plan(plan.edit)

    def _rehearsed(self, edit: Several) -> list[Plan]:
        """The plans of the parts, each made when those before it were done; all is put back."""
        parts = self._together(edit, tuple(self._plan(part) for part in edit.edits), ())
        with Transaction(self.network, self.optimizer) as tx:
            tx.on_failure(self._structure_changed)
            return self._perform(tx, parts, 0, UndoLog())

    def _perform(self, tx: Transaction, plan: Plan, seed: int, log: UndoLog) -> list[Plan]:
        """Answers the plans of what was done."""
        if not plan.parts:
            self._perform_one(tx, plan, seed, log)
            return [plan]
        numbering, done = _Numbering(), []
        for number, part in enumerate(plan.parts):
            edit = numbering.renumbered(part)
            if edit is None:
                continue
            again = self._plan(edit) if numbering.moved else part
            self._perform_one(tx, again, mix(seed, number), log)
            numbering.follow(again.change, self.network)
            done.append(again)
        return done

    def _perform_one(self, tx: Transaction, plan: Plan, seed: int, log: UndoLog) -> None:
        edit = plan.edit
        # Setting all random states aside and back costs as much as removing a neuron.
        with seeded(seed) if isinstance(edit, (AddNeurons, Reinitialize)) else nullcontext():
            if plan.change is not None:
                skip = isinstance(edit, AddNeurons) and edit.skip_initialization
                edits_structure.make(tx, plan.change, log, skip_initialization=skip)
                return
            _, layer = self.network.find_layer(plan.layer)
            flags = edits_values.flag_changes(edit, plan.layer, layer, plan.neurons)
            if flags:
                edits_values.set_flags(tx, plan.layer, layer, flags, log)
                return
            planned = edits_values.overwrites(edit, self.network, plan.layer, layer, plan.neurons)
            # Everything new is made before anything is touched.
            values = edits_values.new_values(edit, layer, plan.neurons, planned)
        for entries, value in zip(planned, values, strict=True):
            edits_values.overwrite(tx, entries, value, log)
        if isinstance(edit, Reinitialize):
            edits_values.forget(tx, plan.layer, layer, plan.neurons, log)

    # -- planning ------------------------------------------------------------------------------------

    def _plan(self, edit: NeuronEdit) -> Plan:
        name, layer = self.network.find_layer(edit.layer)
        if isinstance(edit, STRUCTURAL):
            return self._plan_structure(edit, name, layer)
        neurons = self._neurons(edit, name, layer)
        flags = edits_values.flag_changes(edit, name, layer, neurons)
        if flags:
            touches = [Touch(f"{name}.{flag.attribute}", 0, flag.indices, flag.change) for flag in flags]
        else:
            if isinstance(edit, Reinitialize):
                self.optimizer.check_renewable()
            touches = [_touch(each) for each in edits_values.overwrites(edit, self.network, name, layer, neurons)]
        notes = self._notes(layer, name) if isinstance(edit, Reinitialize) and edit.perturbation_ratio is None else ()
        count = self.network.get_parameter_count()
        return Plan(
            edit.at(name, neurons), name, neurons, tuple(touches), count, count, notes=notes, version=self._version
        )

    def _neurons(self, edit: NeuronEdit, name: str, layer: NeuronLayer) -> tuple[int, ...]:
        """The neurons an edit is about, checked."""
        if isinstance(edit, FreezeIncoming):
            count = len(layer.incoming_frozen)
            if not count:
                raise Refused(f"{name} has no incoming neurons to freeze")
            return _within(edit.neurons or tuple(range(count)), count, f"incoming neuron of {name}")
        if isinstance(edit, Unfreeze) and edit.neurons:
            # The numbers mean neurons and incoming neurons alike.
            return _within(edit.neurons, max(layer.neuron_count, len(layer.incoming_frozen)), f"neuron of {name}")
        neurons = edit.neurons or tuple(range(layer.neuron_count))
        layer.check_neurons(neurons)
        return neurons

    def _plan_structure(self, edit: NeuronEdit, name: str, layer: NeuronLayer) -> Plan:
        self.optimizer.check_renewable()
        structure = self.network.structure
        notes: tuple[str, ...] = ()
        match edit:
            case RemoveNeurons():
                layer.check_neurons(edit.neurons)
                if not edit.neurons or len(edit.neurons) >= layer.neuron_count:
                    raise Refused(
                        f"this would remove all {layer.neuron_count} neurons of {name}; name some of them, and leave "
                        "at least one"
                    )
                change = structure.removal(name, edit.neurons)
                edit = edit.at(name, edit.neurons)
            case AddNeurons():
                change = structure.addition(name, edit.count)
                notes = () if edit.skip_initialization else self._notes(layer, name)
                edit = edit.at(name, ())
            case SortByStat():
                order = edit.neurons or sorted_order(layer, edit.statistic, descending=edit.descending)
                if sorted(order) != list(range(layer.neuron_count)):
                    raise Invalid(f"an order of the neurons of {name} names each of the {layer.neuron_count} once")
                change = structure.reordering(name, order)
                edit = edit.at(name, order)
        if change.inexact and not getattr(edit, "allow_inexact", False):
            raise Refused(
                f"the network's function would change by more than what is removed or added: "
                f"{'; '.join(change.inexact)}; say allow_inexact to do it all the same"
            )
        return Plan(
            edit, name, edit.neurons, _touches(change), change.parameters_before, change.parameters_after,
            change.multiply_adds_before, change.multiply_adds_after, change.inexact, notes,
            {key: tuple(int(i) for i in found) for key, found in change.neurons.items()},
            change=change, version=self._version, structure=structure,
        )  # fmt: skip

    def _notes(self, layer: NeuronLayer, name: str) -> tuple[str, ...]:
        return () if has_own(layer) else (without_own(name),)

    def _together(self, edit: Several, parts: tuple[Plan, ...], rehearsed: Sequence[Plan]) -> Plan:
        first, last = parts[0], rehearsed[-1] if rehearsed else parts[-1]
        return Plan(
            replace(edit, edits=tuple(part.edit for part in parts)), "", (),
            tuple(touch for part in parts for touch in part.touches),
            first.parameters_before, last.parameters_after, first.multiply_adds_before, last.multiply_adds_after,
            tuple(dict.fromkeys(reason for part in rehearsed or parts for reason in part.inexact)),
            tuple(dict.fromkeys(note for part in parts for note in part.notes)),
            parts=parts, version=self._version,
        )  # fmt: skip


class _Numbering:
    """Where the neurons of before are, while several edits of structure are made one after the other."""

    def __init__(self) -> None:
        self.moved = False
        self._old: dict[str, np.ndarray] = {}

    def renumbered(self, part: Plan) -> NeuronEdit | None:
        """The part's edit in the present numbers; None where all its neurons went with others already."""
        old = self._old.get(part.layer)
        if old is None or isinstance(part.edit, AddNeurons):
            return part.edit
        # An order, too, is one of the numbers of before: sorted anew, it would depend on more than the journal holds.
        wanted = np.isin(old, np.array(part.neurons))
        places = {int(number): place for place, number in enumerate(old) if wanted[place]}
        present = [number for number in part.neurons if number in places]
        if not present:
            return None
        return part.edit.at(part.layer, tuple(places[number] for number in present))

    def follow(self, change: Change | None, network: NetworkWithOps) -> None:
        """A part was applied."""
        if change is None:
            return
        self.moved = True
        for name, known in network.structure.layers.items():
            for axis in change.axes:
                if (axis.tensor, axis.axis) == (known.weight, known.out_axis):
                    source = axis.source
                    old = self._old.get(name)
                    found = source if old is None else np.where(source >= 0, old[np.maximum(source, 0)], -1)
                    self._old[name] = np.asarray(found)


_TAKE_BACK = {
    "change": edits_structure.unmake,
    "flags": edits_values.unset_flags,
    "overwrite": edits_values.put_back,
    "records": edits_values.remember,
}


def _structural(plan: Plan) -> bool:
    return any(part.change is not None for part in (plan.parts or (plan,)))


def _within(neurons: tuple[int, ...], count: int, what: str) -> tuple[int, ...]:
    wrong = [i for i in neurons if not 0 <= i < count]
    if wrong:
        raise NotFound(f"no {what} has the number {wrong[0]}: there are {count}, numbered from 0")
    return neurons


def _touch(planned: Overwrite) -> Touch:
    (axis, indices), *others = planned.where.items()
    return Touch(planned.tensor, axis, indices, planned.change, dict(others))


def _touches(change: Change) -> tuple[Touch, ...]:
    found = []
    for axis in change.axes:
        if change.kind == "reorder":
            moved = np.flatnonzero(axis.source != np.arange(len(axis.source)))
            text = "reordered"
        elif change.kind == "add":
            moved, text = axis.added, f"added, {axis.fill.value}"
        else:
            moved, text = np.flatnonzero(inverted(axis.source, axis.size) < 0), "removed"
        found.append(Touch(axis.tensor, axis.axis, tuple(moved.tolist()), text))
    return tuple(found)
