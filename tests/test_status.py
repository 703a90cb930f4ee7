"""How a session stands, as everybody else sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graybox.snapshot import TrainerState
from graybox.status import activity_of, snapshot_of, state_of
from tests.small_experiments import Opened

Make = Callable[..., Opened]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, TrainerState.RUNNING),
        ({"steps_left": 0}, TrainerState.COMPLETED),
        ({"running": False}, TrainerState.PAUSED),
        ({"running": False, "error": "E"}, TrainerState.FAILED),
    ],
)
def test_the_state_follows_the_session(opened: Make, changes: dict[str, Any], state: TrainerState) -> None:
    session = opened().session
    for name, value in changes.items():
        setattr(session, name, value)
    assert state_of(session, None) is state
    shown = snapshot_of(session, None, samples_per_second=5.0, process_start_ms=3)
    assert (shown.state, shown.process_start_ms) == (state, 3)
    assert shown.samples_per_second == (5.0 if state is TrainerState.RUNNING else 0.0)


def test_an_audit_runs_without_steps_left(opened: Make) -> None:
    session = opened().session
    session.steps_left = 0
    session.audit.switch("audit")
    assert state_of(session, None) is TrainerState.RUNNING
    assert snapshot_of(session, None, samples_per_second=0.0, process_start_ms=0).mode == "audit"


def test_it_tells_what_it_does_just_now(opened: Make) -> None:
    session = opened(full_eval_frequency=1).session
    assert activity_of(session, None) == ""
    session.train_one_step()
    session.advance_evaluation()
    assert activity_of(session, None) == "evaluating val: 8 of 20"
    shown = snapshot_of(session, None, samples_per_second=0.0, process_start_ms=0)
    assert (shown.mode, shown.evaluation, shown.activity) == ("train", None, "evaluating val: 8 of 20")
    assert (shown.step, shown.age, shown.train_loss) == (1, 8, session.last_train.loss)  # type: ignore[union-attr]
