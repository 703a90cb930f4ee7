"""What the buttons of the data page ask for, as the wire wants it. Raises ValueError with a message for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graybox.dashboard.view import count
from graybox.proto import experiment_service_pb2 as pb

SURE_FROM = 100
"""So many samples are edited at once without a question."""

ACTIONS = ("discard", "restore-samples", "add-tag", "remove-tag", "set-label", "original-label")
"""Buttons that act on the samples that the page says; of more than SURE_FROM they ask first."""
WEIGHINGS = ("sampling-weight", "rebalance", "keep-share")
"""What a dialog of its own says before it is done."""
FIELDS = {
    "tag-name": "value",
    "label-name": "value",
    "weigh-value": "value",
    "rebalance-how": "value",
    "keep-share-value": "value",
}
"""The fields that say how, by the property that holds their value."""
MAX_WEIGHT = 100


@dataclass(frozen=True)
class Target:
    """The samples that an action is for: those of a view, or those that are named.

    words: which they are, for people; empty for those that were selected.
    """

    run: str
    count: int
    view_id: str = ""
    samples: Sequence[tuple[str, str]] = ()
    words: str = ""

    @property
    def many(self) -> str:
        """How many, for people."""
        return f"{count(self.count)} sample{'' if self.count == 1 else 's'}"


def target(wanted: str, rows: Sequence[Mapping[str, Any]] | None, view: Mapping[str, Any] | None) -> Target:
    """The samples that the page says an action is for. wanted: "view" or "selected"."""
    if wanted == "view":
        if not view:
            raise ValueError("There is no query whose samples are meant; ask one, or select samples.")
        if not view["matches"]:
            raise ValueError("The query found no sample.")
        return Target(
            view["run"],
            view["matches"],
            view["id"],
            words=" › ".join(query or "all samples" for query in view["queries"]),
        )
    chosen = [(row["origin"], row["sample_id"]) for row in rows or ()]
    if not chosen:
        raise ValueError("Select at least one sample first.")
    runs = sorted({row["run"] for row in rows or ()})
    if len(runs) > 1:
        raise ValueError(f"The samples selected are of several runs: {', '.join(runs)}.")
    return Target(runs[0], len(chosen), samples=chosen)


def edit_request(action: str, samples: Target, fields: Mapping[str, Any]) -> pb.DataEditRequest:
    """The edit that a button stands for."""
    request = pb.DataEditRequest(
        view_id=samples.view_id,
        samples_ids=[sample_id for _, sample_id in samples.samples],
        sample_origins=[split for split, _ in samples.samples],
    )
    match action:
        case "discard" | "restore-samples":
            request.stat_name, request.bool_value = "discarded", action == "discard"
        case "add-tag" | "remove-tag":
            request.stat_name = f"tags:{_tag(fields)}"
            request.type = "EDIT_ADD" if action == "add-tag" else "EDIT_REMOVE"
        case "set-label":
            request.stat_name, request.string_value = "label", _label(fields)
        case "original-label":
            request.stat_name = "label"
        case "sampling-weight":
            request.stat_name, request.string_value = "sampling_weight", _weight(fields)
        case "rebalance":
            request.stat_name, request.string_value = "__rebalance__", str(fields.get("rebalance-how") or "balance")
        case "keep-share":
            request.stat_name, request.string_value = "__keep_share__", _share(fields)
        case _:
            raise ValueError(f"There is no action {action!r}.")
    return request


def words(action: str, samples: Target, fields: Mapping[str, Any]) -> str:
    """What a button does, as an order: "Discard 1,234 samples"."""
    many = samples.many
    match action:
        case "discard":
            return f"Discard {many}"
        case "restore-samples":
            return f"Restore {many}"
        case "add-tag":
            return f"Tag {many} “{_tag(fields)}”"
        case "remove-tag":
            return f"Take “{_tag(fields)}” from {many}"
        case "set-label":
            return f"Label {many} “{_label(fields)}”"
        case "original-label":
            return f"Give {many} the data set's label again"
    raise ValueError(f"There is no action {action!r}.")


def _tag(fields: Mapping[str, Any]) -> str:
    name = _text(fields, "tag-name")
    if not name:
        raise ValueError("Give the tag a name first.")
    return name


def _label(fields: Mapping[str, Any]) -> str:
    name = _text(fields, "label-name")
    if not name:
        raise ValueError("Choose a class first, or give its number.")
    return name


def _weight(fields: Mapping[str, Any]) -> str:
    text = _text(fields, "weigh-value")
    rule = f"The weight is a number from 0 to {MAX_WEIGHT}: how often an epoch draws a sample"
    value = _number(text, rule)
    if not 0 <= value <= MAX_WEIGHT:
        raise ValueError(f"{rule}, not {text}.")
    return text


def _share(fields: Mapping[str, Any]) -> str:
    text = _text(fields, "keep-share-value").removesuffix("%").strip()
    rule = "The share is above 0 and at most 100 %"
    value = _number(text, rule)
    if not 0 < value <= 100:
        raise ValueError(f"{rule}, not {text} %.")
    return f"{value / 100:.12g}"


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value).strip()


def _number(text: str, rule: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{rule}, not {text!r}.") from None
    if not math.isfinite(value):
        raise ValueError(f"{rule}, not {text!r}.")
    return value
