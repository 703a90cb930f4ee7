"""Questions about samples: from the grid's HTTP query to the wire, and from the wire to the grid's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
"""The grid's columns, and what the contract calls them."""

MAX_ROWS = 500


class BadQuery(ValueError):
    """A query that cannot be meant; the message is for people."""


def request_from(query: Mapping[str, str]) -> pb.GetDataSamplesRequest:
    """The wire's request for what the grid asks.

    start, end: rows, end excluded. run, split, status ("in" or "discarded"), wrong ("1"), label (class numbers,
    comma-separated), id, min_loss, max_loss: the filter. sort: a column of COLUMNS, desc ("1"). Raises BadQuery.
    """
    start, end = _whole(query, "start", 0), _whole(query, "end", 100)
    if not 0 <= start < end:
        raise BadQuery(f"rows {start} to {end} are none; start is at least 0 and below end")
    status = query.get("status", "")
    if status not in ("", "in", "discarded"):
        raise BadQuery(f"status is 'in' or 'discarded', not {status!r}")
    sort = query.get("sort", "")
    if sort and sort not in COLUMNS:
        raise BadQuery(f"there is no column {sort!r}; columns are {', '.join(COLUMNS)}")
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
    return pb.GetDataSamplesRequest(
        start_index=start,
        records_cnt=min(end - start, MAX_ROWS),
        run_id=query.get("run", ""),
        filter=request_filter,
        sort_by=COLUMNS.get(sort, ""),
        descending=query.get("desc") == "1",
    )


def page_from(response: pb.DataSamplesResponse, run_id: str) -> dict[str, Any]:
    """The grid's answer: rows, and how many there are in all."""
    return {
        "rows": [row_of(record, run_id) for record in response.data_records],
        "matches": response.number_of_matches,
        "all": response.number_of_all_samples,
        "discarded": response.number_of_discarded_samples,
        "run": run_id,
    }


def row_of(record: pb.DataRecord, run_id: str) -> dict[str, Any]:
    """One sample as the grid shows it."""
    loss = record.loss if record.HasField("loss") else None
    known = {"label", "prediction", "loss", "encounters", "last_age", "discarded"}
    return {
        "key": f"{record.origin}/{record.sample_id}",
        "run": run_id,
        "sample_id": record.sample_id,
        "origin": record.origin,
        "label": _class(record.label, record.label_name),
        "prediction": _class(record.prediction, record.prediction_name),
        "wrong": record.prediction >= 0 and record.label >= 0 and record.prediction != record.label,
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "loss_text": "" if loss is None else number(loss),
        "encounters": record.encounters,
        "last_age": count(record.last_age) if record.last_age >= 0 else "",
        "discarded": record.discarded,
        "thumbnail": thumbnail_url(record, run_id, 64),
        "image": thumbnail_url(record, run_id, 0),
        "more": {key: value for key, value in sorted(record.metadata.items()) if key not in known},
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
