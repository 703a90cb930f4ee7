"""What the buttons of the data page ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.dashboard.pages.data.actions import bar, dialogs
from graybox.dashboard.pages.data.edit_callbacks import which
from graybox.dashboard.pages.data.edits import ACTIONS, FIELDS, WEIGHINGS, Target, edit_request, target, words
from graybox.service.sample_edits import check_edit

ROWS = [{"run": "r1", "origin": "train", "sample_id": "3"}, {"run": "r1", "origin": "val", "sample_id": "3"}]
VIEW = {"run": "r1", "id": "view-1", "queries": ["loss > 1", "label == 'cat'"], "matches": 1234, "among": 5000}
GIVEN: dict[str, Any] = {
    "tag-name": " two words ", "label-name": "cat", "weigh-value": "2.5", "rebalance-how": "oversample",
    "keep-share-value": "20",
}  # fmt: skip


@pytest.mark.parametrize("action", [*ACTIONS, *WEIGHINGS])
@pytest.mark.parametrize("wanted", ["view", "selected"])
def test_every_button_asks_for_what_the_service_takes(action: str, wanted: str) -> None:
    samples = target(wanted, ROWS, VIEW)
    request = edit_request(action, samples, GIVEN)
    check_edit(request)
    if wanted == "view":
        assert (request.view_id, list(request.samples_ids), samples.count) == ("view-1", [], 1234)
    else:
        assert (request.view_id, samples.count) == ("", 2)
        assert list(zip(request.sample_origins, request.samples_ids, strict=True)) == [("train", "3"), ("val", "3")]


def test_what_is_asked_for() -> None:
    samples = target("selected", ROWS, None)

    def asked(action: str) -> tuple[str, str, bool, str]:
        request = edit_request(action, samples, GIVEN)
        return request.stat_name, request.string_value, request.bool_value, request.type

    assert asked("discard") == ("discarded", "", True, "")
    assert asked("restore-samples") == ("discarded", "", False, "")
    assert asked("add-tag") == ("tags:two words", "", False, "EDIT_ADD")
    assert asked("remove-tag") == ("tags:two words", "", False, "EDIT_REMOVE")
    assert asked("set-label") == ("label", "cat", False, "")
    assert asked("original-label") == ("label", "", False, "")
    assert asked("sampling-weight") == ("sampling_weight", "2.5", False, "")
    assert asked("rebalance") == ("__rebalance__", "oversample", False, "")
    assert asked("keep-share") == ("__keep_share__", "0.2", False, "")


@given(st.floats(0.0001, 100))
def test_a_share_is_given_in_percent(percent: float) -> None:
    request = edit_request("keep-share", target("view", [], VIEW), {"keep-share-value": f"{percent!r} %"})
    assert float(request.string_value) == pytest.approx(percent / 100)


@pytest.mark.parametrize(
    ("action", "fields", "says"),
    [
        ("add-tag", {"tag-name": "  "}, "Give the tag a name"),
        ("set-label", {}, "Choose a class"),
        ("sampling-weight", {"weigh-value": "often"}, "number from 0 to 100.*not 'often'"),
        ("sampling-weight", {"weigh-value": "101"}, "number from 0 to 100.*not 101"),
        ("sampling-weight", {"weigh-value": "nan"}, "number from 0 to 100"),
        ("keep-share", {"keep-share-value": "0"}, "above 0 and at most 100 %, not 0"),
        ("keep-share", {"keep-share-value": ""}, "above 0 and at most 100 %, not ''"),
        ("nonsense", {}, "no action 'nonsense'"),
    ],
)
def test_what_cannot_be_meant_says_why(action: str, fields: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        edit_request(action, target("selected", ROWS, None), fields)


def test_which_samples_are_meant() -> None:
    with pytest.raises(ValueError, match="Select at least one"):
        target("selected", [], VIEW)
    with pytest.raises(ValueError, match="no query whose samples"):
        target("view", ROWS, None)
    with pytest.raises(ValueError, match="found no sample"):
        target("view", ROWS, {**VIEW, "matches": 0})
    with pytest.raises(ValueError, match="several runs: r1, r2"):
        target("selected", [*ROWS, {**ROWS[0], "run": "r2"}], VIEW)
    assert "1,234 samples" in str(which(target("view", ROWS, VIEW)))
    assert "loss > 1 › label == 'cat'" in str(which(target("view", ROWS, VIEW)))
    assert "2 samples" in str(which(target("selected", ROWS, VIEW)))
    assert "All training samples" in str(which(Target("r1", 0)))


def test_a_button_that_asks_first_names_what_it_does() -> None:
    samples = target("view", [], VIEW)
    assert words("discard", samples, GIVEN) == "Discard 1,234 samples"
    assert words("add-tag", samples, GIVEN) == "Tag 1,234 samples “two words”"
    assert words("set-label", target("selected", ROWS[:1], None), GIVEN) == "Label 1 sample “cat”"
    said = {words(action, samples, GIVEN) for action in ACTIONS}
    assert len(said) == len(ACTIONS)


def test_every_field_and_button_is_on_the_page() -> None:
    parts = [*bar()._traverse(), *dialogs()._traverse()]
    present = {item.id for item in parts if isinstance(getattr(item, "id", None), str)}
    assert {*ACTIONS, *FIELDS, *(f"ask-{name}" for name in WEIGHINGS)} <= present
