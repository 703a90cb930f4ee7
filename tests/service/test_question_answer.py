"""What models answer, and what becomes of it: a query and proposals of the closed list, or an error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.question_answer import ACTIONS, MAX_EDITS, Edit, WrongAnswer, understood
from graybox.service.sample_edits import check_edit
from graybox.store.query import parse
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_table import SampleTable
from tests.store.query.escapes import ESCAPES

CLASSES = ("cat", "dog", "fish")
TABLE = SampleTable([SplitColumns("train", 9, labels=np.arange(9) % 3)], CLASSES)


def answered(query: object, *edits: object, **more: object) -> str:
    return json.dumps({"query": query, **({"edits": list(edits)} if edits else {}), **more})


@pytest.mark.parametrize(
    "answer",
    [
        '{"query": "loss > 1"}',
        '```json\n{"query": "loss > 1"}\n```',
        'Sure! Here is your query:\n\n{"query": "loss>1", "why": "because {loss} is high"} Have fun :}',
        '<think>{"query": "los > 1"} or {"where": {"query": 2}}? No {</think>{"query": "loss > 1", "edits": null}',
        '[{"query": "df[df[\'loss\'] > 1]"}]',
        "{" * 40 + '{"query": "loss > 1"}',
    ],
)
def test_a_query_is_found_in_what_surrounds_it(answer: str) -> None:
    found = understood(answer, TABLE)
    assert found.query is not None and (found.query.text(), found.edits) == ("loss > 1", ())


def test_no_query_for_a_question_that_is_none() -> None:
    assert understood('{"query": null, "edits": [{"action": "discard"}]}', TABLE) == understood('{"query":null}', TABLE)
    assert understood('{"query": null}', TABLE).query is None


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "no JSON object"),
        ("loss > 1", "no JSON object"),
        ('"query"', "no JSON object"),
        ('{"Query": "loss"}', "no JSON object"),
        ('{"query": "loss', "no JSON object"),
        ("{" * 200_000, "no JSON object"),
        ('{"query": ' * 50_000, "no JSON object"),
        ('{"query": ' + "9" * 10_000 + "}", "no JSON object"),
        ("\x00\x01\ufffd{}", "no JSON object"),
        ('{"query": 7}', "is a text, not int"),
        ('{"query": ["loss > 1"]}', "is a text, not list"),
        ('{"query": "los > 1"}', "do you mean loss"),
        ('{"query": "label == \'cow\'"}', "no class 'cow'"),
        ('{"query": "tag:x"}', "no tag 'x'"),
        (json.dumps({"query": "x" * 200_000}), "at most 4000 characters"),
        ('{"query": "discard loss > 1"}', "character"),
        ('{"query": "loss > 1; discarded = true"}', "character"),
        ('{"query": "delete from samples where loss > 1"}', "character"),
        ('{"query": "loss > 1", "edits": {"action": "discard"}}', "list of at most 8"),
        ('{"query": "loss > 1", "edits": "discard"}', "list of at most 8"),
        (answered("loss > 1", *[{"action": "discard"}] * (MAX_EDITS + 1)), "list of at most 8"),
        (answered("loss > 1", "discard"), 'whose "action" is one of discard'),
        (answered("loss > 1", {"action": "__delete_metadata__", "value": "loss"}), 'whose "action"'),
        (answered("loss > 1", {"action": ["discard"]}), 'whose "action"'),
        (answered("loss > 1", {"action": "tag"}), 'needs a "value"'),
        (answered("loss > 1", {"action": "tag", "value": ""}), 'needs a "value"'),
        (answered("loss > 1", {"action": "tag", "value": True}), 'needs a "value"'),
        (answered("loss > 1", {"action": "tag", "value": {"x": 1}}), 'needs a "value"'),
        (answered("loss > 1", {"action": "tag", "value": "../../x"}), "cannot name a tag"),
        (answered("loss > 1", {"action": "tag", "value": "x" * 5_000}), "cannot name a tag"),
        (answered("loss > 1", {"action": "label", "value": "cow"}), "no class 'cow'"),
        (answered("loss > 1", {"action": "label", "value": -1}), "no class '-1'"),
        (answered("loss > 1", {"action": "weight", "value": "often"}), "takes a number"),
        (answered("loss > 1", {"action": "weight", "value": -1}), "from 0 to 100"),
        (answered("loss > 1", {"action": "weight", "value": float("nan")}), "from 0 to 100"),
        (answered("loss > 1", {"action": "keep_share", "value": 0}), "the share"),
        (answered("@reset", {"action": "discard"}), "finds no samples to edit"),
    ],
)
def test_what_does_not_do_is_told(answer: str, told: str) -> None:
    with pytest.raises(WrongAnswer) as error:
        understood(answer, TABLE)
    assert told in str(error.value)


@pytest.mark.parametrize("escape", ESCAPES)
def test_what_would_get_out_of_a_query_gets_no_further_through_a_model(escape: str) -> None:
    try:
        meant = parse(escape)
    except Exception:
        with pytest.raises(WrongAnswer):
            understood(answered(escape), TABLE)
    else:
        # It merely looks alarming: the very same query, or not one of this table.
        with contextlib.suppress(WrongAnswer):
            assert understood(answered(escape), TABLE).query == meant


@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists).map(json.dumps))
def test_any_answer_is_a_query_or_an_error(text: str) -> None:
    for answer in (text, answered(text), f'{{"query": "loss > 1", "edits": {text}}}'):
        try:
            found = understood(answer, TABLE)
        except WrongAnswer as error:
            assert str(error)
        else:
            assert found.query is None or parse(found.query.text()) == found.query


VALUES = st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.sampled_from(["cat", "2", 1, 0.5, "hard", ""]))


@given(st.sampled_from([*ACTIONS, "undo", "resume"]), VALUES)
def test_any_edit_is_one_of_the_closed_list_or_an_error(action: str, value: Any) -> None:
    try:
        (edit,) = understood(
            answered("loss > 1", {"action": action, "value": value, "samples_ids": ["1"]}), TABLE
        ).edits
    except WrongAnswer:
        return
    made = edit.proposal(12, "view-1", "run-1", "ada").edit
    assert made.stat_name in ("discarded", "tags", "label", "sampling_weight", "__keep_share__")
    assert (made.view_id, made.run_id, made.actor, list(made.samples_ids)) == ("view-1", "run-1", "ada", [])
    check_edit(made)


@pytest.mark.parametrize(
    ("edit", "description", "fields"),
    [
        (Edit("discard", ""), "Discard 1,200 samples", {"stat_name": "discarded", "bool_value": True}),
        (Edit("restore", ""), "Take 1,200 samples back into training", {"stat_name": "discarded"}),
        (
            Edit("tag", "hard"),
            "Tag 1,200 samples 'hard'",
            {"stat_name": "tags", "type": "EDIT_ADD", "string_value": "hard"},
        ),
        (
            Edit("untag", "hard"),
            "Take the tag 'hard' from 1,200 samples",
            {"stat_name": "tags", "type": "EDIT_REMOVE", "string_value": "hard"},
        ),
        (Edit("label", "cat"), "Label 1,200 samples 'cat'", {"stat_name": "label", "string_value": "cat"}),
        (Edit("unlabel", ""), "Let the data set's label of 1,200 samples count again", {"stat_name": "label"}),
        (
            Edit("weight", "2.5"),
            "Draw 1,200 samples 2.5 times in an epoch",
            {"stat_name": "sampling_weight", "string_value": "2.5"},
        ),
        (
            Edit("keep_share", "0.2"),
            "Keep a share of 0.2 of 1,200 samples and discard the others",
            {"stat_name": "__keep_share__", "string_value": "0.2"},
        ),
    ],
)
def test_proposals(edit: Edit, description: str, fields: dict[str, Any]) -> None:
    made = edit.proposal(1_200, "view-1", "run-1", "ada")
    assert made.description == description
    assert made.edit == pb.DataEditRequest(**fields, view_id="view-1", run_id="run-1", actor="ada")


def test_a_label_by_number_is_written_without_a_point() -> None:
    (edit,) = understood(answered("loss > 1", {"action": "label", "value": 2.0}), TABLE).edits
    assert edit == Edit("label", "2")
