"""Undo: the button in a toast and in the history, and what it does."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update

from graybox.dashboard import ids, toasts
from graybox.dashboard.attributes import attributes
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon
from graybox.proto import experiment_service_pb2 as pb


def feed() -> dcc.Store:
    """Where assets/graybox.js puts what was clicked: a button in a toast is out of Dash's reach."""
    return dcc.Store(id=ids.UNDO)


def button(run_id: str, sequence: int) -> html.Button:
    """Takes back the journal's entry `sequence`, or says why not."""
    return html.Button(
        [icon("arrow-back-up", 14), html.Span("Undo")],
        className="gb-button gb-button-small gb-undo",
        **attributes({"data-run": run_id, "data-sequence": str(sequence)}),
    )


def done(response: Any, run_id: str) -> toasts.Toasts:
    """The toast for an answer that has `success`, `message` and `journal_sequence`, with a button that undoes it."""
    if not response.success:
        return toasts.refused(response.message)
    if not response.journal_sequence:
        return toasts.done(response.message)
    return toasts.done(response.message, button(run_id, response.journal_sequence))


def register(app: Dash, hub: Hub) -> None:
    """What every undo button does."""

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(ids.SAMPLES_CHANGED, "data", allow_duplicate=True),
        Output(ids.MODEL_EDITED, "data", allow_duplicate=True),
        Input(ids.UNDO, "data"),
        State(ids.SAMPLES_CHANGED, "data"),
        State(ids.MODEL_EDITED, "data"),
        prevent_initial_call=True,
    )
    async def undo(asked: Any, changed: int | None, edited: int | None) -> tuple[Any, Any, Any]:
        if not asked:
            return no_update, no_update, no_update
        operation = pb.UndoOperation(journal_sequence=int(asked["sequence"]))
        request = pb.ExperimentCommandRequest(undo_operation=operation)
        try:
            response = await hub.act(str(asked["run"]), "ExperimentCommand", request)
        except CallFailed as failure:
            return toasts.failed(failure), no_update, no_update
        return toasts.answer(response), (changed or 0) + 1, (edited or 0) + 1
