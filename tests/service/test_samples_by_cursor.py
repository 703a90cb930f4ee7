"""Samples that changed since a cursor, over the wire, against full reads that are compared after every change."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.server import serve
from graybox.service.settings import Settings
from tests.service.toy_owner import CLASSES, SPLITS, ToyOwner
from tests.service.wire_client import WireClient

EVERYTHING = 1_000
Key = tuple[str, str]


def records(answer: pb.DataSamplesResponse) -> dict[Key, pb.DataRecord]:
    found = {(record.origin, record.sample_id): record for record in answer.data_records}
    assert len(found) == len(answer.data_records), "one came twice"
    return found


class Follower:
    """One who read everything once, and what changed since. asked: the view or the filter."""

    def __init__(self, client: WireClient, limit: int, **asked: Any) -> None:
        self.client, self.limit, self.asked = client, limit, asked
        first = client.GetDataSamples(records_cnt=EVERYTHING, with_history=True, **asked)
        self.cursor, self.held = first.cursor, records(first)
        self.pending: dict[Key, int] = {}

    def poll(self) -> None:
        answer = self.client.GetDataSamples(records_cnt=self.limit, with_history=True, cursor=self.cursor, **self.asked)
        whole = self.client.GetDataSamples(records_cnt=EVERYTHING, with_history=True, **self.asked)
        now = records(whole)
        order = sorted(self.pending, key=lambda key: (self.pending[key], list(SPLITS).index(key[0]), int(key[1])))
        expected = [key for key in order if key in now]
        told = records(answer)
        assert list(told) == expected[: self.limit] and not answer.reset
        assert all(record == now[key] for key, record in told.items())
        assert answer.number_of_matches == len(now)
        if len(expected) <= self.limit:
            self.pending.clear()
        for key in told:
            self.pending.pop(key, None)
        self.held |= told
        self.cursor = answer.cursor
        if not self.pending:
            assert {key: self.held[key] for key in now} == now, "what it holds is not what there is"


rows = st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True)
splits = st.sampled_from(list(SPLITS))
actions = st.one_of(
    st.tuples(st.just("train")),
    st.tuples(st.just("poll"), st.integers(0, 3)),
    st.tuples(st.just("discard"), splits, rows, st.booleans()),
    st.tuples(st.just("tag"), splits, rows, st.booleans()),
    st.tuples(st.just("signal"), splits, rows),
    st.tuples(st.just("label"), splits, rows, st.booleans()),
)


def act(client: WireClient, owner: ToyOwner, action: tuple[Any, ...], number: int) -> None:
    kind, *rest = action
    if kind == "train":
        owner.train()
    elif kind == "discard":
        split, ids, value = rest
        assert client.EditDataSample(
            stat_name="discarded", bool_value=value, samples_ids=list(map(str, ids)), sample_origins=[split]
        ).success
    elif kind == "tag":
        owner.samples.set_tag(rest[0], "hard", rest[1], rest[2])
    elif kind == "signal":
        owner.samples.log_signal(rest[0], "entropy", rest[1], np.full(len(rest[1]), number))
    else:
        other = (np.array(rest[1]) + 1) % len(CLASSES)  # than the data set's
        owner.samples.correct_labels(rest[0], rest[1], other if rest[2] else np.full(len(other), -1))


def test_nothing_is_missed_or_told_twice(client: WireClient, owner: ToyOwner) -> None:
    numbers = iter(range(1, 1_000_000))

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(actions, min_size=3, max_size=15))
    def check(script: list[tuple[Any, ...]]) -> None:
        owner.samples.load_state({})  # as if nothing had been seen
        owner.step = 0
        view = client.ApplyDataQuery(query="id >= 5 sortby id desc").view_id
        followers = [
            Follower(client, 4),
            Follower(client, 3, view_id=view),
            Follower(client, 5, filter=pb.SampleFilter(discarded=False)),
            Follower(client, 2, filter=pb.SampleFilter(origin="val", labels=[0, 1])),
        ]
        content = records(client.GetDataSamples(records_cnt=EVERYTHING, with_history=True))
        for action in script:
            if action[0] == "poll":
                followers[action[1]].poll()
                continue
            number = next(numbers)
            act(client, owner, action, number)
            now = records(client.GetDataSamples(records_cnt=EVERYTHING, with_history=True))
            changed = dict.fromkeys((key for key in now if now[key] != content[key]), number)
            for follower in followers:
                follower.pending |= changed
            content = now
        for follower in followers:
            while follower.pending:
                follower.poll()
            follower.poll()

    check()


def test_what_makes_no_sense_with_a_cursor_is_refused(client: WireClient) -> None:
    cursor = client.GetDataSamples().cursor
    for extra in ({"start_index": 1}, {"sort_by": "loss"}, {"descending": True}):
        request = pb.GetDataSamplesRequest(cursor=cursor, **extra)
        code, reason = client.status_of("GetDataSamples", request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "leave start_index, sort_by and descending out" in reason
    code, reason = client.status_of("GetDataSamples", pb.GetDataSamplesRequest(cursor="x" * 300))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "cursor has 300 characters" in reason


@pytest.mark.parametrize("cursor", ["x", "{run}/x", "another-run/{own}", "{own}"])
def test_a_cursor_that_says_nothing_brings_everything_anew(client: WireClient, owner: ToyOwner, cursor: str) -> None:
    owner.train(2)
    run, _, own = client.GetDataSamples().cursor.rpartition("/")
    answer = client.GetDataSamples(cursor=cursor.format(run=run, own=own), records_cnt=20)
    assert answer.reset
    held = records(answer)
    while answer.data_records:
        answer = client.GetDataSamples(cursor=answer.cursor, records_cnt=20)
        assert not answer.reset and not held.keys() & records(answer).keys()
        held |= records(answer)
    assert held == records(client.GetDataSamples(records_cnt=EVERYTHING))


def test_nothing_new_costs_no_look_at_the_samples(
    client: WireClient, owner: ToyOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.train(2)
    view = client.ApplyDataQuery(query="id < 5").view_id
    asked = [{}, {"view_id": view}, {"filter": pb.SampleFilter(discarded=False)}]
    cursors = [client.GetDataSamples(records_cnt=5, **each).cursor for each in asked]
    for columns in owner.samples.splits.values():
        monkeypatch.setattr(columns, "changed", None)
        monkeypatch.setattr(type(columns), "summary", lambda _: pytest.fail("it counted the samples"))
        monkeypatch.setattr(type(columns), "truth", lambda *_: pytest.fail("it looked at the samples"))
    for each, cursor in zip(asked, cursors, strict=True):
        answer = client.GetDataSamples(records_cnt=5, cursor=cursor, **each)
        assert answer.success and not answer.data_records and not answer.reset and answer.cursor == cursor
        assert answer.number_of_all_samples == sum(SPLITS.values())


def test_a_run_that_has_ended_is_followed_too(owner: ToyOwner) -> None:
    owner.train(3)
    other = ToyOwner(owner.root, "other")
    for _ in range(2):  # a second server knows the cursors of the first
        running = serve(other.backend(), Settings(port=0))
        with WireClient(running.address, running.tokens.control[0]) as client:
            first = client.GetDataSamples(run_id=owner.run.run_id, records_cnt=5)
            page = client.GetDataSamples(run_id=owner.run.run_id, records_cnt=30, cursor="none")
            assert page.reset and len(page.data_records) == 30
            rest = client.GetDataSamples(run_id=owner.run.run_id, records_cnt=30, cursor=page.cursor)
            assert not rest.reset and len(rest.data_records) == sum(SPLITS.values()) - 30
        running.stop(grace=0)
    running = serve(other.backend(), Settings(port=0))
    with WireClient(running.address, running.tokens.control[0]) as client:
        for cursor in (first.cursor, rest.cursor):
            answer = client.GetDataSamples(run_id=owner.run.run_id, records_cnt=30, cursor=cursor)
            assert not answer.reset and not answer.data_records
        owner.samples.set_discarded("train", [3], True)  # somebody goes on with it
        assert client.GetDataSamples(run_id=owner.run.run_id, records_cnt=30, cursor=rest.cursor).reset
    running.stop(grace=0)
    other.close()
