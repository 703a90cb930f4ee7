"""Checkpoints: save the run as it is, go back to an earlier one, see the branches that made."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update

from graybox.dashboard import ids, toasts, transport
from graybox.dashboard.attributes import attributes
from graybox.dashboard.client import CallFailed
from graybox.dashboard.colours import run_colours
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon
from graybox.dashboard.view import clock, count, metric, shown_run
from graybox.proto import experiment_service_pb2 as pb

RESTORE = "restore-checkpoint"
"""Type of the pattern-matching ids: {"type": RESTORE, "run": id, "checkpoint": id, "what": "all" or "weights"}."""
ASKED = "restore-asked"
"""Store: {"run", "reference"}, what the open question would restore."""
_FIRST = ("val/accuracy", "val/loss", "train/loss", "test/accuracy", "train/accuracy")


def layout() -> html.Div:
    """Save, the list, the branches, and the question before a restore."""
    return html.Div(
        [
            _save_bar(),
            html.Div(
                [
                    html.Div(
                        _empty("Reading the checkpoints…"), id="checkpoint-list", className="gb-card gb-table-card"
                    ),
                    html.Aside(
                        [html.Div("Branches", className="gb-card-title"), html.Div(id="branch-tree")],
                        className="gb-card gb-branches",
                    ),
                ],
                className="gb-checkpoints",
            ),
            _question(),
            dcc.Store(id=ASKED),
        ]
    )


def _save_bar() -> html.Div:
    return html.Div(
        [
            dmc.TextInput(
                id="checkpoint-name",
                placeholder="Name (optional)",
                size="sm",
                value="",
                w=220,
                attributes={"input": {"maxLength": 100}},
                **attributes({"aria-label": "Name of the checkpoint"}),
            ),
            html.Button(
                [icon("device-floppy", 16), html.Span("Save checkpoint")],
                id="checkpoint-save",
                className="gb-button gb-primary",
                n_clicks=0,
            ),
        ],
        className="gb-toolbar gb-toolbar-start",
    )


def _question() -> dmc.Modal:
    confirm = html.Button(
        [icon("restore", 16), html.Span("Restore")], id="confirm-restore", className="gb-button gb-primary", n_clicks=0
    )
    return dmc.Modal(
        [
            html.P("", id="restore-question"),
            html.Div(
                [html.Button("Cancel", id="cancel-restore", className="gb-button", n_clicks=0), confirm],
                className="gb-actions gb-end",
            ),
        ],
        id="restore-modal",
        title="Go back to this checkpoint?",
        centered=True,
        opened=False,
        zIndex=500,
        transitionProps={"duration": 120},
    )


def _empty(text: str) -> html.Div:
    return html.Div(
        [html.Span(icon("device-floppy", 30), className="gb-empty-icon"), html.Div(text, className="gb-muted")],
        className="gb-empty",
    )


def table(checkpoints: list[pb.CheckpointInfo], colours: dict[int, str], run_id: str, live: bool) -> Any:
    """The list of a run's checkpoints, newest first."""
    if not checkpoints:
        return _empty("No checkpoints yet. They are made on demand and every so many steps.")
    newest = sorted(checkpoints, key=lambda point: (point.time_ms, point.step), reverse=True)
    shown = [name for name in _FIRST if any(name in point.metrics for point in newest)][:3]
    headings = [
        html.Th("Checkpoint"),
        html.Th("Step", className="gb-right gb-wide"),
        html.Th("Age", className="gb-right gb-wide"),
        html.Th("Branch"),
        *(
            html.Th(_metric_title(name), className=f"gb-right{' gb-wide' if index else ''}")
            for index, name in enumerate(shown)
        ),
        html.Th("Saved", className="gb-wide"),
        html.Th(""),
    ]
    return html.Table(
        [html.Thead(html.Tr(headings)), html.Tbody([_row(point, shown, colours, run_id, live) for point in newest])],
        className="gb-table",
    )


def _metric_title(name: str) -> str:
    split, _, rest = name.partition("/")
    return f"{split.capitalize()} {rest}"


def _row(point: pb.CheckpointInfo, shown: list[str], colours: dict[int, str], run_id: str, live: bool) -> html.Tr:
    values = [metric(name, point.metrics[name]) if name in point.metrics else "" for name in shown]
    which = {"type": RESTORE, "run": run_id, "checkpoint": point.id}
    return html.Tr(
        [
            html.Td(
                [
                    html.Div(point.name or f"step {count(point.step)}", className="gb-strong"),
                    html.Div(f"{point.reason or 'asked'} · {size(point.bytes)}", className="gb-muted gb-small"),
                ]
            ),
            html.Td(count(point.step), className="gb-right gb-number gb-wide"),
            html.Td(count(point.age), className="gb-right gb-number gb-wide"),
            html.Td([_dot(colours.get(point.branch, "#888")), str(point.branch)]),
            *(
                html.Td(value, className=f"gb-right gb-number gb-nowrap{' gb-wide' if index else ''}")
                for index, value in enumerate(values)
            ),
            html.Td(clock(point.time_ms), className="gb-nowrap gb-wide"),
            html.Td(
                html.Div(
                    [
                        _restore({**which, "what": "all"}, "Restore", "checkpoint-restore", live),
                        _restore({**which, "what": "weights"}, "Weights only", "checkpoint-restore-weights", live),
                    ],
                    className="gb-actions gb-end",
                )
            ),
        ],
        id=f"checkpoint-{point.id}",
        **attributes({"data-step": str(point.step), "data-name": point.name}),
    )


def _restore(which: dict[str, str], text: str, name: str, live: bool) -> html.Button:
    return html.Button(
        text,
        id=which,
        n_clicks=0,
        disabled=not live,
        className=f"gb-button gb-button-small {name}",
        title="" if live else "Only while the run's backend is there",
    )


def _dot(colour: str) -> html.Span:
    return html.Span(className="gb-dot", style={"background": colour})


def size(number: int) -> str:
    """Bytes for people."""
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def branch_tree(run: pb.RunInfo | None, current: int, colours: dict[int, str]) -> list[html.Div]:
    """Branches under the branch they came from."""
    branches = list(run.branches) if run else []
    if not branches:
        return [html.Div("One branch so far.", className="gb-muted gb-small")]
    known = {branch.branch for branch in branches}
    rows: list[html.Div] = []

    def add(parent: int, depth: int) -> None:
        for branch in branches:
            if branch.parent != parent and not (parent == -1 and branch.parent not in known):
                continue
            origin = (
                f"from step {count(branch.fork_step)} of {branch.parent}"
                if branch.parent in known
                else "from the start"
            )
            rows.append(
                html.Div(
                    [
                        _dot(colours.get(branch.branch, "#888")),
                        html.Span(branch.name or f"branch {branch.branch}", className="gb-strong"),
                        html.Span(origin, className="gb-muted gb-small"),
                        html.Span("now", className="gb-chip") if branch.branch == current else None,
                    ],
                    className="gb-branch",
                    style={"paddingLeft": 18 * depth},
                )
            )
            add(branch.branch, depth + 1)

    add(-1, 0)
    return rows


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    _register_reading(app, hub)
    _register_restore(app, hub)

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output("checkpoint-name", "value"),
        Input("checkpoint-save", "n_clicks"),
        Input("checkpoint-name", "n_submit"),
        State("checkpoint-name", "value"),
        State(ids.FOCUS, "data"),
        State(ids.STATUS, "data"),
        prevent_initial_call=True,
    )
    async def save(_: int, __: int, name: str | None, focus: dict[str, str], status: Any) -> tuple[Any, Any]:
        operation = pb.SaveCheckpointOperation(name=(name or "").strip())
        request = pb.ExperimentCommandRequest(save_checkpoint_operation=operation)
        try:
            response = await hub.act(shown_run(focus, status), "ExperimentCommand", request)
        except CallFailed as failure:
            return toasts.failed(failure), no_update
        return toasts.answer(response), "" if response.success else no_update


def _register_reading(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output("checkpoint-list", "children"),
        Output("branch-tree", "children"),
        Output("checkpoint-save", "disabled"),
        Output(transport.cursor("checkpoints"), "data"),
        Input(ids.tick("checkpoints"), "n_intervals"),
        Input(ids.tick("checkpoints"), "disabled"),
        Input(ids.FOCUS, "data"),
        State(transport.cursor("checkpoints"), "data"),
        prevent_initial_call=True,
    )
    async def poll(_: int | None, asleep: bool, focus: dict[str, str], held: Any) -> tuple[Any, Any, Any, Any]:
        if asleep:
            return (no_update,) * 4
        run_id = await hub.focus(focus["run"])
        live = bool(run_id) and run_id == hub.live_run
        try:
            checkpoints = await hub.checkpoints(run_id)
            runs = (await hub.runs()).value
        except CallFailed as failure:
            now: Any = [run_id, str(failure)]
            if not transport.is_news(held, now):
                return (no_update,) * 4
            return _empty(str(failure)), [], True, now
        run = next((run for run in runs if run.run_id == run_id), None)
        branch = hub.status.branch if live and hub.status is not None else -1
        branches = [(info.branch, info.parent, info.name) for info in run.branches] if run else []
        now = [run_id, live, checkpoints.version, branch, [list(row) for row in branches]]
        if not transport.is_news(held, now):
            return (no_update,) * 4
        colours = {number: colour for (name, number), colour in run_colours(runs).items() if name == run_id}
        return table(checkpoints.value, colours, run_id, live), branch_tree(run, branch, colours), not live, now


def _register_restore(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output("restore-modal", "opened"),
        Output("restore-question", "children"),
        Output(ASKED, "data"),
        Input({"type": RESTORE, "run": ALL, "checkpoint": ALL, "what": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    async def ask(clicks: list[int]) -> tuple[Any, Any, Any]:
        chosen = ctx.triggered_id
        if not chosen or not any(item["value"] for item in ctx.triggered):
            return no_update, no_update, no_update
        point = await _find(hub, chosen["run"], chosen["checkpoint"])
        if point is None:
            return no_update, no_update, no_update
        what = point.name or f"step {count(point.step)}"
        if chosen["what"] == "weights":
            text = f"The weights go back to “{what}” (step {count(point.step)}); step count, optimizer and data stay."
            reference = f"{point.id}@@weights_step={point.step}"
        else:
            text = (
                f"Training pauses, the present is kept as a checkpoint, and the run goes on from “{what}” "
                f"(step {count(point.step)}, age {count(point.age)}) as a new branch. Hyper-parameters and discarded "
                "samples become what they were then."
            )
            reference = point.id
        return True, text, {"run": chosen["run"], "reference": reference}

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output("restore-modal", "opened", allow_duplicate=True),
        Input("confirm-restore", "n_clicks"),
        Input("cancel-restore", "n_clicks"),
        State(ASKED, "data"),
        prevent_initial_call=True,
    )
    async def answer(_: int, __: int, asked: dict[str, str] | None) -> tuple[Any, Any]:
        if ctx.triggered_id == "cancel-restore" or not asked:
            return no_update, False
        request = pb.RestoreCheckpointRequest(experiment_hash=asked["reference"])
        try:
            response = await hub.act(asked["run"], "RestoreCheckpoint", request)
        except CallFailed as failure:
            return toasts.failed(failure), False
        return toasts.answer(response), False


async def _find(hub: Hub, run_id: str, checkpoint_id: str) -> pb.CheckpointInfo | None:
    try:
        known = (await hub.checkpoints(run_id)).value
    except CallFailed:
        return None
    return next((point for point in known if point.id == checkpoint_id), None)
