"""One of the two that are compared: what is known of a run, or of one of its checkpoints, without the user's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graybox.checkpoint import read_payload
from graybox.comparison.place import Place
from graybox.errors import StorageError
from graybox.store.checkpoints import CheckpointRecord
from graybox.store.journal import Journal, JournalEntry
from graybox.store.metrics import MetricStore
from graybox.store.sample_columns import SplitColumns
from graybox.store.samples import SampleStore
from graybox.store.undo_order import UNDO, as_edit, named

TRIES = 5
"""So often in a row the newest checkpoint may be gone before it is read: a run that trains makes new ones."""


@dataclass(frozen=True)
class Side:
    """record: of the run, as run.json has it. checkpoint, payload: None where the run has no checkpoint yet. samples:
    by split. metrics: the latest, by "split/metric". settings: hyper-parameters by name. interventions: how many
    journal entries of each kind lie before this state."""

    name: str
    record: Mapping[str, Any]
    checkpoint: CheckpointRecord | None
    payload: Mapping[str, Any] | None
    samples: Mapping[str, SplitColumns]
    metrics: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    interventions: Mapping[str, int] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes, where the data set tells them."""
        return tuple(map(str, self.record.get("class_names", ())))

    def head(self) -> dict[str, Any]:
        """What it is, for the top of a report."""
        at = self.checkpoint
        return {
            "name": self.name,
            "run": self.record.get("run_id", ""),
            "title": self.record.get("name", ""),
            "state": self.record.get("state", ""),
            "step": self.record.get("step", 0),
            "age": self.record.get("age", 0),
            "weights_of_checkpoint": None if at is None else at.id,
            "weights_of_step": None if at is None else at.step,
        }


def side_of(text: str) -> Side:
    """Read it from disk; nothing is written, and a run may train meanwhile.

    text: see Place. Of a run without a named checkpoint, samples, metrics and hyper-parameters are those of now, and
    weights those of the newest checkpoint. Raises NotFound, Invalid or StorageError, naming what is wrong.
    """
    place = Place(text)
    checkpoint, payload = read_checkpoint(place)
    record = dict(place.run.record)
    journal = [e for e in Journal(place.run.path / "journal.jsonl", read_only=True).entries() if e.outcome == "applied"]
    store = SampleStore(place.run.path, read_only=True)
    splits: Mapping[str, SplitColumns] = store.splits
    if place.reference and checkpoint is not None and payload is not None:
        record |= {"step": checkpoint.step, "age": checkpoint.age, "state": "checkpoint"}
        splits = _samples_in(payload, splits)
        metrics: dict[str, float] = dict(checkpoint.metrics)
        journal = [entry for entry in journal if entry.sequence <= checkpoint.journal_sequence]
    else:
        latest = MetricStore(place.run.path, read_only=True).latest()
        newest = max(latest.values(), key=lambda point: point.step, default=None)
        if newest is not None and newest.step > record.get("step", 0):
            record |= {"step": newest.step, "age": newest.age}  # run.json follows every two seconds
        metrics = {f"{split}/{metric}" if split else metric: float(p.value) for (split, metric), p in latest.items()}
    settings = _settings(record, payload, journal, 0 if checkpoint is None else checkpoint.journal_sequence)
    kinds = Counter(entry.kind for entry in journal)
    return Side(place.name, record, checkpoint, payload, splits, metrics, settings, dict(sorted(kinds.items())))


def read_checkpoint(place: Place) -> tuple[CheckpointRecord | None, dict[str, Any] | None]:
    """The checkpoint that a place means, and what its file holds; (None, None) for a run that has none yet.

    Raises NotFound for a reference that none has, StorageError for a broken file.
    """
    left = 1 if place.reference else TRIES
    while True:
        record = place.checkpoint()
        if record is None:
            return None, None
        try:
            return record, read_payload(place.file_of(record))
        except StorageError:
            left -= 1
            if not left:
                raise


def checkpoint_of(text: str) -> tuple[Place, CheckpointRecord, dict[str, Any]]:
    """As `read_checkpoint`; raises StorageError where the run has no checkpoint yet."""
    place = Place(text)
    record, payload = read_checkpoint(place)
    if record is None or payload is None:
        raise StorageError(f"run {place.run.run_id} has no checkpoint yet: keep one, or wait for an automatic one")
    return place, record, payload


def _samples_in(payload: Mapping[str, Any], now: Mapping[str, SplitColumns]) -> dict[str, SplitColumns]:
    """The sample columns that a checkpoint holds; what the data set says of samples is as it is now."""
    states: dict[str, dict[str, Any]] = {}
    for key, value in payload["samples"].items():
        split, _, column = key.partition("/")
        states.setdefault(split, {})[column] = np.asarray(value)
    found: dict[str, SplitColumns] = {}
    for split, state in states.items():
        known = now.get(split)
        if known is not None and known.count == len(state["loss"]):
            found[split] = SplitColumns(split, known.count, known.fingerprint, known.label)
            found[split].keys = known.keys
            found[split].set_state(state)
    return found


def _settings(
    record: Mapping[str, Any], payload: Mapping[str, Any] | None, journal: list[JournalEntry], since: int
) -> dict[str, Any]:
    """Hyper-parameters by name: of the run, of the optimizer's groups, and what the code built. Those that a person
    changed after the checkpoint are as they are now."""
    found: dict[str, Any] = {name: record[name] for name in ("seed", "device", "kind_of_problem") if name in record}
    if payload is None:
        return found
    found |= {name: value for name, value in payload["hyper_parameters"].items() if not isinstance(value, Mapping)}
    found |= dict(payload["hyper_parameters"].get("live", {}))
    groups = payload["optimizer"]["param_groups"]
    for number, group in enumerate(groups):
        prefix = "optimizer." if len(groups) == 1 else f"optimizer.group {number}."
        found |= {prefix + key: value for key, value in group.items() if key != "params"}
    found |= {name.removeprefix("the "): value for name, value in payload["kinds"].items()}
    by_sequence = {entry.sequence: entry for entry in journal}
    for entry in journal:
        if entry.sequence > since:
            found |= _change_of(entry, by_sequence)
    return found


def _change_of(entry: JournalEntry, by_sequence: Mapping[int, JournalEntry]) -> dict[str, Any]:
    """What an entry set hyper-parameters to; {} for one that is about something else."""
    undone = by_sequence.get(named(entry)) if entry.kind == UNDO else None
    source = undone.undo if undone is not None else entry.arguments
    try:
        edit, _ = as_edit(undone or entry, by_sequence)
    except KeyError:
        return {}
    if edit.kind != "hp_change":
        return {}
    if undone is None:
        source = edit.arguments
    return {name: value for name, value in source["changes"].items() if name != "training_steps_to_do"}
