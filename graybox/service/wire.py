"""From what the trainer publishes and the store keeps to the messages of the contract."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.backend import Backend
from graybox.service.errors import clean
from graybox.service.int32 import int32
from graybox.snapshot import HyperParameter, Snapshot
from graybox.store.checkpoints import CheckpointRecord
from graybox.store.journal import JournalEntry
from graybox.store.label_words import kind_of_label, label_in_words, more_of, prediction_in_words
from graybox.store.runs import RunFolder
from graybox.store.sample_columns import SplitColumns, SplitSummary
from graybox.store.undo_order import UndoState, undoes

_UNDO_STATES = {
    UndoState.NEXT: pb.UNDO_NEXT,
    UndoState.LATER: pb.UNDO_LATER,
    UndoState.UNDONE: pb.UNDONE,
    UndoState.REDO: pb.REDO_NEXT,
    UndoState.GONE: pb.UNDO_GONE,
}


def status_from_snapshot(snapshot: Snapshot) -> pb.TrainerStatus:
    """The live trainer's state."""
    return pb.TrainerStatus(
        state=pb.TrainerState.Value(snapshot.state.name),
        run_id=snapshot.run_id,
        experiment_name=clean(snapshot.experiment_name),
        step=snapshot.step,
        age=snapshot.age,
        steps_left=snapshot.steps_left,
        branch=snapshot.branch,
        experiment_hash=snapshot.experiment_hash,
        error=clean(snapshot.error),
        traceback=clean(snapshot.traceback),
        samples_per_second=snapshot.samples_per_second,
        train_loss=snapshot.train_loss,
        train_accuracy=snapshot.train_accuracy,
        eval_loss=snapshot.eval_loss,
        eval_accuracy=snapshot.eval_accuracy,
        device=snapshot.device,
        journal_sequence=snapshot.journal_sequence,
        time_ms=snapshot.time_ms,
        epoch=snapshot.epoch,
        process_start_ms=snapshot.process_start_ms,
        parameter_count=snapshot.parameter_count,
        activity=clean(snapshot.activity),
        kind_of_problem=snapshot.kind_of_problem,
        class_names=[clean(name) for name in snapshot.class_names],
        mode=snapshot.mode,
    )


def status_from_disk(backend: Backend) -> pb.TrainerStatus:
    """An ended run's state, as far as its run.json tells."""
    record = backend.run.record
    metrics = _metrics(record.get("metrics"))
    return pb.TrainerStatus(
        state=pb.ENDED,
        run_id=backend.run.run_id,
        experiment_name=_text(record, "name"),
        step=_whole(record, "step"),
        age=_whole(record, "age"),
        steps_left=_whole(record, "steps_left"),
        branch=int32(_whole(record, "branch")),
        experiment_hash=_text(record, "experiment_hash"),
        error=_text(record, "error"),
        traceback=_text(record, "traceback"),
        train_loss=metrics.get("train/loss"),
        train_accuracy=metrics.get("train/accuracy"),
        eval_loss=metrics.get("val/loss"),
        eval_accuracy=metrics.get("val/accuracy"),
        device=_text(record, "device"),
        journal_sequence=backend.journal.last_sequence,
        time_ms=_whole(record, "updated_ms"),
        epoch=_whole(record, "epoch"),
        parameter_count=_whole(record, "parameter_count"),
        kind_of_problem=_text(record, "kind_of_problem"),
        class_names=class_names(backend),
    )


def class_names(backend: Backend) -> list[str]:
    """The names of the classes by number; empty where there are none."""
    names: Any = backend.snapshots.latest().class_names if backend.snapshots else ()
    if not names:
        names = backend.run.record.get("class_names") or ()
    return [clean(str(name)) for name in names]


def hyper_parameter(value: HyperParameter) -> pb.HyperParameterDesc:
    """One hyper-parameter with its bounds; bool and integer as number, text as text."""
    text = value.kind == "text"
    return pb.HyperParameterDesc(
        label=clean(value.label),
        name=value.name,
        type=value.kind,
        numerical_value=0.0 if text else float(value.value),
        string_value=clean(str(value.value)) if text else "",
        minimum=value.minimum,
        maximum=value.maximum,
        exclusive_minimum=value.exclusive_minimum,
        description=clean(value.description),
        choices=[clean(choice) for choice in value.choices],
    )


def sample_statistics(summaries: Mapping[str, SplitSummary]) -> pb.SampleStatistics:
    """Counts over all splits, and of each."""
    return pb.SampleStatistics(
        number_of_samples=sum(split.samples for split in summaries.values()),
        number_of_discarded=sum(split.discarded for split in summaries.values()),
        splits=[
            pb.SplitStatistics(
                origin=clean(name),
                number_of_samples=split.samples,
                number_of_discarded=split.discarded,
                number_seen=split.seen,
                mean_loss=split.mean_loss,
                number_wrong=split.wrong,
            )
            for name, split in summaries.items()
        ],
    )


def data_record(split: SplitColumns, row: int, names: Sequence[str]) -> pb.DataRecord:
    """One sample's row of the grid. names: of the classes, by number."""
    at = np.array([row])
    label, prediction = int(split.truth(at)[0]), int(split.prediction[row])
    loss = float(split.loss[row])
    encounters, last_age = int(split.encounters[row]), int(split.last_age[row])
    discarded = bool(split.discarded[row])
    seen = not math.isnan(loss)
    return pb.DataRecord(
        sample_id=str(row),
        origin=split.name,
        metadata={
            "label": str(label),
            "prediction": str(prediction),
            "loss": f"{loss:.6g}" if seen else "",
            "encounters": str(encounters),
            "last_age": str(last_age),
            "discarded": str(discarded).lower(),
            **_more_metadata(split, row),
        },
        tags=[clean(tag) for tag, tagged in split.notes.tags.items() if tagged[row]],
        original_label=int(split.label[row]),
        label=label,
        prediction=prediction,
        loss=loss if seen else None,
        encounters=encounters,
        last_age=last_age,
        discarded=discarded,
        label_name=_name_of(label, names),
        prediction_name=_name_of(prediction, names),
        label_text=clean(label_in_words(split, row, label, names)),
        prediction_text=clean(prediction_in_words(split, row, prediction, names)),
        label_kind=kind_of_label(split, label).value,
    )


def _more_metadata(split: SplitColumns, row: int) -> dict[str, str]:
    """Scores, signals and copied columns as text; what is not known yet is left out."""
    scores = split.scores.of(row)
    noted = {**split.notes.signals, **split.notes.copies}
    found: dict[str, Any] = {**scores, **more_of(split, row)}
    found |= {clean(name): column[row].item() for name, column in noted.items()}
    key = {} if split.keys is None else {"key": clean(split.keys.of(row))}
    return {**{name: _short(value) for name, value in found.items() if not math.isnan(value)}, **key}


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).lower()


def _name_of(number: int, names: Sequence[str]) -> str:
    return names[number] if 0 <= number < len(names) else ""


def checkpoint(record: CheckpointRecord) -> pb.CheckpointInfo:
    """One checkpoint, with the reference that restores it."""
    return pb.CheckpointInfo(
        id=record.id,
        experiment_hash=record.experiment_hash,
        reference=record.reference,
        step=record.step,
        age=record.age,
        branch=record.branch,
        name=clean(record.name),
        reason=clean(record.reason),
        time_ms=record.time_ms,
        bytes=record.bytes,
        journal_sequence=record.journal_sequence,
        metrics=_metrics(record.metrics),
    )


def live_run(backend: Backend, snapshot: Snapshot) -> pb.RunInfo:
    """The live run: its numbers from memory, which run.json follows only now and then."""
    latest = backend.metrics.latest()
    return pb.RunInfo(
        run_id=backend.run.run_id,
        experiment_name=clean(snapshot.experiment_name),
        state=pb.TrainerState.Value(snapshot.state.name),
        created_ms=_whole(backend.run.record, "created_ms"),
        updated_ms=snapshot.time_ms,
        step=snapshot.step,
        age=snapshot.age,
        branches=_branches(backend.run),
        live=True,
        metrics={
            clean(f"{split}/{metric}" if split else metric): float(point.value)
            for (split, metric), point in latest.items()
        },
    )


def ended_run(run: RunFolder) -> pb.RunInfo:
    """A run as its run.json tells. Raises StorageError for a broken one."""
    record = run.record
    return pb.RunInfo(
        run_id=run.run_id,
        experiment_name=_text(record, "name"),
        state=pb.ENDED,
        created_ms=_whole(record, "created_ms"),
        updated_ms=_whole(record, "updated_ms"),
        step=_whole(record, "step"),
        age=_whole(record, "age"),
        branches=_branches(run),
        metrics=_metrics(record.get("metrics")),
    )


def _branches(run: RunFolder) -> list[pb.BranchInfo]:
    return [
        pb.BranchInfo(
            branch=branch.branch,
            parent=branch.parent,
            fork_step=branch.fork_step,
            fork_age=branch.fork_age,
            name=clean(branch.name),
            note=clean(branch.note),
        )
        for branch in run.branches
    ]


def journal_entry(entry: JournalEntry, undo: UndoState | None) -> pb.JournalEntry:
    """One journal line; arguments too long for a list are left out, and said to be. undo: None where there is nothing
    to undo."""
    arguments = json.dumps(entry.arguments)
    if len(arguments) > limits.MAX_ARGUMENTS_CHARACTERS:
        arguments = json.dumps({"left_out": f"{len(arguments)} characters"})
    return pb.JournalEntry(
        sequence=entry.sequence,
        time_ms=entry.time_ms,
        actor=clean(entry.actor),
        kind=entry.kind,
        step=entry.step,
        age=entry.age,
        branch=entry.branch,
        summary=clean(entry.summary),
        arguments_json=arguments,
        outcome=clean(entry.outcome),
        undo_state=pb.UNDO_STATE_UNSPECIFIED if undo is None else _UNDO_STATES[undo],
        undoes=undoes(entry),
    )


def _metrics(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    return {clean(str(name)): float(number) for name, number in value.items() if isinstance(number, (int, float))}


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return clean(str(value)) if value is not None else ""


def _whole(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0
