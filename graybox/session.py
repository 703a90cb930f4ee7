"""Everything about a run that training and interventions change, and a checkpoint keeps."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graybox.audit import Audit
from graybox.evaluation import EvaluationPass, EvaluationResult, curves_of, example_outputs
from graybox.evaluation_metrics import MetricSet
from graybox.evaluations import Evaluations
from graybox.experiment import Experiment
from graybox.failing_samples import MAX_MARKED
from graybox.fingerprints import StepFingerprints, log_asked_for
from graybox.live_settings import live_settings
from graybox.metric_choice import CONFUSION
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.randomness import seeded
from graybox.sample_stream import SampleLoadError, SampleStream
from graybox.session_data import SessionData
from graybox.snapshot import HyperParameter
from graybox.store.blobs import BlobStore
from graybox.store.checkpoints import CheckpointCatalogue
from graybox.store.fingerprint_log import FingerprintLog
from graybox.store.flusher import Flusher
from graybox.store.journal import Journal
from graybox.store.metric_history import PLAIN, About
from graybox.store.metrics import MetricStore
from graybox.store.runs import RunFolder, now_ms
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_notes import BAD_LOSS
from graybox.store.samples import SampleStore
from graybox.store.targets import LabelKind
from graybox.surgery import Surgeon
from graybox.tracking import RecordSettings
from graybox.training_step import BatchOutcome, TrainingStep

_log = logging.getLogger(__name__)

MAX_CLASSES = 1_000
"""Trigger rates per class take 32 bytes for each class and neuron."""
MAX_WRITES_WAITING = 8
"""With so many background writes waiting no further automatic checkpoint is made."""


@dataclass
class Stores:
    """What one run keeps on disk, opened for writing."""

    run: RunFolder
    journal: Journal
    metrics: MetricStore
    samples: SampleStore
    blobs: BlobStore
    checkpoints: CheckpointCatalogue
    flusher: Flusher
    acknowledger: Flusher
    """Syncs before a command is acknowledged, so that nobody waits for a checkpoint that is being written."""
    fingerprints: FingerprintLog | None = None

    @classmethod
    def open(cls, run: RunFolder) -> Stores:
        """Open (or create) a run's files. Raises StorageError naming the file that cannot be."""
        stores = cls(
            run=run,
            journal=Journal(run.path / "journal.jsonl"),
            metrics=MetricStore(run.path),
            samples=SampleStore(run.path),
            blobs=BlobStore(run.path / "blobs"),
            checkpoints=CheckpointCatalogue(run.path / "checkpoints"),
            flusher=Flusher(),
            acknowledger=Flusher(),
            fingerprints=log_asked_for(run.path),
        )
        for target in (stores.journal, stores.metrics, stores.samples):
            stores.flusher.watch(target)
        stores.flusher.every(60.0, stores.samples.snapshot, apart=True)
        stores.flusher.submit(stores.checkpoints.collect)  # what a killed process left
        return stores

    def close(self) -> None:
        """Finish background writes, then close."""
        self.acknowledger.close()
        self.flusher.close()
        self.samples.close()
        self.metrics.close()
        self.journal.close()
        if self.fingerprints is not None:
            self.fingerprints.close()


class Session:
    """The state of one training. Touched by the owner only."""

    def __init__(self, experiment: Experiment, stores: Stores) -> None:
        self.experiment = experiment
        self.stores = stores
        record = stores.run.record
        # A run's seed is drawn once and kept, so that going on with it draws the same numbers.
        self.seed = int(record.get("seed", experiment.seed if experiment.seed is not None else secrets.randbits(48)))
        stores.run.update(seed=self.seed)
        self.name = experiment.name
        self.step = 0
        self.branch = 0
        self.running = True
        self.error = ""
        self.traceback = ""
        self.steps_left = experiment.training_steps_to_do
        self.learning_rate = experiment.learning_rate
        self.full_eval_frequency = experiment.full_eval_frequency
        self.checkpoint_frequency = experiment.checkpoint_frequency
        self.last_evaluation_step = 0
        self.last_checkpoint_step = 0
        self.last_train: BatchOutcome | None = None
        self.last_evaluation: EvaluationResult | None = None
        self.evaluation: EvaluationPass | None = None
        self._hash: tuple[object, str] | None = None
        self._parameters: int | None = None
        self.data = SessionData(experiment, stores.samples, has_checkpoints=bool(stores.checkpoints.list()))
        self.network = experiment.model
        self.built = self.structure()
        """As the user's code builds the network, before any edit."""
        self.optimizer = OptimizerWithOps(experiment.optimizer, self.network)
        self.surgeon = Surgeon(self.network, self.optimizer)
        self.network.trained_by(self.surgeon)
        self.network.ledger.settings = record_settings(experiment)
        self.stream = SampleStream(
            experiment.datasets["train"].dataset,
            self._train_mask,
            batch_size=experiment.batch_size,
            seed=self.seed,
            shuffle=experiment.train_shuffle,
            workers=experiment.workers,
            collate=experiment.collate,
            pin_memory=experiment.device.type == "cuda",
            weights=lambda: stores.samples.splits["train"].notes.weight,
        )
        self._training_step = TrainingStep(experiment, self.stream, self.seed)
        if stores.fingerprints is not None:
            self._training_step.fingerprints = StepFingerprints(self.network, stores.fingerprints)
        self.audit = Audit(experiment, self.stream, self.seed)
        self.evaluations = Evaluations(self)
        self.live_settings = live_settings(experiment)
        self.as_built = {name: setting.read(self) for name, setting in self.live_settings.items()}
        self.live: dict[str, Any] = {}
        """By name, the live settings that a person set to something else than the experiment says."""
        self.live_version = 0
        self.described: tuple[int, float, tuple[HyperParameter, ...]] | None = None

    def look_at_network(self) -> None:
        """Let the task see what the network answers, once, before training. A sample that cannot be loaded is not a
        reason to stop here: the step that needs it says so."""
        with seeded(self.seed):
            try:
                self.experiment.task.prepare(example_outputs(self.experiment))
            except SampleLoadError as error:
                _log.warning("could not look at the network's answers before training: %s", error)

    @property
    def age(self) -> int:
        """Samples seen in training."""
        return self.network.get_age()

    def _train_mask(self) -> tuple[int, np.ndarray]:
        samples = self.stores.samples
        return samples.discard_version, samples.splits["train"].discarded

    # -- training ------------------------------------------------------------------------------------

    def train_one_step(self) -> BatchOutcome:
        """One optimizer step with all that is recorded of it. Raises what TrainingStep.run raises, and nothing changed
        then; or StorageError or what the scheduler raises, and the step was made. In an audit, instead, one batch that
        changes nothing but what is recorded."""
        if self.audit.on:
            return self._audit_one_batch()
        outcome = self._training_step.run(self.step)
        self.step += 1
        self.steps_left = max(self.steps_left - 1, 0)  # a user's own loop may make more
        self.last_train = outcome
        try:
            self._record_step(outcome)
            if self._training_step.fingerprints is not None:
                self._training_step.fingerprints.commit()
        finally:
            self.experiment.step_scheduler()
        return outcome

    def _audit_one_batch(self) -> BatchOutcome:
        outcome = self.audit.let_through(self.step)
        self._record_step(outcome, About(audit=True))
        return outcome

    def _record_step(self, outcome: BatchOutcome, about: About = PLAIN) -> None:
        self.record_samples("train", outcome)
        values = {("train", "loss"): outcome.loss}
        if outcome.accuracy is not None:
            values["train", "accuracy"] = outcome.accuracy
        values |= {("train", name): value for name, value in outcome.scores.items()}
        self.append_metrics(values, about=about)
        self._write_user_metrics(about)

    def record_samples(self, split: str, outcome: BatchOutcome) -> None:
        """Note what a batch did to its samples; and their labels, where the data set does not tell them beforehand."""
        self.data.record(split, outcome, self.age)

    def append_metrics(
        self, values: dict[tuple[str, str], float], age: int | None = None, about: About = PLAIN
    ) -> None:
        """Add points by (split, metric), at the model's age unless another one is given. Raises StorageError."""
        self.stores.metrics.append(
            branch=self.branch,
            step=self.step,
            age=self.age if age is None else age,
            time_ms=now_ms(),
            values=values,
            about=about,
            experiment_hash=self.experiment_hash(),
        )

    def _write_user_metrics(self, about: About) -> None:
        for graph, values, age in self.experiment.logger.take():
            self.append_metrics({(name, graph): value for name, value in values.items()}, age, about)

    # -- evaluation ----------------------------------------------------------------------------------

    def evaluation_due(self) -> bool:
        """Whether a pass over the evaluation split should come before the next step."""
        if "val" not in self.experiment.datasets or not self.full_eval_frequency:
            return False
        at_this_step = self.step % self.full_eval_frequency == 0 or self.steps_left <= 0
        return self.step > 0 and at_this_step and self.last_evaluation_step != self.step

    def advance_evaluation(self) -> None:
        """One batch of the evaluation that is due; with the last one its result is recorded."""
        if self.evaluation is None:
            self.evaluation = EvaluationPass(
                self.experiment,
                "val",
                self.stores.samples.splits["val"].discarded,
                batch_size=self.stream.batch_size,
                seed=self.seed,
                record=lambda outcome: self.record_samples("val", outcome),
                metrics=self._periodic_metrics(),
            )
        if self.evaluation.advance():
            return
        result, bad = self.evaluation.result(), self.evaluation.bad
        if bad:
            self.data.mark({"tag": BAD_LOSS, "rows": {"val": bad[:MAX_MARKED]}})
        self.evaluation = None
        self.last_evaluation_step = self.step
        if result.samples:
            self.last_evaluation = result
            self.append_metrics(curves_of(result, self.experiment.class_names))
            self.experiment.scheduler_saw(result.loss)

    def _periodic_metrics(self) -> MetricSet | None:
        experiment = self.experiment
        # A matrix is no curve.
        wanted = {name: metric for name, metric in (experiment.metrics or {}).items() if name != CONFUSION}
        return MetricSet(wanted, experiment.task, experiment.device) if wanted else None

    def abandon_evaluation(self) -> None:
        """Forget a pass that has not ended, as what it measures is about to change. It is made anew later."""
        self.evaluation = None

    # -- checkpoints ---------------------------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Whether an automatic checkpoint should be kept before the next step. Left out where the disk does not keep
        up: each one that waits to be written takes the memory of the whole model."""
        if not self.checkpoint_frequency or self.last_checkpoint_step == self.step:
            return False
        if self.stores.flusher.waiting >= MAX_WRITES_WAITING:
            return False
        return self.step % self.checkpoint_frequency == 0 or self.steps_left <= 0

    # -- identity ------------------------------------------------------------------------------------

    def experiment_hash(self) -> str:
        """12 hexadecimal digits of structure, the hyper-parameters a person set, and the state of the data."""
        key = (self.learning_rate, self.stream.batch_size, self.stores.samples.discard_version)
        if self._hash is None or self._hash[0] != key:
            self._hash = (key, hashlib.sha256(json.dumps(self._identity()).encode()).hexdigest()[:12])
        return self._hash[1]

    def structure_changed(self) -> None:
        """The identity and the number of parameters are worked out anew."""
        self._hash = None
        self._parameters = None

    def note_live(self, name: str, value: Any) -> None:
        """A live setting was set by a person."""
        if value == self.as_built[name]:
            self.live.pop(name, None)
        else:
            self.live[name] = value
        self.live_version += 1
        self._hash = None

    def parameter_count(self) -> int:
        """Of the network as it is now."""
        if self._parameters is None:
            self._parameters = self.network.get_parameter_count()
        return self._parameters

    def structure(self) -> list[list[Any]]:
        """[name, shape] of every parameter and buffer."""
        # An "extra state" may be anything.
        return [[name, list(getattr(value, "shape", ()))] for name, value in self.network.state_dict().items()]

    def _identity(self) -> dict[str, Any]:
        samples = self.stores.samples
        return {
            "structure": self.structure(),
            "hyper_parameters": {
                "learning_rate": self.learning_rate,
                "batch_size": self.stream.batch_size,
                "optimizer": type(self.experiment.optimizer).__name__,
                "seed": self.seed,
                **({"live": dict(sorted(self.live.items()))} if self.live else {}),
            },
            "data": {
                split: [wrapper.fingerprint(), *_data_state(samples.splits[split])]
                for split, wrapper in self.experiment.datasets.items()
            },
        }


def _data_state(columns: SplitColumns) -> list[Any]:
    """Which samples are left out and, where there are any, which labels were corrected and which weights given."""
    found: list[Any] = [np.flatnonzero(columns.discarded).tolist()]
    if columns.notes.corrected is not None:
        rows = np.flatnonzero(columns.notes.corrected >= 0)
        found.append([rows.tolist(), columns.notes.corrected[rows].tolist()])
    if columns.notes.weight is not None:
        rows = np.flatnonzero(columns.notes.weight != 1)
        found.append(["weights", rows.tolist(), columns.notes.weight[rows].tolist()])
    return found


def record_settings(experiment: Experiment) -> RecordSettings:
    """As the experiment says; trigger rates per class for as many classes as the training set has, up to a thousand."""
    settings = experiment.record
    if settings.classes:
        return settings
    if experiment.label_reader.kind not in (None, LabelKind.CLASS):
        return replace(settings, classes=0)  # a sample is of no one class
    labels = experiment.datasets["train"].labels()
    known = len(experiment.class_names) or (0 if labels is None or not labels.size else int(labels.max()) + 1)
    return replace(settings, classes=known if known <= MAX_CLASSES else 0)
