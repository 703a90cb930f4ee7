"""Questions about samples: from the grid's HTTP query to the wire, and from the wire to the grid's rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from graybox.dashboard.view import count, number
from graybox.proto import experiment_service_pb2 as pb

COLUMNS = {
    "sample_id": "sample_id",
    "origin": "origin",
    "label": "label",
    "prediction": "prediction",
    "loss": "loss",
    "encounters": "encounters",
    "last_age": "last_age",
    "discarded": "discarded",
}
"""The grid's own columns, and what the contract calls them."""

OTHER = "column:"
"""Stands before the name of any other column of the samples: a score, a number that the user's code logs, a copy."""

MAX_ROWS = 500


class BadQuery(ValueError):
    """A query that cannot be meant; the message is for people."""


def request_from(query: Mapping[str, str]) -> pb.GetDataSamplesRequest:
    """The wire's request for what the grid asks.

    start, end: rows, end excluded. view: what a query found, which has no other filter. run, split, status ("in" or
    "discarded"), wrong ("1"), label (class numbers, comma-separated), id, min_loss, max_loss: the filter. sort: a
    column of COLUMNS, or OTHER and the name of any, desc ("1"). Raises BadQuery.
    """
    start, end = _whole(query, "start", 0), _whole(query, "end", 100)
    if not 0 <= start < end:
        raise BadQuery(f"rows {start} to {end} are none; start is at least 0 and below end")
    request = pb.GetDataSamplesRequest(
        start_index=start,
        records_cnt=min(end - start, MAX_ROWS),
        run_id=query.get("run", ""),
        view_id=query.get("view", ""),
        sort_by=_sort_column(query.get("sort", "")),
        descending=query.get("desc") == "1",
    )
    if not request.view_id:
        request.filter.CopyFrom(_filter(query))
    return request


def _sort_column(name: str) -> str:
    if name.startswith(OTHER):
        return name.removeprefix(OTHER)
    if name and name not in COLUMNS:
        raise BadQuery(f"there is no column {name!r}; columns are {', '.join(COLUMNS)}")
    return COLUMNS.get(name, "")


def _filter(query: Mapping[str, str]) -> pb.SampleFilter:
    status = query.get("status", "")
    if status not in ("", "in", "discarded"):
        raise BadQuery(f"status is 'in' or 'discarded', not {status!r}")
    request_filter = pb.SampleFilter(
        origin=query.get("split", ""), id_contains=query.get("id", "").strip(), labels=_labels(query.get("label", ""))
    )
    if status:
        request_filter.discarded = status == "discarded"
    if query.get("wrong") == "1":
        request_filter.wrong = True
    for name in ("min_loss", "max_loss"):
        value = _loss(query, name)
        if value is not None:
            setattr(request_filter, name, value)
    return request_filter


def page_from(response: pb.DataSamplesResponse, run_id: str, classes: Sequence[str] = ()) -> dict[str, Any]:
    """The grid's answer: rows, and how many there are in all. classes: names by number, where they are known."""
    names = dict(enumerate(classes)) or _names_in(response.data_records)
    return {
        "rows": [row_of(record, run_id, names) for record in response.data_records],
        "matches": response.number_of_matches,
        "all": response.number_of_all_samples,
        "discarded": response.number_of_discarded_samples,
        "run": run_id,
    }


def row_of(record: pb.DataRecord, run_id: str, classes: Mapping[int, str] | None = None) -> dict[str, Any]:
    """One sample as the grid shows it. classes: names by number, for the label that a person has replaced."""
    loss = record.loss if record.HasField("loss") else None
    known = {"label", "prediction", "loss", "encounters", "last_age", "discarded"}
    corrected = record.original_label != record.label
    original = _class(record.original_label, (classes or {}).get(record.original_label, "")) or "none"
    return {
        "key": f"{record.origin}/{record.sample_id}",
        "run": run_id,
        "sample_id": record.sample_id,
        "origin": record.origin,
        "label": record.label_text or _class(record.label, record.label_name),
        "original": original if corrected else "",
        "prediction": record.prediction_text or _class(record.prediction, record.prediction_name),
        "wrong": record.prediction >= 0 and record.label >= 0 and record.prediction != record.label,
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "loss_text": "" if loss is None else number(loss),
        "encounters": record.encounters,
        "last_age": count(record.last_age) if record.last_age >= 0 else "",
        "discarded": record.discarded,
        "tags": list(record.tags),
        "thumbnail": thumbnail_url(record, run_id, 64),
        "image": thumbnail_url(record, run_id, 0),
        "more": {key: value for key, value in sorted(record.metadata.items()) if key not in known},
    }


def _names_in(records: Iterable[pb.DataRecord]) -> dict[int, str]:
    """The names of classes that a page tells, of a run that has ended and tells no others."""
    told = ((record.label, record.label_name, record.prediction, record.prediction_name) for record in records)
    return {
        number: name
        for label, label_name, guess, guess_name in told
        for number, name in ((label, label_name), (guess, guess_name))
        if name
    }


def thumbnail_url(record: pb.DataRecord, run_id: str, size: int) -> str:
    """Where the sample's picture is; empty when there is none (of a run that has ended)."""
    if not record.image_key:
        return ""
    path = "/".join(quote(part, safe="") for part in (run_id, record.origin, record.sample_id))
    return f"/thumbnail/{path}?{urlencode({'key': record.image_key, 'size': size})}"


def _class(index: int, name: str) -> str:
    return name or (str(index) if index >= 0 else "")


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise BadQuery(f"{name} is a whole number, not {text!r}") from None
    if not 0 <= value < 2**31:
        raise BadQuery(f"{name} is from 0 to {2**31 - 1}, not {text}")
    return value


def _labels(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise BadQuery(f"label is a list of class numbers, not {text!r}") from None


def _loss(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    field = "Loss from" if name == "min_loss" else "Loss to"
    try:
        value = float(text)
    except ValueError:
        raise BadQuery(f"{field}: give a number such as 0.5, not {text!r}") from None
    if not math.isfinite(value):
        raise BadQuery(f"{field}: give a finite number, not {text}")
    return value
