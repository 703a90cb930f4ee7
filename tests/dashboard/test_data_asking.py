"""Queries on their way to the backend: what is asked, what comes back, where a query is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graybox.dashboard.client import CallFailed
from graybox.dashboard.pages.data import asking
from graybox.dashboard.pages.data.examples import EXAMPLES
from graybox.dashboard.samples_query import request_from
from graybox.store.query import QueryError, parse
from tests.dashboard.toy_service import toy_hub
from tests.service.toy_owner import CLASSES


def test_every_example_is_a_query_that_runs(root: Path) -> None:
    async def scene() -> None:
        async with toy_hub(root) as (hub, owner):
            for query, _ in EXAMPLES:
                response = await asking.ask(hub, owner.run.run_id, query)
                assert response.success, query
                assert asking.narrows(response) == (not query.startswith("show"))

    assert len({query for query, _ in EXAMPLES}) == len(EXAMPLES) >= 12
    asyncio.run(scene())


def test_a_search_within_finds_its_view_again_after_the_backend_has_lost_it(root: Path) -> None:
    async def scene() -> None:
        async with toy_hub(root) as (hub, owner):
            run = owner.run.run_id
            first = await asking.ask(hub, run, "split == 'train' sortby id desc")
            view = asking.view_of(first, None)
            assert (view["matches"], view["among"]) == (40, 52)
            direct = await asking.ask(hub, run, "id >= 10", within=view)
            lost = {**view, "id": "view-lost"}
            again = await asking.ask(hub, run, "id >= 10", within=lost)
            assert direct.number_of_matches == again.number_of_matches == 30
            inner = asking.view_of(again, lost)
            assert (inner["queries"], inner["among"]) == ([first.query, again.query], 40)
            renewed = await asking.again(hub, {**inner, "id": "gone"})
            assert {**renewed, "id": inner["id"], "generation": 0} == inner
            assert renewed["id"] != inner["id"] and renewed["generation"] == 1
            with pytest.raises(CallFailed, match="no column 'lable'") as caught:
                await asking.ask(hub, run, "id > 3 and lable == 1", within=view)
            assert asking.place_of(str(caught.value))[1] == 11

    asyncio.run(scene())


def test_another_draw_is_another_seed(root: Path) -> None:
    async def scene() -> None:
        async with toy_hub(root) as (hub, owner):
            view = asking.view_of(await asking.ask(hub, owner.run.run_id, "sample 10"), None)

            async def ids(view: asking.View) -> list[str]:
                request = request_from({"view": view["id"], "run": view["run"]})
                page = await hub.ask(view["run"], "GetDataSamples", request)
                return [f"{record.origin}/{record.sample_id}" for record in page.data_records]

            assert await ids(await asking.again(hub, view)) == await ids(view)
            assert await ids(await asking.again(hub, view, seed=1)) != await ids(view)

    asyncio.run(scene())


@given(st.text(alphabet="ab 1'\"<=()é\U0001d538%,.>\n", max_size=40))
def test_the_place_of_an_error_is_where_the_parser_says(text: str) -> None:
    try:
        parse(text)
    except QueryError as error:
        message, position = asking.place_of(str(error))
        if position is None:
            assert not text  # an empty text has no place
            return
        assert (message, position) == (error.problem, error.position)
        before, place, after = asking.marked(text, position)
        assert before + place + after == text and len(before) == position
        assert bool(place.strip()) or not text[position:].strip()


def test_a_long_query_is_cut_around_the_place() -> None:
    text = "a" * 500 + " ? " + "b" * 500
    before, place, after = asking.marked(text, 501)
    assert place == "?" and before.startswith("…") and after.endswith("…") and len(before + after) < 250


SPLITS = ("", "train", "val")
FILTERS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(SPLITS),
        "status": st.sampled_from(("", "in", "discarded")),
        "label": st.lists(st.sampled_from("012"), unique=True),
        "min_loss": st.one_of(st.just(""), st.floats(0, 1, allow_nan=False).map(repr)),
        "max_loss": st.one_of(st.just(""), st.floats(0, 3, allow_nan=False).map(repr)),
        "wrong": st.booleans(),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases=st.lists(FILTERS, min_size=8, max_size=8), named=st.booleans())
def test_filters_said_as_a_query_find_the_same_samples(
    cases: list[dict[str, Any]], named: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def scene() -> None:
        async with toy_hub(tmp_path_factory.mktemp("filters")) as (hub, owner):
            for filters in cases:
                given = {**filters, "label": ",".join(filters["label"]), "wrong": "1" if filters["wrong"] else ""}
                request = request_from({**given, "run": owner.run.run_id, "end": "200"})
                filtered = await hub.ask(request.run_id, "GetDataSamples", request)
                query = asking.as_query(filters, CLASSES if named else ())
                view = asking.view_of(await asking.ask(hub, request.run_id, query), None)
                asked = request_from({"view": view["id"], "run": request.run_id, "end": "200"})
                found = await hub.ask(request.run_id, "GetDataSamples", asked)
                names = [[(r.origin, r.sample_id) for r in page.data_records] for page in (filtered, found)]
                assert names[0] == names[1], query

    asyncio.run(scene())


def test_what_no_query_can_say_is_said_to_be() -> None:
    assert asking.as_query({}, ()) == ""
    with pytest.raises(ValueError, match="Id contains"):
        asking.as_query({"id": "1"}, ())
    with pytest.raises(ValueError, match="Loss from: give a finite number"):
        asking.as_query({"min_loss": "high"}, ())
    assert parse(asking.as_query({"label": ["0"]}, ["it's"])).text() == "label in ('it''s')"
