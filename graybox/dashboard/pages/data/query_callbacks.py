"""What the query box does: asks, shows what was found or what is wrong, asks again, offers what a model proposes."""

from __future__ import annotations

import json
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from google.protobuf import json_format

from graybox.dashboard import ids, toasts
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.data import analysis, asking, proposals
from graybox.dashboard.pages.data.edit_callbacks import QUESTION, question, send
from graybox.dashboard.pages.data.edits import SURE_FROM
from graybox.dashboard.pages.data.filters import FILTERS
from graybox.dashboard.pages.data.layout import CHANGED, LOST
from graybox.dashboard.pages.data.query_box import ANSWERED, ASKED, OVERVIEW, PROPOSAL, PROPOSALS, VIEW, problem
from graybox.proto import experiment_service_pb2 as pb

_HIDDEN = "gb-hidden"
_PROBLEM = "gb-query-problem"
_OUTPUTS = (
    (VIEW, "data"),
    ("query", "value"),
    ("query-problem", "children"),
    ("query-problem", "className"),
    ("query-proposals", "children"),
    ("query-proposals", "className"),
    (PROPOSALS, "data"),
    ("analysis-title", "children"),
    ("analysis-body", "children"),
    ("samples-analysis", "className"),
    (ANSWERED, "data"),
)
"""What an answer changes."""
_NOTHING: dict[str, Any] = {f"{name}.{prop}": no_update for name, prop in _OUTPUTS}


def register(app: Dash, hub: Hub) -> None:
    """The box's callbacks."""
    _register_browser(app)
    _register_asking(app, hub)
    _register_again(app, hub)
    _register_proposals(app, hub)


def _register_browser(app: Dash) -> None:
    """What the browser does by itself, in assets/query.js."""
    app.clientside_callback(
        ClientsideFunction("graybox", "showView"),
        Output("samples-filters", "className"),
        Output("view-bar", "className"),
        Output("view-count", "children"),
        Output("view-query", "children"),
        Output("view-redraw", "className"),
        Output("query-within", "checked"),
        Input(VIEW, "data"),
        Input(ids.STATUS, "data"),
        Input(ids.FOCUS, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "suggestFrom"),
        Output(OVERVIEW, "modified_timestamp"),
        Input(OVERVIEW, "data"),
        Input("query-natural", "checked"),
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "rememberQuery"),
        Output(ANSWERED, "modified_timestamp"),
        Input(ANSWERED, "data"),
        prevent_initial_call=True,
    )


def _register_asking(app: Dash, hub: Hub) -> None:
    @app.callback(
        *[Output(name, prop) for name, prop in _OUTPUTS],
        Input(ASKED, "data"),
        State(VIEW, "data"),
        running=[(Output("query-box", "className"), "gb-query gb-card gb-busy", "gb-query gb-card")],
        prevent_initial_call=True,
    )
    async def ask(asked: dict[str, Any] | None, view: asking.View | None) -> tuple[Any, ...]:
        if not asked:
            return tuple(_NOTHING.values())
        text, natural = asked["text"], bool(asked["natural"])
        run_id = asked["run"] or await hub.focus("")
        within = view if asked["within"] and view and view["run"] == run_id else None
        try:
            response = await asking.ask(hub, run_id, text, within=within, natural=natural)
        except CallFailed as failure:
            return tuple(_failed(text, str(failure), asked, natural).values())
        if not response.success:
            return tuple(_refused(response, asked).values())
        return tuple(_found(response, within, asked).values())

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output("query", "value", allow_duplicate=True),
        Output(ASKED, "data", allow_duplicate=True),
        Input("filters-to-query", "n_clicks"),
        *[State(*where) for where in FILTERS.values()],
        State(ids.FOCUS, "data"),
        prevent_initial_call=True,
    )
    async def say_filters(clicks: int, *given: Any) -> tuple[Any, Any, Any]:
        *values, focus = given
        run_id = await hub.focus(focus["run"])
        try:
            text = asking.as_query(dict(zip(FILTERS, values, strict=True)), hub.class_names(run_id))
        except ValueError as error:
            return toasts.refused(str(error)), no_update, no_update
        if not text:
            return toasts.refused("No filter is set; set one, or write a query."), no_update, no_update
        asked = {"text": text, "natural": False, "within": False, "run": run_id, "count": f"filters {clicks}"}
        return no_update, text, asked


def _register_again(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(VIEW, "data", allow_duplicate=True),
        Input("samples-refresh", "n_clicks"),
        Input("view-redraw", "n_clicks"),
        Input(LOST, "data"),
        State(VIEW, "data"),
        prevent_initial_call=True,
    )
    async def ask_again(_: int, __: int, lost: str | None, view: asking.View | None) -> tuple[Any, Any]:
        if not view or (ctx.triggered_id == LOST and lost != view["id"]):
            return no_update, no_update
        seed = view["seed"] + 1 if ctx.triggered_id == "view-redraw" else view["seed"]
        try:
            return no_update, await asking.again(hub, view, seed=seed)
        except CallFailed as failure:
            return toasts.failed(failure), no_update


def _register_proposals(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(CHANGED, "data", allow_duplicate=True),
        Output("query-proposals", "className", allow_duplicate=True),
        *[Output(name, prop, allow_duplicate=True) for name, prop in QUESTION],
        Input({"type": PROPOSAL, "index": ALL}, "n_clicks"),
        State(PROPOSALS, "data"),
        State(CHANGED, "data"),
        prevent_initial_call=True,
    )
    async def do_proposed(clicks: list[int | None], proposed: Any, changed: int) -> tuple[Any, ...]:
        pressed = ctx.triggered_id
        if not pressed or not any(clicks) or not proposed:
            return (no_update,) * 8
        hidden = _HIDDEN if len(proposed["edits"]) == 1 else no_update
        edit = proposed["edits"][pressed["index"]]
        if proposed["matches"] > SURE_FROM:
            order = edit["description"]
            return (no_update, no_update, hidden, *question(order, "", proposed["run"], edit["request"]))
        request = json_format.ParseDict(edit["request"], pb.DataEditRequest())
        told, now = await send(hub, proposed["run"], request, changed)
        return (told, now, no_update if now is no_update else hidden, *(no_update,) * 5)


def _failed(text: str, failure: str, asked: dict[str, Any], natural: bool) -> dict[str, Any]:
    """The query is wrong, or nobody could be asked: everything stays as it was, and the box says why."""
    message, position = asking.place_of(failure)
    parts = ("", "", "") if natural or position is None else asking.marked(text, position)
    answered = {"text": text, "ok": False, "position": None if natural else position, "count": asked["count"]}
    return {
        **_NOTHING,
        "query-problem.children": problem(*parts, message),
        "query-problem.className": _PROBLEM,
        f"{ANSWERED}.data": answered,
    }


def _refused(response: pb.DataQueryResponse, asked: dict[str, Any]) -> dict[str, Any]:
    changes = _failed(asked["text"], response.message, asked, True)
    if response.example_queries:
        changes["query-problem.children"] += proposals.examples(response.example_queries)
    return changes


def _found(response: pb.DataQueryResponse, within: asking.View | None, asked: dict[str, Any]) -> dict[str, Any]:
    natural = bool(asked["natural"])
    changes = {
        **_NOTHING,
        "query-problem.children": [],
        "query-problem.className": _HIDDEN,
        "query-proposals.children": proposals.cards(response),
        "query-proposals.className": "gb-proposals" if response.proposed_edits else _HIDDEN,
        f"{PROPOSALS}.data": proposals.kept(response),
        "samples-analysis.className": _HIDDEN,
        f"{ANSWERED}.data": {"text": asked["text"], "ok": True, "natural": natural, "count": asked["count"]},
    }
    if natural:
        changes["query.value"] = response.query
    if asking.narrows(response):
        changes[f"{VIEW}.data"] = asking.view_of(response, within)
    elif response.agent_intent_type == "reset":
        changes[f"{VIEW}.data"] = None
    told = json.loads(response.analysis_json) if response.analysis_json else proposals.overview(response)
    if told:
        changes["analysis-title.children"] = analysis.title(told)
        changes["analysis-body.children"] = analysis.body(told)
        changes["samples-analysis.className"] = "gb-card gb-analysis"
    return changes
