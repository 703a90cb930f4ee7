"""What the server needs of a run, live or ended: the only thing that servicers see of a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graybox.commands import Commands
from graybox.errors import Refused
from graybox.snapshot import Images, Snapshots
from graybox.store.checkpoints import CheckpointCatalogue
from graybox.store.journal import Journal
from graybox.store.metrics import MetricStore
from graybox.store.root import Root
from graybox.store.runs import RunFolder
from graybox.store.samples import SampleStore

if TYPE_CHECKING:
    from graybox.launch import Training


@dataclass
class Backend:
    """One run behind the wire. A run that has ended has neither commands nor snapshots nor images."""

    run: RunFolder
    root: Root
    commands: Commands | None
    snapshots: Snapshots | None
    images: Images | None
    metrics: MetricStore
    samples: SampleStore
    journal: Journal
    checkpoints: CheckpointCatalogue

    def need_commands(self, purpose: str) -> Commands:
        """The way to the trainer. Raises Refused, saying what a backend is needed for, where the run has ended."""
        if self.commands is None:
            raise self.ended(purpose)
        return self.commands

    def need_snapshots(self, purpose: str) -> Snapshots:
        """What the trainer published. Raises Refused where the run has ended."""
        if self.snapshots is None:
            raise self.ended(purpose)
        return self.snapshots

    def need_images(self, purpose: str) -> Images:
        """The samples' pictures. Raises Refused where the run has ended, or shows none."""
        if self.images is None:
            raise self.ended(purpose) if self.snapshots is None else Refused("the samples of this run have no pictures")
        return self.images

    def ended(self, purpose: str) -> Refused:
        """The reason to give for what only a live run can do."""
        return Refused(f"run {self.run.run_id} has ended; start a backend on it to {purpose}")


def live_backend(training: Training) -> Backend:
    """The run that a training works on."""
    stores = training.stores
    return Backend(
        run=stores.run,
        root=training.root,
        commands=training.trainer,
        snapshots=training.trainer,
        images=training.images,
        metrics=stores.metrics,
        samples=stores.samples,
        journal=stores.journal,
        checkpoints=stores.checkpoints,
    )


def open_ended(root: Root, run: RunFolder) -> Backend:
    """A run of the root as it is on disk, over read-only stores. Raises StorageError for a broken file."""
    return Backend(
        run=run,
        root=root,
        commands=None,
        snapshots=None,
        images=None,
        metrics=MetricStore(run.path, read_only=True),
        samples=SampleStore(run.path, read_only=True),
        journal=Journal(run.path / "journal.jsonl", read_only=True),
        checkpoints=CheckpointCatalogue(run.path / "checkpoints"),
    )
