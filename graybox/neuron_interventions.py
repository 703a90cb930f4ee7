"""Edits of neurons as interventions: resolved for the journal, made, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graybox.commands import EditNeurons
from graybox.evaluation import example_inputs
from graybox.neuron_ops import edit_from_json
from graybox.plan import Plan
from graybox.plan_summary import PlanSummary, plan_summary_from_json
from graybox.randomness import mix, purpose
from graybox.session import Session

MEASURED_SAMPLES = 64
"""A preview measures on so many training samples."""


def dry_run(session: Session, command: EditNeurons) -> PlanSummary:
    """What an edit would do, with the measured change of the logits where that is asked for. Raises what planning
    raises; changes nothing."""
    plan = session.surgeon.plan(command.edit, command.select)
    summary = plan.to_json()
    if command.measure:
        batch = (example_inputs(session.experiment, MEASURED_SAMPLES),)  # as a step calls the model
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


def apply_edit(session: Session, arguments: Mapping[str, Any], sequence: int) -> tuple[Plan, dict[str, Any]]:
    """Make a journalled edit. sequence: of its entry, where its random numbers come from. Answers its plan and what
    undoes it."""
    arrays = session.stores.blobs.get(arguments["edit_blob"]) if "edit_blob" in arguments else None
    plan = session.surgeon.plan(edit_from_json(arguments["edit"], arrays))
    applied = session.surgeon.apply(plan, mix(session.seed, purpose("edit"), sequence))
    undo = dict(applied.undo)
    if applied.arrays:
        undo["blob"] = session.stores.blobs.put(applied.arrays)
    session.structure_changed()
    return plan, undo


def undo_edit(session: Session, undo: Mapping[str, Any]) -> None:
    """Take back what `apply_edit` did."""
    arrays = session.stores.blobs.get(undo["blob"]) if "blob" in undo else {}
    session.surgeon.undo(undo, arrays)
    session.structure_changed()
