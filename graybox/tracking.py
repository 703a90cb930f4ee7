"""How the layers of one network agree on what is counted, and when it counts."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import Any

import torch

from graybox.errors import Invalid
from graybox.observation import InputColumns, Layout, Observation, SampleBatch, trigger_shares
from graybox.triggers_tracker import TriggersTracker, TriggersTrackerClazzAndSampleID

__all__ = [
    "InputColumns", "Layout", "Ledger", "RecordSettings", "StatisticsLevel", "Tally", "TrackingMode",
    "TriggersTracker", "TriggersTrackerClazzAndSampleID", "add_tracked_attrs_to_input_tensor", "trigger_shares",
]  # fmt: skip

_log = logging.getLogger(__name__)


class TrackingMode(enum.Enum):
    """Which statistics a forward pass adds to."""

    DISABLED = 0
    TRAIN = 1
    EVAL = 2


class StatisticsLevel(enum.Enum):
    """How much is worked out of a batch."""

    TRIGGERS = "triggers"
    """Trigger rates and ages alone: the cheapest."""
    ALL = "all"
    """Means and deviations, rates per class, exciting samples, and which neurons do the same."""


@dataclass(frozen=True)
class RecordSettings:
    """What is recorded of a network's neurons while it trains.

    level: how much. every: on each so many-th training step (an evaluation counts every batch); what is not counted
    still ages the neurons. classes: labels in [0, classes) get a trigger rate each; 0 for none. Each takes 16 bytes
    per neuron, in training and in evaluation.
    """

    level: StatisticsLevel = StatisticsLevel.ALL
    every: int = 1
    classes: int = 0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise Invalid(f"neurons are recorded on every so many-th step, 1 or more, not {self.every}")
        if self.classes < 0:
            raise Invalid(f"the number of classes is 0 or more, not {self.classes}")


def add_tracked_attrs_to_input_tensor(
    tensor: torch.Tensor, *, in_id_batch: torch.Tensor | None = None, label_batch: torch.Tensor | None = None
) -> torch.Tensor:
    """Attach which samples (ids [batch]) and labels ([batch]) a tensor's rows belong to. Answers the same tensor."""
    tensor.in_id_batch = in_id_batch  # type: ignore[attr-defined]  # a tensor takes attributes; that is the API
    tensor.label_batch = label_batch  # type: ignore[attr-defined]
    return tensor


Waiting = tuple[TriggersTracker, Observation]


class Ledger:
    """Where the layers of one network look up what to record, and leave it until a step is complete."""

    def __init__(self) -> None:
        self.mode = TrackingMode.DISABLED
        self.settings = RecordSettings()
        self.batch: SampleBatch | None = None
        """Which samples the present forward pass is about."""
        self.prediction_registered = False
        # Grows with every change of a freeze or a per-neuron learning rate, so that the optimizer notices.
        self.flags_version = 0
        self._step = 0
        self._holding = False
        self._pending: list[Waiting] = []
        self._said: set[str] = set()
        self.readings: dict[int, Any] = {}
        """By the number of a layer, whose neurons are read off its input, and how: see `NeuronLayer.readings`."""

    @property
    def due(self) -> bool:
        """Whether the present pass is measured, or only ages the neurons."""
        return self.mode is TrackingMode.EVAL or self._step % self.settings.every == 0

    @property
    def everything(self) -> bool:
        """Whether all statistics are wanted, not only triggers."""
        return self.settings.level is StatisticsLevel.ALL

    def say_once(self, message: str) -> None:
        """Warn in the log, the first time for this network."""
        if message not in self._said:
            self._said.add(message)
            _log.warning("%s", message)

    def samples_are(self, ids: torch.Tensor | None, labels: torch.Tensor | None = None) -> None:
        """Say which samples the next forward pass is about, as `SampleBatch.of` takes them. Never waits."""
        wanted = self.everything and self.due and self.mode is not TrackingMode.DISABLED
        self.batch = SampleBatch.of(ids, labels, self.settings.classes) if wanted else None

    def samples_of(self, tensor: torch.Tensor) -> None:
        """The same, from what `add_tracked_attrs_to_input_tensor` attached."""
        self.samples_are(getattr(tensor, "in_id_batch", None), getattr(tensor, "label_batch", None))

    def post(self, tracker: TriggersTracker, found: Observation) -> None:
        """Add what a batch did to a tracker, at once or when `commit` comes."""
        if self._holding:
            self._pending.append((tracker, found))
        else:
            tracker.observe(found)

    def add(self, tracker: TriggersTracker, shares: torch.Tensor, samples: int) -> None:
        """Add sums of shares (float64 [n]) over so many samples, at once or when `commit` comes."""
        self.post(tracker, Observation(samples, samples, shares))

    def hold(self, step: int | None = None) -> None:
        """From now on counts wait for `commit`, so that a failed step leaves none. step: how many were made before,
        which says whether this one is measured; without it they are counted here."""
        self._pending.clear()
        self._holding = True
        self.prediction_registered = False
        self.batch = None
        if step is not None:
            self._step = step

    def commit(self) -> None:
        """Add what waited, and count at once again."""
        for tracker, found in self._pending:
            tracker.observe(found)
        if self.mode is not TrackingMode.EVAL:
            self._step += 1
        self.drop()

    def take(self) -> list[tuple[TriggersTracker, torch.Tensor, int]]:
        """The shares that waited, for the caller to add later; count at once again. `take_all` answers the rest too."""
        return [(tracker, found.shares, found.seen) for tracker, found in self.take_all() if found.shares is not None]

    def take_all(self) -> list[Waiting]:
        """What waited, for a `Tally`; count at once again."""
        waited = list(self._pending)
        self.drop()
        return waited

    def drop(self) -> None:
        """Forget what waited, and count at once again."""
        self._pending.clear()
        self._holding = False
        self.batch = None


class Tally:
    """What many batches did, added up beside the trackers until they are complete: an evaluation counts whole."""

    def __init__(self) -> None:
        self._beside: dict[int, tuple[TriggersTracker, TriggersTracker]] = {}

    def add(self, waited: list[Waiting]) -> None:
        """Add what `Ledger.take_all` answered."""
        for tracker, found in waited:
            if id(tracker) not in self._beside:
                self._beside[id(tracker)] = (tracker, tracker.empty())
            self._beside[id(tracker)][1].observe(found)

    def commit(self) -> None:
        """Add it all to the trackers, and start anew. Never waits for the device."""
        for tracker, beside in self._beside.values():
            tracker.merge(beside)
        self._beside.clear()
