"""A network trains, people edit its samples, and the process is killed with `kill -9` at any moment, again and again.

No edit that was acknowledged is lost, the files of every moment can be read, and in the end every number of every
sample is what it is where nobody kills.

Run as a program (`python tests/test_samples_killed.py`) this file is what the killed processes are forked from: for
each line "ROOT SEED SNAPSHOTS" it starts one, and tells when it is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graybox.commands import (
    Command,
    CopyColumn,
    CorrectLabels,
    DeleteColumn,
    DiscardSamples,
    TagSamples,
    WeighSamples,
)
from graybox.store.journal import Journal
from graybox.store.root import Root
from graybox.store.samples import SampleStore

COUNTS = {"train": 60, "val": 24}
BATCH = 8
LAST_STEP = 40
CLASSES = 3
Sample = tuple[str, int]


@dataclass
class Noted:
    """What people noted of the samples, edit by edit."""

    discarded: set[Sample] = field(default_factory=set)
    tags: dict[str, set[Sample]] = field(default_factory=dict)
    labels: dict[Sample, int] = field(default_factory=dict)
    weights: dict[Sample, float] = field(default_factory=dict)
    copies: set[str] = field(default_factory=set)

    @classmethod
    def on_disk(cls, store: SampleStore) -> Noted:
        found = cls()
        for split, columns in store.splits.items():
            notes = columns.notes
            found.discarded |= {(split, int(row)) for row in np.flatnonzero(columns.discarded)}
            for tag, column in notes.tags.items():
                found.tags.setdefault(tag, set()).update((split, int(row)) for row in np.flatnonzero(column))
            corrected = notes.corrections(np.arange(columns.count))
            found.labels |= {(split, int(row)): int(corrected[row]) for row in np.flatnonzero(corrected >= 0)}
            weights = notes.weights()
            found.weights |= {(split, int(row)): float(weights[row]) for row in np.flatnonzero(weights != 1)}
            found.copies |= set(notes.copies)
        return found


@dataclass(frozen=True)
class Edit:
    """At which step it is made; what; and what is noted after it."""

    step: int
    command: Command
    after: str


def schedule(seed: int) -> list[Edit]:
    """Edits at random, worked out one after the other."""
    choose, noted, made = random.Random(seed), Noted(), list[Edit]()
    for step in range(1, LAST_STEP):
        for _ in range(choose.choice([0, 0, 1, 1, 2])):
            made.append(Edit(step, next_edit(choose, noted, len(made)), as_text(noted)))
    return made


def next_edit(choose: random.Random, noted: Noted, number: int) -> Command:
    split = choose.choice(["train", "train", "val"])
    samples = [(split, choose.randrange(COUNTS[split])) for _ in range(choose.randint(1, 6))]
    named = tuple((split, str(row)) for split, row in samples)
    kind = choose.choice(["discard", "restore", "tag", "untag", "label", "weigh", "copy", "delete"])
    if kind == "discard" and len(noted.discarded | set(samples)) < 20:
        noted.discarded |= set(samples)
        return DiscardSamples(named)
    if kind == "untag":
        tag = choose.choice(["hard", "odd"])
        noted.tags[tag] = noted.tags.get(tag, set()) - set(samples)
        return TagSamples(named, tag=tag, value=False)
    if kind == "label":
        label = choose.choice([None, *range(CLASSES)])
        for sample in samples:
            noted.labels.pop(sample, None)
            if label is not None:
                noted.labels[sample] = label
        return CorrectLabels(named, label=label)
    if kind == "weigh" and split == "train":
        weight = choose.choice([0.5, 1.0, 2.0])
        for sample in samples:
            noted.weights.pop(sample, None)
            if weight != 1:
                noted.weights[sample] = weight
        return WeighSamples(named, weight=weight)
    if kind == "copy" and len(noted.copies) < 4:
        noted.copies.add(f"copy {number}")
        return CopyColumn(choose.choice(["loss", "encounters", "aum", "label"]), f"copy {number}")
    if kind == "delete" and noted.copies:
        name = choose.choice(sorted(noted.copies))
        noted.copies.remove(name)
        return DeleteColumn(name)
    if kind == "tag":
        tag = choose.choice(["hard", "odd"])
        noted.tags.setdefault(tag, set()).update(samples)
        return TagSamples(named, tag=tag)
    noted.discarded -= set(samples)
    return DiscardSamples(named, discarded=False)


def as_text(noted: Noted) -> str:
    """To be compared."""
    parts = {
        "discarded": sorted(noted.discarded),
        "tags": {tag: sorted(samples) for tag, samples in sorted(noted.tags.items()) if samples},
        "labels": sorted(noted.labels.items()),
        "weights": sorted(noted.weights.items()),
        "copies": sorted(noted.copies),
    }
    return json.dumps(parts)


# -- the process that is killed ------------------------------------------------------------------------


def work(root: str, seed: int, snapshots: str) -> None:
    """Train to the end, with the edits of the schedule, and tell of every step and every acknowledgement.

    snapshots: "thread" or "process", which makes them, much more often than in earnest; "none".
    """
    from graybox.launch import launch
    from graybox.store import sample_compaction
    from tests.small_experiments import toy_data, toy_experiment

    edits = schedule(seed)
    experiment = toy_experiment(
        train_dataset=toy_data(COUNTS["train"]), eval_dataset=toy_data(COUNTS["val"], seed=1), batch_size=BATCH,
        full_eval_frequency=7, checkpoint_frequency=4,
    )  # fmt: skip
    training = launch(experiment, root_directory=root)
    stores, trainer, session = training.stores, training.trainer, training.trainer.session
    if snapshots != "none":
        sample_compaction.IN_THE_THREAD = 0 if snapshots == "process" else 1 << 40
        stores.flusher.every(0.02, stores.samples.snapshot, apart=True)
        stores.flusher.every(0.01, stores.samples.sync)
    sent = -1
    while True:
        done = len(edits_in(stores.journal))
        recovering = trainer.latest().state.value in ("starting", "recovering")
        while not recovering and (number := max(done, sent + 1)) < len(edits) and edits[number].step == session.step:
            sent = number
            future = trainer.submit(edits[number].command, command_id=f"edit-{number}")
            future.add_done_callback(lambda future, number=number: tell(f"ACK {number} {future.result().sequence}"))
        if session.step >= LAST_STEP and done == len(edits):
            break
        before = session.step
        trainer.tick()
        if session.step > before:
            rows = np.arange(session.step, session.step + 5) % COUNTS["train"]
            experiment.datasets["train"].log_signal("walk", rows, rows * session.step)
            tell(f"STEP {session.step} {session.age} {int(recovering)}")
        time.sleep(0.001)  # so that a kill can come between any two lines
    training.stores.close()
    tell("END")


def edits_in(journal: Journal) -> list[int]:
    """The sequences of the edits that were made."""
    return [entry.sequence for entry in journal.entries() if "command_id" in entry.arguments]


def tell(line: str) -> None:
    """One write a line, since several threads and processes tell."""
    os.write(1, f"{line}\n".encode())


def fork_workers() -> None:
    """torch is loaded once, and not for each of the many that are killed."""
    import tests.small_experiments  # noqa: F401

    tell("READY")
    for line in sys.stdin:
        root, seed, snapshots = line.split()
        pid = os.fork()
        if not pid:
            work(root, int(seed), snapshots)
            os._exit(0)
        tell(f"PID {pid}")
        tell(f"GONE {os.waitpid(pid, 0)[1]}")


# -- who kills it --------------------------------------------------------------------------------------


@dataclass
class Life:
    """What one process told before its end. age: of the last step; told: of the last edit that was acknowledged."""

    ended: bool = False
    recovered: bool = False
    age: int | None = None
    acknowledged: dict[int, int] = field(default_factory=dict)


class Nursery:
    """Starts workers, one at a time, and kills them."""

    def __init__(self) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parent.parent, env={**environment, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
        assert self._line() == ["READY"]

    def life(self, root: Path, seed: int, snapshots: str, kill_after: tuple[int, float] | None) -> Life:
        """kill_after: steps, and seconds after the last of them; None: it may live to its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{root} {seed} {snapshots}\n")
        self._process.stdin.flush()
        life, steps, pid = Life(), 0, 0
        while True:
            word, *rest = self._line()
            if word == "PID":
                pid = int(rest[0])
            elif word == "STEP":
                steps += 1
                life.age, life.recovered = int(rest[1]), rest[2] == "0"
            elif word == "ACK":
                life.acknowledged[int(rest[0])] = int(rest[1])
            elif word == "END":
                life.ended = True
            elif word == "GONE":
                assert int(rest[0]) == (0 if life.ended else signal.SIGKILL), "it ended by itself"
                return life
            if kill_after is not None and pid and steps >= kill_after[0]:
                time.sleep(kill_after[1])
                os.kill(pid, signal.SIGKILL)
                kill_after = None

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert words, "the process that others are forked from is gone"
        return words

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def look(root: Path, seed: int, life: Life, acknowledged: dict[int, int]) -> None:
    """What a kill has left, as anybody reads it."""
    run = Root(root, read_only=True).latest_run()
    if run is None or not (run.path / "journal.jsonl").exists():
        assert not acknowledged
        return
    store, edits = SampleStore(run.path, read_only=True), schedule(seed)
    sequences = edits_in(Journal(run.path / "journal.jsonl", read_only=True))
    assert {number: sequences[number] for number in acknowledged} == acknowledged, "an acknowledged edit is lost"
    if life.age is not None:
        # Not even the flush that was due is missing; a step may have been made that was not told of yet.
        on_disk = int(store.splits["train"].last_age.max())
        assert life.age <= on_disk <= life.age + BATCH + 1
    if life.recovered:
        # Until then the samples are those of the checkpoint it goes on from, and the edits are in the journal.
        prefixes = [as_text(Noted()), *(edit.after for edit in edits)]
        assert as_text(Noted.on_disk(store)) in prefixes[len(sequences) : len(sequences) + 2]


def columns_of(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every bit that is kept of the samples."""
    run = Root(root, read_only=True).latest_run()
    assert run is not None
    store = SampleStore(run.path, read_only=True)
    found = {key: (array.dtype, array.shape, array.tobytes()) for key, array in store.state().items()}
    labels = {name: columns.label.tolist() for name, columns in store.splits.items()}
    return {**found, "labels": tuple(labels.items())}


def kill_again_and_again(nursery: Nursery, folder: Path, kills: int, seed: int) -> None:
    choose = random.Random(seed)
    made = 0
    while made < kills:
        seed += 1
        undisturbed, root = folder / f"undisturbed-{seed}", folder / f"killed-{seed}"
        assert nursery.life(undisturbed, seed, "none", None).ended
        expected = columns_of(undisturbed)
        acknowledged: dict[int, int] = {}
        life = Life()
        while not life.ended:
            kill = None if made >= kills else (choose.choice([0, 1, 3, 8, 13, 21]), choose.uniform(0, 0.05))
            if kill is not None and not kill[0]:
                kill = (0, choose.uniform(0, 1.5))  # while it opens its files and recovers
            life = nursery.life(root, seed, choose.choice(["thread", "process"]), kill)
            made += not life.ended
            acknowledged |= life.acknowledged
            look(root, seed, life, acknowledged)
        assert sorted(acknowledged) == sorted(acknowledged.keys() & range(len(schedule(seed))))
        assert as_text(Noted.on_disk(SampleStore(latest(root), read_only=True))) == schedule(seed)[-1].after
        found = columns_of(root)
        assert [key for key in expected if found.get(key) != expected[key]] == [] and found.keys() == expected.keys()


def latest(root: Path) -> Path:
    run = Root(root, read_only=True).latest_run()
    assert run is not None
    return run.path


def test_five_kills_lose_nothing(nursery: Nursery, tmp_path: Path) -> None:
    kill_again_and_again(nursery, tmp_path, 5, seed=100)


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(nursery: Nursery, tmp_path: Path) -> None:
    kill_again_and_again(nursery, tmp_path, 100, seed=200)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        fork_workers()
