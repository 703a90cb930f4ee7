"""Edits of neurons as interventions: resolved for the journal, made, and taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graybox.calling import arguments_of
from graybox.commands import EditNeurons
from graybox.evaluation import example_inputs
from graybox.neuron_ops import edit_from_json
from graybox.plan import Plan
from graybox.plan_summary import PlanSummary, plan_summary_from_json
from graybox.randomness import mix, purpose
from graybox.session import Session
from graybox.taken_back import recorded_or_taken_back

MEASURED_SAMPLES = 64
"""A preview measures on so many training samples."""


def dry_run(session: Session, command: EditNeurons) -> PlanSummary:
    """What an edit would do, with the measured change of the logits where that is asked for. Raises what planning
    raises; changes nothing."""
    plan = session.surgeon.plan(command.edit, command.select)
    summary = plan.to_json()
    if command.measure:
        batch = arguments_of(session.network, example_inputs(session.experiment, MEASURED_SAMPLES))
        session.abandon_evaluation()  # it holds on to the network as it is
        measured = session.surgeon.preview(plan, batch, mix(session.seed, purpose("edit"), session.step))
        summary["measured"] = {
            "max_abs": measured.max_abs,
            "relative_to_largest": measured.relative_to_largest,
            "samples": measured.samples,
        }
    return plan_summary_from_json(summary)


def resolve_edit(session: Session, command: EditNeurons) -> dict[str, Any]:
    """The journal's arguments: the edit with layers by name and neurons by index. Raises what planning raises."""
    edit = session.surgeon.plan(command.edit, command.select).edit
    arguments: dict[str, Any] = {"edit": edit.to_json()}
    arrays = edit.arrays()
    if arrays:
        arguments["edit_blob"] = session.stores.blobs.put(arrays)
    return arguments


@dataclass(frozen=True)
class EditDone:
    """An edit that was made. undo: JSON, for `undo_edit`; take_back: undoes it without the disk, right away."""

    plan: Plan
    undo: dict[str, Any]
    take_back: Callable[[], None]


def apply_edit(session: Session, arguments: Mapping[str, Any], sequence: int) -> EditDone:
    """Make a journalled edit. sequence: of its entry, where its random numbers come from. Raises NotRecorded, and has
    taken it back, when what undoes it cannot be written."""
    arrays = session.stores.blobs.get(arguments["edit_blob"]) if "edit_blob" in arguments else None
    plan = session.surgeon.plan(edit_from_json(arguments["edit"], arrays))
    applied = session.surgeon.apply(plan, mix(session.seed, purpose("edit"), sequence))
    session.structure_changed()

    def take_back() -> None:
        session.surgeon.undo(applied.undo, applied.arrays)
        session.structure_changed()

    def record() -> dict[str, Any]:
        beside = {"blob": session.stores.blobs.put(applied.arrays)} if applied.arrays else {}
        return {**applied.undo, **beside}

    return EditDone(plan, recorded_or_taken_back(record, take_back), take_back)


def undo_edit(session: Session, undo: Mapping[str, Any]) -> None:
    """Take back what `apply_edit` did."""
    arrays = session.stores.blobs.get(undo["blob"]) if "blob" in undo else {}
    session.surgeon.undo(undo, arrays)
    session.structure_changed()
