"""What the data page does: filters, the sample looked at, discard and restore."""

from __future__ import annotations

from typing import Any

from dash import MATCH, ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from graybox.dashboard import ids, toasts, transport, undo
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.data.layout import CHANGED, DETAIL, FILTERS, IMAGE, SHOW_LABELS, detail, nothing_chosen


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    _register_browser(app)
    _register_actions(app, hub)

    @app.callback(
        Output("filter-split", "data"),
        Output("filter-label", "data"),
        Output(transport.cursor("data"), "data"),
        Input(ids.tick("data"), "n_intervals"),
        Input(ids.FOCUS, "data"),
        State(ids.tick("data"), "disabled"),
        State(transport.cursor("data"), "data"),
        prevent_initial_call=True,
    )
    async def offer_filters(_: int | None, focus: dict[str, str], asleep: bool, held: Any) -> tuple[Any, Any, Any]:
        if asleep:
            return no_update, no_update, no_update
        try:
            names = await hub.splits(await hub.focus(focus["run"]))
        except CallFailed:
            return no_update, no_update, no_update
        classes = list(hub.status.class_names) if hub.status is not None and not focus["run"] else []
        now = [names, classes]
        if not transport.is_news(held, now):
            return no_update, no_update, no_update
        splits = [{"value": "", "label": "All splits"}, *({"value": name, "label": name} for name in names)]
        return splits, [{"value": str(index), "label": name} for index, name in enumerate(classes)], now


def _register_browser(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("graybox", "querySamples"),
        Output("samples-asked", "data"),
        Input(ids.page("data"), "className"),
        Input(ids.FOCUS, "data"),
        Input(CHANGED, "data"),
        Input("samples-refresh", "n_clicks"),
        Input(ids.STATUS, "data"),
        *[Input(*where) for where in FILTERS.values()],
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "countSelected"),
        Output("discard", "disabled"),
        Output("restore-samples", "disabled"),
        Output("discard-text", "children"),
        Output("restore-samples-text", "children"),
        Input("samples-grid", "selectedRows"),
        Input(ids.STATUS, "data"),
        Input(ids.FOCUS, "data"),
    )

    app.clientside_callback(
        ClientsideFunction("graybox", "showLabels"),
        Output({**IMAGE, "of": MATCH}, "src"),
        Input({**SHOW_LABELS, "of": MATCH}, "checked"),
        State({**IMAGE, "of": MATCH}, "src"),
    )


def _register_actions(app: Dash, hub: Hub) -> None:
    @app.callback(Output("sample-detail", "children"), Input(DETAIL, "data"), prevent_initial_call=True)
    async def show_detail(row: dict[str, Any] | None) -> Any:
        return detail(row) if row else nothing_chosen()

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(CHANGED, "data"),
        Input("discard", "n_clicks"),
        Input("restore-samples", "n_clicks"),
        State("samples-grid", "selectedRows"),
        State(CHANGED, "data"),
        prevent_initial_call=True,
    )
    async def discard_or_restore(_: int, __: int, rows: list[dict[str, Any]] | None, changed: int) -> tuple[Any, Any]:
        chosen = [(row["origin"], row["sample_id"]) for row in rows or []]
        if not chosen:
            return toasts.refused("Select at least one sample first."), no_update
        runs = sorted({row["run"] for row in rows or []})
        if len(runs) > 1:
            return toasts.refused(f"The samples selected are of several runs: {', '.join(runs)}."), no_update
        try:
            response = await hub.set_discarded(runs[0], chosen, ctx.triggered_id == "discard")
        except CallFailed as failure:
            return toasts.failed(failure), no_update
        return undo.done(response, runs[0]), changed + 1
