"""What a user's own script does with an experiment: train, evaluate, keep, go back, set, without a backend."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import optim
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from graybox.checks import checked_name, in_range, whole_in_range
from graybox.commands import (
    Command,
    NoteBranch,
    Pause,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    SetMode,
    StartEvaluation,
)
from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid, Refused
from graybox.learning_rate import rescale_learning_rate
from graybox.monitoring import describe_network, describe_samples
from graybox.sample_loader import Batch, Collate, sample_loader
from graybox.store.root import Root

if TYPE_CHECKING:
    from graybox.checkpoint_manager import CheckpointManager
    from graybox.launch import Training
    from graybox.model_with_ops import NetworkWithOps
    from graybox.own_loop import OwnLoop
    from graybox.store.evaluation_report import EvaluationReport
    from graybox.task import Task

MAX_BATCH_SIZE = 1_000_000
MAX_LEARNING_RATE = 1e6
DEFAULT_CALLBACK_FREQUENCY = 50


class ExperimentLoop:
    """The methods of an Experiment that put it to work.

    The first one that trains, evaluates or keeps something opens a run under root_log_dir as `graybox.launch` does: the
    newest one goes on, or a new one begins (skip_loading). There is one implementation of a step, an evaluation and a
    checkpoint, whoever asks for it. `graybox.launch` in the same root directory takes an opened run over; elsewhere it
    is refused until `close`. What is set while the experiment is at work goes through the trainer's commands, so that
    it is journalled; before, it is how the run will begin.

    Steps and evaluations are made where they are asked for, paused or not: set_is_training tells a trainer that runs by
    itself. Errors are raised where they happen. An evaluation beside the schedule is not made again by a replay.
    """

    model: NetworkWithOps
    optimizer: optim.Optimizer
    scheduler: LRScheduler | None
    datasets: dict[str, DataSampleTrackingWrapper]
    root_log_dir: Path
    task: Task
    collate: Collate | None
    train_shuffle: bool
    device: torch.device
    seed: int | None

    def __init__(self, *, learning_rate: float, batch_size: int, name: str, training_steps_to_do: int) -> None:
        self._learning_rate = in_range("learning_rate", learning_rate, 0.0, MAX_LEARNING_RATE, exclusive=True)
        self._batch_size = whole_in_range("batch_size", batch_size, 1, MAX_BATCH_SIZE)
        self.training_steps_to_do = whole_in_range("training_steps_to_do", training_steps_to_do, 0)
        self._name = checked_name("name", name)
        self._asked_to_train: bool | None = None
        self._training: Training | None = None
        self._opened_here = False
        self._callbacks: list[Callable[[], object]] = []
        self._callback_frequency = DEFAULT_CALLBACK_FREQUENCY

    # -- as it stands ----------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """As a person set it last, here or on the dashboard; a scheduler's is in the optimizer."""
        return self._learning_rate if self._training is None else self._training.trainer.session.learning_rate

    @property
    def batch_size(self) -> int:
        """Samples per step, as it was set last."""
        return self._batch_size if self._training is None else self._training.trainer.session.stream.batch_size

    @property
    def name(self) -> str:
        """Shown on the plots."""
        return self._name if self._training is None else self._training.trainer.session.name

    @property
    def train_loader(self) -> DataLoader[Batch]:
        """One epoch of (inputs, ids, targets) of the training samples in use, as a DataLoader; `dataset` is their
        DataSampleTrackingWrapper. Going through it does not touch the training."""
        return self._loader("train", shuffle=self.train_shuffle)

    @property
    def eval_loader(self) -> DataLoader[Batch]:
        """As train_loader, of the evaluation samples in order. Raises Refused without an eval_dataset."""
        if "val" not in self.datasets:
            raise Refused("there is nothing to evaluate on: this experiment has no eval_dataset")
        return self._loader("val", shuffle=False)

    @property
    def chkpt_manager(self) -> CheckpointManager:
        """The checkpoints of this experiment's run."""
        from graybox.checkpoint_manager import CheckpointManager

        return CheckpointManager(self.root_log_dir if self._training is None else self._training.root.path)

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Batch]:
        return sample_loader(
            self.datasets[split], self.task, self.collate, self.batch_size, shuffle=shuffle, seed=self.seed or 0
        )

    def display_stats(self) -> None:
        """Print the network's layers with their trigger rates, and what the samples did."""
        print(describe_network(self.model))
        print(describe_samples(self.datasets))

    # -- training --------------------------------------------------------------------------------------

    def train_one_step(self) -> None:
        """One optimizer step, with all that is recorded of it."""
        self.loop().step()

    def train_n_steps(self, n: int) -> None:
        """So many optimizer steps, without evaluation."""
        loop = self.loop()
        for _ in range(whole_in_range("n", n, 0)):
            loop.step()

    def train_n_steps_with_eval_full(self, n: int) -> None:
        """So many optimizer steps and, as full_eval_frequency says, passes over the evaluation split between them."""
        loop = self.loop()
        for _ in range(whole_in_range("n", n, 0)):
            loop.step_with_evaluation()

    def reset_data_iterators(self) -> None:
        """Training goes on with the next epoch's first batch, eval_one_step with the first evaluation batch."""
        if self._training is not None:
            self.loop().reset_iterators()

    # -- evaluation ------------------------------------------------------------------------------------

    def eval_one_step(self) -> tuple[float, int | None]:
        """As eval_n_steps(1)."""
        return self.eval_n_steps(1)

    def eval_n_steps(self, n: int) -> tuple[float, int | None]:
        """(mean loss per sample, number of right predictions) over the next so many batches of the evaluation split,
        which begins again after its end; None for a problem without classes."""
        result = self.loop().evaluate_batches(whole_in_range("n", n, 1))
        return result.loss, result.correct

    def eval_full(self) -> tuple[float, float | None]:
        """(mean loss per sample, percent of right predictions) over the evaluation samples in use; recorded and plotted
        as one of the trainer's evaluations. The percentage lies in [0, 100]; None for a problem without classes."""
        result = self.loop().evaluate()
        return result.loss, None if result.accuracy is None else 100.0 * result.accuracy

    def evaluate(
        self, split: str = "val", *, tags: Sequence[str] = (), full: bool = False, metrics: Sequence[str] = ()
    ) -> EvaluationReport:
        """Evaluate a split ("train", "val", "test"), or its samples with any of these tags, as anybody may ask for over
        the wire: journalled, and plotted as points; it leaves training as it was. See docs/evaluation.md.

        full: discarded samples, too. metrics: names; none: those of the experiment, or all there are. Raises Invalid or
        NotFound for what does not exist, Refused where another one runs or this one fails.
        """
        asked = StartEvaluation(split, tuple(tags), full, tuple(metrics))
        return self.loop().evaluate_on_demand(asked)

    # -- checkpoints -----------------------------------------------------------------------------------

    def dump(self) -> int:
        """Keep all as it is now; the checkpoint's id. Waits until it is on the disk."""
        return int(self.loop().command(SaveCheckpoint()).value.id)

    def load(self, checkpoint_id: int) -> None:
        """Go back to a checkpoint: keeps the present as one too, loads, begins a new branch, and pauses a trainer that
        runs by itself. Raises NotFound for an unknown id, Refused where it does not fit."""
        number = whole_in_range("checkpoint_id", checkpoint_id, 1)
        self.loop().command(RestoreCheckpoint(f"{number:06d}"))

    def note_branch(self, branch: int, *, name: str | None = None, note: str | None = None) -> None:
        """What a branch of the run is called, and a note on it; None leaves it as it is, an empty text removes it.
        Raises NotFound for a branch that is not there."""
        self.loop().command(NoteBranch(whole_in_range("branch", branch, 0), name, note))

    # -- settings --------------------------------------------------------------------------------------

    def set_learning_rate(self, learning_rate: float) -> None:
        """A schedule goes on, scaled alike; optimizer state is kept."""
        if not self._set("learning_rate", learning_rate):
            value = in_range("learning_rate", learning_rate, 0.0, MAX_LEARNING_RATE, exclusive=True)
            rescale_learning_rate(self.optimizer, self.scheduler, value)
            self._learning_rate = value

    def set_batch_size(self, batch_size: int) -> None:
        """Samples per step, from the next one on."""
        if not self._set("batch_size", batch_size):
            self._batch_size = whole_in_range("batch_size", batch_size, 1, MAX_BATCH_SIZE)

    def set_name(self, name: str) -> None:
        """What the run is called."""
        if not self._set("experiment_name", name):
            self._name = checked_name("name", name)

    def set_training_steps_to_do(self, steps: int) -> None:
        """How many optimizer steps a trainer that runs by itself still makes."""
        if not self._set("training_steps_to_do", steps):
            self.training_steps_to_do = whole_in_range("training_steps_to_do", steps, 0)

    def set_hyper_parameters(self, **changes: Any) -> None:
        """Change any of the run's hyper-parameters, all of them or none, by the names that the dashboard shows; those
        with a dot in a dict: set_hyper_parameters(**{"optimizer.weight_decay": 0.01}). Raises Invalid or Refused,
        saying what would be right."""
        self.loop().command(SetHyperParameters(changes))

    def set_mode(self, mode: str) -> None:
        """In "audit", steps are made as before and recorded, and nothing learns; in "train" they train again, from
        where training was left. Journalled. Raises Invalid for any other."""
        self.loop().command(SetMode(mode))

    def set_is_training(self, is_training: bool) -> None:
        """Whether a trainer that runs by itself trains or is paused; before a launch, how it begins."""
        if self._training is None:
            self._asked_to_train = bool(is_training)
        else:
            self._training.by_hand.command(Resume() if is_training else Pause())

    def get_is_training(self) -> bool:
        """Whether a trainer that runs by itself trains (True) or is paused."""
        if self._training is None:
            return self._asked_to_train is not False
        return self._training.trainer.session.running

    def toggle_training_status(self) -> None:
        """Pause it, or let it go on."""
        self.set_is_training(not self.get_is_training())

    def _set(self, name: str, value: object) -> bool:
        if self._training is None:
            return False
        self._training.by_hand.command(SetHyperParameters({name: value}))
        return True

    # -- callbacks -------------------------------------------------------------------------------------

    def register_train_loop_callback(self, function: Callable[[], object]) -> None:
        """Call `function()` between two steps, in the thread that trains, every so many of them (see
        set_train_loop_clbk_freq), whoever makes them. What it raises is as if the step had raised it. A replay after a
        crash does not call it."""
        if not callable(function):
            raise Invalid(f"a train loop callback is a function without arguments, not a {type(function).__name__}")
        self._callbacks.append(function)

    def set_train_loop_clbk_freq(self, steps: int) -> None:
        """How many steps lie between two calls of the train loop callbacks (50 before it is set)."""
        self._callback_frequency = whole_in_range("steps", steps, 1)

    def call_back(self, step: int) -> None:
        """Called by whoever made a step, with how many were made: the callbacks that are due."""
        if step % self._callback_frequency == 0:
            for function in self._callbacks:
                function()

    # -- at work ---------------------------------------------------------------------------------------

    def open(self, root_directory: str | Path | None = None) -> None:
        """Put it to work in a root directory (None: root_log_dir) for steps of its own. Does nothing where it is at
        work there already. Raises Refused where it is at work elsewhere, or another backend is there; else as
        `graybox.launch.launch`."""
        from graybox.experiment import Experiment
        from graybox.launch import launch

        root = Root(self.root_log_dir if root_directory is None else root_directory).path
        if self._training is not None:
            if root_directory is not None and root != self._training.root.path:
                raise Refused(f"{self._at_work()}, not in {root}; close() it first")
            return
        assert isinstance(self, Experiment)
        try:
            launch(self, root_directory=root)
        except Refused as error:
            raise Refused(f"{error}. If an experiment of this process has it open, close() that one") from error
        self._opened_here = True
        # Whoever never calls close() keeps the last steps all the same.
        atexit.register(self.close)

    def close(self) -> None:
        """Keep the present as a checkpoint and let the run go, so that another process may go on with it. More than
        once is fine. Called by itself when a script ends that opened the run. Raises Refused while a trainer runs by
        itself in another thread."""
        if self._training is None:
            return
        if not self._training.by_hand.is_mine():
            raise Refused("the trainer runs in another thread; stop() the training before you close it")
        self._training.close()

    def take_over(self, root_directory: str | Path, *, new_run: bool) -> Training | None:
        """For `launch`: the run that is open already, and from now on is the launcher's; None where there is none.
        Raises Refused where it was launched before, or is at work elsewhere."""
        training = self._training
        if training is None:
            return None
        if not self._opened_here or new_run or Root(root_directory).path != training.root.path:
            wanted = "a new run" if new_run else f"a run in {Root(root_directory).path}"
            raise Refused(f"{self._at_work()} already; close() it before you launch {wanted}")
        self._opened_here = False
        atexit.unregister(self.close)
        return training

    def went_to_work(self, training: Training) -> None:
        """For `launch`: this training is the experiment's from now on."""
        self._training = training
        if self._asked_to_train is not None:
            wish: Command = Resume() if self._asked_to_train else Pause()
            training.trainer.submit(wish, actor="experiment")
            self._asked_to_train = None

    def came_home(self) -> None:
        """For `Training.close`: the experiment is on its own again, as the training left it."""
        for wrapper in self.datasets.values():
            wrapper.let_go()
        self._learning_rate, self._batch_size, self._name = self.learning_rate, self.batch_size, self.name
        self._training = None
        self._opened_here = False
        atexit.unregister(self.close)

    def _at_work(self) -> str:
        assert self._training is not None
        return f"this experiment is at work in run {self._training.stores.run.run_id} in {self._training.root.path}"

    def loop(self) -> OwnLoop:
        """The run that this experiment's steps are made in, and its owner; opened by the first call."""
        self.open()
        assert self._training is not None
        return self._training.by_hand
