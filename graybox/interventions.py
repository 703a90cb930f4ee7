"""Interventions: what a command does to a session, the same from a person and from a journal that is replayed.

A command is first resolved: checked against the present, selections turned into indices, refused with the reason. What
comes out is a kind and JSON arguments; performing those is a function of the session alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graybox.checkpoint import CheckpointKeeper, restore_all, restore_weights
from graybox.commands import (
    Command,
    DiscardSamples,
    EditNeurons,
    Pause,
    RestoreCheckpoint,
    Resume,
    SetHyperParameters,
    SetPlotNote,
    Undo,
)
from graybox.errors import Invalid, NotFound, Refused
from graybox.hyper_parameters import SETTINGS, apply_changes, check_changes
from graybox.neuron_interventions import apply_edit, resolve_edit, undo_edit
from graybox.session import Session
from graybox.store.undo_order import UNDO, next_to_undo
from graybox.taken_back import recorded_or_taken_back

MAX_INLINE = 1_000
"""More rows than this go into a blob beside the journal."""
MAX_NOTE_LENGTH = 2_000


@dataclass(frozen=True)
class Intervention:
    """A resolved command: plain JSON, ready for the journal."""

    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Performed:
    """What an intervention did: a line for people, what undoes it, what the command answers, and what it decided
    itself and replay must know. take_back: puts everything back at once, where the journal does not take the entry;
    None where that cannot be done."""

    summary: str
    undo: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    decided: dict[str, Any] = field(default_factory=dict)
    take_back: Callable[[], object] | None = None


class Interventions:
    """Resolves and performs the interventions of one session."""

    def __init__(self, session: Session, keeper: CheckpointKeeper) -> None:
        self.session = session
        self.keeper = keeper
        self._perform: dict[str, Callable[[Mapping[str, Any], int], Performed]] = {
            "pause": self._pause,
            "resume": self._resume,
            "step_failed": self._step_failed,
            "hp_change": self._hp_change,
            "neuron_edit": self._neuron_edit,
            "sample_discard": lambda arguments, _: self._mark_samples(arguments, True),
            "sample_restore": lambda arguments, _: self._mark_samples(arguments, False),
            "checkpoint_restore": self._checkpoint_restore,
            "plot_note": self._plot_note,
            UNDO: self._undo,
        }

    # -- resolving -----------------------------------------------------------------------------------

    def resolve(self, command: Command) -> Intervention:
        """Check a command against the present. Raises Invalid, NotFound or Refused; changes nothing."""
        match command:
            case Pause():
                return Intervention("pause")
            case Resume():
                return Intervention("resume")
            case SetHyperParameters():
                return Intervention("hp_change", {"changes": check_changes(command.changes)})
            case EditNeurons():
                return Intervention("neuron_edit", resolve_edit(self.session, command))
            case Undo():
                return Intervention(UNDO, {"sequence": self._resolve_undo(command.sequence)})
            case DiscardSamples():
                return self._resolve_samples(command)
            case RestoreCheckpoint():
                record, weights_only = self.session.stores.checkpoints.resolve(command.reference)
                # A broken or foreign one is refused before anything changes.
                self.keeper.check(record, weights_only=weights_only)
                return Intervention("checkpoint_restore", {"id": record.id, "weights_only": weights_only})
            case SetPlotNote():
                return self._resolve_note(command)
        raise Invalid(f"unknown command {type(command).__name__}")

    def _resolve_samples(self, command: DiscardSamples) -> Intervention:
        samples = self.session.stores.samples
        rows: dict[str, list[int]] = {}
        if not command.samples:
            raise Invalid("no sample was named")
        for split, sample_id in command.samples:
            if split not in samples.splits:
                raise NotFound(f"no split {split!r}; there are {', '.join(samples.splits)}")
            rows.setdefault(split, []).append(row_of(split, sample_id, samples.splits[split].count))
        unique = {split: sorted(set(found)) for split, found in rows.items()}
        if command.discarded and "train" in unique:
            left = ~samples.splits["train"].discarded
            left[unique["train"]] = False
            if not left.any():
                raise Refused("this would leave no training sample; keep at least one")
        kind = "sample_discard" if command.discarded else "sample_restore"
        if sum(map(len, unique.values())) <= MAX_INLINE:
            return Intervention(kind, {"rows": unique})
        blob = self.session.stores.blobs.put({s: np.asarray(found, dtype=np.int64) for s, found in unique.items()})
        return Intervention(kind, {"rows_blob": blob})

    def _resolve_note(self, command: SetPlotNote) -> Intervention:
        if len(command.note) > MAX_NOTE_LENGTH:
            raise Invalid(f"a note has at most {MAX_NOTE_LENGTH:,} characters, not {len(command.note):,}")
        known = self.session.stores.metrics.latest()
        if (command.split, command.metric) not in known:
            names = ", ".join(f"{split}/{metric}" for split, metric in known) or "none yet"
            raise NotFound(f"no metric {command.split}/{command.metric}; there are {names}")
        return Intervention(
            "plot_note",
            {
                "split": command.split,
                "metric": command.metric,
                "branch": command.branch,
                "age": command.age,
                "note": command.note,
            },
        )

    # -- performing ----------------------------------------------------------------------------------

    def perform(self, intervention: Intervention, sequence: int) -> Performed:
        """Do it. sequence: of its journal entry, from which an edit draws its random numbers."""
        perform = self._perform.get(intervention.kind)
        if perform is None:
            raise Invalid(f"the journal holds an entry {intervention.kind!r} that this version does not know")
        return perform(intervention.arguments, sequence)

    def _pause(self, arguments: Mapping[str, Any], _: int) -> Performed:
        self.session.running = False
        return Performed("Paused")

    def _resume(self, arguments: Mapping[str, Any], _: int) -> Performed:
        self.session.running = True
        self.session.error = self.session.traceback = ""
        if self.session.steps_left <= 0:
            return Performed("Resumed, but no steps are left: raise the steps left to train on")
        return Performed("Resumed")

    def _step_failed(self, arguments: Mapping[str, Any], _: int) -> Performed:
        self.session.running = False
        self.session.error = arguments["error"]
        self.session.traceback = arguments["traceback"]
        return Performed(f"Paused by an error: {arguments['error']}")

    def _hp_change(self, arguments: Mapping[str, Any], _: int) -> Performed:
        changes = dict(arguments["changes"])
        before = apply_changes(self.session, changes)
        words = [
            f"{SETTINGS[name].label.lower()} {_show(before[name])} → {_show(value)}" for name, value in changes.items()
        ]
        return Performed(
            "Set " + ", ".join(words),
            undo={"changes": before},
            take_back=lambda: apply_changes(self.session, dict(before)),
        )

    def _neuron_edit(self, arguments: Mapping[str, Any], sequence: int) -> Performed:
        self.session.abandon_evaluation()
        done = apply_edit(self.session, arguments, sequence)
        return Performed(done.plan.summary(), undo=done.undo, value=str(done.plan), take_back=done.take_back)

    def _resolve_undo(self, expected: int) -> int:
        entries = self.session.stores.journal.entries()
        sequence = next_to_undo(entries)
        if not sequence:
            raise Refused("there is nothing to undo")
        if expected and expected != sequence:
            entry = next(e for e in entries if e.sequence == sequence)
            raise Refused(
                f"entry {expected} is not the last one that can be undone; that is entry {sequence} ({entry.summary})"
            )
        return sequence

    def _undo(self, arguments: Mapping[str, Any], _: int) -> Performed:
        session = self.session
        entry = next((e for e in session.stores.journal.entries() if e.sequence == arguments["sequence"]), None)
        if entry is None:
            raise NotFound(f"the journal has no entry {arguments['sequence']}")
        session.abandon_evaluation()
        if entry.kind == "neuron_edit":
            undo_edit(session, entry.undo)
        elif entry.kind == "hp_change":
            apply_changes(session, dict(entry.undo["changes"]))
        else:
            for split, rows in self._rows(entry.undo).items():
                discarded = entry.kind == "sample_restore"
                session.stores.samples.set_discarded(split, np.asarray(rows, dtype=np.int64), discarded)
        return Performed(f"Undid: {entry.summary}", value=entry.sequence)

    def _mark_samples(self, arguments: Mapping[str, Any], discarded: bool) -> Performed:
        samples = self.session.stores.samples
        # A pass that has begun takes the samples of before, the one that replay makes those of after.
        self.session.abandon_evaluation()
        changed = {
            split: samples.set_discarded(split, np.asarray(rows, dtype=np.int64), discarded)
            for split, rows in self._rows(arguments).items()
        }
        count = sum(len(rows) for rows in changed.values())
        verb = "Discarded" if discarded else "Restored"
        already = "discarded" if discarded else "in use"
        where = ", ".join(f"{len(rows):,} of {split}" for split, rows in changed.items() if len(rows))
        some = "sample" if count == 1 else "samples"
        summary = f"{verb} {count:,} {some} ({where})" if count else f"Nothing changed: already {already}"

        def take_back() -> None:
            for split, rows in changed.items():
                samples.set_discarded(split, rows, not discarded)

        undo = recorded_or_taken_back(lambda: self._kept_rows(changed, count), take_back)
        return Performed(summary, undo=undo, value=count, take_back=take_back)

    def _kept_rows(self, changed: Mapping[str, np.ndarray], count: int) -> dict[str, Any]:
        """Rows as an entry of the journal holds them: in the line, or as a blob beside it."""
        if count > MAX_INLINE:
            return {"rows_blob": self.session.stores.blobs.put(changed)}
        return {"rows": {split: rows.tolist() for split, rows in changed.items()}}

    def _rows(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if "rows_blob" in arguments:
            return dict(self.session.stores.blobs.get(arguments["rows_blob"]))
        return dict(arguments["rows"])

    def _checkpoint_restore(self, arguments: Mapping[str, Any], _: int) -> Performed:
        session = self.session
        record = session.stores.checkpoints.get(arguments["id"])
        payload = self.keeper.load(record, weights_only=arguments["weights_only"])
        session.running = False
        session.error = session.traceback = ""
        if arguments["weights_only"]:
            layers = restore_weights(session, payload)
            session.abandon_evaluation()
            summary = f"Took over the weights of checkpoint {record.id} (step {record.step:,})"
            if layers:
                summary += (
                    f"; neurons of {', '.join(layers)} had come, gone or moved since: their flags and statistics went "
                    "with them, and the optimizer starts anew there"
                )
            return Performed(summary)
        branch = next((b for b in session.stores.run.branches if b.branch == arguments.get("branch")), None)
        if branch is None:
            branch = session.stores.run.add_branch(record.branch, record.step, record.age)
        restore_all(session, payload)
        session.branch = branch.branch
        return Performed(
            f"Went back to checkpoint {record.id} (step {record.step:,}); training goes on as branch {branch.branch}",
            value=branch.branch,
            decided={"branch": branch.branch},
        )

    def _plot_note(self, arguments: Mapping[str, Any], _: int) -> Performed:
        values = dict(arguments)
        self.session.stores.metrics.set_note(
            values["split"], values["metric"], values["branch"], values["age"], values["note"]
        )
        where = f"{values['split']}/{values['metric']} at age {values['age']:,}"
        return Performed(f"Noted at {where}" if values["note"] else f"Removed the note at {where}")


def row_of(split: str, sample_id: str, count: int) -> int:
    """The row that a sample's id names. Raises NotFound."""
    if sample_id.isascii() and sample_id.isdigit() and len(sample_id) <= 18 and int(sample_id) < count:
        return int(sample_id)
    raise NotFound(f"no sample {sample_id!r:.60} in split {split!r}; ids run from 0 to {count - 1}")


def _show(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
