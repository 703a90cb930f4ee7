"""Edits of samples as the wire names them, as commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graybox.commands import (
    Command,
    CopyColumn,
    CorrectLabels,
    DeleteColumn,
    DiscardSamples,
    KeepRatio,
    KeepShare,
    RebalanceClasses,
    TagSamples,
    WeighSamples,
)
from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits

COPY, DELETE = "__copy_metadata__", "__delete_metadata__"
WEIGHT, REBALANCE, KEEP_SHARE, KEEP_RATIO = (
    "sampling_weight",
    "__rebalance__",
    "__keep_share__",
    "__allowed_to_denied__",
)
_ADD, _REMOVE = ("ADD", "EDIT_ADD"), ("REMOVE", "EDIT_REMOVE")
_OVERRIDE = ("", "ADD", "OVERRIDE", "EDIT_ADD", "EDIT_OVERRIDE")
_NUMBERS = {
    WEIGHT: "how often an epoch draws the samples, 0.5",
    KEEP_SHARE: "the share of the samples that stays in use, 0.2",
    KEEP_RATIO: "how many of the samples stay in use for each of the others, 0.5",
}
_KNOWN = ", ".join(map(repr, ("discarded", "tags", "tags:NAME", "label", *_NUMBERS, REBALANCE, COPY, DELETE)))


def check_edit(request: pb.DataEditRequest) -> None:
    """Raises Invalid for what is malformed, whatever the samples are."""
    name = request.stat_name
    limits.check_text("stat_name", name, limits.MAX_NAME)
    limits.check_text("string_value", request.string_value, limits.MAX_NAME)
    limits.check_count("samples_ids", len(request.samples_ids), limits.MAX_EDITED_SAMPLES)
    if name in (COPY, DELETE):
        if request.samples_ids or request.view_id:
            raise Invalid(f"{name} is about a whole column; name no samples")
        if not request.string_value:
            raise Invalid(f"{name} takes the name of a column in string_value")
        return
    if name == "tags" or name.startswith("tags:"):
        if request.type not in (*_ADD, *_REMOVE):
            raise Invalid(f"type is EDIT_ADD or EDIT_REMOVE for a tag, not {request.type[:100]!r}")
        if not _tag(request):
            raise Invalid("a tag needs a name: in string_value, or behind 'tags:' in stat_name")
    elif name in _NUMBERS:
        _number(request)
    elif name == REBALANCE:
        return  # all that are in use, where none is named
    elif name not in ("discarded", "label"):
        raise Invalid(f"unknown stat_name {name[:100]!r}; known are {_KNOWN}")
    elif request.type not in _OVERRIDE:
        raise Invalid(
            f"{name} has no type {request.type[:100]!r}; leave it empty"
            + (", and set bool_value to false to restore" if name == "discarded" else "")
        )
    if not request.samples_ids and not request.view_id:
        raise Invalid("no sample was named; give ids in samples_ids, or the view_id of a query")


def command_of(
    request: pb.DataEditRequest,
    pairs: Sequence[tuple[str, str]],
    rows: Mapping[str, Any],
    class_names: Sequence[str],
) -> Command:
    """The command that a checked request asks for. pairs: the samples that it names; rows: those of its view."""
    name, samples = request.stat_name, tuple(pairs)
    if name == COPY:
        source, _, target = request.string_value.partition("=")
        return CopyColumn(source.strip(), target.strip())
    if name == DELETE:
        return DeleteColumn(request.string_value)
    if name == "discarded":
        return DiscardSamples(samples, request.bool_value, rows=rows)
    if name == WEIGHT:
        return WeighSamples(samples, _number(request), rows=rows)
    if name == KEEP_SHARE:
        return KeepShare(samples, _number(request), rows=rows)
    if name == KEEP_RATIO:
        return KeepRatio(samples, _number(request), rows=rows)
    if name == REBALANCE:
        if request.view_id and not rows and not samples:
            raise Invalid("the view has no samples; nothing to rebalance")
        return RebalanceClasses(samples, request.string_value or "balance", rows=rows)
    if name == "label":
        return CorrectLabels(samples, _label(request.string_value, class_names), rows=rows)
    return TagSamples(samples, _tag(request), request.type in _ADD, rows=rows)


def _tag(request: pb.DataEditRequest) -> str:
    _, _, named = request.stat_name.partition(":")
    return named or request.string_value


def _number(request: pb.DataEditRequest) -> float:
    try:
        return float(request.string_value)
    except ValueError:
        raise Invalid(
            f"{request.stat_name} takes a number in string_value ({_NUMBERS[request.stat_name]}), not "
            f"{request.string_value[:100]!r}"
        ) from None


def _label(text: str, class_names: Sequence[str]) -> int | None:
    """A class by its name or number; None for the data set's own. Raises Invalid."""
    if not text:
        return None
    if text in class_names:
        return list(class_names).index(text)
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    names = f"; the classes are {', '.join(class_names[:20])}" if class_names else ""
    raise Invalid(f"there is no class {text[:100]!r}; give its number or its name{names}")
