"""The hyper-parameters that can be changed while it trains: what they are, their bounds, what a change does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from graybox.checks import LARGEST_INTEGER
from graybox.errors import GrayboxError, Invalid, Refused
from graybox.experiment_loop import MAX_BATCH_SIZE, MAX_LEARNING_RATE
from graybox.learning_rate import rescale_learning_rate
from graybox.session import Session
from graybox.setting import Setting
from graybox.snapshot import HyperParameter

__all__ = ["SETTINGS", "Setting", "apply_changes", "check_changes", "describe_all", "restore_live", "set_learning_rate"]

_log = logging.getLogger(__name__)

_OF_STATE = ("optimizer.", "scheduler.")
DESCRIBED_EVERY = 0.5
"""Seconds: what changes only when a person or a schedule changes it is not read anew after each step."""


def set_learning_rate(session: Session, value: float) -> None:
    """As `rescale_learning_rate`."""
    rescale_learning_rate(session.experiment.optimizer, session.experiment.scheduler, value)
    session.learning_rate = value


def _set_batch_size(session: Session, value: int) -> None:
    session.stream.batch_size = value
    # A pass that has begun would end with other batches than the one that replay makes.
    session.abandon_evaluation()


def _current_learning_rate(session: Session) -> float:
    return float(session.experiment.optimizer.param_groups[0]["lr"])


def _set(name: str) -> Callable[[Session, Any], None]:
    return lambda session, value: setattr(session, name, value)


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("experiment_name", "Name", "text", lambda s: s.name, _set("name"), description="Shown on the plots"),
        Setting(
            "learning_rate", "Learning rate", "number", _current_learning_rate, set_learning_rate,
            minimum=0.0, maximum=MAX_LEARNING_RATE, exclusive_minimum=True,
            description="Optimizer state is kept when it changes",
        ),
        Setting(
            "batch_size", "Batch size", "integer", lambda s: s.stream.batch_size, _set_batch_size,
            minimum=1, maximum=MAX_BATCH_SIZE, description="Samples per step, from the next step on",
        ),
        Setting(
            "training_steps_to_do", "Steps left", "integer", lambda s: s.steps_left, _set("steps_left"),
            minimum=0, maximum=LARGEST_INTEGER, description="Optimizer steps still to do",
        ),
        Setting(
            "full_eval_frequency", "Evaluate every", "integer",
            lambda s: s.full_eval_frequency, _set("full_eval_frequency"),
            minimum=0, maximum=LARGEST_INTEGER,
            description="Steps between two passes over the evaluation split; 0: never",
        ),
        Setting(
            "checkpoint_frequency", "Checkpoint every", "integer",
            lambda s: s.checkpoint_frequency, _set("checkpoint_frequency"),
            minimum=0, maximum=LARGEST_INTEGER, description="Steps between two automatic checkpoints; 0: never",
        ),
    )
}  # fmt: skip


def describe_all(session: Session) -> tuple[HyperParameter, ...]:
    """All hyper-parameters as they stand, in the order to show them."""
    always = tuple(setting.describe(session) for setting in SETTINGS.values())
    kept, now = session.described, time.monotonic()
    if kept is None or kept[0] != session.live_version or now - kept[1] > DESCRIBED_EVERY:
        described = tuple(setting.describe(session) for setting in session.live_settings.values())
        session.described = kept = (session.live_version, now, described)
    return always + kept[2]


def check_changes(changes: Mapping[str, Any], session: Session | None = None) -> dict[str, Any]:
    """The changes with each value in its own type. Raises Invalid for an unknown name, a value out of range or, where
    the session is given, one that does not fit it; Refused for one that something else sets."""
    if not changes:
        raise Invalid("no hyper-parameter to change was given")
    settings = SETTINGS if session is None else {**SETTINGS, **session.live_settings}
    unknown = [name for name in changes if name not in settings]
    if unknown:
        raise Invalid(f"unknown hyper-parameter {unknown[0]!r}; there are {', '.join(settings)}")
    checked = {name: settings[name].check(value) for name, value in changes.items()}
    if session is not None:
        for name, value in checked.items():
            settings[name].check_fit(session, value, checked)
    return checked


def setting_of(session: Session, name: str) -> Setting:
    """Raises Refused for one that the experiment no longer has."""
    found = SETTINGS.get(name) or session.live_settings.get(name)
    if found is None:
        raise Refused(f"this experiment has no hyper-parameter {name!r}, which the run had; bring it back")
    return found


def apply_changes(session: Session, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Apply checked changes; answers the values before, by name. Where one of them raises, what was changed is put
    back."""
    settings = {name: setting_of(session, name) for name in changes}
    before: dict[str, Any] = {}
    try:
        for name, value in changes.items():
            old = settings[name].read(session)
            settings[name].write(session, value)
            before[name] = old
    except BaseException:
        for name, old in before.items():
            settings[name].write(session, old)
        raise
    for name, value in changes.items():
        if name in session.live_settings:
            session.note_live(name, value)
    return before


def restore_live(session: Session, values: Mapping[str, Any]) -> None:
    """Set the live hyper-parameters that a person had set to these values, and all others to what the experiment says;
    but for those of optimizer and schedule, which their own state brings back. One that the experiment no longer has,
    or whose code refuses the value, is left as it is, with a warning: the rest of a checkpoint does not depend on it.
    """
    for name in [*session.live, *values]:
        setting = session.live_settings.get(name)
        if setting is None:
            _log.warning("left out the hyper-parameter %s: this experiment has none of that name", name)
            continue
        value = values.get(name, session.as_built[name])
        if name.startswith(_OF_STATE) and name != "scheduler.runs":
            value = setting.read(session)
        elif setting.read(session) != value:
            try:
                setting.write(session, value)
            except (GrayboxError, RuntimeError, OSError) as error:
                _log.warning("the hyper-parameter %s stays as it is: %s", name, error)
                value = setting.read(session)
        session.note_live(name, value)
