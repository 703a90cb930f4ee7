"""The checkpoints of a root directory's newest run as a tree of numbered states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graybox.store.checkpoints import CheckpointCatalogue, CheckpointRecord
from graybox.store.journal import Journal
from graybox.store.root import Root
from graybox.store.runs import Branch, RunFolder

if TYPE_CHECKING:
    from graybox.experiment import Experiment

NO_PARENT = -1
COPY = "branch"
"""The reason of a checkpoint that holds once more what a restore had just loaded."""


class CheckpointManager:
    """Keeps experiments and brings them back, by number. Reads the files that the run's trainer writes, so that it sees
    the automatic checkpoints too, and works on a run that has ended.

    root: the directory where the runs are; the newest one is meant. What is being written just now is not there yet.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def dump(self, experiment: Experiment) -> int:
        """Keep an experiment as it is now; the checkpoint's id. Waits until it is on the disk. Opens the experiment in
        this root directory where it is not at work yet.

        Raises Refused where it is at work in another one, or another backend is here; StorageError where it cannot be
        written.
        """
        experiment.open(self.root)
        return experiment.dump()

    def load(self, checkpoint_id: int, experiment: Experiment) -> None:
        """Bring an experiment back to a checkpoint of this root directory's newest run; see Experiment.load. Opens it
        as `dump` does. Raises NotFound for an unknown id, Refused where the checkpoint does not fit the experiment."""
        experiment.open(self.root)
        experiment.load(checkpoint_id)

    @property
    def id_to_path(self) -> dict[int, Path]:
        """The file of every checkpoint, oldest first. A file is read with graybox.checkpoint.read_payload."""
        catalogue = self._catalogue()
        return {} if catalogue is None else {each.ordinal: catalogue.path(each.id) for each in catalogue.list()}

    @property
    def id_to_prnt(self) -> dict[int, int]:
        """For every checkpoint the one from which training went on to it, of those that are still there; -1 for the
        first."""
        run = self._run()
        if run is None:
            return {}
        records = _catalogue_of(run).list()
        restored = _restored_by_branch(run)
        last: dict[int, int] = {}
        parents: dict[int, int] = {}
        known = {record.ordinal for record in records}
        for record in records:
            origin = restored.get(record.branch, NO_PARENT)
            parents[record.ordinal] = last.get(record.branch, origin if origin in known else NO_PARENT)
            if record.reason == COPY:
                # The same state as its parent's, kept anew for recovery: what comes after it came from the parent.
                last[record.branch] = parents[record.ordinal]
            else:
                last[record.branch] = record.ordinal
        return parents

    @property
    def branches(self) -> list[Branch]:
        """The run's branches by number, with parents, names and notes; none without a run."""
        run = self._run()
        return [] if run is None else run.branches

    @property
    def next_id(self) -> int:
        """The id that the next checkpoint gets."""
        catalogue = self._catalogue()
        return 1 if catalogue is None else int(catalogue.next_id())

    @property
    def prnt_id(self) -> int:
        """The checkpoint that the run has gone on from: its newest, or one that was loaded since; -1 without any."""
        newest = self._newest()
        if newest is None:
            return NO_PARENT
        return self.id_to_prnt[newest.ordinal] if newest.reason == COPY else newest.ordinal

    def get_latest_experiment(self) -> int | None:
        """The id of the newest checkpoint whose file is whole; None where there is none."""
        catalogue = self._catalogue()
        newest = None if catalogue is None else catalogue.newest_whole()
        return None if newest is None else newest.ordinal

    def _run(self) -> RunFolder | None:
        return Root(self.root, read_only=True).latest_run()

    def _catalogue(self) -> CheckpointCatalogue | None:
        run = self._run()
        return None if run is None else _catalogue_of(run)

    def _newest(self) -> CheckpointRecord | None:
        catalogue = self._catalogue()
        records = [] if catalogue is None else catalogue.list()
        return records[-1] if records else None


def _catalogue_of(run: RunFolder) -> CheckpointCatalogue:
    return CheckpointCatalogue(run.path / "checkpoints")


def _restored_by_branch(run: RunFolder) -> dict[int, int]:
    """The checkpoint that each branch began with, as the journal tells."""
    entries = Journal(run.path / "journal.jsonl", read_only=True).entries()
    return {
        entry.arguments["branch"]: int(entry.arguments["id"])
        for entry in entries
        if entry.kind == "checkpoint_restore" and "branch" in entry.arguments
    }
