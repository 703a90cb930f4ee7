"""Saving samples as a file: asked first whether there will be one, so that a reason is said on the page."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from graybox.dashboard import exports, ids, toasts
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.data import asking
from graybox.dashboard.pages.data.actions import FORMATS
from graybox.dashboard.pages.data.filters import FILTERS
from graybox.dashboard.pages.data.query_box import VIEW
from graybox.dashboard.view import count
from graybox.proto import experiment_service_pb2 as pb

SAVED = "export-address"
"""Store: {"address", "count"}, a file that the browser is to save."""


def register(app: Dash, hub: Hub) -> None:
    """The export's callbacks."""
    app.clientside_callback(
        ClientsideFunction("graybox", "saveFile"),
        Output(SAVED, "modified_timestamp"),
        Input(SAVED, "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(VIEW, "data", allow_duplicate=True),
        Output(SAVED, "data"),
        *[Input(f"export-{kind}", "n_clicks") for kind in FORMATS],
        *[State(*where) for where in FILTERS.values()],
        State(VIEW, "data"),
        State(ids.FOCUS, "data"),
        prevent_initial_call=True,
    )
    async def export(*given: Any) -> tuple[Any, Any, Any]:
        clicks, (*values, view, focus) = given[: len(FORMATS)], given[len(FORMATS) :]
        run_id = await hub.focus(focus["run"])
        request = pb.ExportSamplesRequest(run_id=run_id, format=str(ctx.triggered_id).removeprefix("export-"))
        renewed: Any = no_update
        try:
            if view and view["run"] == run_id:
                request.view_id = view["id"]
            else:
                filters = dict(zip(FILTERS, values, strict=True))
                request.query = asking.as_query(filters, hub.class_names(run_id))
            try:
                told = await exports.announced(hub, request)
            except CallFailed as failure:
                if not (failure.missing and request.view_id):
                    raise
                renewed = await asking.again(hub, view)
                request.view_id = renewed["id"]
                told = await exports.announced(hub, request)
        except ValueError as error:
            return toasts.refused(str(error)), no_update, no_update
        except CallFailed as failure:
            return toasts.failed(failure), renewed, no_update
        said = f"Saving {count(told.total_rows)} sample{'' if told.total_rows == 1 else 's'} as {told.file_name}"
        return toasts.done(said), renewed, {"address": exports.address(request), "count": sum(map(int, clicks))}
