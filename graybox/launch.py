"""Put an experiment to work on a root directory: its run, its stores, its trainer."""

from __future__ import annotations

import logging
import shutil
import threading
from functools import partial
from pathlib import Path

from graybox.commands import EditNeurons
from graybox.errors import Refused
from graybox.experiment import Experiment
from graybox.own_loop import OwnLoop
from graybox.sample_images import SampleImages
from graybox.session import Session, Stores
from graybox.snapshot import TrainerState
from graybox.store.root import Root, RootLock
from graybox.store.runs import RunFolder
from graybox.trainer import Trainer

_log = logging.getLogger(__name__)

RECORD_SECONDS = 2.0


class Training:
    """An experiment at work. Whoever calls `run` (or `by_hand`, or the trainer's `tick`) owns the training."""

    def __init__(self, experiment: Experiment, root: Root, lock: RootLock, stores: Stores) -> None:
        self.experiment = experiment
        self.root = root
        self.stores = stores
        self._lock = lock
        self._ended = False
        self._recording = threading.Lock()
        session = Session(experiment, stores)
        try:
            self.trainer = Trainer(session)
            self.images = SampleImages(experiment, self.trainer)
            self.trainer.begin()
        except BaseException:
            session.optimizer.detach()  # or a second try with the same experiment would scale every update twice
            raise
        self.by_hand = OwnLoop(self.trainer)
        session.network.journalled_by(lambda edit: self.by_hand.command(EditNeurons(edit)))
        for split, wrapper in experiment.datasets.items():
            wrapper.keep_in(stores.samples, split, partial(self.by_hand.discard, split))
        self._record()
        stores.flusher.every(RECORD_SECONDS, self._record)

    def run(self) -> None:
        """Train until `stop`. Blocks."""
        with self.by_hand.lent():
            self.trainer.run()

    def stop(self) -> None:
        """Ask `run` to end after the present step. Callable from any thread."""
        self.trainer.stop()

    def close(self) -> None:
        """Keep the present, finish what is being written, let another backend in. After `run`, or the last `tick`."""
        try:
            self.trainer.end()
        finally:
            try:
                self._ended = True
                self._record()
            finally:
                self.stores.close()
                self._lock.release()
                self.trainer.session.optimizer.detach()
                self.trainer.session.network.journalled_by(None)
                self.experiment.came_home()

    def _record(self) -> None:
        """Tell run.json how things stand, for whoever reads the run from disk."""
        # One at a time: the background must not write "running" over "ended".
        with self._recording:
            now = self.trainer.latest()
            latest = self.stores.metrics.latest()
            self.stores.run.update(
                name=now.experiment_name,
                state=TrainerState.ENDED.value if self._ended else now.state.value,
                step=now.step,
                age=now.age,
                steps_left=now.steps_left,
                branch=now.branch,
                experiment_hash=now.experiment_hash,
                error=now.error,
                traceback=now.traceback,
                device=now.device,
                epoch=now.epoch,
                parameter_count=now.parameter_count,
                kind_of_problem=now.kind_of_problem,
                class_names=list(now.class_names),
                metrics={f"{split}/{metric}": point.value for (split, metric), point in latest.items()},
            )


def launch(experiment: Experiment, *, root_directory: str | Path, new_run: bool = False) -> Training:
    """Begin, or go on with, a run of the experiment under root_directory.

    new_run, or an experiment with skip_loading, begins a new run; otherwise the newest one goes on.

    A run that the experiment's own loop has opened in the same root directory is taken over as it is.

    Raises StorageError for a root directory that cannot be written, Refused when another backend works in it, the
    newest run's checkpoints do not fit the experiment's model, or the experiment is at work elsewhere.
    """
    taken = experiment.take_over(root_directory, new_run=new_run)
    if taken is not None:
        return taken
    root = Root(root_directory)
    lock = root.lock()
    stores: Stores | None = None
    created: RunFolder | None = None
    try:
        run = None if new_run or experiment.skip_loading else root.latest_run()
        if run is None:
            run = created = root.create_run(experiment.name)
        stores = Stores.open(run)
        try:
            training = Training(experiment, root, lock, stores)
            experiment.went_to_work(training)
            return training
        except Refused as error:
            raise Refused(f"cannot go on with run {run.run_id}: {error} (--new_run starts a new one)") from error
    except BaseException:
        for wrapper in experiment.datasets.values():
            wrapper.let_go(keep=False)
        if stores is not None:
            stores.close()
        if created is not None:
            # It never began: nobody should find it beside the runs that did.
            shutil.rmtree(created.path, ignore_errors=True)
        lock.release()
        raise
