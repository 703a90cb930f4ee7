"""The store as a whole: what it imports, and what a killed process leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graybox.store.journal import Journal
from graybox.store.metrics import MetricStore
from graybox.store.samples import SampleStore
from tests.patience import PATIENCE

REPOSITORY = Path(__file__).parents[2]
COUNT = 500

WRITER = """
import os, sys
import numpy as np
from graybox.store.flusher import Flusher
from graybox.store.journal import Journal
from graybox.store.metrics import MetricStore
from graybox.store.samples import SampleStore

folder = sys.argv[1]
samples, metrics, journal = SampleStore(folder), MetricStore(folder), Journal(folder + "/journal.jsonl")
samples.add_split("train", 500, np.arange(500) % 10, "f")
flusher = Flusher(interval=0.01)
for store in (samples, metrics, journal):
    flusher.watch(store)
flusher.every(0.01, samples.snapshot)
for step in range(10**9):
    generator = np.random.default_rng(step)
    rows = generator.integers(0, 500, 16)
    samples.record_batch("train", rows, generator.random(16, dtype=np.float32), rows % 7, step)
    metrics.append(branch=0, step=step, age=step * 16, time_ms=0, values={("train", "loss"): float(step)})
    if step % 10 == 0:
        samples.set_discarded("train", [step % 500], step % 3 > 0)
        journal.append(time_ms=0, actor="", kind="sample_discard", step=step, age=0, branch=0, summary=str(step))
    os.write(1, b"%d\\n" % step)
"""


def expected_encounters(steps: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found = np.zeros(COUNT, dtype=np.int64)
    for step in range(steps):
        np.add.at(found, np.random.default_rng(step).integers(0, COUNT, 16), 1)
    return found


def expected_flags(steps: int) -> list[bool]:
    found = [False] * COUNT
    for step in range(0, steps, 10):
        found[step % COUNT] = step % 3 > 0
    return found


def killed_writer(folder: Path, steps: int) -> int:
    """Start a writer, kill it some steps later; how many steps it had acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], cwd=REPOSITORY, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(steps):
            assert writer.stdout.readline(), "the writer ended by itself"
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
    return int(rest[-1]) + 1 if rest else steps


@pytest.mark.parametrize("steps", [1, 137, 400, 790])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, steps: int) -> None:
    done = killed_writer(tmp_path, steps)
    for read_only in (True, False):  # False repairs what is torn
        samples = SampleStore(tmp_path, read_only=read_only)
        metrics = MetricStore(tmp_path, read_only=read_only)
        journal = Journal(tmp_path / "journal.jsonl", read_only=read_only)
        # The step after the last acknowledged one may have been written in part: samples, metrics, flags, journal.
        values = metrics.read(full=True).points.value.tolist()
        assert values in ([float(step) for step in range(done)], [float(step) for step in range(done + 1)])
        columns = samples.splits["train"]
        recorded = int(columns.encounters.sum()) // 16
        assert len(values) <= recorded <= done + 1
        np.testing.assert_array_equal(columns.encounters, expected_encounters(recorded))
        assert columns.discarded.tolist() in (expected_flags(done), expected_flags(done + 1))
        entries = [entry.step for entry in journal.entries()]
        assert entries in (list(range(0, done, 10)), list(range(0, done + 1, 10)))
        for store in (samples, metrics, journal):
            store.close()


def test_the_store_is_free_of_torch_and_of_the_core() -> None:
    script = (
        "import pkgutil, importlib, sys, graybox.store\n"
        "for module in pkgutil.iter_modules(graybox.store.__path__):\n"
        "    importlib.import_module('graybox.store.' + module.name)\n"
        "ours = {name for name in sys.modules if name.startswith('graybox.')}\n"
        "ours = {name for name in ours if not name.startswith('graybox.store')}\n"
        "assert ours == {'graybox.errors'}, ours\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, timeout=PATIENCE)
