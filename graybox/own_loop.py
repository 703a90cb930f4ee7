"""A training that the user's own code drives, step by step, instead of `Training.run`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from graybox.commands import MAX_WAIT_SECONDS, Command, DiscardSamples, Outcome, Resume, StartEvaluation
from graybox.errors import Refused, StorageError
from graybox.evaluation import EvaluationPass, EvaluationResult
from graybox.failing_samples import SampleError
from graybox.sample_stream import Position
from graybox.session import Session
from graybox.store.checkpoints import AUTOMATIC
from graybox.store.evaluation_report import COMPLETED, EvaluationReport
from graybox.store.sample_columns import Rows
from graybox.trainer import Trainer
from graybox.training_step import BatchOutcome

ACTOR = "experiment"
"""Whom the journal names for what a user's own code asks for."""
EVALUATED = "val"
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class BatchesResult:
    """An evaluation of a few batches: mean loss per sample, and how many of the samples are predicted rightly (None
    without classes)."""

    samples: int
    loss: float
    correct: int | None


class OwnLoop:
    """The owner's side of a trainer for a user's own code: whoever calls it owns the training meanwhile.

    Waiting commands are applied before each step, evaluation or change. What is asked for is done whether or not the
    training is paused: a pause holds back a trainer that runs by itself. Errors are raised where they happen.

    While `Training.run` is at work in another thread, steps and evaluations are refused, and commands go to it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._runs_in: int | None = None
        self._over = False
        # Something was done that replay would not do again: an entry of the journal needs a checkpoint after it.
        self._unrecorded = False
        self._next_row = 0

    # -- who owns it -----------------------------------------------------------------------------------

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The trainer runs by itself in this thread meanwhile, and is over afterwards."""
        self._keep_unrecorded()
        self._runs_in = threading.get_ident()
        try:
            yield
        finally:
            self._over = True
            self._runs_in = None

    def is_mine(self) -> bool:
        """Whether the calling thread owns the training; one that runs calls back between two steps."""
        return self._runs_in in (None, threading.get_ident())

    def _take(self, what: str) -> Session:
        """The session, with what waited applied. Raises Refused where it is not the caller's."""
        if self._over:
            raise Refused(f"cannot {what}: the training was stopped; close it, and begin anew")
        if not self.is_mine():
            raise Refused(f"cannot {what}: the trainer runs in another thread; ask for it in a train loop callback")
        self._replay()
        self._apply_waiting()
        return self.trainer.session

    def _replay(self) -> None:
        # The trainer's own way, done at once.
        while (recovery := self.trainer._recovery) is not None:
            if recovery.stopped:
                error = self.trainer.session.error
                raise Refused(f"{error}; mend it and call set_is_training(True), or start a new run")
            self.trainer._advance_recovery()

    def _apply_waiting(self) -> None:
        journal = self.trainer.session.stores.journal
        before = journal.last_sequence
        # An evaluation that somebody asked for is made at once: the loop goes on with what it has found.
        while self.trainer._apply_waiting() or self.trainer.advance_asked():
            self.trainer._publish()
        if journal.last_sequence != before:
            self._keep_unrecorded()

    def _keep_unrecorded(self) -> None:
        if self._unrecorded:
            self._unrecorded = False
            self.trainer._keeper.save(AUTOMATIC)

    @contextmanager
    def _marking(self, session: Session) -> Iterator[None]:
        """Samples that fail are tagged, as where the trainer runs by itself."""
        try:
            yield
        except SampleError as error:
            session.data.mark(error.marks)
            self._unrecorded = True
            raise

    # -- training --------------------------------------------------------------------------------------

    def step(self) -> BatchOutcome:
        """One optimizer step; in an audit, one batch of it. Raises what Session.train_one_step raises; Refused where
        the trainer runs by itself."""
        if self._runs_in is not None:
            raise Refused("cannot train: the trainer runs by itself and makes the steps")
        session = self._take("train")
        self._unrecorded |= session.evaluation_due()  # left out here, made by a replay
        session.abandon_evaluation()
        if session.checkpoint_due() and session.step % session.checkpoint_frequency == 0:
            self.trainer._keeper.save(AUTOMATIC)
        audits = session.audit.on
        try:
            with self._marking(session):
                outcome = session.train_one_step()
        except StorageError:
            self._unrecorded = True  # made, but not recorded whole
            raise
        finally:
            self.trainer._publish()
        if not audits:
            session.experiment.call_back(session.step)
        return outcome

    def step_with_evaluation(self) -> None:
        """One optimizer step, and before and after it the pass over the evaluation split that full_eval_frequency or
        the last step wants, as the trainer does it."""
        session = self._take("train")
        if session.evaluation_due() and session.step % session.full_eval_frequency == 0:
            self.evaluate()
        some_left = session.steps_left > 0
        self.step()
        if session.evaluation_due() and (some_left or session.step % session.full_eval_frequency == 0):
            self.evaluate()

    def reset_iterators(self) -> None:
        """The next training batch is the first of the next epoch, the next evaluation batch the first of its split."""
        session = self._take("reset the data iterators")
        self._next_row = 0
        position = session.stream.position
        if position.offset or position.extra:
            session.stream.rewind(Position(position.epoch + 1))
            self._unrecorded = True

    # -- evaluation ------------------------------------------------------------------------------------

    def evaluate(self) -> EvaluationResult:
        """A whole pass over the evaluation split, recorded as one of the trainer's. Raises Refused where there is
        nothing to evaluate on, and what the user's code raises."""
        session = self._take("evaluate")
        self._samples_to_evaluate(session)
        self._unrecorded |= not session.evaluation_due()
        session.abandon_evaluation()
        try:
            with self._marking(session):
                session.advance_evaluation()
                while session.evaluation is not None:
                    session.advance_evaluation()
        finally:
            session.abandon_evaluation()
            self.trainer._publish()
        result = session.last_evaluation
        assert result is not None
        return result

    def evaluate_on_demand(self, command: StartEvaluation) -> EvaluationReport:
        """Have an evaluation made, by whoever owns the training, and wait for its end. Raises what the command's future
        does, and Refused, with the reason, where it was cancelled or failed."""
        number = self.command(command).value
        while (report := self.trainer.latest().evaluation) is None or (
            report.evaluation_id == number and not report.ended
        ):
            time.sleep(POLL_SECONDS)
        if report.evaluation_id != number or report.status != COMPLETED:
            raise Refused(report.message if report.evaluation_id == number else "another evaluation followed this one")
        return report

    def evaluate_batches(self, batches: int) -> BatchesResult:
        """The next so many batches of the evaluation split, from its beginning again after its end."""
        session = self._take("evaluate")
        kept = self._samples_to_evaluate(session)
        self._unrecorded = True
        results: list[EvaluationResult] = []
        while batches > 0:
            left = kept[kept >= self._next_row]
            if not left.size:
                left = kept
            size = session.stream.batch_size
            rows = left[: batches * size]
            results.append(self._pass_over(session, rows))
            self._next_row = int(rows[-1]) + 1
            batches -= -(-len(rows) // size)
        samples = sum(result.samples for result in results)
        correct = [round(r.accuracy * r.samples) for r in results if r.accuracy is not None]
        return BatchesResult(
            samples,
            sum(result.loss * result.samples for result in results) / samples,
            sum(correct) if len(correct) == len(results) else None,
        )

    def _samples_to_evaluate(self, session: Session) -> Rows:
        if EVALUATED not in session.experiment.datasets:
            raise Refused("there is nothing to evaluate on: this experiment has no eval_dataset")
        rows = np.flatnonzero(~session.stores.samples.splits[EVALUATED].discarded)
        if not rows.size:
            raise Refused("there is nothing to evaluate on: every sample of eval_dataset is discarded")
        return rows

    def _pass_over(self, session: Session, rows: Rows) -> EvaluationResult:
        left_out = np.ones(session.stores.samples.splits[EVALUATED].count, dtype=bool)
        left_out[rows] = False
        running = EvaluationPass(
            session.experiment,
            EVALUATED,
            left_out,
            batch_size=session.stream.batch_size,
            seed=session.seed,
            record=lambda outcome: session.record_samples(EVALUATED, outcome),
        )
        with self._marking(session):
            while running.advance():
                pass
        return running.result()

    # -- commands --------------------------------------------------------------------------------------

    def command(self, command: Command) -> Outcome:
        """Have a command done and wait for what became of it: journalled, and durable. Raises what the command's future
        does; see graybox.commands."""
        if self.is_mine() and not self._over:
            recovery = self.trainer._recovery
            if not (isinstance(command, Resume) and recovery is not None and recovery.stopped):
                self._replay()
            future = self.trainer.submit(command, actor=ACTOR)
            self._apply_waiting()
        else:
            future = self.trainer.submit(command, actor=ACTOR)
        return future.result(MAX_WAIT_SECONDS + 60.0)

    def discard(self, split: str, rows: Rows, value: bool) -> int:
        """Discard samples or take them back, by a command; how many changed."""
        samples = tuple((split, str(row)) for row in rows.tolist())
        count: int = self.command(DiscardSamples(samples, value)).value
        return count
