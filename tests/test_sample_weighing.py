"""Sampling weights, rebalanced classes and shares that stay: as edits of a run that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from graybox.commands import Command, DiscardSamples, KeepRatio, KeepShare, Pause, RebalanceClasses, Undo, WeighSamples
from graybox.errors import Invalid, NotFound, Refused
from graybox.launch import Training, launch
from graybox.sample_interventions import MAX_INLINE
from graybox.snapshot import TrainerState
from tests.small_experiments import crash, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences
from tests.test_sample_interventions import apply

COUNT = MAX_INLINE + 50
Start = Callable[[], Training]
ALL = {"train": np.arange(COUNT)}
EDITS: dict[str, Command] = {
    "weigh": WeighSamples((("train", "3"), ("train", "4")), weight=2.5),
    "weigh many": WeighSamples(rows=ALL, weight=0.5),
    "leave out": WeighSamples(rows={"train": np.arange(40), "val": np.arange(3)}, weight=0),
    "balance": RebalanceClasses(),
    "oversample": RebalanceClasses(rows={"train": np.arange(300)}, how="oversample"),
    "keep a share": KeepShare(rows={"train": np.arange(200), "val": np.arange(10)}, share=0.3),
    "keep a ratio": KeepRatio(rows={"train": np.arange(COUNT - 30)}, ratio=2),
}


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    open_now: list[Training] = []

    def begin() -> Training:
        experiment = toy_experiment(train_dataset=toy_data(COUNT), training_steps_to_do=1_000)
        open_now.append(launch(experiment, root_directory=root))
        return open_now[-1]

    yield begin
    for training in open_now:
        training.trainer.end()
        training.close()


def weights(training: Training) -> np.ndarray:
    return training.stores.samples.splits["train"].notes.weights()


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_undone_bit_for_bit(start: Start, what: str) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 3)
    session = training.trainer.session
    apply(training, WeighSamples((("train", "5"),), weight=3))
    before, identity = whole_state(session), session.experiment_hash()
    done = apply(training, EDITS[what])
    assert differences(before, whole_state(session)), "nothing was done, so that nothing was tested"
    assert session.experiment_hash() != identity
    apply(training, Undo(done.sequence))
    assert differences(before, whole_state(session)) == []
    assert session.experiment_hash() == identity


def test_a_session_of_edits_is_replayed_after_a_crash(start: Start) -> None:
    training = start()
    for what in EDITS:
        apply(training, EDITS[what])
        tick_until(training, lambda: training.trainer.session.step % 2 == 0)
        training.trainer.tick()
    apply(training, Undo())
    for _ in range(70):  # into the next epoch
        training.trainer.tick()
    apply(training, Pause())
    there = whole_state(training.trainer.session)
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(there, whole_state(again.trainer.session)) == []


def test_what_is_trained_on_is_what_the_weights_say(start: Start) -> None:
    training = start()
    session = training.trainer.session
    apply(training, WeighSamples(rows={"train": np.arange(100)}, weight=3))
    apply(training, WeighSamples(rows={"train": np.arange(100, 200)}, weight=0))
    apply(training, DiscardSamples(rows={"train": np.arange(200, 300)}))
    tick_until(training, lambda: session.stream.position.epoch == 2)
    seen = session.stores.samples.splits["train"].encounters
    assert (seen[:100] == 6).all() and not seen[100:300].any() and (seen[300:] == 2).all()


def test_rebalanced_classes_are_trained_on_equally_often(start: Start) -> None:
    training = start()
    session = training.trainer.session
    columns = session.stores.samples.splits["train"]
    rare = np.flatnonzero(columns.truth() == 1)[30:]
    apply(training, DiscardSamples(rows={"train": rare}))
    done = apply(training, RebalanceClasses(how="oversample"))
    assert done.message.startswith("Rebalanced classes (oversample): other weights for ")
    tick_until(training, lambda: session.stream.position.epoch == 3)
    counts = np.bincount(columns.truth(), weights=columns.encounters)
    assert counts.min() > 0.8 * counts.max()
    apply(training, RebalanceClasses(how="none"))
    assert columns.notes.weight is None


def test_a_share_is_drawn_at_random_of_what_is_in_use(start: Start) -> None:
    training = start()
    columns = training.stores.samples.splits["train"]
    apply(training, DiscardSamples(rows={"train": np.arange(50)}))
    done = apply(training, KeepShare(rows={"train": np.arange(250)}, share=0.301))
    left = np.flatnonzero(~columns.discarded[:250])
    assert len(left) == 61 and done.value == 139 and left.min() >= 50  # 0.301 of 200, rounded up
    assert not columns.discarded[250:].any() and 90 < left.mean() < 210
    apply(training, Undo())
    again = apply(training, KeepShare(rows={"train": np.arange(250)}, share=0.301))
    assert again.value == 139 and np.flatnonzero(~columns.discarded[:250]).tolist() != left.tolist()


def test_a_ratio_counts_the_others_in_use(start: Start) -> None:
    training = start()
    columns = training.stores.samples.splits["train"]
    apply(training, DiscardSamples(rows={"train": np.arange(100)}))
    apply(training, KeepRatio(rows={"train": np.arange(COUNT - 30)}, ratio=0.5))
    assert (~columns.discarded[: COUNT - 30]).sum() == 15 and not columns.discarded[COUNT - 30 :].any()
    with pytest.raises(Refused, match="nothing to discard"):
        apply(training, KeepRatio(rows={"train": np.arange(COUNT - 30)}, ratio=0.5))


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (WeighSamples((("train", "1"),), weight=-1), Invalid, "from 0 to 100, not -1"),
        (WeighSamples((("train", "1"),), weight=float("nan")), Invalid, "from 0 to 100"),
        (WeighSamples((("val", "1"),), weight=2), Refused, "only samples of 'train' are drawn"),
        (WeighSamples(rows={"val": np.arange(3)}, weight=2), Refused, "none of these samples is of 'train'"),
        (WeighSamples((("train", "9999"),), weight=2), NotFound, "no sample '9999'"),
        (WeighSamples(weight=2), Invalid, "no sample was named"),
        (WeighSamples(rows=ALL, weight=0.001), Refused, "would draw 1.05 samples in an epoch"),
        (WeighSamples(rows=ALL, weight=0), Refused, "would draw 0 samples"),
        (RebalanceClasses(how="evenly"), Invalid, "balance, oversample or undersample"),
        (KeepShare(rows=ALL, share=0), Invalid, "share is a number above 0"),
        (KeepShare(rows=ALL, share=1), Refused, "nothing to discard"),
        (KeepShare(share=0.5), Invalid, "no sample was named"),
        (KeepRatio(rows=ALL, ratio=-1), Invalid, "ratio is a number of at least 0"),
        (KeepRatio(rows=ALL, ratio=1), Refused, "no training sample"),
    ],
)
def test_bad_input_changes_nothing(start: Start, command: Command, error: type[Exception], message: str) -> None:
    training = start()
    before = whole_state(training.trainer.session)
    with pytest.raises(error, match=message):
        apply(training, command)
    assert differences(before, whole_state(training.trainer.session)) == []


def test_what_is_left_must_be_drawn(start: Start) -> None:
    training = start()
    apply(training, WeighSamples(rows={"train": np.arange(5, COUNT)}, weight=0))
    with pytest.raises(Refused, match="would draw 1 samples in an epoch"):
        apply(training, DiscardSamples(rows={"train": np.arange(1, 5)}))
    assert weights(training)[:5].tolist() == [1.0] * 5
