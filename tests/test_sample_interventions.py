"""What people do to samples while it trains: tags, corrected labels, columns; undone and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from graybox.commands import (
    Command,
    CopyColumn,
    CorrectLabels,
    DeleteColumn,
    DiscardSamples,
    Pause,
    RecordQuery,
    Redo,
    TagSamples,
    Undo,
)
from graybox.errors import Invalid, NotFound, Refused, StorageError
from graybox.launch import Training, launch
from graybox.sample_interventions import MAX_INLINE
from graybox.snapshot import TrainerState
from graybox.store.query import parse, rows
from graybox.store.sample_notes import MAX_NOTES
from graybox.store.sample_table import SampleTable
from graybox.taken_back import NotRecorded
from graybox.training_step import with_corrections
from tests.patience import PATIENCE
from tests.small_experiments import crash, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences

COUNT = MAX_INLINE + 50
MANY = {"train": np.arange(MAX_INLINE + 20)}
EDITS: dict[str, Command] = {
    "tag": TagSamples((("train", "3"), ("val", "4")), tag="hard"),
    "tag many": TagSamples(rows=MANY, tag="many"),
    "untag": TagSamples((("train", "3"), ("train", "5")), tag="old", value=False),
    "label": CorrectLabels((("train", "3"), ("train", "5")), label=2),
    "label many": CorrectLabels(rows=MANY, label=1),
    "label back": CorrectLabels((("train", "1"),), label=None),
    "discard": DiscardSamples(rows={"train": np.array([7, 9, 7]), "val": np.array([1])}),
    "copy": CopyColumn("loss", "loss_before"),
    "copy a tag": CopyColumn("tag:old"),
    "delete": DeleteColumn("kept"),
}
Start = Callable[[], Training]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    open_now: list[Training] = []

    def begin() -> Training:
        experiment = toy_experiment(train_dataset=toy_data(COUNT), training_steps_to_do=1_000)
        training = launch(experiment, root_directory=root)
        open_now.append(training)
        return training

    yield begin
    for training in open_now:
        training.trainer.end()
        training.close()


def apply(training: Training, command: Command) -> Any:
    """Without the step that a tick makes behind it."""
    future = training.trainer.submit(command)
    training.trainer._apply_waiting()
    return future.result(PATIENCE)


def prepared(start: Start) -> Training:
    """At step 3, with a tag, a corrected label and a column of its own."""
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 3)
    apply(training, TagSamples((("train", "3"), ("train", "4")), tag="old"))
    apply(training, CorrectLabels((("train", "1"),), label=2))
    apply(training, CopyColumn("label", "kept"))
    return training


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_undone_bit_for_bit(start: Start, what: str) -> None:
    training = prepared(start)
    session = training.trainer.session
    before = whole_state(session)
    done = apply(training, EDITS[what])
    assert differences(before, whole_state(session)), "nothing was done, so that nothing was tested"
    undone = apply(training, Undo(done.sequence))
    assert undone.message == f"Undid: {done.message}"
    assert differences(before, whole_state(session)) == []


def test_a_session_of_edits_is_replayed_after_a_crash(start: Start) -> None:
    training = prepared(start)
    for what in EDITS:
        apply(training, EDITS[what])
        tick_until(training, lambda: training.trainer.session.step % 2 == 0)
        training.trainer.tick()
    apply(training, Undo())
    apply(training, RecordQuery("loss > 1", 5))
    training.trainer.tick()
    apply(training, Pause())
    there = whole_state(training.trainer.session)
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(there, whole_state(again.trainer.session)) == []
    kinds = {entry.kind for entry in again.stores.journal.entries()}
    assert {"tag_add", "tag_remove", "label_change", "metadata_copy", "metadata_delete", "query_execute"} <= kinds


def test_training_with_corrected_labels_is_training_on_the_corrected_data(start: Start, root: Path) -> None:
    data = toy_data(COUNT)
    wrong = data.tensors[1].clone()
    wrong[:40] = (wrong[:40] + 1) % 3
    training = launch(
        toy_experiment(train_dataset=TensorDataset(data.tensors[0], wrong), training_steps_to_do=1_000),
        root_directory=root,
    )
    for label in range(3):
        rows = np.flatnonzero((data.tensors[1][:40] == label).numpy())
        apply(training, CorrectLabels(rows={"train": rows}, label=label))
    clean = launch(toy_experiment(train_dataset=data, training_steps_to_do=1_000), root_directory=root / "clean")
    for each in (training, clean):
        tick_until(each, lambda each=each: each.trainer.session.step == 30)
    ours, theirs = training.trainer.session, clean.trainer.session
    for name, value in ours.network.state_dict().items():
        assert torch.equal(value, theirs.network.state_dict()[name])
    mine, others = ours.stores.samples.splits["train"], theirs.stores.samples.splits["train"]
    np.testing.assert_array_equal(mine.truth(), others.label)
    for name in ("loss_mean", "aum", "forgetting", "first_learnt", "right"):
        np.testing.assert_array_equal(mine.column(name), others.column(name))
    assert ours.experiment_hash() != theirs.experiment_hash()
    for each in (training, clean):
        each.trainer.end()
        each.close()


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (TagSamples((), tag="x"), Invalid, "no sample was named"),
        (TagSamples((("train", "1"),), tag="a/b"), Invalid, "'a/b' cannot name a tag"),
        (TagSamples((("train", "1"),)), Invalid, "'' cannot name a tag"),
        (TagSamples((("dev", "1"),), tag="x"), NotFound, "no split 'dev'; there are train, val"),
        (TagSamples(rows={"train": np.array([COUNT])}, tag="x"), NotFound, f"no sample {COUNT}"),
        (TagSamples(rows={"train": np.array([], dtype=np.int64)}, tag="x"), Invalid, "no sample was named"),
        (CorrectLabels((("train", "1"),), label=3), Invalid, "no class 3; there are 3, numbered from 0"),
        (CorrectLabels((("train", "1"),), label=-2), Invalid, "no class -2"),
        (CopyColumn("colour"), NotFound, "no column 'colour' to copy; there are id, "),
        (CopyColumn("loss", "aum"), Invalid, "has a column 'aum' already"),
        (CopyColumn("loss", "kept"), Invalid, "has a column 'kept' already"),
        (CopyColumn("loss", "a:b"), Invalid, "cannot name a column"),
        (DeleteColumn("loss"), NotFound, "'loss' that was copied or logged; there are kept"),
        (DiscardSamples(rows={"train": np.arange(COUNT)}), Refused, "would leave no training sample"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_changed(
    start: Start, command: Command, kind: type[Exception], message: str
) -> None:
    training = prepared(start)
    before, sequence = whole_state(training.trainer.session), training.stores.journal.last_sequence
    with pytest.raises(kind, match=message):
        apply(training, command)
    assert differences(before, whole_state(training.trainer.session)) == []
    assert training.stores.journal.last_sequence == sequence


def test_messages_say_what_was_done(start: Start) -> None:
    training = prepared(start)
    assert apply(training, EDITS["tag"]).message == "Tagged 2 samples (1 of train, 1 of val) hard"
    assert apply(training, EDITS["tag"]).message == "Nothing changed: already tagged hard"
    assert apply(training, EDITS["untag"]).message == "Took the tag old from 1 sample (1 of train)"
    assert apply(training, EDITS["label"]).message.startswith("Labelled ")
    assert apply(training, EDITS["label back"]).message == "Gave 1 sample (1 of train) the data set's label again"
    assert apply(training, EDITS["copy"]).message == "Copied column loss to loss_before"
    assert apply(training, CopyColumn("loss")).message == "Copied column loss to loss_copy"
    assert apply(training, CopyColumn("loss")).message == "Copied column loss to loss_copy_2"
    assert apply(training, EDITS["delete"]).message == "Deleted column kept"


def test_targets_of_any_kind() -> None:
    corrected = np.array([-1, 2, -1])
    assert with_corrections(torch.tensor([0, 1, 1]), corrected).tolist() == [0, 2, 1]
    soft = torch.full((3, 3), 1 / 3)
    found = with_corrections(soft, corrected)
    assert torch.equal(found[1], torch.tensor([0.0, 0.0, 1.0])) and torch.equal(found[[0, 2]], soft[[0, 2]])
    numbers = torch.rand(3, 2)
    for target in (numbers, [1, 2, 3], torch.rand(3)):
        assert with_corrections(target, corrected) is target


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_files_have_for_something_else_is_refused(start: Start, name: str) -> None:
    training = prepared(start)
    with pytest.raises(Invalid, match=r"not \. or \.\."):
        apply(training, TagSamples((("train", "3"),), tag=name))
    with pytest.raises(Invalid, match=r"not \. or \.\."):
        apply(training, CopyColumn("loss", name))
    assert training.stores.samples.snapshot()


class Silent(Dataset[Any]):
    """Tells its labels only with its samples."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


def test_a_corrected_label_does_not_become_the_data_sets_own(root: Path) -> None:
    data = toy_data(24)
    training = launch(toy_experiment(train_dataset=Silent(data), training_steps_to_do=1_000), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step == 6)
    own = data.tensors[1].tolist()
    columns = training.stores.samples.splits["train"]
    assert columns.label.tolist() == own
    done = apply(training, CorrectLabels((("train", "0"),), label=(own[0] + 1) % 3))
    tick_until(training, lambda: training.trainer.session.step == 14)
    assert columns.label.tolist() == own and columns.truth()[0] == (own[0] + 1) % 3
    apply(training, Undo(done.sequence))
    assert columns.truth().tolist() == own
    training.trainer.end()
    training.close()


def test_an_edit_of_several_splits_is_done_in_all_or_in_none(start: Start) -> None:
    training = prepared(start)
    samples = training.stores.samples
    for number in range(MAX_NOTES):
        samples.set_tag("val", f"t{number}", [0], True)
    before = whole_state(training.trainer.session)
    with pytest.raises(Refused, match="256 tags already"):
        apply(training, TagSamples((("train", "1"), ("val", "1")), tag="new"))
    assert differences(before, whole_state(training.trainer.session)) == []
    assert training.trainer.latest().state is TrainerState.RUNNING


@pytest.mark.parametrize("what", ["tag", "label", "discard", "copy"])
def test_a_sample_log_that_refuses_changes_nothing_and_training_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    training = prepared(start)
    session = training.trainer.session
    before = whole_state(session)

    def refuse(payload: bytes) -> None:
        raise StorageError("cannot append to the log: No space left on device")

    with monkeypatch.context() as full:
        full.setattr(session.stores.samples._writer, "append", refuse)
        with pytest.raises(NotRecorded, match="nothing was changed"):
            apply(training, EDITS[what])
    assert differences(before, whole_state(session)) == []
    now = training.trainer.latest()
    assert (now.state, now.error) == (TrainerState.RUNNING, "")


def test_a_column_that_one_split_has_is_copied_and_asked_for(start: Start) -> None:
    training = prepared(start)
    samples = training.stores.samples
    training.trainer.session.experiment.datasets["train"].log_signal("entropy", [1, 2, 1], [0.5, 0.25, 0.75])
    apply(training, CopyColumn("entropy"))
    assert samples.splits["train"].notes.copies["entropy_copy"][:3].tolist()[1:] == [0.75, 0.25]
    assert np.isnan(samples.splits["val"].notes.copies["entropy_copy"]).all()
    apply(training, CopyColumn("discarded", "was_out"))
    samples.add_split("test", 4, [0, 1, 2, 0])
    table = SampleTable(list(samples.splits.values()))
    column = table.column("was_out")
    assert column.null is not None and column.null.tolist() == [False] * (COUNT + 20) + [True] * 4
    assert len(rows(parse("not was_out and was_out is not null"), table)) == COUNT + 20
    with pytest.raises(Invalid, match="has a column 'loss' already"):
        training.trainer.session.experiment.datasets["train"].log_signal("loss", [1], [1.0])


def test_what_was_logged_survives_a_crash(start: Start) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 3)
    wrapper = training.experiment.datasets["train"]
    wrapper.log_signal("entropy", [3, 7], [0.5, 0.25])
    apply(training, TagSamples((("train", "3"),), tag="a"))
    wrapper.log_signal("entropy", [7, 9], [1.5, 2.0])
    training.stores.samples.sync()
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.RUNNING)
    found = again.stores.samples.splits["train"].notes.signals["entropy"]
    assert found[[3, 7, 9]].tolist() == [0.5, 1.5, 2.0] and np.isnan(found).sum() == COUNT - 3


def test_an_undone_deletion_leaves_what_was_logged_since(start: Start) -> None:
    training = start()
    wrapper = training.experiment.datasets["train"]
    wrapper.log_signal("entropy", [0, 1, 2], [1.0, 1.0, 1.0])
    apply(training, DeleteColumn("entropy"))
    wrapper.log_signal("entropy", [0, 10], [5.0, 6.0])
    apply(training, Undo())
    found = training.stores.samples.splits["train"].notes.signals["entropy"]
    assert found[[0, 1, 2, 10]].tolist() == [5.0, 1.0, 1.0, 6.0]


def test_an_undone_deletion_finds_another_name_where_its_own_is_taken(start: Start) -> None:
    training = start()
    apply(training, TagSamples((("train", "3"),), tag="early"))
    apply(training, CopyColumn("label", "foo"))
    apply(training, DeleteColumn("foo"))
    training.experiment.datasets["val"].log_signal("foo", [0], [9.0])
    apply(training, Undo())
    splits = training.stores.samples.splits
    assert np.array_equal(splits["train"].notes.copies["foo_2"], splits["train"].label)
    assert splits["val"].notes.signals["foo"][0] == 9.0 and "foo_2" in splits["val"].notes.copies
    apply(training, Undo())  # of the copy
    apply(training, Undo())  # of the tag: nothing is in the way
    assert not splits["train"].notes.tags


def test_a_copy_that_is_done_again_holds_what_it_held(start: Start) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 2)
    apply(training, CopyColumn("encounters", "then"))
    held = training.stores.samples.splits["train"].notes.copies["then"].copy()
    apply(training, Undo())
    tick_until(training, lambda: training.trainer.session.step == 6)
    apply(training, Redo())
    assert np.array_equal(training.stores.samples.splits["train"].notes.copies["then"], held)
