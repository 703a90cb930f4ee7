"""Edits of structure: the plan first, on request the measured change, then apply or cancel."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from google.protobuf import json_format

from graybox.dashboard import ids, toasts, undo
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.model import preview
from graybox.dashboard.pages.model.edits import OPTIONS, STRUCTURAL, edit_request
from graybox.dashboard.pages.model.layout import NEURONS, SELECTION
from graybox.dashboard.pages.model.preview import ASKED
from graybox.proto import experiment_service_pb2 as pb

_HIDDEN = "gb-hidden"


def register(app: Dash, hub: Hub) -> None:
    """The dialog's callbacks."""
    _register_plan(app, hub)
    _register_measure(app, hub)
    _register_apply(app, hub)
    app.clientside_callback(
        ClientsideFunction("graybox", "enableApply"),
        Output("edit-apply", "disabled"),
        Input(ASKED, "data"),
        Input("allow-inexact", "checked"),
    )


def _register_plan(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output("edit-modal", "opened"),
        Output("edit-modal", "title"),
        Output("edit-plan", "children"),
        Output("edit-measure-row", "className"),
        Output("edit-measured", "children"),
        Output("allow-inexact", "className"),
        Output("allow-inexact", "checked"),
        Output("edit-take-together", "className"),
        Output(ASKED, "data"),
        *[Input(name, "n_clicks") for name in STRUCTURAL],
        Input("edit-take-together", "n_clicks"),
        State(ASKED, "data"),
        State(NEURONS, "data"),
        State(SELECTION, "data"),
        *[State(name, prop) for name, prop in OPTIONS.items()],
        prevent_initial_call=True,
    )
    async def plan(*given: Any) -> tuple[Any, ...]:
        asked, layer, selection, *values = given[len(STRUCTURAL) + 1 :]
        button = str(ctx.triggered_id)
        try:
            if button == "edit-take-together":
                run_id, request = asked["run"], _request(asked)
                request.neuron_ids[:] = asked["together"]
            else:
                options = dict(zip(OPTIONS, values, strict=True))
                run_id, request = selection["run"], edit_request(button, selection, options)
            response = await _dry_run(hub, run_id, request)
        except ValueError as error:
            return (toasts.refused(str(error)), *(no_update,) * 9)
        except CallFailed as failure:
            return (toasts.failed(failure), *(no_update,) * 9)
        name = (layer or {}).get("name", "")
        together = _together(request, response, name)
        inexact = bool(response.details.inexact)
        # Only what can be allowed is asked for: a sort that is not exact is refused whatever one ticks.
        asks = inexact and request.operation != pb.SORT_BY_STAT
        kept = {
            "run": run_id,
            "request": json_format.MessageToDict(request, preserving_proto_field_name=True),
            "possible": response.success,
            "exact": not asks,
            "together": together,
        }
        return (
            no_update,
            True,
            preview.title(request, name),
            preview.plan(response, request.operation),
            "gb-measure-row" if response.success else _HIDDEN,
            "",
            "gb-allow" if asks else _HIDDEN,
            False,
            "gb-button" if together else f"gb-button {_HIDDEN}",
            kept,
        )


def _register_measure(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output("edit-measured", "children", allow_duplicate=True),
        Input("edit-measure", "n_clicks"),
        State(ASKED, "data"),
        running=[(Output("edit-measure", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    async def measure(_: int, asked: Any) -> Any:
        if not asked:
            return no_update
        try:
            response = await _dry_run(hub, asked["run"], _request(asked), measure=True)
        except CallFailed as failure:
            return str(failure)
        return preview.measured(response)


def _register_apply(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output("edit-modal", "opened", allow_duplicate=True),
        Output(ids.MODEL_EDITED, "data"),
        Input("edit-apply", "n_clicks"),
        Input("edit-cancel", "n_clicks"),
        State(ASKED, "data"),
        State("allow-inexact", "checked"),
        State(ids.MODEL_EDITED, "data"),
        running=[(Output("edit-apply", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    async def apply(_: int, __: int, asked: Any, allowed: bool, edited: int | None) -> tuple[Any, Any, Any]:
        if ctx.triggered_id == "edit-cancel" or not asked:
            return no_update, False, no_update
        request = _request(asked)
        request.allow_inexact = bool(allowed) and request.operation != pb.SORT_BY_STAT
        try:
            response = await hub.act(asked["run"], "ManipulateWeights", request)
        except CallFailed as failure:
            return toasts.failed(failure), False, no_update
        # Numbers of neurons may mean others now, so that nothing stays selected.
        return undo.done(response, asked["run"]), False, (edited or 0) + 1 if response.success else no_update


async def _dry_run(
    hub: Hub, run_id: str, request: pb.ManipulateWeightsRequest, *, measure: bool = False
) -> pb.ManipulateWeightsResponse:
    asked = pb.ManipulateWeightsRequest()
    asked.CopyFrom(request)
    asked.dry_run, asked.measure = True, measure
    # The plan of what is not exact is worth seeing: whoever applies it says once more that it may be done.
    asked.allow_inexact = request.operation != pb.SORT_BY_STAT
    response = await hub.ask_live(run_id, "ManipulateWeights", asked)
    assert isinstance(response, pb.ManipulateWeightsResponse)
    return response


def _request(asked: dict[str, Any]) -> pb.ManipulateWeightsRequest:
    return json_format.ParseDict(asked["request"], pb.ManipulateWeightsRequest())


def _together(request: pb.ManipulateWeightsRequest, response: pb.ManipulateWeightsResponse, layer: str) -> list[int]:
    """The neurons of the layer asked for that can go, where the answer says so."""
    if request.HasField("selection"):
        return []
    for found in response.together:
        if found.layer_name == layer and sum(r.last - r.first + 1 for r in found.neurons) == found.number_of_neurons:
            return [n for r in found.neurons for n in range(r.first, r.last + 1)]
    return []
