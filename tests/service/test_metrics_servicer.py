"""GetLatestLoggerData over the wire: nothing consumed, only what is new, fewer points with extremes kept."""

from __future__ import annotations

import math

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.store.metric_history import About
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


def losses(answer: pb.GetLatestLoggerDataResponse) -> list[int]:
    """The ages at which train/loss has a point."""
    return [point.age for point in answer.points if point.metric_name == "loss"]


def test_a_point_says_everything(client: WireClient, owner: ToyOwner) -> None:
    owner.metrics.append(
        branch=0, step=5, age=40, time_ms=1_700_000_000_123, values={("val", "loss"): 0.25}, experiment_hash="beef",
        about=About(marker=True, tags=("dark", "night")),
    )  # fmt: skip
    answer = client.GetLatestLoggerData()
    assert answer.run_id == owner.run.run_id
    assert list(answer.points) == [
        pb.LoggerDataPoint(
            metric_name="loss", model_age=40, metric_value=0.25, experiment_hash="beef", timestamp=1_700_000_000,
            is_evaluation_marker=True, split_name="val", evaluation_tags=["dark", "night"], age=40,
            time_ms=1_700_000_000_123, step=5, run_id=owner.run.run_id,
        )
    ]  # fmt: skip


def test_a_point_of_an_audit_says_so(client: WireClient, owner: ToyOwner) -> None:
    owner.metrics.append(branch=0, step=5, age=40, time_ms=0, values={("train", "loss"): 0.5}, about=About(audit=True))
    owner.train()
    assert [(point.audit_mode, point.metric_name) for point in client.GetLatestLoggerData().points] == [
        (True, "loss"), (False, "loss"), (False, "accuracy"),
    ]  # fmt: skip


def test_two_clients_with_one_cursor_see_the_same(client: WireClient, watcher: WireClient, owner: ToyOwner) -> None:
    owner.train(3)
    first, other = client.GetLatestLoggerData(), watcher.GetLatestLoggerData()
    assert first == other
    assert losses(first) == [8, 16, 24]
    owner.train(2)
    for _ in range(2):  # asking does not consume
        for reader in (client, watcher):
            news = reader.GetLatestLoggerData(cursor=first.cursor)
            assert losses(news) == [32, 40]
            assert not news.reset
    assert losses(client.GetLatestLoggerData(cursor=news.cursor)) == []


def test_no_cursor_gives_the_latest_and_full_history_all(client: WireClient, owner: ToyOwner) -> None:
    owner.train(150)
    assert losses(client.GetLatestLoggerData()) == [8 * step for step in range(51, 151)]
    whole = client.GetLatestLoggerData(request_full_history=True)
    assert losses(whole) == [8 * step for step in range(1, 151)]
    assert whole.total_points == 300
    assert whole.reset


def test_long_series_are_thinned_with_their_extremes(client: WireClient, owner: ToyOwner) -> None:
    for step in range(5_000):
        value = 1000.0 if step == 1_234 else -1000.0 if step == 2_345 else math.sin(step)
        owner.metrics.append(branch=0, step=step, age=step, time_ms=0, values={("train", "loss"): value})
    answer = client.GetLatestLoggerData(request_full_history=True, max_points=100)
    assert 2 < len(answer.points) <= 100
    values = [point.metric_value for point in answer.points]
    assert (max(values), min(values)) == (1000, -1000)
    assert answer.points[-1].age == 4_999
    assert answer.total_points == 5_000
    assert len(client.GetLatestLoggerData(request_full_history=True).points) <= 2_000, "as many as a plot can show"


def test_one_metric_and_a_range_of_ages(client: WireClient, owner: ToyOwner) -> None:
    owner.train(10)
    answer = client.GetLatestLoggerData(request_full_history=True, graph_name="accuracy", min_age=16, max_age=32)
    assert [(point.metric_name, point.age) for point in answer.points] == [("accuracy", age) for age in (16, 24, 32)]
    assert not client.GetLatestLoggerData(graph_name="nope").points


def test_a_rewound_history_comes_anew(client: WireClient, owner: ToyOwner) -> None:
    owner.train(2)
    position = owner.metrics.position
    owner.train(3)
    cursor = client.GetLatestLoggerData().cursor
    owner.metrics.rewind(position)
    answer = client.GetLatestLoggerData(cursor=cursor)
    assert answer.reset
    assert losses(answer) == [8, 16]


@pytest.mark.parametrize("cursor", ["x", "0:3", "/", "another-run/0:3", "0:" + "9" * 90, "\u0663/\u0663:\u0663"])
def test_a_cursor_nobody_gave_out_answers_everything(client: WireClient, owner: ToyOwner, cursor: str) -> None:
    owner.train(3)
    answer = client.GetLatestLoggerData(cursor=cursor)
    assert answer.reset
    assert losses(answer) == [8, 16, 24]


def test_old_fields_saturate_and_new_ones_are_exact(client: WireClient, owner: ToyOwner) -> None:
    age, late = 2**40, 2**45
    owner.metrics.append(branch=0, step=2**33, age=age, time_ms=late, values={("", "big"): 1e300, ("", "no"): math.nan})
    big, no = client.GetLatestLoggerData().points
    assert (big.model_age, big.age, big.step) == (2**31 - 1, age, 2**33)
    assert (big.timestamp, big.time_ms) == (2**31 - 1, late)
    assert math.isinf(big.metric_value)
    assert math.isnan(no.metric_value)


def test_what_comes_later_says_so(client: WireClient) -> None:
    request = pb.GetLatestLoggerDataRequest(break_by_slices=True, tags=["hard"])
    code, details = client.status_of("GetLatestLoggerData", request)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "tags" in details
