"""What changed since a cursor, against full reads that are compared after every single change."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.store.sample_columns import Ratings
from graybox.store.sample_query import SampleFilter, Selection
from graybox.store.samples import SampleStore
from graybox.store.targets import Answers, LabelKind, Labels
from tests.patience import PATIENCE

COUNTS = {"train": 6, "val": 3}
Key = tuple[str, int]


def read(store: SampleStore) -> dict[Key, dict[str, Any]]:
    """Everything that is known of every sample; what says nothing (not tagged, no value, weight 1) is left out."""
    found: dict[Key, dict[str, Any]] = {}
    for name, columns in store.splits.items():
        known = {**columns.state(), **columns.targets.of_data(), "label": columns.label}
        kind = known.pop("target:kind", None)
        for row in range(columns.count):
            values = {key: column[row].tolist() for key, column in known.items()}
            nothing = {"corrected": -1, "weight": 1}
            found[name, row] = {
                key: repr(value)  # as text, in which NaN equals NaN
                for key, value in values.items()
                if not (key.startswith("tag:") and not value)
                and not (key.startswith(("signal:", "copy:", "target:")) and value != value)
                and value != nothing.get(key)
            }
            if kind is not None:
                found[name, row]["kind"] = repr(kind.tolist())
    return found


@dataclass
class Client:
    """One who reads by cursor. pending: what changed since, and the number of the last change."""

    within: str
    limit: int
    cursor: str = "nothing yet"
    reset: bool = True
    pending: dict[Key, int] = field(default_factory=dict)


class Watched:
    """A store whose full content is compared before and after each change."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.store = self.opened()
        self.content = read(self.store)
        self.changes = 0
        self.last: dict[Key, int] = {}
        """The number of the last change of each."""
        self.state = self.store.state()
        self.clients = [Client("", 3), Client("", 100), Client("val", 2), Client("train", 1)]
        self.begin_anew()

    def opened(self) -> SampleStore:
        store = SampleStore(self.folder)
        for name, count in COUNTS.items():
            store.add_split(name, count, None, name)
        return store

    def begin_anew(self) -> None:
        for client in self.clients:
            client.pending = {key: self.last.get(key, 0) for key in self.keys(client)}
            client.reset = True

    def keys(self, client: Client) -> list[Key]:
        return [key for key in self.content if client.within in ("", key[0])]

    def note(self, action: tuple[Any, ...]) -> None:
        """What differs changed; of targets and answers, what was named: they come with an encounter."""
        now = read(self.store)
        self.changes += 1
        changed = {key for key in now if now[key] != self.content[key]}
        if action[0] in ("targets", "answers"):
            changed |= {(action[1], row) for row in action[2]}
        self.last |= dict.fromkeys(changed, self.changes)
        for client in self.clients:
            client.pending |= dict.fromkeys(changed.intersection(self.keys(client)), self.changes)
        self.content = now

    def poll(self, number: int) -> None:
        client = self.clients[number]
        within = self.store.select(SampleFilter(origin=client.within))
        changes = self.store.changed_since(client.cursor, within, client.limit)
        splits = list(COUNTS)
        expected = sorted(client.pending, key=lambda key: (client.pending[key], splits.index(key[0]), key[1]))
        expected = expected[: client.limit]
        assert told(changes.selection) == expected
        assert changes.reset == client.reset
        assert self.store.settled(changes).all()
        for key in expected:
            del client.pending[key]
        client.reset, client.cursor = False, changes.cursor


def told(selection: Selection) -> list[Key]:
    return [(selection.splits[split], int(row)) for split, row in zip(selection.split, selection.row, strict=True)]


splits = st.sampled_from(list(COUNTS))
rows = st.lists(st.integers(0, 2), min_size=1, max_size=4)
numbers = st.sampled_from([0.0, 0.5, 2.0, float("nan")])
classes = st.integers(0, 1)
changes = st.one_of(
    st.tuples(st.just("batch"), splits, rows, numbers, classes, st.booleans()),
    st.tuples(st.just("batch"), splits, rows, numbers, classes, st.booleans()),
    st.tuples(st.just("discard"), splits, rows, st.booleans()),
    st.tuples(st.just("tag"), splits, rows, st.sampled_from("ab"), st.booleans()),
    st.tuples(st.just("label"), splits, rows, st.integers(-1, 1)),
    st.tuples(st.just("weight"), splits, rows, st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(st.just("learn"), splits, rows, classes),
    st.tuples(st.just("labels"), splits, classes),
    st.tuples(st.just("signal"), splits, rows, numbers),
    st.tuples(st.just("copy"), splits, st.sampled_from(["x", "y"]), st.sampled_from(["loss", "encounters"])),
    st.tuples(st.just("targets"), splits, rows, numbers),
    st.tuples(st.just("answers"), splits, rows, numbers),
)
others = st.one_of(
    st.tuples(st.just("poll"), st.integers(0, 3)),
    st.tuples(st.just("poll"), st.integers(0, 3)),
    st.sampled_from([("snapshot",), ("reopen",), ("keep",), ("load",)]),
)


def change(store: SampleStore, action: tuple[Any, ...], age: int) -> None:
    kind, split, *rest = action
    at = np.unique(rest[0]) if isinstance(rest[0], list) else None
    if kind == "batch":
        count, ones = len(rest[0]), np.ones(len(rest[0]), np.float32)
        ratings = Ratings(ones / 2, ones) if rest[3] else None
        store.record_batch(split, rest[0], ones * rest[1], np.full(count, rest[2]), age, ratings)
    elif kind == "discard":
        store.set_discarded(split, at, rest[1])
    elif kind == "tag":
        store.set_tag(split, rest[1], at, rest[2])
    elif kind == "label":
        store.correct_labels(split, at, np.full(len(at), rest[1]))
    elif kind == "weight":
        store.set_weights(split, at, np.full(len(at), rest[1]))
    elif kind == "learn":
        store.learn_labels(split, at, np.full(len(at), rest[1]))
    elif kind == "labels":
        store.add_split(split, COUNTS[split], np.arange(COUNTS[split]) % (1 + rest[0]), split)
    elif kind == "signal":
        store.log_signal(split, "entropy", at, np.full(len(at), rest[1]))
    elif kind == "copy":
        columns = store.splits[split]
        if rest[0] in columns.notes.copies:
            store.drop_column(split, rest[0])
        else:
            store.keep_column(split, rest[0], np.array(columns.column(rest[1])))
    elif kind == "targets":
        store.learn_targets(split, at, Labels(LabelKind.NUMBER, {"number": np.full(len(at), rest[1])}))
    else:
        store.record_answers(split, at, Answers({"predicted": np.full(len(at), rest[1])}), age)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(changes, others), min_size=5, max_size=40))
def test_nothing_is_missed_or_told_twice(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(folder)
        for age, action in enumerate(script):
            if action[0] == "poll":
                watched.poll(action[1])
            elif action[0] == "snapshot":
                watched.store.snapshot()
            elif action[0] == "keep":
                watched.state = watched.store.state()
            elif action[0] in ("reopen", "load"):
                if action[0] == "load":
                    watched.store.load_state(watched.state)
                else:
                    watched.last.clear()
                    watched.store.close()
                    watched.store = watched.opened()
                watched.content = read(watched.store)
                watched.begin_anew()
            else:
                change(watched.store, action, age)
                watched.note(action)
        for number in range(len(watched.clients)):
            while watched.clients[number].pending:
                watched.poll(number)
            watched.poll(number)
        watched.store.close()


def test_views_in_any_order_are_told_in_the_order_of_the_changes(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    for name, count in COUNTS.items():
        store.add_split(name, count, None, name)
    view = Selection(np.array([1, 0, 0, 1], np.int16), np.array([2, 5, 1, 0]), ("train", "val"))
    cursor = store.cursor()
    store.set_tag("val", "a", [0, 1, 2], True)
    store.set_tag("train", "a", [5, 1, 3], True)
    for limit in (1, 2, 3, 10):
        found, at = list[Key](), cursor
        while len(found) < 4:
            changes = store.changed_since(at, view, limit)
            found += told(changes.selection)
            at = changes.cursor
        assert found == [("val", 0), ("val", 2), ("train", 1), ("train", 5)]
        assert not len(store.changed_since(at, view, limit).selection)
    assert store.changed_since(cursor, view, 0).cursor == cursor
    store.close()


@pytest.mark.parametrize(
    "cursor", ["", "x", "0123456789abcdef.0.0.0", "{history}.99.0.0", "{history}.1.0", "{history}.-1.0.0"]
)
def test_a_cursor_that_says_nothing_begins_anew(tmp_path: Path, cursor: str) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 3, None)
    changes = store.changed_since(
        cursor.format(history=store.cursor().partition(".")[0]), store.select(SampleFilter()), 2
    )
    assert changes.reset and told(changes.selection) == [("train", 0), ("train", 1)]
    rest = store.changed_since(changes.cursor, store.select(SampleFilter()), 2)
    assert not rest.reset and told(rest.selection) == [("train", 2)]
    store.close()


def test_a_run_that_has_ended_keeps_its_cursors(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 3, None)
    store.record_batch("train", [1], [0.5], None, 1)
    reader = SampleStore(tmp_path, read_only=True)
    everything = reader.select(SampleFilter())
    first = reader.changed_since("none", everything, 2)
    assert first.reset and told(first.selection) == [("train", 0), ("train", 1)]
    again = SampleStore(tmp_path, read_only=True)  # as another process would open it
    second = again.changed_since(first.cursor, everything, 2)
    assert not second.reset and told(second.selection) == [("train", 2)]
    assert not len(again.changed_since(second.cursor, everything, 2).selection)
    store.record_batch("train", [1], [0.5], None, 1)
    again.refresh()
    assert again.changed_since(second.cursor, again.select(SampleFilter()), 2).reset
    store.close()


def test_reading_beside_training(tmp_path: Path) -> None:
    """Each sample's loss is the number of its encounters: a record that was read while it changed would show."""
    count = 500
    store = SampleStore(tmp_path)
    store.add_split("train", count, None)
    columns = store.splits["train"]
    done = threading.Event()
    known = np.zeros(count, dtype=np.int64)
    failures: list[str] = []
    told_in_all = 0

    def follow() -> None:
        nonlocal told_in_all
        cursor = store.cursor()
        everything = store.select(SampleFilter())
        while True:
            ending = done.is_set()
            changes = store.changed_since(cursor, everything, 40)
            rows = changes.selection.row
            losses, encounters = columns.loss[rows], columns.encounters[rows]
            settled = store.settled(changes)
            rows, losses, encounters = rows[settled], losses[settled], encounters[settled]
            if (losses != encounters).any():
                failures.append(f"torn: {losses} {encounters}")
            if (encounters <= known[rows]).any():
                failures.append(f"told twice: {rows[encounters <= known[rows]]}")
            known[rows] = encounters
            told_in_all += len(rows)
            if ending and cursor == changes.cursor:
                break
            cursor = changes.cursor

    thread = threading.Thread(target=follow)
    thread.start()
    random = np.random.default_rng(0)
    for age in range(3_000):
        rows = random.permutation(count)[:32]
        store.record_batch("train", rows, columns.encounters[rows] + 1.0, None, age)
    done.set()
    thread.join(PATIENCE)
    assert not thread.is_alive() and failures == []
    np.testing.assert_array_equal(known, columns.encounters)
    assert told_in_all > count
    store.close()
