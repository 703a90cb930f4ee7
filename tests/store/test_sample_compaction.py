"""Snapshots that a process of its own works out: the same as in the thread, whatever becomes of the process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from graybox.errors import StorageError
from graybox.store import sample_compaction
from graybox.store.sample_columns import Ratings
from graybox.store.samples import SampleStore
from tests.patience import PATIENCE, wait_until

COUNT = 300


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_compaction, "IN_THE_THREAD", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SampleStore]:
    folder = tmp_path / "run"
    folder.mkdir()
    made = SampleStore(folder)
    made.add_split("train", COUNT, np.arange(COUNT) % 3, "f")
    made.add_split("a val", 5, None)
    train(made, 20)
    yield made
    made.close()


def train(store: SampleStore, batches: int, seed: int = 0) -> None:
    """Everything that a log can hold."""
    random = np.random.default_rng(seed)
    for age in range(batches):
        rows = random.integers(0, COUNT, 16)
        ratings = Ratings(random.random(16, dtype=np.float32), random.normal(size=16).astype(np.float32))
        store.record_batch(
            "train", rows, random.random(16), random.integers(0, 3, 16), age, ratings if age % 2 else None
        )
        store.set_discarded("train", rows[:2], bool(age % 3))
        store.set_tag("train", f"tag {age % 4}", rows[2:6], True)
        store.log_signal("train", "entropy", rows, random.random(16))
        store.correct_labels("train", rows[6:8], [0, 2])
        store.set_weights("train", rows[8:10], [0.5, 2])
    store.keep_column("train", f"copy {seed}", np.arange(COUNT))


def content(store: SampleStore) -> dict[str, Any]:
    return {name: array.tolist() for name, array in store.state().items()}


def datasets(path: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    with h5py.File(path) as file:
        found["/"] = (sorted(file.attrs.items()),)

        def look(name: str, item: Any) -> None:
            value = (item[()].tobytes(), item.shape, item.dtype) if isinstance(item, h5py.Dataset) else ()
            found[name] = (sorted(item.attrs.items()), *value)

        file.visititems(look)
    return found


def files(store: SampleStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def pid_of(store: SampleStore) -> int:
    """The process that is at work, held still."""
    wait_until(lambda: store._compaction._child is not None, "the process to begin")
    child = store._compaction._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    return child.pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Snapshot(threading.Thread):
    """One that is made in a thread, as training has it."""

    def __init__(self, store: SampleStore) -> None:
        super().__init__()
        self.store = store
        self.answer: bool | StorageError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.store.snapshot()
        except StorageError as error:
            self.answer = error

    def outcome(self) -> bool | StorageError | None:
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.answer


def test_the_process_writes_what_the_thread_would(
    store: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        twin = tmp_path / f"twin{seed}"
        shutil.copytree(store.folder, twin)
        other = SampleStore(twin)
        with monkeypatch.context() as patch:
            patch.setattr(sample_compaction, "IN_THE_THREAD", 1 << 40)
            patch.setattr(sample_compaction, "_start", lambda *_: pytest.fail("a process was started"))
            assert other.snapshot()
        assert store.snapshot() and not store.snapshot()
        assert files(store) == files(other) == [f"samples-{seed}.log", "samples.h5"]
        written = datasets(store.folder / "samples.h5")
        assert written == datasets(twin / "samples.h5")
        assert written["splits/train/loss"][0][0][0] == "crc32"
        other.close()
        train(store, 5, seed)
    expected = repr(content(store))
    store.close()
    assert repr(content(SampleStore(store.folder, read_only=True))) == expected


def test_the_process_loads_little() -> None:
    code = "import sys, graybox.store.compact; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "h5py"} <= loaded and not loaded & {"torch", "torchvision", "pandas", "scipy", "grpc", "sklearn"}


def test_a_process_that_is_killed_costs_nothing(store: SampleStore) -> None:
    assert store.snapshot()
    train(store, 3, 7)
    before = (store.folder / "samples.h5").read_bytes()
    for _ in range(2):
        snapshot = Snapshot(store)
        os.kill(pid_of(store), signal.SIGKILL)
        failure = snapshot.outcome()
        assert isinstance(failure, StorageError) and "ended with -9" in str(failure)
        assert (store.folder / "samples.h5").read_bytes() == before
        assert repr(content(SampleStore(store.folder, read_only=True))) == repr(content(store))
        train(store, 1, 8)
        store.drop_column("train", "copy 8")
    assert files(store) == ["samples-1.log", "samples-2.log", "samples-3.log", "samples.h5"]
    assert store.snapshot()
    assert files(store) == ["samples-4.log", "samples.h5"]
    assert repr(content(SampleStore(store.folder, read_only=True))) == repr(content(store))


def test_without_a_program_to_start_it_is_tried_again(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for program, reason in (("", "does not know its own program"), ("/nowhere/python", "No such file")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", program)
            with pytest.raises(StorageError, match=reason):
                store.snapshot()
    assert repr(content(SampleStore(store.folder, read_only=True))) == repr(content(store))
    assert store.snapshot()
    assert repr(content(SampleStore(store.folder, read_only=True))) == repr(content(store))


def test_what_the_process_complains_of_is_the_reason(store: SampleStore) -> None:
    (store.folder / "samples.h5").write_bytes(b"no HDF5 at all")
    with pytest.raises(StorageError, match=r"samples\.h5 is broken"):
        store.snapshot()
    assert files(store) == ["samples-0.log", "samples-1.log", "samples.h5"]


def test_a_broken_log_is_told_of(store: SampleStore, caplog: pytest.LogCaptureFixture) -> None:
    path = store.folder / "samples-0.log"
    path.write_bytes(path.read_bytes()[:-1])
    assert store.snapshot()
    assert "samples-0.log is broken after byte" in caplog.text


def test_a_file_that_was_cut_short_is_not_taken_over(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    communicate = subprocess.Popen.communicate

    def cut(child: Any, *arguments: Any, **named: Any) -> Any:
        answer = communicate(child, *arguments, **named)
        (target,) = store.folder.glob(".samples.h5.*.tmp")
        os.truncate(target, 1_000)
        return answer

    monkeypatch.setattr(subprocess.Popen, "communicate", cut)
    with pytest.raises(StorageError, match="has 1000 bytes, not the"):
        store.snapshot()
    assert files(store) == ["samples-0.log", "samples-1.log"]


def test_closing_ends_the_process(store: SampleStore) -> None:
    expected = repr(content(store))
    snapshot = Snapshot(store)
    pid = pid_of(store)
    store.close()
    assert snapshot.outcome() is False and not is_running(pid)
    assert files(store) == ["samples-0.log", "samples-1.log"]
    again = SampleStore(store.folder)
    assert repr(content(again)) == expected
    again.close()


def test_a_state_of_before_is_not_overtaken(store: SampleStore) -> None:
    state = store.state()
    train(store, 3, 9)
    snapshot = Snapshot(store)
    pid = pid_of(store)
    store.load_state(state)
    assert snapshot.outcome() is False and not is_running(pid)
    assert files(store) == ["samples-2.log", "samples.h5"]
    assert repr(content(SampleStore(store.folder, read_only=True))) == repr(content(store))
    train(store, 1, 10)
    assert store.snapshot()
    assert repr(content(SampleStore(store.folder, read_only=True))) == repr(content(store))


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "samples-0.log")  # whoever reads it waits for ever
    start = f"""if True:
        import subprocess, sys, time
        from pathlib import Path
        from graybox.store.sample_compaction import _start
        child = _start(Path({str(tmp_path)!r}), 1, Path({str(tmp_path / "target")!r}))
        print(child.pid, flush=True)
        time.sleep(10_000)
    """
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 10, "the process to give way and begin")
        assert os.getpgid(pid) == pid, "Ctrl-C in the terminal would end it"
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_until(lambda: not is_running(pid), "the process, which has outlived its parent")
