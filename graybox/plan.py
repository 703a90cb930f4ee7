"""What an edit would do, worked out on the network as it is: printable, and ready to be applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graybox.neuron_ops import (
    AddNeurons,
    FreezeIncoming,
    NeuronEdit,
    Reinitialize,
    SetLearningRate,
    Several,
    SortByStat,
    Zerofy,
)
from graybox.plan_summary import LogitChange, ranges
from graybox.structure.change import Change

_VERBS = {
    "freeze": "Froze", "unfreeze": "Unfroze", "freeze_bias": "Froze the bias of",
    "freeze_incoming": "Froze the connections from incoming", "reinitialize": "Reinitialised",
    "change_learning_rate": "Set the learning rate of", "zerofy": "Zeroed", "override_weights": "Set the weights of",
    "override_biases": "Set the biases of", "remove_neurons": "Removed", "add_neurons": "Added",
    "sort_by_stat": "Sorted",
}  # fmt: skip


@dataclass(frozen=True)
class Touch:
    """Entries of one tensor that an edit changes: `indices` along `axis`, and of those only `within` along other axes
    where that is given."""

    tensor: str
    axis: int
    indices: tuple[int, ...]
    change: str
    within: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = "".join(f", axis {axis}, {show(indices)}" for axis, indices in self.within.items())
        return f"{self.tensor}, axis {self.axis}, {show(self.indices)}{inside}: {self.change}"


@dataclass(frozen=True)
class Plan:
    """What an edit would do. `str(plan)` is for people.

    edit: as it was asked for, its layer and neurons resolved; what to journal, as it does the same again.
    neurons: its neurons, in the numbering from before the edit (of AddNeurons: none; of SortByStat: the new order).
    coupled: by layer name, all neurons that go, come or move with them. parameters: counts over the whole network.
    multiply_adds: of layers with weights for one sample; 0 where the structure was not asked. inexact: why the function
    changes by more than what was removed or added. notes: what else is worth knowing before.
    """

    edit: NeuronEdit
    layer: str
    neurons: tuple[int, ...]
    touches: tuple[Touch, ...]
    parameters_before: int
    parameters_after: int
    multiply_adds_before: int = 0
    multiply_adds_after: int = 0
    inexact: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    coupled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parts: tuple[Plan, ...] = ()
    change: Change | None = field(default=None, repr=False, compare=False)
    version: int = field(default=0, repr=False, compare=False)
    structure: object = field(default=None, repr=False, compare=False)
    measured: LogitChange | None = None

    def summary(self) -> str:
        """One line."""
        if isinstance(self.edit, Several):
            return "; ".join(part.summary() for part in self.parts)
        verb = _VERBS[self.edit.kind]
        if isinstance(self.edit, AddNeurons):
            return f"{verb} {self.edit.count} {_some(self.edit.count)} to {self.layer}{self._coupled()}"
        if isinstance(self.edit, SortByStat):
            order = "descending" if self.edit.descending else "ascending"
            return f"{verb} the neurons of {self.layer} by {self.edit.statistic}, {order}{self._coupled()}"
        where = "into" if isinstance(self.edit, FreezeIncoming) else "of"
        line = f"{verb} {_some(len(self.neurons))} {show(self.neurons)} {where} {self.layer}"
        return line + self._how() + self._coupled()

    def _how(self) -> str:
        edit = self.edit
        if isinstance(edit, SetLearningRate):
            return f" to {edit.rate:g} times"
        if isinstance(edit, Reinitialize):
            how = (
                ""
                if edit.perturbation_ratio is None
                else f", each weight changed by up to {edit.perturbation_ratio:.0%}"
            )
            return how + (", outgoing connections zeroed" if edit.zero_outgoing else "")
        if isinstance(edit, Zerofy) and not edit.whole:
            sources = [f"incoming {_some(len(edit.incoming))} {show(edit.incoming)}"] if edit.incoming else []
            sources += ["frozen neurons"] if edit.from_frozen else []
            sources += ["older neurons"] if edit.from_older else []
            return f", connections from {' and from '.join(sources)}"
        return ""

    def _coupled(self) -> str:
        others = [name for name in self.coupled if name != self.layer]
        return f", and with them those of {', '.join(others)}" if others else ""

    def __str__(self) -> str:
        if self.parts:
            return "\n".join(str(part) for part in self.parts)
        about = f"neurons {show(self.neurons)}"
        if isinstance(self.edit, AddNeurons):
            about = f"{self.edit.count} {_some(self.edit.count)} more"
        if isinstance(self.edit, SortByStat):
            about = f"by {self.edit.statistic}"
        lines = [f"{self.edit.kind} {self.layer}, {about}"]
        lines += [f"  {touch}" for touch in self.touches]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  not exact: {reason}" for reason in self.inexact]
        lines.append(f"  parameters {self.parameters_before:,} -> {self.parameters_after:,}")
        if self.multiply_adds_before:
            lines.append(f"  multiply-adds {self.multiply_adds_before:,} -> {self.multiply_adds_after:,}")
        if self.measured is not None:
            m = self.measured
            lines.append(f"  logits moved by up to {m.max_abs:.3g} ({m.relative_to_largest:.2g} of the largest)")
        return "\n".join(lines)

    def with_measured(self, measured: LogitChange) -> Plan:
        """The same with how far the logits would move."""
        return replace(self, measured=measured)

    def to_json(self) -> dict[str, Any]:
        """What `graybox.plan_summary.plan_summary_from_json` reads."""
        neurons: dict[str, tuple[int, ...]] = {}
        for part in self.parts or (self,):
            for layer, found in (part.coupled or {part.layer: part.neurons}).items():
                neurons[layer] = (*neurons.get(layer, ()), *found)
        m = self.measured
        return {
            "summary": self.summary(),
            "text": str(self),
            "neurons": {layer: _pairs(found) for layer, found in neurons.items() if found},
            "touches": [
                {"tensor": t.tensor, "axis": t.axis, "indices": _pairs(t.indices), "change": t.change}
                for part in (self.parts or (self,))
                for t in part.touches
            ],
            "parameters_before": self.parameters_before,
            "parameters_after": self.parameters_after,
            "multiply_adds_before": self.multiply_adds_before,
            "multiply_adds_after": self.multiply_adds_after,
            "inexact": list(self.inexact),
            "notes": list(self.notes),
            "measured": None
            if m is None
            else {"max_abs": m.max_abs, "relative_to_largest": m.relative_to_largest, "samples": m.samples},
        }


def show(indices: tuple[int, ...]) -> str:
    """3, 5-9 and so on; at most eight pieces."""
    text = [f"{a}" if a == b else f"{a}-{b}" for a, b in ranges(indices)]
    return ", ".join(text[:8]) + (f" and {len(text) - 8} more ranges" if len(text) > 8 else "")


def _some(count: int) -> str:
    return "neuron" if count == 1 else "neurons"


def _pairs(indices: tuple[int, ...]) -> list[list[int]]:
    return [[first, last] for first, last in ranges(indices)]
