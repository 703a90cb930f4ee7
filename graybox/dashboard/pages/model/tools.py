"""The bars below the tiles: which neurons, and what to do with them."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import html

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.pages.model import columns
from graybox.dashboard.pages.model.edits import STATISTICS

HEALTHS = ("dead", "redundant", "overfit", "young", "frozen", "good")
_STATISTICS = [{"value": name, "label": label} for name, label in STATISTICS.items()]


def layer_bar() -> html.Div:
    """What can be done to the layer as a whole."""
    return html.Div(
        [
            html.Div([_button("sort-neurons", "Sort", "arrows-sort"), _sort_options()], className="gb-joined"),
            html.Div([_button("add-neurons", "Add", "plus"), _count()], className="gb-joined"),
        ],
        className="gb-actions",
    )


def selection_bar() -> html.Div:
    """What is selected, and ways to select."""

    def link(name: str, text: str) -> html.Button:
        return html.Button(text, id=name, className="gb-text-button", n_clicks=0)

    return html.Div(
        [
            html.Span("None selected", id="selection-text", className="gb-small"),
            link("select-all", "All"),
            link("select-none", "None"),
            link("select-dead", "Dead"),
            link("select-redundant", "Redundant"),
            _popover("select-options", "Select by", _select_fields(), "filter", 300, text="Select by…"),
            columns.menu(),
        ],
        className="gb-selection",
    )


def _select_fields() -> list[Any]:
    return [
        dmc.SegmentedControl(
            id="select-scope",
            data=[{"value": "layer", "label": "This layer"}, {"value": "all", "label": "All layers"}],
            value="layer",
            size="xs",
            fullWidth=True,
        ),
        dmc.Select(
            id="select-health",
            label="Health",
            data=[{"value": "", "label": "any"}, *({"value": name, "label": name} for name in HEALTHS)],
            value="",
            allowDeselect=False,
            size="xs",
            comboboxProps={"zIndex": 600},
        ),
        html.Div(
            [
                dmc.Select(
                    id="select-end",
                    label="Take",
                    data=[
                        {"value": "", "label": "all of them"},
                        {"value": "lowest", "label": "the lowest"},
                        {"value": "highest", "label": "the highest"},
                    ],
                    value="lowest",
                    allowDeselect=False,
                    size="xs",
                    comboboxProps={"zIndex": 600},
                ),
                dmc.TextInput(
                    id="select-amount",
                    value="10",
                    size="xs",
                    w=52,
                    attributes={"input": {"inputMode": "numeric"}},
                    **attributes({"aria-label": "How many"}),
                ),
                dmc.Select(
                    id="select-unit",
                    data=[{"value": "percent", "label": "%"}, {"value": "neurons", "label": "neurons"}],
                    value="percent",
                    allowDeselect=False,
                    size="xs",
                    w=92,
                    comboboxProps={"zIndex": 600},
                    **attributes({"aria-label": "Unit"}),
                ),
            ],
            className="gb-fields-row",
        ),
        _statistic("select-statistic", "By"),
        html.Button("Select", id="select-apply", n_clicks=0, className="gb-button gb-primary gb-button-small"),
    ]


def action_bar() -> html.Div:
    """What can be done to the selected neurons."""
    return html.Div(
        [
            html.Div([_button("freeze", "Freeze", "snowflake"), _freeze_options()], className="gb-joined"),
            _button("unfreeze", "Unfreeze", "droplet"),
            html.Div(
                [_button("reinitialise", "Reinitialise", "refresh"), _reinitialise_options()], className="gb-joined"
            ),
            html.Div([_button("zerofy", "Zero", "eraser"), _zerofy_options()], className="gb-joined"),
            _learning_rate(),
            html.Span(className="gb-bar-gap"),
            _button("remove-neurons", "Remove", "trash", "gb-danger"),
        ],
        className="gb-actions",
    )


def _button(name: str, text: str, symbol: str, extra: str = "") -> html.Button:
    return html.Button(
        [icon(symbol, 16), html.Span(text)], id=name, className=f"gb-button {extra}", disabled=True, n_clicks=0
    )


def _popover(
    name: str, title: str, fields: list[Any], symbol: str = "adjustments-horizontal", width: int = 280, text: str = ""
) -> dmc.Popover:
    target = html.Button(
        [icon(symbol, 14 if text else 16), html.Span(text) if text else None],
        id=name,
        n_clicks=0,
        className="gb-text-button gb-icon-text" if text else "gb-button gb-square",
        title=title,
        **attributes({"aria-label": title}),
    )
    return dmc.Popover(
        [dmc.PopoverTarget(target), dmc.PopoverDropdown(html.Div(fields, className="gb-popover"))],
        width=width,
        position="bottom-start" if text else "bottom-end",
        withArrow=True,
        shadow="md",
        zIndex=500,
        keepMounted=True,
    )


def _freeze_options() -> dmc.Popover:
    fields = [
        html.Div("The selected neurons", className="gb-label"),
        _button("freeze-bias", "Freeze their biases only", "snowflake", "gb-button-small"),
        _text_field(
            "incoming-neurons",
            "Connections from incoming neurons",
            "0, 4-7",
            "By their numbers in the layer before, for the whole layer.",
        ),
        _button("freeze-incoming", "Freeze these connections", "snowflake", "gb-button-small"),
        html.Div("Unfreeze clears all three of the selected numbers.", className="gb-muted gb-small"),
    ]
    return _popover("freeze-options", "What else to freeze", fields)


def _reinitialise_options() -> dmc.Popover:
    fields = [
        _text_field(
            "perturbation-ratio",
            "Perturbation ratio",
            "own initialisation",
            "Between 0 and 1: each weight times 1 + u, u within ± the ratio. Empty: the layer's own initialisation.",
        ),
        _checkbox(
            "zero-outgoing",
            "Zero the outgoing connections",
            "The network then changes only by what the old neurons contributed.",
        ),
    ]
    return _popover("reinitialise-options", "How to reinitialise", fields)


def _zerofy_options() -> dmc.Popover:
    fields = [
        html.Div("With none of these: all weights and the bias.", className="gb-muted gb-small"),
        _text_field("zerofy-incoming", "Only connections from", "0, 4-7", "Incoming neurons by their numbers."),
        _checkbox("zerofy-from-frozen", "Connections from frozen neurons", ""),
        _checkbox("zerofy-from-older", "Connections from older neurons", "Older than the neuron they lead to."),
    ]
    return _popover("zerofy-options", "What to set to zero", fields)


def _sort_options() -> dmc.Popover:
    fields = [_statistic("sort-statistic", "Sort by"), _checkbox("sort-ascending", "Lowest first", "")]
    return _popover("sort-options", "How to sort", fields)


def _statistic(name: str, label: str) -> dmc.Select:
    return dmc.Select(
        id=name,
        label=label,
        data=_STATISTICS,
        value="trigger_rate",
        allowDeselect=False,
        size="xs",
        comboboxProps={"zIndex": 600},
    )


def _count() -> dmc.TextInput:
    return dmc.TextInput(
        id="add-count",
        value="1",
        size="sm",
        w=52,
        attributes={"input": {"inputMode": "numeric"}},
        **attributes({"aria-label": "How many neurons to add"}),
    )


def _learning_rate() -> html.Div:
    return html.Div(
        [
            dmc.TextInput(
                id="neuron-learning-rate",
                value="",
                placeholder="× rate",
                size="sm",
                w=74,
                attributes={"input": {"inputMode": "decimal"}},
                **attributes({"aria-label": "Factor on the learning rate"}),
            ),
            _button("set-learning-rate", "Set rate", "gauge"),
        ],
        className="gb-joined",
    )


def _text_field(name: str, label: str, placeholder: str, description: str) -> dmc.TextInput:
    return dmc.TextInput(
        id=name, label=label, placeholder=placeholder, description=description, size="xs", value="",
        attributes={"input": {"inputMode": "decimal"}},
    )  # fmt: skip


def _checkbox(name: str, label: str, description: str) -> dmc.Checkbox:
    return dmc.Checkbox(id=name, label=label, description=description, size="xs", checked=False, radius="sm")
