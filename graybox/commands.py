"""What anybody may ask of the trainer, as values. Free of torch.

Commands that change something are interventions: the owner applies them between two steps and journals them.
The others read what only the owner may touch (the model) and leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graybox.neuron_ops import NeuronEdit

if TYPE_CHECKING:
    from graybox.neuron_ops import Select

MAX_WAIT_SECONDS = 180.0
"""No command waits longer for its turn, whatever the call's own deadline."""
MODES = TRAIN, AUDIT = "train", "audit"
"""What SetMode takes."""


@dataclass(frozen=True)
class Command:
    """Base of all commands."""


@dataclass(frozen=True)
class Pause(Command):
    """Stop after the step that is running. Takes effect through a flag, ahead of the queue."""


@dataclass(frozen=True)
class Resume(Command):
    """Train on. Clears the error of a failed step: the same batch is tried again."""


@dataclass(frozen=True)
class SetHyperParameters(Command):
    """All of the changes or, with the reason, none.

    changes: by name, of experiment_name (str), training_steps_to_do (int >= 0), learning_rate (float > 0),
    batch_size (int >= 1), full_eval_frequency (int >= 0), checkpoint_frequency (int >= 0).
    """

    changes: Mapping[str, Any]


@dataclass(frozen=True)
class SetMode(Command):
    """From the next batch on "train", or "audit": batches go through as in training and are recorded, and nothing
    learns. Back in "train", training goes on with the batch that it had stopped before."""

    mode: str  # one of MODES


@dataclass(frozen=True)
class StartEvaluation(Command):
    """Evaluate samples of a split, batch by batch between two steps, running or paused; training goes on afterwards as
    it was. One at a time: refused while another one runs.

    full: all samples, discarded ones too, whatever else is said. rows: those of a view, int64 [n]; tags: those with any
    of them; both: those that are both; neither: those that are not discarded. metrics: see graybox.metric_choice; none:
    what the experiment asks for, or all there are. query: what made the view, for the journal.
    """

    split: str = "val"
    tags: tuple[str, ...] = ()
    full: bool = False
    metrics: tuple[str, ...] = ()
    rows: NDArray[np.int64] | None = None
    query: str = ""


@dataclass(frozen=True)
class CancelEvaluation(Command):
    """End the evaluation that runs, without a trace. Takes effect before its next batch, through a flag, as Pause."""

    reason: str = ""


@dataclass(frozen=True)
class EditNeurons(Command):
    """Plan the edit and apply it whole; with dry_run only plan it, and answer a graybox.plan_summary.PlanSummary.

    select: which neurons, instead of the edit's own layer and neurons; resolved when the command's turn comes.
    measure: with dry_run, also measure how far the logits would move on a batch.
    """

    edit: NeuronEdit
    select: Select | None = None
    dry_run: bool = False
    measure: bool = False


@dataclass(frozen=True)
class Undo(Command):
    """Take back the last edit of neurons, samples or hyper-parameters that is not undone yet.

    sequence: the journal entry that is expected to be undone, so that two people do not undo twice: refused when
    another one would be (see graybox.store.undo_order). 0: whatever comes last.
    """

    sequence: int = 0


@dataclass(frozen=True)
class Redo(Command):
    """Do the edit again that was undone last, as it was done: unless something was edited since.

    sequence: the journal entry, undone, that is expected to be done again; refused when another one would be. 0:
    whichever it is.
    """

    sequence: int = 0


@dataclass(frozen=True)
class SampleEdit(Command):
    """Base of what is done to samples.

    samples: (split, sample id) pairs. rows: further samples by split, int64 [n] each, as a query found them.
    """

    samples: tuple[tuple[str, str], ...] = ()
    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class DiscardSamples(SampleEdit):
    """Leave samples out of training from the next batch on, or (discarded=False) take them back."""

    discarded: bool = True


@dataclass(frozen=True)
class TagSamples(SampleEdit):
    """Give samples a tag, or (value=False) take it from them."""

    tag: str = ""
    value: bool = True


@dataclass(frozen=True)
class CorrectLabels(SampleEdit):
    """From the next batch on samples count as of this class; None: as of the one that the data set says."""

    label: int | None = None


@dataclass(frozen=True)
class WeighSamples(SampleEdit):
    """From the next batch on an epoch draws each of these training samples so often: a number from 0 to
    graybox.epoch_order.MAX_WEIGHT, 1 unless somebody says otherwise; 0.5: in every other epoch, at random."""

    weight: float = 1.0


@dataclass(frozen=True)
class RebalanceClasses(SampleEdit):
    """Weigh training samples so that their classes are equally frequent.

    how: "oversample", each as frequent as the largest class; "undersample", as the smallest; "balance", as a class is
    on average; "none", all weights 1 again. samples, rows: only these, whatever the others do; neither: all that are in
    use.
    """

    how: str = "balance"


@dataclass(frozen=True)
class KeepShare(SampleEdit):
    """Discard some of these samples at random, so that a share of those in use stays in use: in (0, 1], rounded up, of
    each split."""

    share: float = 1.0


@dataclass(frozen=True)
class KeepRatio(SampleEdit):
    """Discard some of these samples at random, so that for each of the others in use at most `ratio` of them stay in
    use: 0 or more, rounded down, of each split that they are in."""

    ratio: float = 1.0


@dataclass(frozen=True)
class CopyColumn(Command):
    """Keep what a column (or "tag:NAME") holds now, of all splits, under another name; empty: one is made up."""

    source: str
    name: str = ""


@dataclass(frozen=True)
class DeleteColumn(Command):
    """Forget a column that was copied or logged."""

    name: str


@dataclass(frozen=True)
class RecordQuery(Command):
    """Note in the journal that somebody asked a query of the samples, which found so many."""

    query: str
    matches: int


@dataclass(frozen=True)
class SaveCheckpoint(Command):
    """Keep the whole run as it is now. A named checkpoint is never removed by the retention rule."""

    name: str = ""


@dataclass(frozen=True)
class RestoreCheckpoint(Command):
    """Go back: pauses, keeps the present as a checkpoint, loads, and starts a new branch.

    reference: `hash`, `hash@@step=N`, `hash@@weights_step=N` (weights only, no branch), or a checkpoint's id.
    """

    reference: str


@dataclass(frozen=True)
class SetPlotNote(Command):
    """A note on one point of a metric; an empty note removes it."""

    split: str
    metric: str
    branch: int
    age: int
    note: str


@dataclass(frozen=True)
class NoteBranch(Command):
    """What a branch is called, and a note on it; None leaves it as it is, an empty text removes it."""

    branch: int
    name: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class ReadWeights(Command):
    """A copy of a layer's "weight" or "bias". The outcome's value is a NumPy array."""

    layer: str
    tensor: str = "weight"


@dataclass(frozen=True)
class ReadActivations(Command):
    """What a layer's neurons answer to one sample, in evaluation mode. The outcome's value is a float32 array,
    shaped as the layer's output without the batch dimension. Leaves no trace in the statistics."""

    layer: str
    split: str
    sample_id: str


@dataclass(frozen=True)
class ReadSample(Command):
    """One item of a data set that offers no other way to its picture: loading it may draw random numbers, which are
    the owner's. The outcome's value is the item as the data set answers it, data and target."""

    split: str
    sample_id: str


@dataclass(frozen=True)
class Outcome:
    """What became of a command that was accepted (one that was refused raises)."""

    message: str
    """One line for people."""
    sequence: int = 0
    """The journal entry it made; 0: none."""
    value: Any = None
    """What a read answers; the plan's text for EditNeurons, a PlanSummary for its dry run; the new branch (or None) for
    RestoreCheckpoint; the number of samples that changed for an edit of samples; the record for SaveCheckpoint; the
    number of the evaluation for StartEvaluation."""
    details: Mapping[str, Any] = field(default_factory=dict)


class Commands(Protocol):
    """The way to the owner. Callable from any thread."""

    def submit(
        self, command: Command, *, command_id: str = "", actor: str = "", timeout: float | None = None
    ) -> Future[Outcome]:
        """Queue a command and answer at once with its future.

        command_id: sent twice, applied once; the second call gets the first one's future. Empty: no such check.
        actor: who asks, for the journal.
        timeout: seconds from now until the command is no longer wanted; at most MAX_WAIT_SECONDS.

        The future's exception is a graybox.errors.GrayboxError (Invalid, NotFound, Refused, DeadlinePassed,
        Unsupported, StorageError), or anything else for a defect.
        """
        ...
