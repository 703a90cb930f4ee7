"""What a language model answered, read as a query and as edits that a person may make of it.

Names of classes and tags, and the question itself, stand in what the model reads, and any of them may tell it to do
something else. Nothing that it answers is worth more than a text of a stranger, though:

- its query goes through the parser that all queries go through, which makes a tree of allow-listed operations of it or
  raises; such a tree reads columns and changes nothing, whatever it was made of;
- its edits are words of ACTIONS, or refused; they become messages that nobody here sends on. A person sees each of
  them, with the number of samples, and sends it with a token of their own, which must have the right to control;
- it has no tools, no address that it names is visited, and nothing else of its answer is kept, run or shown.

So a name that turns the model's head gets its owner a wrong query, which everybody sees, and no more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.sample_edits import check_edit, command_of
from graybox.store.query import Query, QueryError, check, parse
from graybox.store.sample_notes import checked_note_name
from graybox.store.sample_table import SampleTable

MAX_EDITS = 8
_MAX_OBJECTS = 100
"""So many beginnings of a JSON object are tried in one answer."""


class Action(NamedTuple):
    """hint: of its value, for the model. told: what it does with {count} samples, for people. edit: what
    EditDataSample takes for its value."""

    hint: str
    told: str
    edit: Callable[[str], pb.DataEditRequest]


ACTIONS: dict[str, Action] = {
    "discard": Action(
        "leaves samples out of training, no value",
        "Discard {count}",
        lambda _: pb.DataEditRequest(stat_name="discarded", bool_value=True),
    ),
    "restore": Action(
        "takes discarded ones back, no value",
        "Take {count} back into training",
        lambda _: pb.DataEditRequest(stat_name="discarded", bool_value=False),
    ),
    "tag": Action(
        "value: the tag",
        "Tag {count} {name}",
        lambda value: pb.DataEditRequest(
            stat_name="tags", type="EDIT_ADD", string_value=checked_note_name(value, "tag")
        ),
    ),
    "untag": Action(
        "value: the tag",
        "Take the tag {name} from {count}",
        lambda value: pb.DataEditRequest(
            stat_name="tags", type="EDIT_REMOVE", string_value=checked_note_name(value, "tag")
        ),
    ),
    "label": Action(
        "corrects the label, value: a class's name or number",
        "Label {count} {name}",
        lambda value: pb.DataEditRequest(stat_name="label", string_value=value),
    ),
    "unlabel": Action(
        "the label that the data set has counts again, no value",
        "Let the data set's label of {count} count again",
        lambda _: pb.DataEditRequest(stat_name="label"),
    ),
    "weight": Action(
        "value: how often an epoch draws each of them, a number from 0 to 100, 1 is as always",
        "Draw {count} {value} times in an epoch",
        lambda value: pb.DataEditRequest(stat_name="sampling_weight", string_value=value),
    ),
    "keep_share": Action(
        "discards all but a share of them at random, value: the share, such as 0.2",
        "Keep a share of {value} of {count} and discard the others",
        lambda value: pb.DataEditRequest(stat_name="__keep_share__", string_value=value),
    ),
}  # fmt: skip
_WITHOUT_VALUE = ("discard", "restore", "unlabel")
_BOUNDS = {"weight": (0.0, 100.0), "keep_share": (1e-9, 1.0)}


class WrongAnswer(Invalid):
    """An answer that does not do. tried: the query in it, where there is one."""

    def __init__(self, problem: str, tried: str = "") -> None:
        super().__init__(problem)
        self.tried = tried


@dataclass(frozen=True)
class Edit:
    """An edit that was asked for, as yet of no samples."""

    action: str
    value: str

    def proposal(self, count: int, view_id: str, run_id: str, actor: str) -> pb.ProposedEdit:
        """What would be sent for the `count` samples of a view."""
        action = ACTIONS[self.action]
        edit = action.edit(self.value)
        edit.view_id, edit.run_id, edit.actor = view_id, run_id, actor
        samples = "1 sample" if count == 1 else f"{count:,} samples"
        told = action.told.format(count=samples, value=self.value, name=repr(self.value))
        return pb.ProposedEdit(description=told, edit=edit)


@dataclass(frozen=True)
class Understood:
    """query: None where the model says that there is none for the question."""

    query: Query | None
    edits: tuple[Edit, ...] = ()


def understood(answer: str, table: SampleTable) -> Understood:
    """The query and the edits of an answer, checked. Raises WrongAnswer, which says what is wrong."""
    found = _object_of(answer)
    text = found["query"]
    if text is None:
        return Understood(None)
    if not isinstance(text, str):
        raise WrongAnswer(f"the query is a text, not {type(text).__name__}")
    try:
        query = parse(text)
        check(query, table)
    except QueryError as error:
        raise WrongAnswer(str(error), text) from None
    edits = _edits(found.get("edits"), text, table.class_names)
    if edits and query.command:
        raise WrongAnswer(f"{query.text()} finds no samples to edit; write a condition", text)
    return Understood(query, edits)


def _object_of(answer: str) -> dict[str, Any]:
    """The last JSON object with a query: models think aloud before they answer, and put fences around it."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] | None = None
    at = answer.find("{")
    for _ in range(_MAX_OBJECTS):
        if at < 0:
            break
        end = at + 1
        try:
            value, end = decoder.raw_decode(answer, at)
            if "query" in value:
                found = value
        except (ValueError, RecursionError):
            pass
        at = answer.find("{", end)
    if found is None:
        raise WrongAnswer('there is no JSON object with "query" in the answer')
    return found


def _edits(listed: object, query: str, class_names: Sequence[str]) -> tuple[Edit, ...]:
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > MAX_EDITS:
        raise WrongAnswer(f'"edits" is a list of at most {MAX_EDITS} objects', query)
    return tuple(_edit(each, query, class_names) for each in listed)


def _edit(given: object, query: str, class_names: Sequence[str]) -> Edit:
    action = given.get("action") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(action, str) or action not in ACTIONS:
        raise WrongAnswer(f'each edit is an object whose "action" is one of {", ".join(ACTIONS)}', query)
    value = "" if action in _WITHOUT_VALUE else _value(given.get("value"), action, query)
    edit = Edit(action, value)
    try:
        # As EditDataSample will: what it would refuse is not proposed.
        request = edit.proposal(1, "view", "", "").edit
        check_edit(request)
        command_of(request, (), {}, class_names)
        if action in _BOUNDS and not _BOUNDS[action][0] <= float(value) <= _BOUNDS[action][1]:
            raise Invalid(ACTIONS[action].hint)
    except Invalid as error:
        raise WrongAnswer(f"{action}: {error}", query) from None
    return edit


def _value(value: object, action: str, query: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise WrongAnswer(f'{action} needs a "value" ({ACTIONS[action].hint})', query)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))  # 3.0 is the class 3
    return str(value)
