from __future__ import annotations

import contextlib
import copy
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound, Refused, StorageError
from graybox.store import compact, sample_compaction, sample_durability, sample_log_files
from graybox.store.record_log import read_records
from graybox.store.samples import SampleFilter, SampleStore
from tests.patience import PATIENCE

COUNTS = {"train": 6, "val": 3}
Sample = dict[str, Any]


def unseen() -> Sample:
    return {"prediction": -1, "loss": float("nan"), "encounters": 0, "last_age": -1, "discarded": False}


@dataclass
class Oracle:
    """The samples as dicts, written one by one."""

    splits: dict[str, list[Sample]] = field(
        default_factory=lambda: {name: [unseen() for _ in range(count)] for name, count in COUNTS.items()}
    )

    def batch(self, split: str, rows: list[int], losses: list[float], predictions: list[int] | None, age: int) -> None:
        for index, row in enumerate(rows):
            sample = self.splits[split][row]
            sample["loss"], sample["last_age"] = losses[index], age
            sample["encounters"] += 1
            if predictions is not None:
                sample["prediction"] = predictions[index]

    def discard(self, split: str, rows: list[int], value: bool) -> list[int]:
        changed = sorted({row for row in rows if self.splits[split][row]["discarded"] != value})
        for row in changed:
            self.splits[split][row]["discarded"] = value
        return changed


def content_of(store: SampleStore) -> dict[str, list[Sample]]:
    return {
        name: [
            {
                key: getattr(columns, key)[row].item()
                for key in ("prediction", "loss", "encounters", "last_age", "discarded")
            }
            for row in range(columns.count)
        ]
        for name, columns in store.splits.items()
    }


def check(store: SampleStore, expected: dict[str, list[Sample]]) -> None:
    assert repr(content_of(store)) == repr(expected)  # as text, because NaN equals NaN there


def opened(folder: Path | str) -> SampleStore:
    store = SampleStore(folder)
    for name, count in COUNTS.items():
        store.add_split(name, count, np.arange(count), f"{name} data")
    return store


split_names = st.sampled_from(["train", "train", "val"])
losses = st.floats(0, 4, width=32) | st.just(float("nan"))


@st.composite
def batch(draw: st.DrawFn) -> tuple[Any, ...]:
    split = draw(split_names)
    rows = draw(st.lists(st.integers(0, COUNTS[split] - 1), max_size=5))
    size = len(rows)
    predictions = draw(st.none() | st.lists(st.integers(-1, 9), min_size=size, max_size=size))
    return ("batch", split, rows, draw(st.lists(losses, min_size=size, max_size=size)), predictions)


@st.composite
def discard(draw: st.DrawFn) -> tuple[Any, ...]:
    split = draw(split_names)
    rows = draw(st.lists(st.integers(0, COUNTS[split] - 1), max_size=4))
    return ("discard", split, rows, draw(st.booleans()))


writes = st.one_of(batch(), batch(), discard())
others = st.sampled_from([("reopen",), ("snapshot",), ("keep",), ("load",), ("look",)])


def write(store: SampleStore, oracle: Oracle, action: tuple[Any, ...], age: int) -> None:
    if action[0] == "batch":
        _, split, rows, values, predictions = action
        store.record_batch(split, np.array(rows, np.int64), np.array(values, np.float32), predictions, age)
        oracle.batch(split, rows, values, predictions, age)
    else:
        _, split, rows, value = action
        version = store.discard_version
        changed = oracle.discard(split, rows, value)
        assert store.set_discarded(split, rows, value).tolist() == changed
        assert (store.discard_version > version) == bool(changed)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(writes, writes, others), max_size=20))
def test_the_store_is_what_dicts_would_be(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, oracle = opened(folder), Oracle()
        kept, kept_oracle = store.state(), copy.deepcopy(oracle)
        for age, action in enumerate(script):
            if action[0] in ("batch", "discard"):
                write(store, oracle, action, age)
            elif action[0] == "reopen":
                store.close()
                store = opened(folder)
            elif action[0] == "snapshot":
                store.snapshot()
                assert not store.snapshot()
            elif action[0] == "keep":
                kept, kept_oracle = store.state(), copy.deepcopy(oracle)
            elif action[0] == "load":
                flags = store.splits["train"].discarded
                store.load_state(kept)
                oracle = copy.deepcopy(kept_oracle)
                assert store.splits["train"].discarded is flags
            else:
                check(SampleStore(folder, read_only=True), oracle.splits)
            check(store, oracle.splits)
        store.close()
        assert len(list(Path(folder).iterdir())) <= 2
        reader = SampleStore(folder, read_only=True)
        check(reader, oracle.splits)
        assert reader.splits["val"].label.tolist() == [0, 1, 2]
        assert reader.splits["val"].fingerprint == "val data"


@settings(max_examples=10, deadline=None)
@given(st.lists(writes, min_size=1, max_size=4), st.lists(writes, min_size=1, max_size=3), st.booleans(), st.data())
def test_a_log_broken_at_any_byte_loses_only_what_follows(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], snapshot: bool, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, oracle = opened(folder), Oracle()
        for age, action in enumerate(before):
            write(store, oracle, action, age)
        if snapshot:
            store.snapshot()
        (path,) = Path(folder).glob("samples-*.log")
        first = path.stat().st_size
        states = {first: copy.deepcopy(oracle.splits)}
        for age, action in enumerate(after):
            write(store, oracle, action, 100 + age)
            states[path.stat().st_size] = copy.deepcopy(oracle.splits)
        store.close()
        whole = path.read_bytes()
        for cut in range(first, len(whole) + 1):
            expected = states[max(end for end in states if end <= cut)]
            path.write_bytes(whole[:cut])
            check(SampleStore(folder, read_only=True), expected)
            if cut < len(whole):
                broken = bytearray(whole)
                broken[cut] ^= data.draw(st.sampled_from([1, 0x80, 0xFF]))
                path.write_bytes(broken)
                check(SampleStore(folder, read_only=True), expected)
        cut = data.draw(st.integers(first, len(whole)))
        path.write_bytes(whole[:cut])
        oracle.splits = states[max(end for end in states if end <= cut)]
        store = opened(folder)
        write(store, oracle, ("batch", "train", [5, 5], [0.5, 0.25], [1, 2]), 777)
        store.close()
        check(SampleStore(folder, read_only=True), oracle.splits)


@pytest.mark.parametrize("in_a_process", [False, True])
def test_a_kill_between_any_two_steps_of_a_snapshot_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_process: bool
) -> None:
    """Copies of the folder, taken at each of them, are what a kill would leave."""
    if in_a_process:
        monkeypatch.setattr(sample_compaction, "IN_THE_THREAD", 0)
    folder = tmp_path / "run"
    folder.mkdir()
    store, oracle = opened(folder), Oracle()
    copies: list[Path] = []

    def keep_copy() -> None:
        copies.append(tmp_path / f"copy{len(copies)}")
        shutil.copytree(folder, copies[-1])

    def watched(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            keep_copy()
            result = original(*arguments, **named)
            keep_copy()
            return result

        monkeypatch.setattr(owner, name, call)

    watched(compact, "write_snapshot")
    watched(sample_log_files, "RecordLog")
    watched(sample_compaction, "_start")
    watched(sample_compaction, "sync_folder")
    for age in range(3):
        write(store, oracle, ("batch", "train", [age, 2], [0.5, float(age)], [1, age]), age)
        write(store, oracle, ("discard", "val", [age], True), age)
        assert store.snapshot()
        keep_copy()
        assert len(copies) > 4, "it went another way"
        for path in list(copies):
            check(SampleStore(path, read_only=True), oracle.splits)
            again = SampleStore(path)
            check(again, oracle.splits)
            again.close()
        copies.clear()
        for path in tmp_path.glob("copy*"):
            shutil.rmtree(path)
    store.close()


def test_a_snapshot_that_fails_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, oracle = opened(tmp_path), Oracle()
    write(store, oracle, ("batch", "train", [1], [0.5], [1]), 1)
    kept = store.state()
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise StorageError("cannot write samples.h5: No space left on device")

        patch.setattr(compact, "write_snapshot", refuse)
        patch.setattr(sample_durability, "write_snapshot", refuse)
        with pytest.raises(StorageError):
            store.snapshot()
        write(store, oracle, ("batch", "train", [1], [0.25], [2]), 2)
        with pytest.raises(StorageError):
            store.load_state(kept)
        check(store, oracle.splits)
        write(store, oracle, ("batch", "val", [1], [0.75], [2]), 3)
    check(SampleStore(tmp_path, read_only=True), oracle.splits)
    assert store.snapshot()
    write(store, oracle, ("discard", "val", [2], True), 4)
    store.close()
    check(SampleStore(tmp_path), oracle.splits)


def test_a_broken_older_log_does_not_hide_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, oracle = opened(tmp_path), Oracle()
    write(store, oracle, ("batch", "train", [1], [0.5], [1]), 1)
    good = (tmp_path / "samples-0.log").stat().st_size
    store.record_batch("train", [2], [0.5], [1], 2)
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise StorageError("no space")

        patch.setattr(compact, "write_snapshot", refuse)
        with pytest.raises(StorageError):
            store.snapshot()
    write(store, oracle, ("batch", "train", [3], [0.5], [1]), 3)
    store.close()
    content = bytearray((tmp_path / "samples-0.log").read_bytes())
    content[-1] ^= 1
    (tmp_path / "samples-0.log").write_bytes(content)
    check(SampleStore(tmp_path, read_only=True), oracle.splits)
    assert caplog.text == ""
    store = SampleStore(tmp_path)
    assert f"samples-0.log is broken after byte {good}" in caplog.text
    check(store, oracle.splits)
    assert not store.splits["train"].encounters[2]
    store.snapshot()
    store.close()
    check(SampleStore(tmp_path), oracle.splits)


@pytest.mark.parametrize("in_a_process", [False, True])
def test_snapshots_beside_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_process: bool) -> None:
    if in_a_process:
        monkeypatch.setattr(sample_compaction, "IN_THE_THREAD", 0)
    store = SampleStore(tmp_path)
    store.add_split("train", 1000, None, "")
    done = threading.Event()
    snapshots = 0

    def keep_writing_snapshots() -> None:
        nonlocal snapshots
        while True:
            ending = done.is_set()
            snapshots += store.snapshot()
            store.sync()
            if ending:
                break

    thread = threading.Thread(target=keep_writing_snapshots)
    thread.start()
    generator = np.random.default_rng(0)
    expected = np.zeros(1000, dtype=np.int64)
    for age in range(3000):
        rows = generator.integers(0, 1000, 32)
        store.record_batch("train", rows, np.full(32, age, np.float32), None, age)
        np.add.at(expected, rows, 1)
    done.set()
    thread.join(timeout=PATIENCE)
    assert not thread.is_alive()
    assert snapshots > 0
    store.close()
    assert not store.snapshot()
    np.testing.assert_array_equal(SampleStore(tmp_path, read_only=True).splits["train"].encounters, expected)


def test_a_split_that_fits_keeps_its_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    store.record_batch("train", [1], [0.5], [1], 1)
    store.close()
    store = SampleStore(tmp_path)
    kept = store.add_split("train", 6, None, "train data")
    assert kept.encounters.tolist() == [0, 1, 0, 0, 0, 0]
    assert kept.label.tolist() == [0, 1, 2, 3, 4, 5]
    assert store.add_split("train", 6, np.full(6, 9), "train data") is kept
    assert kept.label.tolist() == [9] * 6
    assert caplog.text == ""
    made = store.add_split("train", 6, None, "other data")
    assert "begin anew" in caplog.text
    assert made.encounters.tolist() == [0] * 6 and made.label.tolist() == [-1] * 6
    store.record_batch("train", [2], [0.5], [1], 1)
    store.close()
    reader = SampleStore(tmp_path, read_only=True)
    assert list(reader.splits) == ["train", "val"]
    assert reader.splits["train"].encounters.tolist() == [0, 0, 1, 0, 0, 0]


def files_open_in(folder: Path) -> int:
    """Of this process; what other tests have left open elsewhere may be closed at any time."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += Path(os.readlink(descriptor)).is_relative_to(folder)
    return found


def test_loading_a_state_leaves_no_file_open(tmp_path: Path) -> None:
    store = opened(tmp_path)
    before = files_open_in(tmp_path)
    for _ in range(3):
        store.load_state(store.state())
    assert files_open_in(tmp_path) == before
    store.close()


def test_a_state_that_does_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, oracle = opened(tmp_path), Oracle()
    write(store, oracle, ("batch", "train", [1], [0.5], [1]), 1)
    state = store.state()
    assert sorted({key.partition("/")[0] for key in state}) == ["train", "val"]
    with pytest.raises(Invalid, match=r"'train/loss' has shape \[2\], but the split has 6 samples"):
        store.load_state({**state, "train/loss": np.zeros(2)})
    with pytest.raises(Invalid, match="'train/colour' is no sample column"):
        store.load_state({"train/colour": np.zeros(6)})
    check(store, oracle.splits)
    write(store, oracle, ("batch", "val", [1], [0.5], [1]), 1)
    store.load_state({**{key: value for key, value in state.items() if "train" in key}, "gone/loss": np.zeros(2)})
    assert "no split gone any more" in caplog.text
    oracle.splits["val"] = [unseen() for _ in range(3)]
    check(store, oracle.splits)
    store.close()
    check(SampleStore(tmp_path, read_only=True), oracle.splits)


def test_bad_batches_change_nothing(tmp_path: Path) -> None:
    store, oracle = opened(tmp_path), Oracle()
    with pytest.raises(NotFound, match="no split 'test'; there are train, val"):
        store.record_batch("test", [0], [0.5], None, 1)
    with pytest.raises(NotFound, match="no sample 6"):
        store.record_batch("train", [0, 6], [0.5, 0.5], None, 1)
    with pytest.raises(NotFound, match="no sample -1"):
        store.set_discarded("train", [-1], True)
    for values, predictions in (([0.5], None), ([0.5, 0.5], [1]), ([[0.5, 0.5]], None)):
        with pytest.raises(Invalid, match="as many losses and predictions"):
            store.record_batch("train", [0, 1], values, predictions, 1)
    check(store, oracle.splits)
    assert len(list(read_records(tmp_path / "samples-0.log", b"SAMP", 2))) == 2
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.record_batch("train", [0], [0.5], None, 1)
    check(store, oracle.splits)


def test_a_selection_is_kept_until_something_changes(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.record_batch("train", [3, 4], [0.5, 0.75], [3, 3], 1)
    seen = store.select(SampleFilter(origin="train", min_loss=0), "loss", descending=True)
    assert seen.row.tolist() == [4, 3]
    assert store.select(SampleFilter(origin="train", min_loss=0), "loss", descending=True) is seen
    store.set_discarded("train", [4], True)
    assert store.select(SampleFilter(origin="train", min_loss=0, discarded=False), "loss").row.tolist() == [3]
    for row in range(6):
        store.select(SampleFilter(id_contains=str(row)))
        store.select(SampleFilter(id_contains=str(row)), "label")
    assert len(store._selections) == 8
    summary = store.summary()
    assert (summary["train"].seen, summary["train"].wrong, summary["train"].discarded) == (2, 1, 1)
    assert summary["val"].seen == 0
    store.close()


def test_a_reader_follows_when_asked(tmp_path: Path) -> None:
    empty = SampleStore(tmp_path, read_only=True)
    assert empty.splits == {}
    with pytest.raises(Refused, match="reading only"):
        empty.add_split("train", 1)
    store, oracle = opened(tmp_path), Oracle()
    write(store, oracle, ("batch", "train", [1], [0.5], [1]), 1)
    empty.refresh()
    check(empty, oracle.splits)
    store.snapshot()
    write(store, oracle, ("batch", "train", [1], [0.5], [1]), 2)
    empty.refresh()
    check(empty, oracle.splits)
    version = empty.discard_version
    empty.refresh()
    assert empty.discard_version == version
    empty.sync()
    empty.close()
    store.close()
    with pytest.raises(StorageError, match="cannot read the run folder"):
        SampleStore(tmp_path / "missing")


def test_a_log_that_is_full_is_synced_before_anything_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the beginning of a new log and the end of the old one's sync, somebody else asks for one."""
    store, oracle = opened(tmp_path), Oracle()
    write(store, oracle, ("discard", "train", [1], True), 1)
    synced: list[int] = []
    fdatasync = os.fdatasync

    def fail(descriptor: int) -> None:
        if len(synced) < 2:
            synced.append(descriptor)
            raise OSError(5, "Input/output error")
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageError, match=r"cannot sync .*samples-0\.log"):
        store.snapshot()
    write(store, oracle, ("discard", "train", [2], True), 2)
    with pytest.raises(StorageError, match=r"cannot sync .*samples-0\.log"):
        store.sync()
    assert files_open_in(tmp_path) == 2
    store.sync()
    assert store.snapshot() and files_open_in(tmp_path) == 1
    store.close()
    check(SampleStore(tmp_path, read_only=True), oracle.splits)
