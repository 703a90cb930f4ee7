"""What the metrics page does: one poll for all plots, answered with what changed."""

from __future__ import annotations

from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, no_update

from graybox.dashboard import ids, transport
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.metrics.collect import Collected, collect, lines_of, run_rows, summary_cards
from graybox.dashboard.pages.metrics.figure import View, full_figure, patch_figure, structure, versions
from graybox.dashboard.pages.metrics.layout import CHOICE, GRAPH, NAMES, RUNS, SUMMARY, ZOOM, graph_cards


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    _register_browser(app)
    cursor = transport.cursor("metrics")

    @app.callback(
        Output({"type": GRAPH, "metric": ALL}, "figure"),
        Output(RUNS, "data"),
        Output(NAMES, "data"),
        Output(SUMMARY, "data"),
        Output(cursor, "data"),
        Input(ids.tick("metrics"), "n_intervals"),
        Input(ids.tick("metrics"), "disabled"),
        Input(CHOICE, "data"),
        Input("smoothing", "value"),
        Input("log-scale", "checked"),
        Input("ignore-outliers", "checked"),
        Input(ZOOM, "data"),
        State({"type": GRAPH, "metric": ALL}, "id"),
        State(cursor, "data"),
    )
    async def poll(
        _: int | None,
        asleep: bool,
        choice: dict[str, bool] | None,
        smoothing: float,
        log: bool,
        ignore_outliers: bool,
        zoom: dict[str, Any],
        graphs: list[dict[str, str]],
        held: dict[str, Any] | None,
    ) -> tuple[list[Any], Any, Any, Any, Any]:
        names = [graph["metric"] for graph in graphs]
        nothing = [no_update] * len(names)
        if asleep:
            return nothing, no_update, no_update, no_update, no_update
        try:
            collected = await collect(hub, choice or {})
        except CallFailed:
            return nothing, no_update, no_update, no_update, no_update
        before = held or {}
        after: dict[str, Any] = {"shown": names, "plots": {}}
        sent = before.get("plots", {}) if before.get("shown") == names else {}
        figures: list[Any] = []
        for name in names:
            view = View(float(smoothing or 0), bool(log), bool(ignore_outliers), (zoom or {}).get(name) or {})
            figure, after["plots"][name] = await _figure(hub, collected, name, view, sent.get(name))
            figures.append(figure)
        after["runs"], after["names"] = run_rows(hub, collected), collected.metric_names()
        after["cards"] = summary_cards(hub, collected)
        news = [
            after[key] if transport.is_news(before.get(key), after[key]) else no_update
            for key in ("runs", "names", "cards")
        ]
        return figures, news[0], news[1], news[2], after if transport.is_news(before, after) else no_update

    @app.callback(Output("graphs", "children"), Input(NAMES, "data"), prevent_initial_call=True)
    async def lay_out(names: list[str] | None) -> Any:
        return graph_cards(names or [])


def _register_browser(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("graybox", "rememberZoom"),
        Output(ZOOM, "data"),
        Input({"type": GRAPH, "metric": ALL}, "relayoutData"),
        State({"type": GRAPH, "metric": ALL}, "id"),
        State(ZOOM, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "renderRuns"), Output("runs-list", "data-count"), Input(RUNS, "data")
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "renderCards"), Output("summary-cards", "data-count"), Input(SUMMARY, "data")
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "showSmoothing"),
        Output("smoothing-value", "children"),
        Input("smoothing", "value"),
    )


async def _figure(
    hub: Hub, collected: Collected, name: str, view: View, held: dict[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    """(what to send for one plot, what the tab then has of it)."""
    lines = await lines_of(hub, collected, name, view)
    shape, current = structure(lines, view), versions(lines, collected.marks, view)
    now = {"shape": shape, "versions": current}
    if held is None or held["shape"] != shape:
        return full_figure(lines, collected.marks, view, percent="accuracy" in name), now
    if held["versions"] == current:
        return no_update, now
    return patch_figure(lines, collected.marks, view, held["versions"], current), now
