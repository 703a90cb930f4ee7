"""Hyper-parameters of a person's own: values that their code reads and anybody may change while it trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from graybox.checks import is_number, is_whole
from graybox.errors import Invalid

Value = bool | int | float | str
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_KINDS: dict[type, str] = {bool: "bool", int: "integer", float: "number", str: "text"}

RESERVED = frozenset(
    {"experiment_name", "learning_rate", "batch_size", "training_steps_to_do", "full_eval_frequency",
     "checkpoint_frequency", "is_training", "mode", "workers", "loss.label_smoothing", "loss.class_weights"}
)  # fmt: skip
RESERVED_BEGINNINGS = frozenset({"optimizer", "scheduler", "dropout"})
"""Names, and what they begin with before a dot, of what every experiment has."""


class Tunable:
    """A number, a text or a truth value under a name, changed live like the learning rate: checked, journalled, undone
    and kept by checkpoints.

        decay = Tunable("ema.decay", 0.99, minimum=0.0, maximum=1.0)
        Experiment(..., hyper_parameters=[decay])

    and wherever the code wants it: decay.value. What runs in a worker process has a copy, which stays as it was.

    value: its type is the type that it keeps. minimum, maximum: both inclusive; of numbers only. choices: the texts
    that it may be. on_change: called with the value after each change, by the thread that trains; what it raises is
    said and the value put back.

    Raises Invalid for a value that does not fit the rest, or another type.
    """

    def __init__(
        self,
        name: str,
        value: Value,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: Sequence[str] = (),
        description: str = "",
        on_change: Callable[[Any], object] | None = None,
    ) -> None:
        if not _NAME.fullmatch(str(name)) or len(name) > 100:
            raise Invalid(f"a hyper-parameter's name is letters, digits, _ and dots between them, not {name!r:.100}")
        kind = _KINDS.get(type(value))
        if kind is None:
            raise Invalid(f"{name} is a bool, an int, a float or a text, not a {type(value).__name__}")
        for bound in (minimum, maximum):
            if bound is not None and (kind not in ("integer", "number") or not is_number(bound)):
                raise Invalid(f"the bounds of {name} are numbers, of a number, not {bound!r:.100} of a {kind}")
        if choices and (kind != "text" or value not in choices):
            raise Invalid(f"the choices of {name} are texts, {value!r:.100} among them")
        self.name = name
        self.kind = kind
        self.minimum = minimum
        self.maximum = maximum
        self.choices = tuple(choices)
        self.description = description
        self.on_change = on_change
        self._value = value
        if kind != "text" and kind != "bool" and not self._fits(value):
            raise Invalid(f"{name} is {value!r:.100}, which is outside its bounds {minimum} to {maximum}")

    @property
    def value(self) -> Any:
        """As it is now."""
        return self._value

    def set(self, value: Value) -> None:
        """Change it; what on_change raises comes through, and the value is as it was. For a change that is journalled,
        use the dashboard or Experiment.set_hyper_parameters."""
        before, self._value = self._value, value
        if self.on_change is not None and value != before:
            try:
                self.on_change(value)
            except Exception:
                self._value = before
                raise

    def _fits(self, value: Any) -> bool:
        right = is_whole(value) if self.kind == "integer" else is_number(value)
        low = self.minimum is None or value >= self.minimum
        return right and low and (self.maximum is None or value <= self.maximum)

    def __repr__(self) -> str:
        return f"Tunable({self.name!r}, {self._value!r})"
