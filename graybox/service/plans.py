"""What an edit would do, as the wire tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graybox.plan_summary import PlanSummary, Ranges, ranges
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.errors import clean
from graybox.service.int32 import int32


def edit_plan(plan: PlanSummary) -> pb.EditPlan:
    """A plan as data."""
    measured = plan.measured
    return pb.EditPlan(
        summary=clean(plan.summary),
        neurons=[layer_neurons(layer, found) for layer, found in plan.neurons.items()],
        touches=[
            pb.TensorTouch(
                tensor=clean(touch.tensor),
                axis=int32(touch.axis),
                indices=index_ranges(touch.indices),
                change=clean(touch.change),
                number_of_indices=_count(touch.indices),
            )
            for touch in plan.touches
        ],
        parameters_before=plan.parameters_before,
        parameters_after=plan.parameters_after,
        multiply_adds_before=plan.multiply_adds_before,
        multiply_adds_after=plan.multiply_adds_after,
        inexact=[clean(reason) for reason in plan.inexact],
        notes=[clean(note) for note in plan.notes],
        measured=None
        if measured is None
        else pb.LogitChange(
            max_abs=measured.max_abs, relative_to_largest=measured.relative_to_largest, samples=int32(measured.samples)
        ),
    )


def layer_neurons(layer: str, found: Ranges) -> pb.LayerNeurons:
    """Some neurons of one layer."""
    return pb.LayerNeurons(layer_name=clean(layer), neurons=index_ranges(found), number_of_neurons=_count(found))


def index_ranges(found: Ranges) -> list[pb.IndexRange]:
    """At most MAX_RANGES of them."""
    return [pb.IndexRange(first=first, last=last) for first, last in found[: limits.MAX_RANGES]]


def together(error: Exception, layer: str) -> list[pb.LayerNeurons]:
    """What can go together, as a refusal says in its details: indices by layer, or of the layer asked for."""
    details: Any = getattr(error, "details", None)
    found = details.get("together") if isinstance(details, Mapping) else None
    if not isinstance(found, (Mapping, Sequence)) or isinstance(found, str) or not found:
        return []
    by_layer: Mapping[str, Iterable[int]] = found if isinstance(found, Mapping) else {layer: found}
    return [layer_neurons(str(name), ranges(indices)) for name, indices in by_layer.items()]


def _count(found: Ranges) -> int:
    return sum(last - first + 1 for first, last in found)
