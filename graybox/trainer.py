"""The one owner of model, optimizer, loaders and random state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from graybox.checkpoint import CheckpointKeeper
from graybox.command_queue import CommandQueue, WaitingCommand
from graybox.commands import (
    CancelEvaluation,
    Command,
    EditNeurons,
    Outcome,
    ReadActivations,
    ReadSample,
    ReadWeights,
    RestoreCheckpoint,
    SaveCheckpoint,
)
from graybox.data_takeover import take_over_data
from graybox.errors import GrayboxError, Invalid, Refused, StorageError
from graybox.failing_samples import SampleError
from graybox.failures import describe_error
from graybox.inspection import read_activations, read_sample, read_weights
from graybox.intervention import Intervention, Performed
from graybox.interventions import Interventions
from graybox.neuron_interventions import dry_run
from graybox.neuron_window import NeuronWindow
from graybox.recovery import Recovery, begin_recovery
from graybox.session import Session
from graybox.snapshot import NeuronStatistics, Snapshot, TrainerState
from graybox.speedometer import Speedometer
from graybox.status import snapshot_of
from graybox.store.evaluation_report import last_report
from graybox.store.flusher import Flusher
from graybox.store.journal import JournalEntry
from graybox.store.runs import now_ms
from graybox.taken_back import NotRecorded, recorded_or_taken_back

_log = logging.getLogger(__name__)

COMMANDS_PER_TICK = 64
"""So many commands at most between two steps, so that a flood of them cannot stop training."""
CHANGES_NEURONS = ("neuron_edit", "checkpoint_restore", "undo", "redo")
TRAINER = "trainer"
"""The actor of what the trainer does by itself."""


class Trainer:
    """Trains one session. `tick` applies waiting commands and makes one step; whoever calls it is the owner.

    `submit`, `latest` and `neurons` may be called from any thread; everything else by the owner.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._queue = CommandQueue()
        self._keeper = CheckpointKeeper(session)
        self._interventions = Interventions(session, self._keeper)
        self._recovery: Recovery | None = None
        self._keep_before_training = False  # something was done that replay would not do again
        self._stopping = threading.Event()
        self._process_start_ms = now_ms()
        self._speed = Speedometer()
        self._neurons = NeuronWindow(session.network, self._queue.wake)
        self._snapshot = Snapshot(run_id=session.stores.run.run_id, state=TrainerState.STARTING)
        self._publish()

    # -- for everybody ---------------------------------------------------------------------------------

    def submit(
        self, command: Command, *, command_id: str = "", actor: str = "", timeout: float | None = None
    ) -> Future[Outcome]:
        """See graybox.commands.Commands."""
        if self._stopping.is_set():
            future: Future[Outcome] = Future()
            future.set_exception(Refused("the trainer is stopping"))
            return future
        return self._queue.put(command, command_id, actor, timeout)

    def latest(self) -> Snapshot:
        """See graybox.snapshot.Snapshots."""
        return self._snapshot

    def neurons(self, timeout: float = 5.0) -> NeuronStatistics:
        """See graybox.snapshot.Snapshots."""
        return self._neurons.read(timeout)

    def stop(self) -> None:
        """Ask the owner's `run` to end after the present step. Callable from any thread."""
        self._stopping.set()
        self._queue.wake.set()

    # -- for the owner ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Load what the run has, or keep the beginning as its first checkpoint. Once, before the first tick.

        Raises Refused when the run's checkpoints do not fit this model, StorageError when nothing can be written.
        """
        session = self.session
        session.look_at_network()
        self._recovery = begin_recovery(session, self._keeper, self._interventions)
        if self._recovery is None:
            if session.stores.journal.last_sequence:
                raise Refused(
                    f"run {session.stores.run.run_id} has a journal but no checkpoint that can be read, so that it "
                    "cannot go on; start a new run"
                )
            # The weights to begin with may come from anywhere; without them nothing could be replayed.
            self._keeper.save("start").result()
        elif session.data.pending:
            take_over_data(
                session, self._recovery, self._keeper, lambda told: self._perform_and_journal(told, TRAINER, "")
            )
            self._recovery = None
        for entry in session.stores.journal.entries():
            command_id = entry.arguments.get("command_id")
            if command_id:
                done: Future[Outcome] = Future()
                done.set_result(Outcome(entry.summary, entry.sequence))
                self._queue.remember(command_id, done)
        self._forget_evaluation()
        self._publish()

    def _forget_evaluation(self) -> None:
        stores = self.session.stores
        self.session.evaluations.replay_is_over(last_report(stores.journal.entries(), stores.blobs))

    def run(self) -> None:
        """Tick until `stop`; then keep the present as a checkpoint."""
        try:
            while not self._stopping.is_set():
                if not self.tick():
                    self._queue.wake.wait(0.5)
                    self._queue.wake.clear()
        finally:
            self.end()

    def end(self) -> None:
        """Refuse what still waits, and keep the present. Whoever calls `tick` themselves calls this at the end."""
        self._stopping.set()
        self._queue.refuse_all(Refused("the trainer is stopping"))
        session = self.session
        if session.evaluations.active and self._recovery is None:
            session.evaluations.cancel("the trainer is stopping")
        session.stores.flusher.drain()
        news = self._keeper.written_step != session.step or session.audit.kept != session.audit.batches
        if self._recovery is None and news:
            self._keeper.save("exit").result()
        session.stream.close()
        self._neurons.close()

    def tick(self) -> bool:
        """Apply waiting commands, then make one step or one batch of an evaluation.

        Answers whether there was anything to do. Never raises for what a step or a command did: a failed step pauses
        training and shows its error; a failed command fails its future.
        """
        if self._recovery is not None:
            self._queue.discard_expired()
            worked = self._advance_recovery()
        else:
            worked = self._apply_waiting()
            if self.session.evaluations.active:
                worked = self.advance_asked() or worked
            elif self._may_train():
                worked = self._advance() or worked
        self._neurons.renew_if_asked(self.session.step)
        if worked:
            self._publish()
        return worked

    # -- training --------------------------------------------------------------------------------------

    def advance_asked(self) -> bool:
        """One batch of the evaluation that somebody asked for; whether there was one to do. Never raises for what it
        did: what failed is told where its result would be, and training is as it was."""
        evaluations = self.session.evaluations
        if not evaluations.active or self._queue.cancel_is_waiting or self._stopping.is_set():
            return False
        try:
            ended = evaluations.advance()
        except Exception as error:  # the user's data set, network or metric
            _log.error("an evaluation failed", exc_info=error)
            ended = evaluations.failure(describe_error(error))
        try:
            if ended is not None:
                self._perform_and_journal(ended, TRAINER, "")
        except StorageError:  # training is paused, and shows it
            _log.exception("the end of an evaluation could not be recorded")
        return True

    def _may_train(self) -> bool:
        return self.session.running and not self._queue.pause_is_waiting and not self._stopping.is_set()

    def _advance(self) -> bool:
        session = self.session
        try:
            if self._keep_before_training:
                self._keeper.save("unrecorded change")
                self._keep_before_training = False
            elif session.evaluation_due():
                session.advance_evaluation()
            elif session.checkpoint_due():
                self._keeper.save("automatic")
            elif session.audit.on:
                session.train_one_step()
            elif session.steps_left > 0:
                session.train_one_step()
                session.experiment.call_back(session.step)
            else:
                return False
        except Exception as error:  # whatever a step raises is shown, wherever a user looks
            # A step that was made but not recorded whole would be recorded otherwise by a replay.
            self._keep_before_training |= isinstance(error, StorageError)
            self._step_failed(error)
        return True

    def _step_failed(self, error: Exception) -> None:
        _log.error("a training step failed; training is paused", exc_info=error)
        self.session.abandon_evaluation()
        marks = error.marks if isinstance(error, SampleError) else {}
        failed = Intervention("step_failed", {**describe_error(error), **marks})
        try:
            self._perform_and_journal(failed, TRAINER, "")
        except StorageError:
            # The disk that failed the step may fail the journal too; the error is shown all the same.
            _log.exception("the failed step could not be journalled")

    def _advance_recovery(self) -> bool:
        recovery = self._recovery
        assert recovery is not None
        if recovery.stopped:
            return self._apply_waiting()
        try:
            if not recovery.advance():
                _log.info("recovered: step %d", self.session.step)
                self._recovery = None
                self._forget_evaluation()
        except Exception as error:  # as for a step; resume tries again
            _log.error("recovery stopped", exc_info=error)
            recovery.stop(describe_error(error))
        return True

    # -- commands --------------------------------------------------------------------------------------

    def _apply_waiting(self) -> bool:
        for count in range(COMMANDS_PER_TICK):
            waiting = self._queue.take()
            if waiting is None:
                return count > 0
            self._apply(waiting)
        return True

    def _apply(self, waiting: WaitingCommand) -> None:
        try:
            acknowledge = self._carry_out(waiting)
        except GrayboxError as error:
            waiting.future.set_exception(error)
        except Exception as error:  # a defect: it belongs to who asked, and must not end training
            _log.exception("a command failed")
            waiting.future.set_exception(error)
        else:
            self._publish()
            acknowledge()
            return
        self._publish()  # what could not be journalled has paused training

    def _carry_out(self, waiting: WaitingCommand) -> Callable[[], None]:
        """Do it; answers what to call when the outcome may be told."""
        command, future = waiting.command, waiting.future
        if self._recovery is not None and not isinstance(command, (ReadWeights, ReadActivations, ReadSample)):
            outcome = Outcome(self._recovery.answer(command))
            return lambda: future.set_result(outcome)
        match command:
            case ReadWeights():
                value: Any = read_weights(self.session.network, command.layer, command.tensor)
                return lambda: future.set_result(Outcome(f"The {command.tensor} of {command.layer}", value=value))
            case ReadActivations():
                value = read_activations(self.session, command.layer, command.split, command.sample_id)
                return lambda: future.set_result(Outcome(f"Activations of {command.layer}", value=value))
            case ReadSample():
                value = read_sample(self.session, command.split, command.sample_id)
                return lambda: future.set_result(Outcome(f"Sample {command.sample_id}", value=value))
            case EditNeurons(dry_run=True):
                plan = dry_run(self.session, command)
                return lambda: future.set_result(Outcome(f"Nothing was done; it would be: {plan.summary}", value=plan))
            case SaveCheckpoint():
                return self._save_checkpoint(command, waiting)
            case CancelEvaluation():
                outcome = Outcome(self.session.evaluations.cancel(command.reason))
                return lambda: future.set_result(outcome)
        intervention = self._interventions.resolve(command)
        session = self.session
        session.evaluations.check(intervention)
        news = session.last_checkpoint_step != session.step or session.audit.kept != session.audit.batches
        if isinstance(command, RestoreCheckpoint) and news:
            self._keeper.save("before restore")
        performed, sequence = self._perform_and_journal(intervention, waiting.actor, waiting.command_id)
        stores = session.stores
        background = stores.acknowledger
        if performed.decided.get("branch"):
            self._keeper.save("branch", metrics=stores.checkpoints.get(intervention.arguments["id"]).metrics)
            background = stores.flusher  # the branch's checkpoint comes first
        outcome = Outcome(performed.summary, sequence, performed.value)
        return lambda: self._tell_when_durable(background, future, outcome)

    def _save_checkpoint(self, command: SaveCheckpoint, waiting: WaitingCommand) -> Callable[[], None]:
        if len(command.name) > 200:
            raise Invalid(f"a checkpoint's name has at most 200 characters, not {len(command.name)}")
        written = self._keeper.save("asked", command.name)

        def tell(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                waiting.future.set_exception(error)
                return
            record = done.result()
            named = f" “{record.name}”" if record.name else ""
            message = f"Saved checkpoint {record.id}{named} at step {record.step:,} ({record.bytes / 1e6:.1f} MB)"
            waiting.future.set_result(Outcome(message, value=record))

        return lambda: written.add_done_callback(tell)

    def _perform_and_journal(self, intervention: Intervention, actor: str, command_id: str) -> tuple[Performed, int]:
        session = self.session
        journal = session.stores.journal
        step, age, branch = session.step, session.age, session.branch
        evaluated = session.last_evaluation_step == session.step
        audited = session.audit.batches
        done = f"“{intervention.kind}” may be done in part"
        try:
            performed = self._interventions.perform(intervention, journal.last_sequence + 1)
            done = performed.summary
            # Where a pass over the evaluation split was due at this step, replay must know which of them came first.
            arguments = {**intervention.arguments, **performed.decided, "evaluated": evaluated}
            if audited:
                arguments["audited"] = audited
            if command_id:
                arguments["command_id"] = command_id

            def append() -> JournalEntry:
                return journal.append(
                    time_ms=now_ms(),
                    actor=actor or TRAINER,
                    kind=intervention.kind,
                    step=step,
                    age=age,
                    branch=branch,
                    summary=performed.summary,
                    arguments=arguments,
                    undo=performed.undo,
                )

            entry = append() if performed.take_back is None else recorded_or_taken_back(append, performed.take_back)
        except NotRecorded:
            raise  # all is as it was
        except StorageError as error:
            # Applied but not recorded: going on would make the run one that cannot be replayed.
            session.running = False
            session.error = f"{done}, but it could not be recorded: {error}"
            self._keep_before_training = True
            raise
        if intervention.kind in CHANGES_NEURONS:
            self._neurons.expire()
        return performed, entry.sequence

    def _tell_when_durable(self, background: Flusher, future: Future[Outcome], outcome: Outcome) -> None:
        """What is acknowledged is on the disk; the background waits for it, training does not."""

        def sync() -> None:
            self.session.stores.samples.sync()
            self.session.stores.journal.sync()

        def tell(done: Future[None]) -> None:
            error = done.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome)

        background.submit(sync).add_done_callback(tell)

    # -- publishing ------------------------------------------------------------------------------------

    def _publish(self) -> None:
        session = self.session
        # An audit walks on without the model getting older.
        speed = self._speed.read(session.age + session.audit.samples)
        self._snapshot = snapshot_of(
            session, self._recovery, samples_per_second=speed, process_start_ms=self._process_start_ms
        )
