"""The audit mode: batches go through as in training, what they do is recorded, and nothing learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from graybox.calling import called
from graybox.commands import AUDIT, TRAIN
from graybox.epoch_order import Position
from graybox.experiment import Experiment
from graybox.randomness import mix, purpose, seed_everything, seeded
from graybox.sample_stream import SampleStream
from graybox.tracking import TrackingMode
from graybox.training_step import (
    BatchOutcome,
    Parts,
    TrainingStep,
    blamed,
    check_finite,
    labels_met,
    read_outcome,
    split_batch,
)


class AuditStep(TrainingStep):
    """Lets batches through a network in training mode (dropout drops, normalisation takes the batch's own statistics)
    and leaves its weights, running statistics, age and optimizer, and the random state, as they were."""

    def __init__(self, experiment: Experiment, stream: SampleStream, seed: int) -> None:
        super().__init__(experiment, stream, seed)
        self._seed = mix(seed, purpose("audit"))

    def run(self, step: int, number: int = 0) -> BatchOutcome:
        """Let the next batch through. step, number: how many optimizer steps and batches of audits were made before,
        from which this one's random numbers come.

        Raises as TrainingStep.run; then nothing is recorded, and the stream stays at the same batch.
        """
        seed = mix(self._seed, step, number)
        with seeded(seed):  # loading draws too, in this process
            return self._run(seed, number)

    def _run(self, seed: int, number: int) -> BatchOutcome:
        experiment, model = self.experiment, self.experiment.model
        batch = self.stream.next()
        seed_everything(seed)
        age = model.get_age()
        self._keep_buffers()
        model.set_tracking_mode(TrackingMode.TRAIN)
        model.ledger.hold(number)
        parts: Parts | None = None
        try:
            parts = inputs, target = split_batch(experiment, batch.data, batch.rows)
            model.ledger.samples_are(batch.rows, target if isinstance(target, torch.Tensor) else None)
            with torch.no_grad():
                result = experiment.task.evaluate(called(model, inputs), target)
            if result.predictions is not None:
                model.register_prediction(result.predictions, result.classes)
            outcome = read_outcome(result, target, batch.rows.numpy())
            outcome = replace(outcome, met=labels_met(experiment, "train", batch.rows, target))
            check_finite(outcome)
            model.ledger.commit()
        except BaseException as error:
            model.ledger.drop()
            named = blamed(error, experiment, "train", batch.rows, parts)
            self.stream.rewind()
            if named is not None:
                raise named from error
            raise
        finally:
            model.set_tracking_mode(TrackingMode.DISABLED)
            self._put_buffers_back()
            model.set_age(age)
        self.stream.commit(batch)
        return outcome


class Audit:
    """Whether a session audits, and where.

    An audit walks through the batches that training would take next. When it ends, training goes on with the batch
    that it had stopped before: it is as if there had been no audit.
    """

    def __init__(self, experiment: Experiment, stream: SampleStream, seed: int) -> None:
        self.on = False
        self.batches = 0
        """How many went through in all audits of the run: journal entries are placed by it, beside the step."""
        self.samples = 0
        """How many samples were in them, since this process began."""
        self.kept = 0
        """How many of them the newest checkpoint knows of."""
        self._stream = stream
        self._step = AuditStep(experiment, stream, seed)
        self._training: Position | None = None

    @property
    def mode(self) -> str:
        """TRAIN or AUDIT."""
        return AUDIT if self.on else TRAIN

    def switch(self, mode: str) -> None:
        """From the next batch on; to the mode that is on already, nothing happens."""
        if mode == self.mode:
            return
        if mode == AUDIT:
            self._training = self._stream.position
        else:
            self._stream.rewind(self._training)
            self._training = None
        self.on = mode == AUDIT

    def let_through(self, step: int) -> BatchOutcome:
        """The next batch. Raises as AuditStep.run."""
        outcome = self._step.run(step, self.batches)
        self.batches += 1
        self.samples += len(outcome.rows)
        return outcome

    def state(self) -> dict[str, Any]:
        """For a checkpoint, together with the position of the stream."""
        position = self._training
        return {"on": self.on, "batches": self.batches, "training": None if position is None else asdict(position)}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """What `state` answered; None: of a checkpoint from before there were audits."""
        found = state or {"on": False, "batches": 0, "training": None}
        self.on, self.batches = found["on"], found["batches"]
        self.kept = self.batches
        self._training = None if found["training"] is None else Position(**found["training"])
