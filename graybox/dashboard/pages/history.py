"""History: what was done to the run, newest first."""

from __future__ import annotations

import json
from typing import Any

from dash import Dash, Input, Output, State, html, no_update

from graybox.dashboard import ids, transport, undo
from graybox.dashboard.attributes import attributes
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon
from graybox.dashboard.view import clock, count
from graybox.proto import experiment_service_pb2 as pb

SHOWN = 300
_UNDO_WORDS = {
    pb.UNDO_NEXT: "next",
    pb.UNDO_LATER: "later",
    pb.UNDONE: "undone",
    pb.REDO_NEXT: "undone",
    pb.UNDO_GONE: "gone",
}
_UNDO_TITLES = {
    "later": "Can be undone once what came after it is",
    "gone": "No longer undone by itself: the run went back to a checkpoint since",
}
_SYMBOLS = (
    ("undo", "arrow-back-up"),
    ("neuron", "binary-tree"),
    ("sample", "table"),
    ("tag", "tag"),
    ("label", "pencil"),
    ("metadata", "columns"),
    ("query", "search"),
    ("hp", "adjustments-horizontal"),
    ("hyper", "adjustments-horizontal"),
    ("pause", "player-pause"),
    ("resume", "player-play"),
    ("restore", "restore"),
    ("checkpoint", "device-floppy"),
)


def layout() -> html.Div:
    """The list."""
    return html.Div(_empty("Reading the history…"), id="history-list", className="gb-card gb-history")


def _empty(text: str) -> html.Div:
    return html.Div(
        [html.Span(icon("history", 30), className="gb-empty-icon"), html.Div(text, className="gb-muted")],
        className="gb-empty",
    )


def entries(journal: list[pb.JournalEntry], run_id: str = "", live: bool = False) -> Any:
    """The journal as rows, newest first. live: whether the run can be acted on."""
    if not journal:
        return _empty("Nothing was done to this run yet. Every intervention will be listed here.")
    rows: list[Any] = [_row(entry, run_id, live) for entry in reversed(journal[-SHOWN:])]
    if len(journal) > SHOWN:
        rows.append(
            html.Div(f"{len(journal) - SHOWN} older entries are in the journal.", className="gb-muted gb-older")
        )
    return rows


def _row(entry: pb.JournalEntry, run_id: str, live: bool) -> html.Div:
    word = _UNDO_WORDS.get(entry.undo_state, "")
    symbol = next((symbol for part, symbol in _SYMBOLS if part in entry.kind), "info-circle")
    failed = entry.outcome == "failed"
    where = f"step {count(entry.step)} · age {count(entry.age)} · branch {entry.branch}"
    return html.Div(
        [
            html.Span(icon(symbol, 18), className=f"gb-history-icon{' gb-failed' if failed else ''}"),
            html.Div(
                [
                    html.Div(
                        [
                            html.Span(entry.summary or entry.kind, className="gb-strong"),
                            html.Span("failed", className="gb-chip gb-chip-dead") if failed else None,
                            html.Span("undone", className="gb-chip") if word == "undone" else None,
                            html.Span(f"undoes #{entry.undoes}", className="gb-chip") if entry.undoes else None,
                        ]
                    ),
                    html.Div(f"{where} · by {entry.actor or 'unknown'}", className="gb-muted gb-small"),
                    _details(entry.arguments_json),
                ],
                className="gb-grow",
            ),
            undo.button(run_id, entry.sequence) if live and word == "next" else None,
            html.Div(
                [html.Div(clock(entry.time_ms)), html.Div(f"#{entry.sequence}", className="gb-muted gb-small")],
                className="gb-history-time",
            ),
        ],
        className=f"gb-history-row{' gb-undone' if word == 'undone' else ''}",
        id=f"history-{entry.sequence}",
        title=_UNDO_TITLES.get(word, ""),
        **attributes({"data-kind": entry.kind, "data-undo": word}),
    )


def _details(arguments: str) -> Any:
    try:
        content = json.loads(arguments) if arguments else {}
    except ValueError:
        content = {"arguments": arguments}
    if not content:
        return None
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return html.Details([html.Summary("Details"), html.Pre(text[:4000] + ("…" if len(text) > 4000 else ""))])


def register(app: Dash, hub: Hub) -> None:
    """The page's callback."""

    @app.callback(
        Output("history-list", "children"),
        Output(transport.cursor("history"), "data"),
        Input(ids.tick("history"), "n_intervals"),
        Input(ids.tick("history"), "disabled"),
        Input(ids.FOCUS, "data"),
        State(transport.cursor("history"), "data"),
        prevent_initial_call=True,
    )
    async def poll(_: int | None, asleep: bool, focus: dict[str, str], held: Any) -> tuple[Any, Any]:
        if asleep:
            return no_update, no_update
        run_id = await hub.focus(focus["run"])
        try:
            journal = await hub.journal(run_id)
        except CallFailed as failure:
            now: Any = [run_id, str(failure)]
            return (_empty(str(failure)), now) if transport.is_news(held, now) else (no_update, no_update)
        live = bool(run_id) and run_id == hub.live_run
        now = [run_id, live, journal.version]
        return (entries(journal.value, run_id, live), now) if transport.is_news(held, now) else (no_update, no_update)
