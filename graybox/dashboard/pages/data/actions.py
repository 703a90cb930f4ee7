"""The bar above the grid: which samples an action is for, and the actions; the dialogs that they open."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.pages.data import columns

TARGET = "samples-target"
"""Control: whether actions are for the samples "selected" or for all of the "view"."""
PENDING = "samples-pending"
"""Store: {"run", "request": the request as JSON}, an edit that waits for its last word."""
FORMATS = {
    "csv": ("CSV", "a table, as spreadsheets read it"),
    "parquet": ("Parquet", "a table with types, as pandas reads it"),
    "jsonl": ("JSON lines", "one object a line"),
    "manifest": ("Manifest", "what plain PyTorch needs to train on these samples"),
}
_UPWARDS = {"zIndex": 600, "position": "top-start"}
"""Suggestions open above their field: below it they would hide the buttons."""


def bar() -> html.Div:
    """Above the grid."""
    return html.Div(
        [
            dmc.SegmentedControl(
                id=TARGET,
                data=[{"value": "selected", "label": "None selected"}],
                value="selected",
                size="xs",
                className="gb-target",
                **attributes({"aria-label": "Which samples actions are for"}),
            ),
            html.Div(
                [
                    _button("discard", "Discard", "trash", "gb-danger"),
                    _button("restore-samples", "Restore", "restore"),
                    _tagging(),
                    _labelling(),
                    _weighing(),
                ],
                className="gb-actions",
            ),
            html.Span(className="gb-bar-gap"),
            html.Div([columns.menu(), _export()], className="gb-actions"),
        ],
        className="gb-sample-tools",
    )


def _button(name: str, text: str, symbol: str, extra: str = "") -> html.Button:
    return html.Button(
        [icon(symbol, 16), html.Span(text, id=f"{name}-text")],
        id=name,
        className=f"gb-button {extra}",
        disabled=True,
        n_clicks=0,
    )


def _popover(name: str, text: str, symbol: str, fields: list[Any]) -> dmc.Popover:
    target = html.Button([icon(symbol, 16), html.Span(text)], id=name, n_clicks=0, className="gb-button", disabled=True)
    return dmc.Popover(
        [dmc.PopoverTarget(target), dmc.PopoverDropdown(html.Div(fields, className="gb-popover"))],
        width=270,
        position="bottom-start",
        withArrow=True,
        shadow="md",
        zIndex=500,
        keepMounted=True,
    )


def _small(name: str, text: str, extra: str = "") -> html.Button:
    return html.Button(
        html.Span(text, id=f"{name}-text"),
        id=name,
        className=f"gb-button gb-button-small {extra}",
        n_clicks=0,
        disabled=True,
    )


def _tagging() -> dmc.Popover:
    name = dmc.Autocomplete(
        id="tag-name",
        label="Tag",
        placeholder="difficult",
        data=[],
        value="",
        size="xs",
        maxDropdownHeight=220,
        comboboxProps=_UPWARDS,
    )
    buttons = html.Div(
        [_small("add-tag", "Add the tag", "gb-primary"), _small("remove-tag", "Take it away")], className="gb-actions"
    )
    return _popover("tag-options", "Tag", "tag", [name, buttons])


def _labelling() -> dmc.Popover:
    name = dmc.Autocomplete(
        id="label-name",
        label="The right class",
        placeholder="its name or number",
        data=[],
        value="",
        size="xs",
        limit=200,
        maxDropdownHeight=220,
        comboboxProps=_UPWARDS,
    )
    hint = "The data set itself stays as it is; this label counts in its place."
    return _popover(
        "label-options",
        "Label",
        "pencil",
        [
            name,
            _small("set-label", "Set the label", "gb-primary"),
            html.Div(hint, className="gb-muted gb-small"),
            _small("original-label", "The data set's label again"),
        ],
    )


def _weighing() -> dmc.Menu:
    def item(name: str, text: str) -> dmc.MenuItem:
        return dmc.MenuItem(text, id=f"ask-{name}", n_clicks=0)

    target = html.Button(
        [icon("adjustments-horizontal", 16), html.Span("Weights")],
        id="weigh-options",
        n_clicks=0,
        disabled=True,
        className="gb-button",
        title="How often samples are drawn in training",
    )
    return dmc.Menu(
        [
            dmc.MenuTarget(target),
            dmc.MenuDropdown(
                [
                    dmc.MenuLabel("How often training draws samples"),
                    item("sampling-weight", "Sampling weight…"),
                    item("rebalance", "Rebalance classes…"),
                    item("keep-share", "Keep a share of them…"),
                ]
            ),
        ],
        zIndex=500,
        position="bottom-start",
        shadow="md",
        keepMounted=True,
    )


def _export() -> dmc.Menu:
    target = html.Button(
        [icon("download", 16), html.Span("Export", className="gb-wide")],
        id="export-options",
        n_clicks=0,
        className="gb-button",
        title="Save what the grid shows as a file",
        **attributes({"aria-label": "Export"}),
    )
    items = [
        dmc.MenuItem([html.Div(name), html.Div(text, className="gb-muted gb-small")], id=f"export-{kind}", n_clicks=0)
        for kind, (name, text) in FORMATS.items()
    ]
    return dmc.Menu(
        [dmc.MenuTarget(target), dmc.MenuDropdown([dmc.MenuLabel("All samples", id="export-what"), *items])],
        zIndex=500,
        position="bottom-end",
        shadow="md",
        keepMounted=True,
    )


def dialogs() -> html.Div:
    """What is asked before many samples are edited, and before samples are drawn in another way."""
    return html.Div(
        [
            dmc.Modal(
                [
                    html.Div(id="confirm-which"),
                    html.Div("It takes effect at the next batch, and can be undone.", className="gb-muted gb-small"),
                    html.Div(
                        [
                            html.Button("Cancel", id="confirm-cancel", className="gb-button", n_clicks=0),
                            html.Button("", id="confirm-edit", className="gb-button gb-primary", n_clicks=0),
                        ],
                        className="gb-actions gb-end gb-edit-buttons",
                    ),
                ],
                id="confirm-modal",
                title="",
                opened=False,
                centered=True,
                zIndex=550,
            ),
            _weigh_dialog(),
            dcc.Store(id=PENDING),
            dcc.Store(id="weigh-kind", data=""),
        ]
    )


def _weigh_dialog() -> dmc.Modal:
    ways = [
        ("balance", "Equally frequent, an epoch as long as before"),
        ("oversample", "Each as frequent as the largest class"),
        ("undersample", "Each as frequent as the smallest class"),
        ("none", "No weights again: each sample once"),
    ]
    forms = {
        "sampling-weight": [
            _field("weigh-value", "Draw each of them per epoch", "1", "times"),
            _hint("From 0 to 100. 1 is as usual; 0.5 is in half of the epochs, at random; 0 is never."),
        ],
        "rebalance": [
            dmc.RadioGroup(
                html.Div(
                    [dmc.Radio(label=text, value=value, size="sm") for value, text in ways], className="gb-popover"
                ),
                id="rebalance-how",
                label="Classes become",
                value="balance",
                size="sm",
            ),
            _hint("Worked out once, now, from the labels that count. Weights set by hand are replaced."),
        ],
        "keep-share": [
            _field("keep-share-value", "Keep of them in training", "20", "%"),
            _hint("Which ones is drawn at random; the others are discarded."),
        ],
    }
    return dmc.Modal(
        [
            html.Div(id="weigh-which", className="gb-weigh-which"),
            *(html.Div(form, id=f"form-{name}", className="gb-hidden") for name, form in forms.items()),
            html.Div(
                [
                    html.Button("Cancel", id="weigh-cancel", className="gb-button", n_clicks=0),
                    html.Button("Apply", id="weigh-apply", className="gb-button gb-primary", n_clicks=0),
                ],
                className="gb-actions gb-end gb-edit-buttons",
            ),
        ],
        id="weigh-modal",
        title="",
        opened=False,
        centered=True,
        zIndex=550,
        keepMounted=True,
    )


def _field(name: str, label: str, value: str, unit: str) -> dmc.TextInput:
    return dmc.TextInput(
        id=name,
        label=label,
        value=value,
        size="sm",
        w=220,
        rightSection=html.Span(unit, className="gb-unit"),
        rightSectionWidth=48,
        attributes={"input": {"inputMode": "decimal"}},
    )


def _hint(text: str) -> html.Div:
    return html.Div(text, className="gb-muted gb-small gb-weigh-hint")
