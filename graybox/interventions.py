"""Interventions: what a command does to a session, the same from a person and from a journal that is replayed.

A command is first resolved: checked against the present, selections turned into indices, refused with the reason. What
comes out is a kind and JSON arguments; performing those is a function of the session alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graybox.checkpoint import CheckpointKeeper, restore_all, restore_weights
from graybox.commands import (
    Command,
    CopyColumn,
    DeleteColumn,
    EditNeurons,
    Pause,
    RecordQuery,
    RestoreCheckpoint,
    Resume,
    SampleEdit,
    SetHyperParameters,
    SetPlotNote,
    Undo,
)
from graybox.errors import Invalid, NotFound, Refused
from graybox.hyper_parameters import apply_changes, check_changes, setting_of
from graybox.intervention import Intervention, Performed
from graybox.learning_rate import rates_of, undo_rates
from graybox.neuron_interventions import apply_edit, resolve_edit, undo_edit
from graybox.sample_interventions import SampleInterventions
from graybox.session import Session
from graybox.store.undo_order import UNDO, next_to_undo

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
            "hp_change": self._hp_change,
            "neuron_edit": self._neuron_edit,
            **self.samples.perform,
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
                return Intervention("hp_change", {"changes": check_changes(command.changes, self.session)})
            case EditNeurons():
                return Intervention("neuron_edit", resolve_edit(self.session, command))
            case Undo():
                return Intervention(UNDO, {"sequence": self._resolve_undo(command.sequence)})
            case SampleEdit() | CopyColumn() | DeleteColumn() | RecordQuery():
                return self.samples.resolve(command)
            case RestoreCheckpoint():
                record, weights_only = self.session.stores.checkpoints.resolve(command.reference)
                # A broken or foreign one is refused before anything changes.
                self.keeper.check(record, weights_only=weights_only)
                return Intervention("checkpoint_restore", {"id": record.id, "weights_only": weights_only})
            case SetPlotNote():
                return self._resolve_note(command)
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
            self._undo_hp_change(entry.undo)
        else:
            self.samples.undo(entry)
        return Performed(f"Undid: {entry.summary}", value=entry.sequence)

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
