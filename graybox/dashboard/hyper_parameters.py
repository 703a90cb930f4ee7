"""The hyper-parameter fields: they show the backend's real values, and send what was typed on Enter or blur."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from graybox.dashboard import ids, toasts, undo
from graybox.dashboard.attributes import attributes
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon

SUBMITTED = "hp-submitted"
"""Store, filled in the browser: {"name", "text", "count", "run"}, the run whose value the field showed."""
SETTLED = "hp-settled"
"""Store: {"name", "count", "refused", "version"}, an answer came, so that the field shows the real value again, as a
status of that version or a later one tells it."""

_LABELS = {
    "experiment_name": ("Experiment", "text"),
    "learning_rate": ("Learning rate", "decimal"),
    "batch_size": ("Batch size", "numeric"),
    "training_steps_to_do": ("Steps left", "numeric"),
    "full_eval_frequency": ("Evaluate every", "numeric"),
    "checkpoint_frequency": ("Checkpoint every", "numeric"),
}
_HELP = {
    "training_steps_to_do": "Optimizer steps still to do",
    "full_eval_frequency": "Steps between two evaluations; 0: never",
    "checkpoint_frequency": "Steps between two automatic checkpoints; 0: never",
}
_UNITS = {"full_eval_frequency": "steps", "checkpoint_frequency": "steps"}


def layout() -> html.Div:
    """One field per hyper-parameter, in one row where there is room."""
    return html.Div(
        [
            html.Button(
                [icon("adjustments-horizontal", 16), html.Span("Hyper-parameters"), icon("chevron-right", 14)],
                id="hp-toggle",
                className="gb-hp-toggle",
                n_clicks=0,
                **attributes({"aria-expanded": "false"}),
            ),
            html.Div([_field(name) for name in ids.HYPER_PARAMETERS], className="gb-hp-fields"),
            dcc.Store(id=SUBMITTED),
            dcc.Store(id=SETTLED),
        ],
        id="hyper-parameters",
        className="gb-hp",
    )


def _field(name: str) -> dmc.TextInput:
    label, mode = _LABELS[name]
    unit = _UNITS.get(name)
    return dmc.TextInput(
        id=ids.hyper_parameter(name),
        label=label,
        debounce=True,
        disabled=True,
        size="xs",
        value="",
        className=f"gb-hp-field gb-hp-{name}",
        rightSection=html.Span(unit, className="gb-unit") if unit else None,
        rightSectionWidth=42 if unit else None,
        attributes={"input": {"inputMode": mode, "spellCheck": False, "title": _HELP.get(name, "")}},
    )


def register(app: Dash, hub: Hub) -> None:
    """The fields' callbacks."""
    names = ids.HYPER_PARAMETERS
    app.clientside_callback(
        ClientsideFunction("graybox", "renderHyperParameters"),
        *[Output(ids.hyper_parameter(name), "value") for name in names],
        *[Output(ids.hyper_parameter(name), "disabled") for name in names],
        Input(ids.STATUS, "data"),
        Input(SETTLED, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "submitHyperParameter"),
        Output(SUBMITTED, "data"),
        *[Input(ids.hyper_parameter(name), "n_submit") for name in names],
        *[Input(ids.hyper_parameter(name), "n_blur") for name in names],
        *[State(ids.hyper_parameter(name), "value") for name in names],
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "toggleHyperParameters"),
        Output("hyper-parameters", "className"),
        Output("hp-toggle", "aria-expanded"),
        Input("hp-toggle", "n_clicks"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(SETTLED, "data"),
        Input(SUBMITTED, "data"),
        prevent_initial_call=True,
    )
    async def submit(given: dict[str, Any]) -> tuple[toasts.Toasts, dict[str, Any]]:
        settled = {"name": given["name"], "count": given["count"], "refused": True}
        try:
            value = parse(given["name"], given["text"])
            response = await hub.set_hyper_parameters(given["run"], **{given["name"]: value})
        except ValueError as error:
            return toasts.refused(str(error)), {**settled, "version": hub.version}
        except CallFailed as failure:
            return toasts.failed(failure), {**settled, "version": hub.version}
        told = {**settled, "refused": not response.success, "version": hub.version}
        return undo.done(response, given["run"]), told


def parse(name: str, text: str) -> float | int | str:
    """The value that was typed for a hyper-parameter. Whether it is in range, the backend knows.

    Raises ValueError with a message for people.
    """
    label = _LABELS[name][0]
    text = text.strip()
    if _LABELS[name][1] == "text":
        return text
    plain = text.replace(",", "").replace("_", "").replace(" ", "")
    if name == "learning_rate":
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{label} is a number such as 0.01 or 1e-3, not {_typed(text)}.") from None
    try:
        value = int(plain)
    except ValueError:
        raise ValueError(f"{label} is a whole number, not {_typed(text)}.") from None
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{label} is at most {2**31 - 1:,}, not {text}.")
    return value


def _typed(text: str) -> str:
    return repr(text) if text else "empty"
