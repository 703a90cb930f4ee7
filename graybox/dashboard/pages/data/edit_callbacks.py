"""Edits of samples: those that are done at once, those that ask first, the dialogs of how often samples are drawn."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, ctx, html, no_update
from google.protobuf import json_format

from graybox.dashboard import ids, toasts, undo
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.data.actions import PENDING, TARGET
from graybox.dashboard.pages.data.edits import (
    ACTIONS,
    FIELDS,
    SURE_FROM,
    WEIGHINGS,
    Target,
    edit_request,
    target,
    words,
)
from graybox.dashboard.pages.data.layout import CHANGED, SELECTED
from graybox.dashboard.pages.data.query_box import VIEW
from graybox.dashboard.view import shown_run
from graybox.proto import experiment_service_pb2 as pb

_TITLES = {
    "sampling-weight": "Sampling weight",
    "rebalance": "Rebalance classes",
    "keep-share": "Keep a share of them",
}
QUESTION = (
    ("confirm-modal", "opened"),
    ("confirm-modal", "title"),
    ("confirm-which", "children"),
    ("confirm-edit", "children"),
    (PENDING, "data"),
)
"""What asks before many samples are edited."""
_STATES = (
    State(TARGET, "value"),
    State(SELECTED, "data"),
    State(VIEW, "data"),
    *[State(name, prop) for name, prop in FIELDS.items()],
)


def register(app: Dash, hub: Hub) -> None:
    """The callbacks of the bar above the grid."""
    _register_actions(app, hub)
    _register_confirmation(app, hub)
    _register_weighing(app, hub)


def _register_actions(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(CHANGED, "data"),
        *[Output(name, prop) for name, prop in QUESTION],
        *[Input(name, "n_clicks") for name in ACTIONS],
        *_STATES,
        State(CHANGED, "data"),
        prevent_initial_call=True,
    )
    async def act(*given: Any) -> tuple[Any, ...]:
        wanted, rows, view, *values, changed = given[len(ACTIONS) :]
        action, fields = str(ctx.triggered_id), dict(zip(FIELDS, values, strict=True))
        try:
            samples = target(wanted, rows, view)
            request, order = edit_request(action, samples, fields), words(action, samples, fields)
        except ValueError as error:
            return (toasts.refused(str(error)), *(no_update,) * 6)
        if samples.count > SURE_FROM:
            kept = json_format.MessageToDict(request, preserving_proto_field_name=True)
            return (no_update, no_update, *question(order, which(samples), samples.run, kept))
        told, now = await send(hub, samples.run, request, changed)
        return (told, now, *(no_update,) * 5)


def _register_confirmation(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(CHANGED, "data", allow_duplicate=True),
        Output("confirm-modal", "opened", allow_duplicate=True),
        Input("confirm-edit", "n_clicks"),
        Input("confirm-cancel", "n_clicks"),
        State(PENDING, "data"),
        State(CHANGED, "data"),
        running=[(Output("confirm-edit", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    async def confirm(_: int, __: int, pending: Any, changed: int) -> tuple[Any, Any, Any]:
        if ctx.triggered_id == "confirm-cancel" or not pending:
            return no_update, no_update, False
        request = json_format.ParseDict(pending["request"], pb.DataEditRequest())
        told, now = await send(hub, pending["run"], request, changed)
        return told, now, False


def _register_weighing(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output("weigh-modal", "opened"),
        Output("weigh-modal", "title"),
        Output("weigh-which", "children"),
        *[Output(f"form-{name}", "className") for name in WEIGHINGS],
        Output("weigh-kind", "data"),
        *[Input(f"ask-{name}", "n_clicks") for name in WEIGHINGS],
        *_STATES,
        State(ids.FOCUS, "data"),
        State(ids.STATUS, "data"),
        prevent_initial_call=True,
    )
    async def open_dialog(*given: Any) -> tuple[Any, ...]:
        wanted, rows, view, *_, focus, status = given[len(WEIGHINGS) :]
        kind = str(ctx.triggered_id).removeprefix("ask-")
        try:
            samples = _weighed(kind, wanted, rows, view, shown_run(focus, status))
        except ValueError as error:
            return (toasts.refused(str(error)), *(no_update,) * 7)
        forms = ["" if name == kind else "gb-hidden" for name in WEIGHINGS]
        return (no_update, True, _TITLES[kind], which(samples), *forms, kind)

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(CHANGED, "data", allow_duplicate=True),
        Output("weigh-modal", "opened", allow_duplicate=True),
        Input("weigh-apply", "n_clicks"),
        Input("weigh-cancel", "n_clicks"),
        State("weigh-kind", "data"),
        *_STATES,
        State(ids.FOCUS, "data"),
        State(ids.STATUS, "data"),
        State(CHANGED, "data"),
        running=[(Output("weigh-apply", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    async def apply(_: int, __: int, kind: str, *given: Any) -> tuple[Any, Any, Any]:
        if ctx.triggered_id == "weigh-cancel":
            return no_update, no_update, False
        wanted, rows, view, *values, focus, status, changed = given
        try:
            samples = _weighed(kind, wanted, rows, view, shown_run(focus, status))
            request = edit_request(kind, samples, dict(zip(FIELDS, values, strict=True)))
        except ValueError as error:
            return toasts.refused(str(error)), no_update, no_update
        told, now = await send(hub, samples.run, request, changed)
        return told, now, now is no_update


def question(order: str, samples: Any, run_id: str, request: dict[str, Any]) -> tuple[Any, ...]:
    """What is asked before an edit is made, for QUESTION. order: what it does; samples: which ones are meant."""
    return True, f"{order}?", samples, order, {"run": run_id, "request": request}


async def send(hub: Hub, run_id: str, request: pb.DataEditRequest, changed: int) -> tuple[Any, Any]:
    """(what to say, the new value of CHANGED)."""
    try:
        response = await hub.act(run_id, "EditDataSample", request)
    except CallFailed as failure:
        return toasts.failed(failure), no_update
    return undo.done(response, run_id), (changed or 0) + 1 if response.success else no_update


def _weighed(kind: str, wanted: str, rows: Any, view: Any, run_id: str) -> Target:
    """Classes are rebalanced among all samples where none are meant."""
    if kind == "rebalance" and wanted != "view" and not rows:
        return Target(run_id, 0)
    return target(wanted, rows, view)


def which(samples: Target) -> Any:
    """Which samples are meant, for people."""
    if samples.view_id:
        return html.Div(["All ", html.Strong(samples.many), " of the query ", html.Code(samples.words)])
    if samples.samples:
        return html.Div(["The ", html.Strong(samples.many), " selected"])
    return html.Div("All training samples in use")
