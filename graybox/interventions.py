"""Interventions: what a command does to a session, the same from a person and from a journal that is replayed.

A command is first resolved: checked against the present, selections turned into indices, refused with the reason. What
comes out is a kind and JSON arguments; performing those is a function of the session alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graybox import branch_notes
from graybox.checkpoint import CheckpointKeeper, restore_all, restore_weights
from graybox.commands import (
    AUDIT,
    MODES,
    Command,
    CopyColumn,
    DeleteColumn,
    EditNeurons,
    NoteBranch,
    Pause,
    RecordQuery,
    Redo,
    RestoreCheckpoint,
    Resume,
    SampleEdit,
    SetHyperParameters,
    SetMode,
    SetPlotNote,
    StartEvaluation,
    Undo,
)
from graybox.errors import Invalid, NotFound, Refused
from graybox.hyper_parameters import apply_changes, check_changes, setting_of
from graybox.intervention import Intervention, Performed
from graybox.learning_rate import rates_of, undo_rates
from graybox.neuron_interventions import apply_edit, resolve_edit, undo_edit
from graybox.sample_interventions import SampleInterventions
from graybox.session import Session
from graybox.store.evaluation_report import END, START
from graybox.store.journal import JournalEntry
from graybox.store.undo_order import DATA_CHANGED, REDO, UNDO, as_edit, next_to_redo, next_to_undo

MAX_NOTE_LENGTH = 2_000


class Interventions:
    """Resolves and performs the interventions of one session."""

    def __init__(self, session: Session, keeper: CheckpointKeeper) -> None:
        self.session = session
        self.keeper = keeper
        self.samples = SampleInterventions(session)
        self._perform: dict[str, Callable[[Mapping[str, Any], int], Performed]] = {
            "pause": self._pause,
            "resume": self._resume,
            "step_failed": self._step_failed,
            DATA_CHANGED: lambda arguments, _: Performed(arguments["summary"]),
            "hp_change": self._hp_change,
            "mode_switch": self._mode_switch,
            START: session.evaluations.start,
            END: lambda arguments, _: session.evaluations.end(arguments),
            "neuron_edit": self._neuron_edit,
            **self.samples.perform,
            "checkpoint_restore": self._checkpoint_restore,
            "plot_note": self._plot_note,
            branch_notes.KIND: lambda arguments, _: branch_notes.perform(session.stores.run, arguments),
            UNDO: self._undo,
            REDO: self._redo,
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
                return Intervention("hp_change", {"changes": check_changes(command.changes, self.session)})
            case SetMode():
                if command.mode not in MODES:
                    raise Invalid(f"mode is {' or '.join(MODES)}, not {command.mode!r:.100}")
                return Intervention("mode_switch", {"mode": command.mode})
            case StartEvaluation():
                return self.session.evaluations.resolve(command)
            case EditNeurons():
                return Intervention("neuron_edit", resolve_edit(self.session, command))
            case Undo():
                return Intervention(UNDO, {"sequence": self._resolve(next_to_undo, "undo", command.sequence)})
            case Redo():
                return Intervention(REDO, {"sequence": self._resolve(next_to_redo, "redo", command.sequence)})
            case SampleEdit() | CopyColumn() | DeleteColumn() | RecordQuery():
                return self.samples.resolve(command)
            case RestoreCheckpoint():
                record, weights_only = self.session.stores.checkpoints.resolve(command.reference)
                # A broken or foreign one is refused before anything changes.
                self.keeper.check(record, weights_only=weights_only)
                return Intervention("checkpoint_restore", {"id": record.id, "weights_only": weights_only})
            case SetPlotNote():
                return self._resolve_note(command)
            case NoteBranch():
                return branch_notes.resolve(self.session.stores.run, command)
        raise Invalid(f"unknown command {type(command).__name__}")

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
        if self.session.steps_left <= 0 and not self.session.audit.on:
            return Performed("Resumed, but no steps are left: raise the steps left to train on")
        return Performed("Resumed")

    def _step_failed(self, arguments: Mapping[str, Any], _: int) -> Performed:
        self.session.running = False
        self.session.error = arguments["error"]
        self.session.traceback = arguments["traceback"]
        self.session.data.mark(arguments)
        return Performed(f"Paused by an error: {arguments['error']}")

    def _hp_change(self, arguments: Mapping[str, Any], _: int) -> Performed:
        changes = dict(arguments["changes"])
        session = self.session
        experiment, learning_rate = session.experiment, session.learning_rate
        rates = rates_of(experiment.optimizer, experiment.scheduler)
        undo: dict[str, Any] = {"changes": apply_changes(session, changes)}
        before = undo["changes"]
        if "learning_rate" in changes:
            after = rates_of(experiment.optimizer, experiment.scheduler)
            undo |= {"learning_rate": learning_rate, "rates": rates, "rates_after": after}

        words = [f"{_label(session, name)} {_show(before[name])} → {_show(value)}" for name, value in changes.items()]
        return Performed(
            "Set " + ", ".join(words),
            undo=undo,
            take_back=lambda: self._undo_hp_change(undo),
        )

    def _undo_hp_change(self, undo: Mapping[str, Any]) -> None:
        session = self.session
        kept = "rates" in undo  # older entries know the rate alone
        apply_changes(session, {n: value for n, value in undo["changes"].items() if n != "learning_rate" or not kept})
        if kept:
            experiment = session.experiment
            undo_rates(experiment.optimizer, experiment.scheduler, undo["rates"], undo["rates_after"])
            session.learning_rate = undo["learning_rate"]

    def _mode_switch(self, arguments: Mapping[str, Any], _: int) -> Performed:
        audit = self.session.audit
        before = audit.mode
        if before == arguments["mode"]:
            return Performed(f"Nothing changed: the mode is {before} already")
        audit.switch(arguments["mode"])
        what = "training goes on where it was left" if before == AUDIT else "batches are looked at, and nothing learns"
        return Performed(
            f"Switched from {before} to {audit.mode}: {what}",
            undo={"mode": before},
            take_back=lambda: audit.switch(before),
        )

    def _neuron_edit(self, arguments: Mapping[str, Any], sequence: int) -> Performed:
        self.session.abandon_evaluation()
        done = apply_edit(self.session, arguments, sequence)
        return Performed(done.plan.summary(), undo=done.undo, value=str(done.plan), take_back=done.take_back)

    def _resolve(self, find: Callable[[list[JournalEntry]], int], verb: str, expected: int) -> int:
        entries = self.session.stores.journal.entries()
        sequence = find(entries)
        if not sequence:
            raise Refused(f"there is nothing to {verb}")
        if expected and expected != sequence:
            entry = entries[sequence - 1]
            raise Refused(
                f"entry {expected} is not the last one that can be {verb}ne; that is entry {sequence} ({entry.summary})"
            )
        return sequence

    def _edit_of(self, sequence: int) -> tuple[JournalEntry, int]:
        by_sequence = {entry.sequence: entry for entry in self.session.stores.journal.entries()}
        try:
            return as_edit(by_sequence[sequence], by_sequence)
        except KeyError as error:
            raise NotFound(f"the journal has no entry {error}") from None

    def _undo(self, arguments: Mapping[str, Any], _: int) -> Performed:
        session = self.session
        entry, _ = self._edit_of(arguments["sequence"])
        session.abandon_evaluation()
        if entry.kind == "neuron_edit":
            undo_edit(session, entry.undo)
        elif entry.kind == "hp_change":
            self._undo_hp_change(entry.undo)
        elif entry.kind == "mode_switch":
            session.audit.switch(entry.undo["mode"])
        else:
            self.samples.undo(entry)
        return Performed(f"Undid: {entry.summary}", value=entry.sequence)

    def _redo(self, arguments: Mapping[str, Any], _: int) -> Performed:
        entry, first = self._edit_of(arguments["sequence"])
        # Random numbers are those of the first time, so that what is done again is the same.
        done = self.perform(Intervention(entry.kind, entry.arguments), first)
        return replace(done, summary=f"Redid: {done.summary}")

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


def _label(session: Session, name: str) -> str:
    """As it is called in a sentence; what comes with the experiment keeps its own name."""
    return name if name in session.live_settings else setting_of(session, name).label.lower()


def _show(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
