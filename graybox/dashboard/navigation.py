"""Which page is shown, of which run: the address says it."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from graybox.dashboard import ids, transport
from graybox.dashboard.attributes import attributes
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon
from graybox.dashboard.view import run_title

_TABS = {
    "metrics": ("Metrics", "chart-line"),
    "data": ("Data", "table"),
    "model": ("Model", "binary-tree"),
    "checkpoints": ("Checkpoints", "device-floppy"),
    "history": ("History", "history"),
}


def layout() -> html.Div:
    """The tabs, and the run that pages other than Metrics show."""
    return html.Div(
        [
            html.Nav(
                [
                    dcc.Link(
                        [icon(symbol, 18), html.Span(title)], id=f"tab-{name}", href=f"/{name}", className="gb-tab"
                    )
                    for name, (title, symbol) in _TABS.items()
                ],
                className="gb-tabs",
                **attributes({"aria-label": "Pages"}),
            ),
            dmc.Select(
                id="run-select",
                data=[{"value": "live", "label": "Live run"}],
                value="live",
                allowDeselect=False,
                size="xs",
                className="gb-run-select",
                comboboxProps={"zIndex": 500},
                maxDropdownHeight=320,
                **attributes({"aria-label": "Run"}),
            ),
            dcc.Location(id=ids.URL, refresh=False),
            dcc.Store(id=ids.FOCUS, data={"run": "", "layer": ""}),
        ],
        id="navigation",
        className="gb-navigation",
    )


def register(app: Dash, hub: Hub) -> None:
    """Callbacks between the address, the tabs, the panels and their clocks."""
    app.clientside_callback(
        ClientsideFunction("graybox", "route"),
        *[Output(ids.page(name), "className") for name in ids.PAGES],
        *[Output(ids.tick(name), "disabled") for name in ids.PAGES],
        *[Output(f"tab-{name}", "className") for name in ids.PAGES],
        *[Output(f"tab-{name}", "href") for name in ids.PAGES],
        Output(ids.FOCUS, "data"),
        Output("run-select", "value"),
        Output("navigation", "className"),
        Input(ids.URL, "pathname"),
        Input(ids.URL, "search"),
        State(ids.FOCUS, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "chooseRun"),
        Output("run-chosen", "data"),
        Input("run-select", "value"),
        State(ids.URL, "search"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("run-select", "data"),
        Output("run-select-cursor", "data"),
        Input("tick-runs", "n_intervals"),
        State("run-select-cursor", "data"),
    )
    async def list_runs(_: int | None, held: list[Any] | None) -> tuple[Any, Any]:
        try:
            runs = await hub.runs()
        except CallFailed:
            return no_update, no_update
        options = [{"value": "live", "label": "Live run" if hub.connected else "Newest run"}]
        options += [
            {"value": run.run_id, "label": run_title(run)} for run in reversed(runs.value) if run.run_id != hub.live_run
        ]
        if not transport.is_news(held, options):
            return no_update, no_update
        return options, options


def feed() -> html.Div:
    """The clock of the list of runs."""
    return html.Div(
        [dcc.Interval(id="tick-runs", interval=3000), dcc.Store(id="run-select-cursor"), dcc.Store(id="run-chosen")]
    )
