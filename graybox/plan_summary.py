"""What an edit would do, as a value that anybody may hold: what a dry run answers. Free of torch.

The surgeon's `Plan.to_json()` writes what `plan_summary_from_json` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graybox.errors import Invalid

Ranges = tuple[tuple[int, int], ...]
"""Indices in ascending order, as (first, last) of each run without a gap, both included."""


def ranges(indices: Iterable[int]) -> Ranges:
    """The indices as ranges: 3, 5, 6, 7 are (3, 3), (5, 7)."""
    pieces: list[list[int]] = []
    for index in sorted({int(i) for i in indices}):
        if pieces and index == pieces[-1][1] + 1:
            pieces[-1][1] = index
        else:
            pieces.append([index, index])
    return tuple((first, last) for first, last in pieces)


@dataclass(frozen=True)
class TensorTouch:
    """Entries of one tensor: the indices along one axis and everything along the others. change: what becomes of them,
    for people."""

    tensor: str
    axis: int
    indices: Ranges
    change: str


@dataclass(frozen=True)
class LogitChange:
    """How far the logits moved on a batch. relative_to_largest: to the largest absolute logit before. samples: of the
    batch; 0 where that is not known."""

    max_abs: float
    relative_to_largest: float
    samples: int = 0


@dataclass(frozen=True)
class PlanSummary:
    """A plan without the network it is for.

    summary: one line; text: the whole plan; both for people. neurons: by layer name, those that the edit names,
    coupled layers included. parameters: counts over the whole network; multiply_adds: of layers with weights, for one
    sample, 0 where they were not worked out. inexact: why the function would change by more than what is removed or
    added. measured: None where nobody asked. notes: what else is worth knowing before.
    """

    summary: str
    text: str
    neurons: Mapping[str, Ranges] = field(default_factory=dict)
    touches: tuple[TensorTouch, ...] = ()
    parameters_before: int = 0
    parameters_after: int = 0
    multiply_adds_before: int = 0
    multiply_adds_after: int = 0
    inexact: tuple[str, ...] = ()
    measured: LogitChange | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `plan_summary_from_json` turns back into an equal summary."""
        return {
            "summary": self.summary,
            "text": self.text,
            "neurons": {layer: _listed(found) for layer, found in self.neurons.items()},
            "touches": [
                {"tensor": t.tensor, "axis": t.axis, "indices": _listed(t.indices), "change": t.change}
                for t in self.touches
            ],
            "parameters_before": self.parameters_before,
            "parameters_after": self.parameters_after,
            "multiply_adds_before": self.multiply_adds_before,
            "multiply_adds_after": self.multiply_adds_after,
            "inexact": list(self.inexact),
            "notes": list(self.notes),
            "measured": None
            if self.measured is None
            else {
                "max_abs": self.measured.max_abs,
                "relative_to_largest": self.measured.relative_to_largest,
                "samples": self.measured.samples,
            },
        }


def plan_summary_from_json(value: Mapping[str, Any]) -> PlanSummary:
    """The summary that `to_json` wrote. Indices may be a flat list of numbers or pairs of (first, last).

    Raises Invalid for a malformed one.
    """
    try:
        measured = value.get("measured")
        return PlanSummary(
            summary=str(value["summary"]),
            text=str(value["text"]),
            neurons={str(layer): _ranges(found) for layer, found in value.get("neurons", {}).items()},
            touches=tuple(
                TensorTouch(str(t["tensor"]), int(t["axis"]), _ranges(t["indices"]), str(t["change"]))
                for t in value.get("touches", ())
            ),
            parameters_before=int(value.get("parameters_before", 0)),
            parameters_after=int(value.get("parameters_after", 0)),
            multiply_adds_before=int(value.get("multiply_adds_before", 0)),
            multiply_adds_after=int(value.get("multiply_adds_after", 0)),
            inexact=tuple(str(reason) for reason in value.get("inexact", ())),
            notes=tuple(str(note) for note in value.get("notes", ())),
            measured=None
            if measured is None
            else LogitChange(
                float(measured["max_abs"]), float(measured["relative_to_largest"]), int(measured.get("samples", 0))
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(f"malformed plan: {error!r}") from None


def _listed(found: Ranges) -> list[list[int]]:
    return [[first, last] for first, last in found]


def _ranges(indices: Sequence[Any]) -> Ranges:
    if indices and isinstance(indices[0], (list, tuple)):
        return tuple((int(first), int(last)) for first, last in indices)
    return ranges(indices)
