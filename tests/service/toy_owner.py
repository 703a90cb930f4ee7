"""A small owner of a toy network: a real thread that applies commands to arrays in memory, over real stores.

It keeps the promises of graybox.commands and graybox.snapshot (one command at a time, in order, all or nothing, an id
once, a deadline), so that the service is tested over the wire without torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from graybox import commands as cmd
from graybox.errors import DeadlinePassed, Invalid, Refused
from graybox.service.backend import Backend
from graybox.snapshot import HyperParameter, NeuronStatistics, SamplePicture, Snapshot, TrainerState
from graybox.store.checkpoints import CheckpointCatalogue, CheckpointRecord
from graybox.store.evaluation_report import CANCELLED, RUNNING, START, EvaluationReport
from graybox.store.journal import Journal
from graybox.store.metrics import MetricStore
from graybox.store.root import Root
from graybox.store.samples import SampleStore
from graybox.store.undo_order import UNDOABLE, next_to_undo
from tests.patience import PATIENCE
from tests.service.toy_neurons import ToyLayer, ToyNetwork, statistics_of

CLASSES = ("cat", "dog", "fish")
SPLITS = {"train": 40, "val": 12}
UNREADABLE = "7"
"""A sample whose picture cannot be loaded, as the data set says."""
EXPLOSIVE = "8"
"""A sample whose data set has a defect."""
SEGMENTED = "9"
"""A sample with a mask, and a note on its picture."""

RULES: dict[str, tuple[type, float | None, bool]] = {
    "experiment_name": (str, None, False),
    "training_steps_to_do": (int, 0, False),
    "learning_rate": (float, 0, True),
    "batch_size": (int, 1, False),
    "full_eval_frequency": (int, 0, False),
    "checkpoint_frequency": (int, 0, False),
}


class ToyOwner:
    """Commands, Snapshots and Images of a toy run."""

    def __init__(self, root: Root, name: str = "toy") -> None:
        self.root = root
        self.run = root.create_run(name)
        self.metrics = MetricStore(self.run.path)
        self.samples = SampleStore(self.run.path)
        for split, count in SPLITS.items():
            self.samples.add_split(split, count, np.arange(count, dtype=np.int64) % len(CLASSES), "toy")
        self.journal = Journal(self.run.path / "journal.jsonl")
        self.checkpoints = CheckpointCatalogue(self.run.path / "checkpoints")
        self.hyper_parameters: dict[str, Any] = {
            "experiment_name": name,
            "training_steps_to_do": 100,
            "learning_rate": 0.01,
            "batch_size": 8,
            "full_eval_frequency": 0,
            "checkpoint_frequency": 0,
        }
        self.network = ToyNetwork()
        self._undo_by: dict[int, Callable[[], None]] = {}
        self.state = TrainerState.RUNNING
        self.mode = cmd.TRAIN
        self.evaluation: EvaluationReport | None = None
        self.step = 0
        self.branch = 0
        self.applied: list[cmd.Command] = []
        self.timeouts: list[float | None] = []
        self.actors: list[str] = []
        self.image_threads: set[str] = set()
        self._futures: dict[str, Future[cmd.Outcome]] = {}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="toy-owner", daemon=True)
        self._thread.start()

    def backend(self) -> Backend:
        return Backend(
            run=self.run,
            root=self.root,
            commands=self,
            snapshots=self,
            images=self,
            metrics=self.metrics,
            samples=self.samples,
            journal=self.journal,
            checkpoints=self.checkpoints,
        )

    def close(self) -> None:
        self._free.set()
        self._queue.put(None)
        self._thread.join(PATIENCE)
        for store in (self.metrics, self.samples, self.journal):
            store.sync()
            store.close()

    def train(self, steps: int = 1) -> None:
        """Some steps' worth of statistics and metrics."""
        for _ in range(steps):
            self.step += 1
            rows = np.arange(8, dtype=np.int64) + 8 * (self.step % 4)
            losses = (rows % 5).astype(np.float32) / 4
            self.samples.record_batch("train", rows, losses, rows % len(CLASSES), self.step * 8)
            self.metrics.append(
                branch=self.branch,
                step=self.step,
                age=self.step * 8,
                time_ms=1_700_000_000_000 + self.step,
                values={("train", "loss"): 1 / self.step, ("train", "accuracy"): 0.5},
                experiment_hash="cafe",
            )

    @contextmanager
    def busy(self) -> Iterator[None]:
        """For as long as the block lasts a step does not end, so that no command is taken."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def fingerprint(self) -> str:
        """Changes with anything that a command can change."""
        parts = [json.dumps(self.hyper_parameters, sort_keys=True), str(self.state), str(self.journal.last_sequence)]
        parts += [str(len(self.checkpoints.list())), str(self.branch), self.mode]
        parts += [str(columns.discarded.tolist()) for columns in self.samples.splits.values()]
        for layer in self.layers:
            arrays = (layer.weight, layer.bias, layer.frozen, layer.rate, layer.bias_frozen, layer.incoming_frozen)
            parts += [f"{part.shape} {part.tobytes()!r}" for part in arrays]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    # -- Commands

    def submit(
        self, command: cmd.Command, *, command_id: str = "", actor: str = "", timeout: float | None = None
    ) -> Future[cmd.Outcome]:
        deadline = time.monotonic() + min(cmd.MAX_WAIT_SECONDS, cmd.MAX_WAIT_SECONDS if timeout is None else timeout)
        with self._lock:
            if command_id in self._futures:
                return self._futures[command_id]
            future: Future[cmd.Outcome] = Future()
            if command_id:
                self._futures[command_id] = future
            self.timeouts.append(timeout)

        def work() -> None:
            if time.monotonic() > deadline:
                future.set_exception(DeadlinePassed("waited too long for its turn; nothing was changed"))
                return
            try:
                outcome = self._apply(command, actor)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(outcome)

        self._queue.put(work)
        return future

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            self._free.wait()
            work()

    def _apply(self, command: cmd.Command, actor: str) -> cmd.Outcome:
        outcome = self._do(command, actor)
        self.applied.append(command)
        self.actors.append(actor)
        return outcome

    def _do(self, command: cmd.Command, actor: str) -> cmd.Outcome:
        match command:
            case cmd.Pause():
                self.state = TrainerState.PAUSED
                return self._note(actor, "pause", "paused")
            case cmd.Resume():
                if self.hyper_parameters["training_steps_to_do"] == 0:
                    raise Refused("no steps are left; set training_steps_to_do first")
                self.state = TrainerState.RUNNING
                return self._note(actor, "resume", "training on")
            case cmd.SetHyperParameters(changes):
                check_hyper_parameters(dict(changes))
                before = {name: self.hyper_parameters[name] for name in changes}
                self.hyper_parameters.update(changes)
                outcome = self._note(actor, "hp_change", "changed " + ", ".join(changes), dict(changes))
                self._undo_by[outcome.sequence] = lambda: self.hyper_parameters.update(before)
                return outcome
            case cmd.EditNeurons():
                return self._edit(command, actor)
            case cmd.Undo(sequence):
                return self._undo(sequence, actor)
            case cmd.Redo():
                raise Refused("there is nothing to redo")
            case cmd.DiscardSamples(samples, discarded):
                return self._discard(samples, discarded, actor)
            case cmd.SaveCheckpoint(name):
                return self._save(name, actor)
            case cmd.RestoreCheckpoint(reference):
                record, weights_only = self.checkpoints.resolve(reference)
                self.state = TrainerState.PAUSED
                if not weights_only:
                    self.branch += 1
                outcome = self._note(actor, "checkpoint_restore", f"back at step {record.step}")
                return cmd.Outcome(outcome.message, outcome.sequence, None if weights_only else self.branch)
            case cmd.SetMode(mode):
                self.mode = mode
                return self._note(actor, "mode_switch", f"switched to {mode}")
            case cmd.StartEvaluation(split):
                if self.evaluation is not None and not self.evaluation.ended:
                    raise Refused("an evaluation is running")
                outcome = self._note(actor, START, f"evaluates {split}")
                self.evaluation = EvaluationReport(outcome.sequence, split, RUNNING, 3, SPLITS[split])
                return outcome
            case cmd.CancelEvaluation(reason):
                if self.evaluation is None or self.evaluation.ended:
                    raise Refused("no evaluation is running")
                self.evaluation = replace(self.evaluation, status=CANCELLED, message=reason)
                return cmd.Outcome(f"cancelled: {reason}")
            case cmd.NoteBranch(branch, name, note):
                self.run.change_branch(branch, name=name, note=note)
                return self._note(actor, "branch_note", "named")
            case cmd.SetPlotNote(split, metric, branch, age, note):
                self.metrics.set_note(split, metric, branch, age, note)
                return self._note(actor, "plot_note", "noted")
            case cmd.ReadWeights(layer, tensor):
                return cmd.Outcome("read", value=getattr(self.network.layer(layer), tensor).copy())
            case cmd.ReadActivations(layer, _, sample):
                found = self.network.layer(layer)
                return cmd.Outcome("read", value=activations(found, int(sample)))
        raise AssertionError(f"unknown command {command}")

    def _discard(self, samples: tuple[tuple[str, str], ...], discarded: bool, actor: str) -> cmd.Outcome:
        rows = {split: np.array([int(i) for s, i in samples if s == split], dtype=np.int64) for split in SPLITS}
        changed = {s: self.samples.set_discarded(s, found, discarded) for s, found in rows.items() if len(found)}
        count = sum(map(len, changed.values()))
        outcome = self._note(actor, "sample_discard", f"{count} samples changed")

        def undo() -> None:
            for split, found in changed.items():
                self.samples.set_discarded(split, found, not discarded)

        self._undo_by[outcome.sequence] = undo
        return cmd.Outcome(outcome.message, outcome.sequence, count)

    @property
    def layers(self) -> list[ToyLayer]:
        return self.network.layers

    def _edit(self, command: cmd.EditNeurons, actor: str) -> cmd.Outcome:
        edits = self.network.resolve(command.edit, command.select)
        plan = self.network.plan(edits, command.measure)
        if command.dry_run:
            return cmd.Outcome("would be applied", value=plan)
        before = self.network.copy()
        for edit in edits:
            self.network.apply(edit)
        outcome = self._note(actor, "neuron_edit", plan.summary, {"edits": [edit.to_json() for edit in edits]})
        self._undo_by[outcome.sequence] = lambda: setattr(self, "network", before)
        return cmd.Outcome(outcome.message, outcome.sequence, plan.text)

    def _undo(self, sequence: int, actor: str) -> cmd.Outcome:
        due = next_to_undo(self.journal.entries())
        if not due:
            raise Refused("there is nothing to undo")
        if sequence and sequence != due:
            raise Refused(f"entry {due} was made or is left since and comes first; entry {sequence} was not undone")
        self._undo_by.pop(due)()
        summary = self.journal.entries(due - 1)[0].summary
        return self._note(actor, "undo", f"Undid: {summary}", {"sequence": due})

    def _save(self, name: str, actor: str) -> cmd.Outcome:
        outcome = self._note(actor, "checkpoint_save", f"saved {name}")
        record = make_record(self, name, outcome.sequence)
        return cmd.Outcome(outcome.message, outcome.sequence, self.checkpoints.add(record))

    def _note(self, actor: str, kind: str, summary: str, arguments: dict[str, Any] | None = None) -> cmd.Outcome:
        entry = self.journal.append(
            time_ms=1, actor=actor, kind=kind, step=self.step, age=self.step * 8, branch=self.branch,
            summary=summary, arguments=arguments or {}, undo={"toy": True} if kind in UNDOABLE else {},
        )  # fmt: skip
        return cmd.Outcome(summary, entry.sequence)

    # -- Snapshots

    def latest(self) -> Snapshot:
        return Snapshot(
            run_id=self.run.run_id,
            state=self.state,
            experiment_name=self.hyper_parameters["experiment_name"],
            step=self.step,
            age=self.step * 8,
            steps_left=self.hyper_parameters["training_steps_to_do"],
            branch=self.branch,
            experiment_hash="cafe",
            train_loss=0.5,
            device="cpu",
            journal_sequence=self.journal.last_sequence,
            time_ms=1_700_000_000_000,
            kind_of_problem="classification",
            class_names=CLASSES,
            mode=self.mode,
            evaluation=self.evaluation,
            hyper_parameters=tuple(
                HyperParameter(
                    name,
                    name.replace("_", " ").capitalize(),
                    {str: "text", int: "integer", float: "number"}[RULES[name][0]],
                    value,
                    RULES[name][1],
                    exclusive_minimum=RULES[name][2],
                )
                for name, value in self.hyper_parameters.items()
            ),
        )

    def neurons(self, timeout: float = 5.0) -> NeuronStatistics:
        return NeuronStatistics(self.step, {layer.info.layer_id: statistics_of(layer) for layer in self.layers})

    # -- Images

    def image(self, split: str, sample_id: str, width: int, height: int, *, overlay: bool = False) -> SamplePicture:
        self.image_threads.add(threading.current_thread().name)
        time.sleep(0.002)
        if sample_id == UNREADABLE:
            raise Refused("the file of sample 7 is cut off")
        if sample_id == EXPLOSIVE:
            raise ZeroDivisionError("a defect of the data set: secret detail")
        size = (width or 200, height or 200)
        picture = Image.new("RGB" if overlay else "L", size, color=int(sample_id) % 256)
        small = max(size) <= 128
        mask = encoded(Image.new("RGBA", size), "PNG") if sample_id == SEGMENTED else b""
        note = "stretched" if sample_id == SEGMENTED else ""
        kind = "JPEG" if small else "PNG"
        return SamplePicture(encoded(picture, kind), f"image/{kind.lower()}", mask, note)

    def key(self, split: str, sample_id: str) -> str:
        return f"{split}-{sample_id}"


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def check_hyper_parameters(changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        kind, minimum, exclusive = RULES[name]
        if kind is str:
            continue
        finite = bool(np.isfinite(value))
        if not finite or value < (minimum or 0) or (exclusive and value == minimum):
            raise Invalid(f"{name} = {value} is out of range")


def activations(layer: ToyLayer, sample: int) -> np.ndarray:
    return np.arange(layer.info.neurons * 4, dtype=np.float64).reshape(layer.info.neurons, 2, 2) + sample


def make_record(owner: ToyOwner, name: str, sequence: int) -> CheckpointRecord:
    checkpoint_id = owner.checkpoints.next_id()
    path = owner.checkpoints.path(checkpoint_id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"weights")
    return CheckpointRecord(
        id=checkpoint_id,
        experiment_hash="cafe",
        step=owner.step,
        age=owner.step * 8,
        branch=owner.branch,
        name=name,
        reason="asked",
        time_ms=1_700_000_000_000,
        journal_sequence=sequence,
        metrics={"train/loss": 0.5},
    )
