"""The Dash logger: what a user's own code logs, shown as plots on the dashboard."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from graybox.checks import checked_name, whole_in_range
from graybox.errors import Invalid

MAX_WAITING = 10_000
LARGEST_STEP = 2**63 - 1


class Dash:
    """Pass it to `Experiment(logger=...)`; its root directory is where the dashboard looks.

    `add_scalars("gradient norm", {"train": 0.3}, global_step=age)` draws one curve per name on the plot
    "gradient norm". Callable from any thread; what is logged before training starts is kept until it does.
    """

    def __init__(self, root_directory: str | Path) -> None:
        self.root_directory = Path(root_directory)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, dict[str, float], int | None]] = deque(maxlen=MAX_WAITING)

    def add_scalars(self, graph_name: str, name_2_value: Mapping[str, float], global_step: int | None = None) -> None:
        """Log one value per name at `global_step` (the model's age; None: the present one). NaN and infinities are kept
        as they are. Raises Invalid for a value that is no number, a name that is none, or a step below 0; nothing is
        logged then."""
        # All that could be wrong is said here, to who logs it: later it would fail a training step.
        graph = checked_name("the name of a plot", str(graph_name))
        values = {}
        for name, value in name_2_value.items():
            try:
                values[checked_name("the name of a curve", str(name))] = float(value)
            except (TypeError, ValueError, OverflowError, RuntimeError):  # torch: a tensor of more than one number
                raise Invalid(f"cannot log {value!r:.100} as {graph}/{name}: it is not a number") from None
        age = None if global_step is None else whole_in_range("global_step", global_step, 0, LARGEST_STEP)
        with self._lock:
            self._waiting.append((graph, values, age))

    def take(self) -> list[tuple[str, dict[str, float], int | None]]:
        """What was logged since the last call, oldest first: (graph, values by name, age). For the trainer, which
        writes it to the run's metrics after each step."""
        if not self._waiting:
            return []
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
        return taken
