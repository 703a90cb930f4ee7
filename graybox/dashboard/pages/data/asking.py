"""Queries on their way to the backend, and what comes back: the view that the grid shows, or where a query is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from graybox.dashboard.client import ACTOR, CallFailed
from graybox.dashboard.hub import Hub
from graybox.proto import experiment_service_pb2 as pb

QUERY_SECONDS = 60.0
"""How long a query may take, one that a language model reads first included."""
_PLACE = re.compile(r" \(at character (\d+)(?:: .*|, where the query ends)\)$", re.DOTALL)
_TOKEN = re.compile(r"\s*(\w+|'[^']*'?|\"[^\"]*\"?|\S)")
_AROUND = 120
"""Characters of a query that are shown before and behind the place of an error."""

View = dict[str, Any]
"""{"run", "id": of the backend, "queries": as they were understood, each within the one before, "matches", "among",
"seed", "generation": how often it was asked}."""


async def ask(
    hub: Hub, run_id: str, text: str, *, within: Mapping[str, Any] | None = None, natural: bool = False, seed: int = 0
) -> pb.DataQueryResponse:
    """Ask a query, among the samples of a view where one is given. The answer may say success=false.

    Raises CallFailed, with the place of the error at the end of its text where the query itself is wrong.
    """
    request = pb.DataQueryRequest(query=text, is_natural_language=natural, run_id=run_id, actor=ACTOR, seed=seed)
    if within is None:
        return await _send(hub, request)
    request.within_view_id = within["id"]
    try:
        return await _send(hub, request)
    except CallFailed as failure:
        if not failure.missing:
            raise
    # The backend keeps the newest views only, and none when it is started anew.
    request.within_view_id = (await again(hub, within))["id"]
    return await _send(hub, request)


async def again(hub: Hub, view: Mapping[str, Any], *, seed: int | None = None) -> View:
    """The view with the samples that match now. Raises CallFailed."""
    seed = view["seed"] if seed is None else seed
    found: View | None = None
    for text in view["queries"]:
        request = pb.DataQueryRequest(query=text, run_id=view["run"], actor=ACTOR, seed=seed)
        request.within_view_id = found["id"] if found else ""
        found = view_of(await _send(hub, request), found, seed)
    assert found is not None
    return {**found, "generation": view["generation"] + 1}


async def _send(hub: Hub, request: pb.DataQueryRequest) -> pb.DataQueryResponse:
    response = await hub.ask(request.run_id, "ApplyDataQuery", request, QUERY_SECONDS)
    assert isinstance(response, pb.DataQueryResponse)
    return response


def view_of(response: pb.DataQueryResponse, within: Mapping[str, Any] | None, seed: int = 0) -> View:
    """What the grid shows after an answer."""
    return {
        "run": response.run_id,
        "id": response.view_id,
        "queries": [*(within["queries"] if within else ()), response.query],
        "matches": response.number_of_matches,
        "among": within["matches"] if within else response.number_of_all_samples,
        "seed": seed,
        "generation": 0,
    }


def narrows(response: pb.DataQueryResponse) -> bool:
    """Whether an answer is about some samples or about their order; a mere `show` leaves the grid as it is."""
    return bool(response.view_id) and not response.query.startswith("show ")


def place_of(failure: str) -> tuple[str, int | None]:
    """The message without its place, and the place: a position from 0 in the query, in characters."""
    found = _PLACE.search(failure)
    return (failure[: found.start()], int(found.group(1)) - 1) if found else (failure, None)


def marked(text: str, position: int) -> tuple[str, str, str]:
    """The query in three parts: before the place of an error, the word that stands there (empty at the end), after."""
    found = _TOKEN.match(text, position)
    end = found.end() if found else len(text)
    before, place, after = text[:position], text[position:end], text[end:]
    before = f"…{before[-_AROUND:]}" if len(before) > _AROUND else before
    return before, place, f"{after[:_AROUND]}…" if len(after) > _AROUND else after


def as_query(filters: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The filters above the grid as a query; empty where none is set. classes: names by number, as far as they are
    known. Raises ValueError for what the language cannot say, and for what is no number."""
    if str(filters.get("id") or "").strip():
        raise ValueError("“Id contains” cannot be said in a query; clear it, or write id == 12.")
    parts = []
    if filters.get("split"):
        parts.append(f"split == {quoted(filters['split'])}")
    if filters.get("status"):
        parts.append("discarded" if filters["status"] == "discarded" else "not discarded")
    numbers = [int(number) for number in filters.get("label") or ()]
    if numbers:
        known = all(number < len(classes) for number in numbers)
        labels = ", ".join(quoted(classes[number]) if known else str(number) for number in numbers)
        parts.append(f"label in ({labels})")
    parts += [f"loss >= {text}" for text in _bound(filters, "min_loss", "Loss from")]
    parts += [f"loss <= {text}" for text in _bound(filters, "max_loss", "Loss to")]
    if filters.get("wrong"):
        parts.append("label != prediction")
    return " and ".join(parts)


def _bound(filters: Mapping[str, Any], name: str, field: str) -> list[str]:
    text = str(filters.get(name) or "").strip()
    if not text:
        return []
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{field}: give a finite number such as 0.5, not {text!r}.")
    return [f"{value!r}"]


def quoted(text: str) -> str:
    """A text as the language writes it."""
    return "'" + text.replace("'", "''") + "'"
