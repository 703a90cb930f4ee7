from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from graybox.errors import NotFound, Refused, StorageError
from graybox.store.root import Root
from tests.patience import PATIENCE

REPOSITORY = Path(__file__).parents[2]


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    root = Root(tmp_path / "a" / "b")
    assert root.path.is_dir()
    assert root.runs() == []
    assert root.latest_run() is None


def test_what_cannot_be_a_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "file"))):
        Root(tmp_path / "file")
    with pytest.raises(StorageError, match="file/below"):
        Root(tmp_path / "file" / "below")


UNWRITABLE = """
import os, sys
from graybox.errors import StorageError
from graybox.store.root import Root
if os.getuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    Root(sys.argv[1])
except StorageError as error:
    print(error)
print(Root(sys.argv[1], read_only=True).runs())
"""


def test_an_unwritable_folder_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:  # in a place that everybody may pass through
        os.chmod(folder, 0o555)
        answer = subprocess.run(
            [sys.executable, "-c", UNWRITABLE, folder], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE
        )
        os.chmod(folder, 0o755)
    assert answer.stdout.splitlines() == [
        f"the root directory {folder} cannot be written; choose another or allow writing",
        "[]",
    ], answer.stderr


def test_reading_makes_nothing(tmp_path: Path) -> None:
    root = Root(tmp_path / "missing", read_only=True)
    assert root.runs() == []
    with pytest.raises(Refused, match="reading only"):
        root.create_run("x")
    assert not root.path.exists()


def test_runs_are_listed_oldest_first_and_found_by_id(tmp_path: Path) -> None:
    root = Root(tmp_path)
    made = []
    for name in ("Digits!", "", "Ünï / ../ code " * 20):
        made.append(root.create_run(name))
        time.sleep(0.002)
    assert re.fullmatch(r"\d{8}-\d{6}-digits-[0-9a-f]{4}", made[0].run_id)
    assert re.fullmatch(r"\d{8}-\d{6}-run-[0-9a-f]{4}", made[1].run_id)
    assert [run.run_id for run in root.runs()] == [run.run_id for run in made]
    latest = root.latest_run()
    assert latest is not None and latest.run_id == made[-1].run_id
    assert root.run(made[1].run_id).record == made[1].record


@pytest.mark.parametrize("run_id", ["", ".", "..", "../other", "a/b", "/etc", "missing", "-x", "a\n", "a" * 200])
def test_ids_reach_no_path(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "other").mkdir()
    root = Root(tmp_path / "root")
    with pytest.raises(NotFound):
        root.run(run_id)


def test_a_broken_run_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = Root(tmp_path)
    good, bad = root.create_run("good"), root.create_run("bad")
    (tmp_path / "no-run").mkdir()
    (bad.path / "run.json").write_bytes(b"{")
    assert [run.run_id for run in root.runs()] == [good.run_id]
    assert bad.run_id in caplog.text and "no-run" not in caplog.text


HOLDER = """
import sys
from graybox.store.root import Root
lock = Root(sys.argv[1]).lock()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_backend_per_root(tmp_path: Path) -> None:
    root = Root(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdin is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match=rf"another backend \(process {holder.pid}\) works in {tmp_path}"):
            root.lock()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=PATIENCE)
        holder.stdin.close()
        holder.stdout.close()
    with root.lock() as lock:
        assert (tmp_path / ".graybox.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(Refused, match=str(os.getpid())):
            Root(tmp_path).lock()
    lock.release()
    root.lock().release()


def test_locking_clears_away_what_killed_writers_left(tmp_path: Path) -> None:
    root = Root(tmp_path)
    folder = root.create_run("x").path / "checkpoints"
    folder.mkdir()
    leftover = folder / ".000001.pt.4194305-0123abcd.tmp"  # above the largest process id there can be
    leftover.write_bytes(b"half a checkpoint")
    root.lock().release()
    assert not leftover.exists()
