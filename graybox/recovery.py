"""Recovery is replay: from the newest whole checkpoint, train on and apply each journal entry at its step."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graybox.checkpoint import CheckpointKeeper, restore_all
from graybox.commands import Command, Resume
from graybox.errors import NotFound, Refused
from graybox.intervention import Intervention
from graybox.interventions import Interventions
from graybox.session import Session
from graybox.store.evaluation_report import END
from graybox.store.journal import JournalEntry

_log = logging.getLogger(__name__)

Signals = dict[str, dict[str, NDArray[np.float32]]]


class Recovery:
    """What is left to replay. `advance` does one piece of it, so that whoever owns the training stays in control."""

    def __init__(self, session: Session, interventions: Interventions, entries: list[JournalEntry]) -> None:
        self.session = session
        self.interventions = interventions
        self._entries = deque(entries)
        self.total = len(entries)
        self.stopped = False
        self.logged: Signals = {}
        """What the user's code had logged of samples when the process ended: no entry of the journal does it again."""

    def stop(self, description: Mapping[str, str]) -> None:
        """A replayed step failed: show it, and wait for somebody to resume."""
        self.stopped = True
        self.session.abandon_evaluation()  # it may have lost a batch
        self.session.error = f"Recovery stopped at step {self.session.step:,}: {description['error']}"
        self.session.traceback = description["traceback"]

    def answer(self, command: Command) -> str:
        """What a command does while recovery is stopped: resume tries again. Raises Refused for any other."""
        if isinstance(command, Resume):
            self.stopped = False
            self.session.error = self.session.traceback = ""
            return "Recovery goes on"
        raise Refused("recovery has stopped; mend what stopped it and resume, or start a new run")

    @property
    def progress(self) -> str:
        """For people."""
        done = self.total - len(self._entries)
        return f"replaying the journal: {done} of {self.total} entries, step {self.session.step:,}"

    def advance(self) -> bool:
        """One step, one batch of an evaluation, or one entry. Answers False when nothing was left. Raises what a step
        raises; the next call tries the same again."""
        if not self._entries:
            self._bring_logged()
            return False
        entry = self._entries[0]
        if entry.outcome != "applied":
            self._pass_over(entry)
            self._entries.popleft()
        elif not self._advance_to(entry) and (entry.kind != END or self.session.evaluations.replayed(entry)):
            self._perform(entry)
            self._entries.popleft()
        return True

    def _advance_to(self, entry: JournalEntry) -> bool:
        """One step or batch of the way to where an entry belongs; False where that is reached. Raises Refused where it
        is passed."""
        session = self.session
        # Batches of an audit are counted beside the steps.
        audited = entry.arguments.get("audited", 0)
        if session.step > entry.step or session.audit.batches > audited:
            raise Refused(
                f"the journal's entry {entry.sequence} belongs to step {entry.step:,}, which the checkpoint is past; "
                "the journal and the checkpoints of this run do not belong together"
            )
        due = entry.arguments.get("evaluated") and session.evaluation_due()
        if session.step == entry.step and session.audit.batches == audited and not due:
            return False
        # The evaluations of the first time are made again: their results were rewound with the metrics.
        if session.evaluation_due():
            session.advance_evaluation()
        else:
            session.train_one_step()
        return True

    def advance_here(self) -> None:
        """Perform all that is left, where the run stands now: no step can be made again, as the data are others."""
        while self._entries:
            entry = self._entries.popleft()
            if entry.outcome == "applied":
                self._perform(entry)

    def _bring_logged(self) -> None:
        samples = self.session.stores.samples
        for split, signals in self.logged.items():
            for name, values in signals.items():
                now = samples.splits[split].notes.signals.get(name)
                differ = ~np.isnan(values) if now is None else ~np.isnan(values) & (now != values)
                rows = np.flatnonzero(differ)
                if len(rows):
                    samples.log_signal(split, name, rows, values[rows])
        self.logged = {}

    def _pass_over(self, entry: JournalEntry) -> None:
        """An entry that did nothing."""

    def _perform(self, entry: JournalEntry) -> None:
        try:
            self.interventions.perform(Intervention(entry.kind, entry.arguments), entry.sequence)
        except NotFound as error:
            # Curves that the user's own code draws may not come again; nothing else depends on a note on one.
            if entry.kind != "plot_note":
                raise
            _log.warning("left out a note (journal entry %d): %s", entry.sequence, error)


def begin_recovery(session: Session, keeper: CheckpointKeeper, interventions: Interventions) -> Recovery | None:
    """Load the newest whole checkpoint and answer what is to be replayed; None for a run without a checkpoint.

    Raises Refused when the checkpoint does not fit the model, StorageError when none can be read.
    """
    stores = session.stores
    record = stores.checkpoints.newest_whole()
    if record is None:
        return None
    payload = keeper.load(record)
    logged = {
        split: {name: values.copy() for name, values in columns.notes.signals.items()}
        for split, columns in stores.samples.splits.items()
    }
    session.data.go_back_to(payload.get("data", {}))
    restore_all(session, payload)
    keeper.written_step = record.step
    session.branch = payload["branch"]
    session.running = payload["running"]
    session.error, session.traceback = payload["error"], payload["traceback"]
    stores.metrics.rewind(payload["metric_position"])
    entries = stores.journal.entries(after=payload["journal_sequence"])
    later = [entry.step for entry in entries if entry.outcome == "applied" and entry.step > record.step]
    if session.data.pending and later:
        raise Refused(
            f"its {' and '.join(session.data.pending)} data set is another one, and the steps up to {max(later):,}, "
            f"after its last checkpoint at step {record.step:,}, can be made again only with the data of before: go on "
            "with those once and stop it, or start a new run"
        )
    _log.info("loaded checkpoint %s (step %d); %d journal entries to replay", record.id, record.step, len(entries))
    recovery = Recovery(session, interventions, entries)
    if not session.data.pending:  # else its rows are other samples
        recovery.logged = logged
    return recovery
