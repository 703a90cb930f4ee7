"""How a session stands, as the values that everybody else sees of it."""

from __future__ import annotations

from graybox.hyper_parameters import describe_all
from graybox.recovery import Recovery
from graybox.session import Session
from graybox.snapshot import Snapshot, TrainerState
from graybox.store.runs import now_ms

EVALUATION = "evaluation"


def state_of(session: Session, recovery: Recovery | None) -> TrainerState:
    """recovery: what is left to replay, if anything is."""
    if session.error:
        return TrainerState.FAILED
    if recovery is not None:
        return TrainerState.RECOVERING
    if not session.running:
        return TrainerState.PAUSED
    something_left = session.steps_left > 0 or session.audit.on or session.evaluation_due()
    return TrainerState.RUNNING if something_left else TrainerState.COMPLETED


def snapshot_of(
    session: Session, recovery: Recovery | None, *, samples_per_second: float, process_start_ms: int
) -> Snapshot:
    """The session as it is now. samples_per_second: shown while it trains."""
    train, evaluation = session.last_train, session.last_evaluation
    asked = session.evaluations
    state = state_of(session, recovery)
    return Snapshot(
        run_id=session.stores.run.run_id,
        state=state,
        experiment_name=session.name,
        step=session.step,
        age=session.age,
        epoch=session.stream.position.epoch,
        steps_left=session.steps_left,
        branch=session.branch,
        experiment_hash=session.experiment_hash(),
        error=session.error,
        traceback=session.traceback,
        activity=activity_of(session, recovery),
        samples_per_second=samples_per_second if state is TrainerState.RUNNING else 0.0,
        train_loss=train.loss if train else None,
        train_accuracy=train.accuracy if train else None,
        eval_loss=evaluation.loss if evaluation else None,
        eval_accuracy=evaluation.accuracy if evaluation else None,
        device=str(session.experiment.device),
        journal_sequence=session.stores.journal.last_sequence,
        time_ms=now_ms(),
        process_start_ms=process_start_ms,
        parameter_count=session.parameter_count(),
        kind_of_problem=session.experiment.task.name,
        class_names=session.experiment.class_names,
        hyper_parameters=describe_all(session),
        mode=EVALUATION if asked.active and recovery is None else session.audit.mode,
        # What a replay does anew has ended before.
        evaluation=asked.report() if recovery is None else asked.last,
    )


def activity_of(session: Session, recovery: Recovery | None) -> str:
    """What it does just now, for people; or what the disk complains of."""
    if recovery is not None:
        return recovery.progress
    asked = session.evaluations.report()
    if asked is not None and not asked.ended:
        return f"evaluating {asked.split}: {asked.done:,} of {asked.total:,}"
    evaluation = session.evaluation
    if evaluation is not None:
        return f"evaluating {evaluation.split}: {evaluation.done:,} of {evaluation.total:,}"
    errors = session.stores.flusher.errors
    return errors[-1] if errors else session.data.notice
