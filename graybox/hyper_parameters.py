"""The hyper-parameters that can be changed while it trains: what they are, their bounds, what a change does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graybox.checks import LARGEST_INTEGER, checked_name, is_number, is_whole
from graybox.errors import Invalid
from graybox.experiment_loop import MAX_BATCH_SIZE, MAX_LEARNING_RATE
from graybox.learning_rate import rescale_learning_rate
from graybox.session import Session
from graybox.snapshot import HyperParameter


@dataclass(frozen=True)
class Setting:
    """One hyper-parameter: how it is shown, read and set."""

    name: str
    label: str
    kind: str
    read: Callable[[Session], Any]
    write: Callable[[Session, Any], None]
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    description: str = ""

    def describe(self, session: Session) -> HyperParameter:
        """As it stands now."""
        return HyperParameter(
            self.name, self.label, self.kind, self.read(session),
            self.minimum, self.maximum, self.exclusive_minimum, self.description,
        )  # fmt: skip

    def check(self, value: Any) -> Any:
        """The value in its own type. Raises Invalid, saying what would be right."""
        if self.kind == "text":
            return checked_name(self.name, value)
        whole = self.kind == "integer"
        if not (is_whole(value) if whole else is_number(value)) or not self._within(value):
            raise Invalid(f"{self.name} is {self._wanted()}, not {value!r:.100}")
        return int(value) if whole else float(value)

    def _within(self, value: float) -> bool:
        low = self.minimum is None or (value > self.minimum if self.exclusive_minimum else value >= self.minimum)
        return low and (self.maximum is None or value <= self.maximum)

    def _wanted(self) -> str:
        what = "a whole number" if self.kind == "integer" else "a number"
        below = "above" if self.exclusive_minimum else "of at least"
        low = "" if self.minimum is None else f" {below} {self.minimum:g}"
        high = "" if self.maximum is None else f"{' and' if low else ' of'} at most {self.maximum:,.0f}"
        return what + low + high


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
    return tuple(setting.describe(session) for setting in SETTINGS.values())


def check_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with each value in its own type. Raises Invalid for an unknown name or a value out of range."""
    if not changes:
        raise Invalid("no hyper-parameter to change was given")
    unknown = [name for name in changes if name not in SETTINGS]
    if unknown:
        raise Invalid(f"unknown hyper-parameter {unknown[0]!r}; there are {', '.join(SETTINGS)}")
    return {name: SETTINGS[name].check(value) for name, value in changes.items()}


def apply_changes(session: Session, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Apply checked changes; answers the values before, by name."""
    before = {name: SETTINGS[name].read(session) for name in changes}
    for name, value in changes.items():
        SETTINGS[name].write(session, value)
    return before
