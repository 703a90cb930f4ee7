"""What an answer offers beside the samples: queries to try, edits that a language model proposes, which columns there
are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import html
from google.protobuf import json_format

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.pages.data.query_box import PROPOSAL
from graybox.proto import experiment_service_pb2 as pb


def examples(queries: Sequence[str]) -> list[Any]:
    """Queries to click, where a question was not understood."""
    buttons = [
        html.Button(html.Code(query), className="gb-example", type="button", **attributes({"data-query": query}))
        for query in queries
    ]
    return [
        html.Div("Close to it, in the query language:", className="gb-label"),
        html.Div(buttons, id="query-nearest"),
    ]


def cards(response: pb.DataQueryResponse) -> list[Any]:
    """A button for each edit that is proposed. It says what it does, and does nothing until it is pressed."""
    if not response.proposed_edits:
        return []
    buttons = [
        html.Button(
            [icon("check", 15), html.Span(proposed.description)],
            id={"type": PROPOSAL, "index": index},
            className="gb-button gb-proposal",
            n_clicks=0,
        )
        for index, proposed in enumerate(response.proposed_edits)
    ]
    return [
        html.Div("Proposed by the language model; nothing is done until you press it:", className="gb-label"),
        html.Div(buttons, className="gb-actions"),
    ]


def kept(response: pb.DataQueryResponse) -> dict[str, Any] | None:
    """The edits as the buttons send them."""
    if not response.proposed_edits:
        return None
    edits = [
        {
            "description": proposed.description,
            "request": json_format.MessageToDict(proposed.edit, preserving_proto_field_name=True),
        }
        for proposed in response.proposed_edits
    ]
    return {"run": response.run_id, "matches": response.number_of_matches, "edits": edits}


def overview(response: pb.DataQueryResponse) -> dict[str, Any] | None:
    """What "@overview" tells, in the shape of analysis_json."""
    if not response.columns:
        return None
    lines = [[column.name, column.kind, column.description] for column in response.columns]
    lines += [[f"tag:{tag}", "tag", ""] for tag in response.unique_tags]
    columns = ["column", "kind", "what it is"]
    return {
        "kind": "overview",
        "title": "Columns",
        "rows": response.number_of_matches,
        "columns": columns,
        "lines": lines,
    }
