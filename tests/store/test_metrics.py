from __future__ import annotations

import math
import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound, Refused, StorageError
from graybox.store.metric_history import PLAIN, About, MetricColumns, MetricPoint
from graybox.store.metrics import MetricSlice, MetricStore
from tests.patience import PATIENCE

Name = tuple[str, str]
NAMES: list[Name] = [("train", "loss"), ("val", "loss"), ("train", "accuracy"), ("", "own")]
ABOUTS = [PLAIN, About(marker=True), About(marker=True, tags=("dark", "größer")), About(audit=True)]
values = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 1e300])


def points_of(columns: MetricColumns) -> list[MetricPoint]:
    return [columns.point(index) for index in range(len(columns))]


def same(found: list[MetricPoint], expected: list[MetricPoint]) -> bool:
    """Equal, where NaN equals NaN."""
    return repr(found) == repr(expected)


@dataclass
class Oracle:
    """A store as a list: every point with its position, none ever overwritten."""

    points: list[tuple[int, MetricPoint]] = field(default_factory=list)
    notes: dict[tuple[Name, int, int], str] = field(default_factory=dict)
    position: int = 0

    def add(self, point: MetricPoint) -> None:
        self.points.append((self.position, point))
        self.position += 1

    def rewind(self, position: int) -> None:
        self.points = [(at, point) for at, point in self.points if at < position]

    def all(self) -> list[MetricPoint]:
        return [
            replace(point, note=self.notes.get(((point.split, point.metric), point.branch, point.age), ""))
            for _, point in self.points
        ]


class Client:
    """What a dashboard does: holds points, and asks for what is new since its cursor."""

    def __init__(self) -> None:
        self.cursor = ""
        self.points: list[MetricPoint] = []

    def poll(self, store: MetricStore) -> MetricSlice:
        answer = store.read(cursor=self.cursor, full=True)
        if answer.reset:
            self.points = []
        self.points += points_of(answer.points)
        self.cursor = answer.cursor
        return answer


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.integers(0, 1),
            st.dictionaries(st.sampled_from(NAMES), values, max_size=4),
            st.sampled_from(ABOUTS),
            st.sampled_from(["", "a1", "b2"]),
        ),
        st.tuples(st.just("mark")),
        st.tuples(st.just("rewind"), st.integers(0, 5)),
        st.tuples(st.just("note"), st.integers(0, 30), st.sampled_from(["", "look", "größer"])),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("poll"), st.integers(0, 2)),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(actions)
def test_every_reader_sees_what_a_list_would_hold(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, follower = MetricStore(folder), MetricStore(folder, read_only=True)
        oracle, clients, marks = Oracle(), [Client(), Client(), Client()], [0]
        for step, (action, *details) in enumerate(script):
            if action == "append":
                branch, content, about, text = details
                store.append(
                    branch=branch, step=step, age=step * 64, time_ms=step * 10, values=content, about=about,
                    experiment_hash=text,
                )  # fmt: skip
                for (split, metric), value in content.items():
                    place = (split, metric, branch, step, step * 64, step * 10)
                    oracle.add(MetricPoint(*place, value, about.marker, text, "", about.tags, about.audit))
            elif action == "mark":
                marks.append(store.position)
            elif action == "rewind":
                position = marks[details[0] % len(marks)]
                store.rewind(position)
                oracle.rewind(position)
            elif action == "note" and oracle.points:
                point = oracle.points[details[0] % len(oracle.points)][1]
                store.set_note(point.split, point.metric, point.branch, point.age, details[1])
                oracle.notes[(point.split, point.metric), point.branch, point.age] = details[1]
            elif action == "reopen":
                store.close()
                store = MetricStore(folder)
            elif action == "poll":
                client = clients[details[0]]
                client.poll(follower if details[0] == 2 else store)
                assert same(client.points, oracle.all())
            assert store.position == follower.position == oracle.position
        for client in clients:
            client.poll(store)
            assert same(client.points, oracle.all())
            assert len(client.poll(store).points) == 0
        assert store.read(full=True).total == len(oracle.points)
        whole = [point for point in oracle.all() if not point.tags and not point.audit]
        latest = {(point.split, point.metric): point for point in whole}
        for reader in (store, follower):
            assert same(sorted(reader.latest().values(), key=repr), sorted(latest.values(), key=repr))
        store.close()


def fill(store: MetricStore, count: int, branch: int = 0, start: int = 0) -> list[MetricPoint]:
    generator = np.random.default_rng(branch + 1)
    points = []
    for step in range(start, start + count):
        loss, accuracy = (float(value) for value in generator.normal(size=2))
        store.append(branch=branch, step=step, age=step * 10, time_ms=step, values={NAMES[0]: loss, NAMES[2]: accuracy})
        points.append(MetricPoint("train", "loss", branch, step, step * 10, step, loss))
        points.append(MetricPoint("train", "accuracy", branch, step, step * 10, step, accuracy))
    return points


def test_two_readers_with_one_cursor_see_the_same(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    fill(store, 5)
    cursor = store.read().cursor
    added = fill(store, 3, start=5)
    for _ in range(2):
        answer = store.read(cursor=cursor)
        assert points_of(answer.points) == added
        assert not answer.reset
    store.close()


@pytest.mark.parametrize(
    "cursor", ["nonsense", "0", ":", "7:0", "0:999", "-1:2", "0:-3", "0:1:2", "٣:1", "0:" + "9" * 50]
)
def test_an_unknown_cursor_answers_everything(tmp_path: Path, cursor: str) -> None:
    store = MetricStore(tmp_path)
    points = fill(store, 120)
    answer = store.read(cursor=cursor)
    assert answer.reset
    assert points_of(answer.points) == points
    store.close()


def test_without_cursor_the_latest_hundred_of_each_series(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    points = fill(store, 150) + fill(store, 30, branch=1)
    answer = store.read()
    expected = [point for point in points if point.branch == 1 or point.step >= 50]
    assert points_of(answer.points) == expected
    assert answer.reset and answer.total == len(points)
    assert len(store.read(max_points=10).points) <= 40
    store.close()


def test_filters(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    points = fill(store, 50)
    for metric, low, high in [("loss", 0, 0), ("", 100, 200), ("accuracy", 495, 0), ("loss", 0, 5), ("none", 0, 0)]:
        answer = store.read(full=True, metric=metric, min_age=low, max_age=high)
        expected = [
            point
            for point in points
            if metric in ("", point.metric) and point.age >= low and (not high or point.age <= high)
        ]
        assert points_of(answer.points) == expected
        assert answer.total == len(expected)
    cursor = store.read(metric="loss").cursor
    added = fill(store, 1, start=50)
    assert points_of(store.read(cursor=cursor, metric="loss").points) == added[:1]
    with pytest.raises(Invalid, match="max_points"):
        store.read(max_points=-1)
    store.close()


def test_downsampling_keeps_extremes_last_points_and_notes_of_every_series(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    points = fill(store, 3000) + fill(store, 3000, branch=1)
    store.set_note("train", "loss", 1, 12340, "here")
    answer = store.read(full=True, max_points=50)
    assert answer.total == len(points) == 12_000
    found = points_of(answer.points)
    for metric in ("loss", "accuracy"):
        for branch in (0, 1):
            whole = [point for point in points if (point.metric, point.branch) == (metric, branch)]
            shown = [point for point in found if (point.metric, point.branch) == (metric, branch)]
            assert 20 <= len(shown) <= 50
            assert [point.age for point in shown] == sorted(point.age for point in shown)
            assert max(whole, key=lambda point: point.value) in shown
            assert min(whole, key=lambda point: point.value) in shown
            assert whole[-1] in shown
            assert {replace(point, note="") for point in shown} <= set(whole)
    assert [(point.branch, point.age) for point in found if point.note == "here"] == [(1, 12340)]
    store.close()


def test_points_of_evaluations_are_not_hidden_by_a_curve(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    some = About(marker=True, tags=("dark",))
    store.append(branch=0, step=0, age=10, time_ms=0, values={NAMES[0]: 7.0}, about=some)
    curve = fill(store, 500)
    for answer in (store.read(), store.read(full=True, max_points=5)):
        found = points_of(answer.points)
        assert [point.value for point in found if point.marker] == [7.0] and found[0].tags == ("dark",)
    assert store.latest()[NAMES[0]] == curve[-2]
    store.set_note("train", "loss", 0, 10, "both")
    noted = [point for point in points_of(store.read(full=True).points) if point.note]
    assert [(point.value, point.note) for point in noted] == [(7.0, "both"), (curve[2].value, "both")]
    store.close()


def test_a_note_needs_a_point(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    fill(store, 5)
    with pytest.raises(NotFound, match="train/loss has no point at age 31 in branch 0; the nearest is at 30"):
        store.set_note("train", "loss", 0, 31, "x")
    with pytest.raises(NotFound, match="no metric val/loss in branch 0"):
        store.set_note("val", "loss", 0, 30, "x")
    store.close()


def test_a_torn_tail_makes_readers_read_anew(tmp_path: Path) -> None:
    store = MetricStore(tmp_path)
    points = fill(store, 10)
    client = Client()
    client.poll(store)
    store.close()
    path = tmp_path / "metrics.log"
    path.write_bytes(path.read_bytes()[:-5])
    store = MetricStore(tmp_path)
    added = fill(store, 1, start=20)
    assert client.poll(store).reset
    assert same(client.points, points[:-2] + added)
    store.close()


def test_rewinding_to_here_disturbs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = MetricStore(tmp_path)
    fill(store, 3)
    cursor = store.read().cursor
    store.rewind(store.position)
    assert not store.read(cursor=cursor).reset
    store.rewind(10**6)
    assert "nothing to rewind" in caplog.text
    assert not store.read(cursor=cursor).reset
    with pytest.raises(Invalid, match="0 or more"):
        store.rewind(-1)
    store.close()


def test_reading_beside_the_writer(tmp_path: Path) -> None:
    store, follower = MetricStore(tmp_path), MetricStore(tmp_path, read_only=True)
    done = threading.Event()
    failures: list[str] = []

    def read(source: MetricStore, client: Client) -> None:
        while not done.wait(0.001):
            client.poll(source)
            ages = [point.age for point in client.points if point.metric == "loss"]
            if ages != list(range(0, 10 * len(ages), 10)):
                failures.append(f"ages {ages[:5]}...")
                return

    clients = [Client(), Client(), Client()]
    sources = [store, store, follower]
    threads = [threading.Thread(target=read, args=pair) for pair in zip(sources, clients, strict=True)]
    for thread in threads:
        thread.start()
    points: list[MetricPoint] = []
    for turn in range(20):
        points += fill(store, 150, start=150 * turn)
        if turn % 5 == 4:
            store.rewind(store.position - 100)
            del points[-100:]
            for step in range(150 * turn + 100, 150 * turn + 150):
                store.append(branch=0, step=step, age=step * 10, time_ms=0, values={NAMES[0]: 1.0, NAMES[2]: 2.0})
                points.append(MetricPoint("train", "loss", 0, step, step * 10, 0, 1.0))
                points.append(MetricPoint("train", "accuracy", 0, step, step * 10, 0, 2.0))
    done.set()
    for thread in threads:
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()
    assert failures == []
    for source, client in zip(sources, clients, strict=True):
        client.poll(source)
        assert same(client.points, points)
    store.close()


def test_an_ended_run_is_read_only(tmp_path: Path) -> None:
    empty = MetricStore(tmp_path, read_only=True)
    assert len(empty.read(full=True).points) == 0
    assert empty.latest() == {}
    with pytest.raises(Refused, match="reading only"):
        empty.append(branch=0, step=0, age=0, time_ms=0, values={})
    store = MetricStore(tmp_path)
    fill(store, 2)
    store.sync()
    store.close()
    assert len(empty.read(full=True).points) == 4
    with pytest.raises(StorageError, match="closed"):
        fill(store, 1)
    empty.sync()
    empty.close()
