from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from graybox.commands import DiscardSamples, EditNeurons, Pause, Redo, Resume, SaveCheckpoint, SetHyperParameters, Undo
from graybox.comparison.place import Place
from graybox.comparison.side import checkpoint_of, read_checkpoint, side_of
from graybox.errors import StorageError
from graybox.neuron_ops import Freeze
from graybox.store.root import Root
from tests.compared_runs import ask, finished, train, training
from tests.small_networks import bits


def test_a_run_is_as_it_is_now_and_its_weights_those_of_its_newest_checkpoint(root: Path) -> None:
    with training(root) as made:
        session = made.trainer.session
        train(made, 2)
        ask(made, Pause())
        ask(made, SaveCheckpoint())
        kept = {name: bits(value) for name, value in session.network.state_dict().items()}
        ask(made, SetHyperParameters({"learning_rate": 0.5, "batch_size": 4}))
        ask(made, DiscardSamples((("train", "3"),)))
        ask(made, Resume())
        train(made, 2)
        made.stores.flusher.drain()
        side = side_of(str(root))
        assert side.payload is not None and side.checkpoint is not None
        assert {name: bits(value) for name, value in side.payload["model"].items()} == kept
        assert side.settings["learning_rate"] == 0.5 and side.settings["batch_size"] == 4
        assert side.settings["seed"] == session.seed and side.settings["optimizer"] == "Adam"
        assert side.samples["train"].discarded.nonzero()[0].tolist() == [3]
        assert side.samples["train"].loss.tobytes() == made.stores.samples.splits["train"].loss.tobytes()
        assert side.metrics["train/loss"] == session.last_train.loss
        assert side.head()["step"] == session.step and side.head()["age"] == session.age
        assert side.interventions["hp_change"] == side.interventions["sample_discard"] == 1


def test_a_checkpoint_is_as_it_was(root: Path) -> None:
    with training(root) as made:
        train(made, 3)
        ask(made, Pause())
        ask(made, DiscardSamples((("train", "7"),)))
        record = ask(made, SaveCheckpoint()).value
        then = made.stores.samples.splits["train"].loss.copy()
        ask(made, SetHyperParameters({"learning_rate": 0.5}))
        ask(made, DiscardSamples((("train", "3"),)))
        ask(made, Resume())
        train(made, 3)
        made.stores.flusher.drain()
        side = side_of(f"{root}@{record.id}")
        assert side.settings["learning_rate"] == 0.01 and side.head()["step"] == record.step
        assert side.samples["train"].discarded.nonzero()[0].tolist() == [7]
        assert side.samples["train"].loss.tobytes() == then.tobytes()
        assert side.samples["train"].label.tolist() == made.stores.samples.splits["train"].label.tolist()
        assert side.interventions == {"pause": 1, "sample_discard": 1}


def test_settings_follow_what_is_undone_and_redone(root: Path) -> None:
    with training(root) as made:
        ask(made, SetHyperParameters({"learning_rate": 0.5, "full_eval_frequency": 7}))
        found: list[Any] = []
        for command in (Undo(), Redo(), Undo()):
            train(made, 1)
            ask(made, command)
            made.stores.flusher.drain()
            now = side_of(str(root)).settings
            found.append((now["learning_rate"], now["full_eval_frequency"]))
        assert found == [(0.01, 0), (0.5, 7), (0.01, 0)]
        ask(made, SetHyperParameters({"training_steps_to_do": 5}))
        assert "training_steps_to_do" not in side_of(str(root)).settings


def test_options_of_the_optimizer_and_what_the_code_built(root: Path) -> None:
    folder = finished(root, optimizer_options={"weight_decay": 0.25, "betas": (0.5, 0.9)})
    settings = side_of(str(folder)).settings
    assert settings["optimizer.weight_decay"] == 0.25 and tuple(settings["optimizer.betas"]) == (0.5, 0.9)
    assert settings["scheduler"] == "none" and settings["task"] == "classification"
    assert "50 samples" in settings["train data set"]
    assert not any("params" in name.split(".") for name in settings)


def test_nothing_is_written(root: Path) -> None:
    folder = finished(root, EditNeurons(Freeze("layers.0", (1,))))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    side_of(str(folder))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_run_without_a_checkpoint_has_no_weights(root: Path) -> None:
    Root(root).create_run("empty")
    side = side_of(str(root))
    assert side.payload is side.checkpoint is None and side.head()["weights_of_checkpoint"] is None
    with pytest.raises(StorageError, match="has no checkpoint yet"):
        checkpoint_of(str(root))


def test_a_checkpoint_that_goes_while_it_is_read_is_no_trouble_but_a_broken_one_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(root, SaveCheckpoint(), SaveCheckpoint())
    place = Place(str(folder))
    newest = place.checkpoint()
    assert newest is not None
    reads: list[str] = []
    original = place.file_of

    def as_it_goes(record: Any) -> Path:
        reads.append(record.id)
        if len(reads) == 1:  # a run that trains keeps only so many
            place.checkpoints.remove(record.id)
        return original(record)

    monkeypatch.setattr(place, "file_of", as_it_goes)
    record, payload = read_checkpoint(place)
    assert record is not None and payload is not None and reads == [newest.id, record.id] and record.id < newest.id
    named = Place(f"{folder}@{record.id}")
    path = folder / "checkpoints" / record.file
    shutil.copy(path, root / "kept")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=f"checkpoint {record.id} of .* is broken"):
        read_checkpoint(named)
    assert torch.load(root / "kept", weights_only=True)
