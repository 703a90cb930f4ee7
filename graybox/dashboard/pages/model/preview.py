"""The dialog before an edit of structure: what it would touch, what the network becomes, exact or why not."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard.icons import icon
from graybox.dashboard.view import count, number, share
from graybox.proto import experiment_service_pb2 as pb

ASKED = "edit-asked"
"""Store: {"run", "request": the request as JSON, "exact": bool, "allowed": bool, "together": [index, ...]}."""
TOUCHES_SHOWN = 60


def dialog() -> html.Div:
    """The dialog, closed, and what it is about."""
    return html.Div(
        [
            dmc.Modal(
                [
                    html.Div(id="edit-plan"),
                    html.Div(
                        [
                            html.Button(
                                [icon("ruler-measure", 15), html.Span("Measure the change of the logits")],
                                id="edit-measure",
                                className="gb-button gb-button-small",
                                n_clicks=0,
                            ),
                            html.Span("", id="edit-measured", className="gb-small"),
                        ],
                        id="edit-measure-row",
                        className="gb-measure-row",
                    ),
                    dmc.Checkbox(
                        id="allow-inexact",
                        label="Do it although it is not exact",
                        size="sm",
                        checked=False,
                        radius="sm",
                        className="gb-hidden",
                    ),
                    html.Div(
                        [
                            html.Button(
                                [icon("link", 16), html.Span("Take the smallest set that goes together")],
                                id="edit-take-together",
                                className="gb-button gb-hidden",
                                n_clicks=0,
                            ),
                            html.Button("Cancel", id="edit-cancel", className="gb-button", n_clicks=0),
                            html.Button("Apply", id="edit-apply", className="gb-button gb-primary", n_clicks=0),
                        ],
                        className="gb-actions gb-end gb-edit-buttons",
                    ),
                ],
                id="edit-modal",
                title="",
                size="lg",
                centered=True,
                opened=False,
                zIndex=500,
                keepMounted=True,
                transitionProps={"duration": 120},
            ),
            dcc.Store(id=ASKED),
        ]
    )


def title(request: pb.ManipulateWeightsRequest, layer: str) -> str:
    """The question that the dialog asks."""
    every = request.HasField("selection")
    where = "all layers" if every and request.selection.all_layers else layer
    match request.operation:
        case pb.REMOVE_NEURONS if every:
            return f"Remove the selected neurons of {where}?"
        case pb.REMOVE_NEURONS:
            many = len(request.neuron_ids)
            return f"Remove {_neurons(many) if many > 1 else f'neuron {request.neuron_ids[0]}'} of {where}?"
        case pb.ADD_NEURONS:
            return f"Add {_neurons(request.count)} to {where}?"
        case _:
            return f"Sort the neurons of {where}?"


def plan(response: pb.ManipulateWeightsResponse, operation: int) -> list[Any]:
    """What the plan of an operation says, or why there is none."""
    if not response.success:
        return [
            html.Div(
                [
                    icon("alert-triangle", 18),
                    html.Div(
                        [
                            html.Div("This cannot be done", className="gb-strong"),
                            html.Div(response.message, id="edit-refused"),
                            *(
                                html.Div(f"Can go together: {_named(found)}", className="gb-small")
                                for found in response.together
                            ),
                        ]
                    ),
                ],
                className="gb-note gb-note-bad",
            )
        ]
    details = response.details
    return [
        html.Div(
            [
                _figure("Parameters", details.parameters_before, details.parameters_after),
                _figure("Multiply-adds per sample", details.multiply_adds_before, details.multiply_adds_after)
                if details.multiply_adds_before
                else None,
            ],
            className="gb-figures",
        ),
        _exactness(operation, details.inexact),
        html.Ul([html.Li(note) for note in details.notes], className="gb-notes") if details.notes else None,
        _coupled(details),
        _touches(details.touches),
    ]


def measured(response: pb.ManipulateWeightsResponse) -> str:
    """How far the logits would move."""
    if not response.success or not response.details.HasField("measured"):
        return response.message or "It could not be measured."
    change = response.details.measured
    over = f", over {change.samples} samples" if change.samples else ""
    if not change.max_abs:
        return f"No logit moves at all{over}."
    relative = f"{share(change.relative_to_largest)} of the largest"
    return f"Logits move by up to {number(change.max_abs, 3)} ({relative}){over}."


def _figure(name: str, before: int, after: int) -> html.Div:
    change = 100 * (after - before) / before if before else 0.0
    tone = "gb-change-good" if after < before else ""
    return html.Div(
        [
            html.Div(name, className="gb-label"),
            html.Div(
                [
                    html.Span(count(before), className="gb-muted"),
                    html.Span("→", className="gb-muted"),
                    html.Span(count(after), className="gb-strong"),
                    html.Span(f"{change:+.1f} %", className=f"gb-change {tone}") if after != before else None,
                ],
                className="gb-figure gb-number",
            ),
        ]
    )


def _exactness(operation: int, reasons: Any) -> html.Div:
    removes = operation == pb.REMOVE_NEURONS
    if not reasons:
        words = "changes by what is removed and by nothing else" if removes else "stays what it is"
        words = f"Exact: the network's function {words}."
        return html.Div([icon("circle-check", 18), html.Div(words)], className="gb-note gb-note-good", id="edit-exact")
    return html.Div(
        [
            icon("alert-triangle", 18),
            html.Div(
                [
                    html.Div(
                        f"Not exact: the function changes{' by more than what is removed' if removes else ''}",
                        className="gb-strong",
                    ),
                    html.Ul([html.Li(reason) for reason in reasons]),
                ]
            ),
        ],
        className="gb-note gb-note-warn",
        id="edit-exact",
    )


def _coupled(details: pb.EditPlan) -> Any:
    if len(details.neurons) < 2:
        return None
    named = [html.Li(_named(found)) for found in details.neurons[:12]]
    more = len(details.neurons) - len(named)
    if more > 0:
        named.append(html.Li(f"and {more} more layers"))
    return html.Div([html.Div("Neurons, by layer", className="gb-label"), html.Ul(named)], className="gb-coupled")


def _touches(touches: Any) -> html.Details:
    rows = [
        html.Tr(
            [
                html.Td(touch.tensor, className="gb-mono"),
                html.Td(str(touch.axis), className="gb-right gb-number"),
                html.Td(ranges_text(touch.indices, touch.number_of_indices), className="gb-number"),
                html.Td(touch.change),
            ]
        )
        for touch in touches[:TOUCHES_SHOWN]
    ]
    if len(touches) > TOUCHES_SHOWN:
        rest = len(touches) - TOUCHES_SHOWN
        rows.append(html.Tr(html.Td(f"and {rest} more tensors", colSpan=4, className="gb-muted")))
    table = html.Table(
        [
            html.Thead(html.Tr([html.Th("Tensor"), html.Th("Axis"), html.Th("Entries"), html.Th("Change")])),
            html.Tbody(rows, id="edit-touches"),
        ],
        className="gb-table gb-table-small",
    )
    return html.Details(
        [html.Summary(f"What is touched: {len(touches)} tensors"), html.Div(table, className="gb-touches")],
        open=len(touches) <= 8,
    )


def ranges_text(ranges: Any, total: int) -> str:
    """3, 5-9 and so on; at most six pieces."""
    pieces = [str(r.first) if r.first == r.last else f"{r.first}–{r.last}" for r in ranges[:6]]
    told = sum(r.last - r.first + 1 for r in ranges[:6])
    return ", ".join(pieces) + (f" and {count(total - told)} more" if total > told else "")


def _named(found: pb.LayerNeurons) -> str:
    return f"{found.layer_name}: {ranges_text(found.neurons, found.number_of_neurons)}"


def _neurons(many: int) -> str:
    return f"{many:,} neuron{'' if many == 1 else 's'}"
