"""Evaluations over the wire, of a run that trains meanwhile: asked for, followed, cancelled, refused, and read when the
run has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report, confusion_matrix
from torch.utils.data import Dataset

from graybox.launch import Training, launch
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.backend import live_backend
from graybox.service.server import serve, serve_archive
from graybox.service.settings import Settings
from graybox.store.root import Root
from tests.patience import PATIENCE, wait_until
from tests.service.wire_client import WireClient
from tests.small_experiments import tick_until, toy_data, toy_experiment, weights
from tests.small_networks import differences

COUNT = 40


class Gated(Dataset[Any]):
    """Test samples that are handed out only as far as the gate is open; one of them may be broken."""

    def __init__(self) -> None:
        self.inputs, self.targets = toy_data(COUNT, seed=2).tensors
        self.classes = ["cat", "dog", "fish"]
        self.limit = COUNT
        self.broken = -1
        self.loaded: list[int] = []
        self.opened = threading.Condition()

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with self.opened:
            assert self.opened.wait_for(lambda: index < self.limit, PATIENCE)
        if index == self.broken:
            raise OSError(f"picture {index} is cut off")
        self.loaded.append(index)
        return self.inputs[index], self.targets[index]

    def open_to(self, limit: int) -> None:
        with self.opened:
            self.limit = limit
            self.opened.notify_all()


class Running:
    """A run whose owner ticks in a thread, and a client."""

    def __init__(self, root: Path) -> None:
        self.data = Gated()
        train = toy_data()
        train.classes = self.data.classes  # type: ignore[attr-defined]
        experiment = toy_experiment(train_dataset=train, test_dataset=self.data, training_steps_to_do=10**6)
        self.training: Training = launch(experiment, root_directory=root)
        tick_until(self.training, lambda: self.training.trainer.session.step == 20)
        self.server = serve(live_backend(self.training), Settings(port=0))
        self.client = WireClient(self.server.address, self.server.tokens.control[0])
        self._owner = threading.Thread(target=self.training.trainer.run, daemon=True)
        self._owner.start()

    def status(self) -> pb.GetEvaluationStatusResponse:
        found: pb.GetEvaluationStatusResponse = self.client.GetEvaluationStatus()
        return found

    def trainer(self) -> pb.TrainerStatus:
        found: pb.TrainerStatus = self.client.ExperimentCommand(get_status=True).status
        return found

    def ended(self) -> pb.GetEvaluationStatusResponse:
        wait_until(lambda: self.status().status not in ("idle", "pending", "running"), "the end of an evaluation")
        return self.status()

    def trains(self) -> None:
        step = self.trainer().step
        wait_until(lambda: self.trainer().step > step, "another step")

    def change(self, **fields: Any) -> pb.CommandResponse:
        change = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(**fields))
        found: pb.CommandResponse = self.client.ExperimentCommand(hyper_parameter_change=change)
        return found

    def close(self) -> None:
        self.data.open_to(COUNT)
        self.client.close()
        self.server.stop(grace=0)
        self.training.trainer.stop()
        self._owner.join(PATIENCE)
        self.training.close()


@pytest.fixture
def run(root: Path) -> Iterator[Running]:
    made = Running(root)
    yield made
    made.close()


def answers(run: Running, rows: list[int] | range) -> tuple[np.ndarray, np.ndarray]:
    """(truth, prediction) of test samples, by a plain loop; the trainer is paused."""
    model = run.training.experiment.model
    modes = [module.training for module in model.modules()]
    model.eval()
    with torch.no_grad():
        predicted = model(run.data.inputs[list(rows)]).argmax(1)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return run.data.targets[list(rows)].numpy(), predicted.numpy()


def test_an_evaluation_from_its_start_to_its_tables(run: Running) -> None:
    assert (run.status().status, run.status().evaluation_id) == ("idle", 0)
    assert run.change(is_training=False).success
    kept = weights(run.training.trainer.session)
    started = run.client.TriggerEvaluation(split_name="test", actor="anna")
    assert (started.success, started.message) == (True, f"Evaluates {COUNT} samples of test")
    found = run.ended()
    assert (found.status, found.current, found.total, found.error) == ("completed", COUNT, COUNT, "")
    assert found.run_id == started.run_id == run.training.stores.run.run_id
    truth, predicted = answers(run, range(COUNT))
    names = ["cat", "dog", "fish"]
    told = classification_report(truth, predicted, target_names=names, output_dict=True, zero_division=np.nan)
    (table,) = found.tables
    assert table.name == "class" and [row.name for row in table.rows] == names
    for row in table.rows:
        expected = told[row.name]
        assert row.support == expected["support"] and row.recall == row.accuracy == expected["recall"]
        assert (row.precision if row.HasField("precision") else np.nan) == pytest.approx(
            expected["precision"], nan_ok=True
        )
        assert row.f1 == pytest.approx(expected["f1-score"])
    assert found.metrics["accuracy"] == pytest.approx(told["accuracy"])
    assert found.metrics["macro_f1"] == pytest.approx(told["macro avg"]["f1-score"])
    matrix = np.array(found.confusion_matrix.counts).reshape(3, 3)
    np.testing.assert_array_equal(matrix, confusion_matrix(truth, predicted, labels=range(3)))
    assert list(found.confusion_matrix.class_names) == names
    mean = sum(row.support * row.mean_loss for row in table.rows) / COUNT
    assert found.metrics["loss"] == pytest.approx(mean, rel=1e-5)
    # It stays paused, and not a weight has changed.
    assert run.trainer().state == pb.PAUSED and differences(kept, weights(run.training.trainer.session)) == []
    points = [p for p in run.client.GetLatestLoggerData().points if p.is_evaluation_marker]
    assert {p.metric_name: p.metric_value for p in points} == pytest.approx(dict(found.metrics), rel=1e-6)
    assert {(p.split_name, p.age, tuple(p.evaluation_tags)) for p in points} == {("test", found.age, ())}
    journal = run.client.ExperimentCommand(get_journal=True).journal_entries
    start, end = journal[-2:]
    assert (start.kind, start.actor, start.sequence) == ("evaluation_start", "anna", found.evaluation_id)
    assert (end.kind, end.actor, end.summary) == ("evaluation_end", "trainer", found.message)


def test_training_waits_for_it_and_goes_on(run: Running) -> None:
    run.data.open_to(8)
    assert run.client.TriggerEvaluation(split_name="test", metrics=["accuracy"]).success
    wait_until(lambda: run.status().current == 8, "the first batch")
    before = run.trainer()
    assert (run.status().status, before.mode, before.state) == ("running", "evaluation", pb.RUNNING)
    assert before.activity == f"evaluating test: 8 of {COUNT}"
    second = run.client.send("TriggerEvaluation", pb.TriggerEvaluationRequest(split_name="val"))
    edit = run.client.send(
        "ManipulateWeights", pb.ManipulateWeightsRequest(operation=pb.FREEZE, layer_id="conv", neuron_ids=[1])
    )
    splits = run.client.GetDataSplits()  # what only reads is answered meanwhile
    assert list(splits.split_names) == ["train", "val", "test"]
    run.data.open_to(16)
    for refused in (second.result(), edit.result()):
        assert not refused.success
        assert f"evaluation {run.status().evaluation_id} of test is running" in refused.message
        assert "wait for it, or cancel it" in refused.message
    assert run.trainer().step == before.step
    run.data.open_to(COUNT)
    assert run.ended().status == "completed" and run.data.loaded == list(range(COUNT))
    run.trains()
    assert run.trainer().mode == "train"


def test_a_cancel_ends_it_before_another_batch(run: Running) -> None:
    nothing = run.client.CancelEvaluation()
    assert (nothing.success, nothing.message) == (False, "no evaluation is running")
    run.data.open_to(10)  # in the middle of the second batch
    assert run.client.TriggerEvaluation(split_name="test", metrics=["accuracy"]).success
    wait_until(lambda: len(run.data.loaded) == 10, "the second batch")
    cancel = run.client.send("CancelEvaluation", pb.CancelEvaluationRequest(reason="lunch", actor="anna"))
    wait_until(lambda: run.training.trainer._queue.cancel_is_waiting, "the cancel to arrive")
    run.data.open_to(COUNT)
    answer = cancel.result()
    assert (answer.success, answer.message) == (
        True, f"Cancelled the evaluation of test after 16 of {COUNT} samples: lunch",
    )  # fmt: skip
    found = run.status()
    assert (found.status, found.cancelled, found.current) == ("cancelled", True, 16)
    assert run.data.loaded == list(range(16))  # that batch, and no other
    run.trains()
    assert run.client.TriggerEvaluation(split_name="test", command_id="once").success
    run.ended()
    # Sent again, it is not made again.
    assert run.client.TriggerEvaluation(split_name="test", command_id="once").success
    assert len([1 for e in run.training.stores.journal.entries() if e.kind == "evaluation_start"]) == 2


def test_a_sample_that_fails_is_told_in_the_status_and_training_goes_on(run: Running) -> None:
    run.data.broken = 21
    assert run.client.TriggerEvaluation(split_name="test").success
    found = run.ended()
    assert (found.status, found.current) == ("failed", 16)
    assert "test sample 21 failed to load: OSError: picture 21 is cut off" in found.error
    assert "__getitem__" in found.traceback and not found.tables
    run.trains()
    assert run.trainer().error == ""
    run.data.broken = -1
    assert run.client.TriggerEvaluation(split_name="test").success
    assert run.ended().status == "completed"


def test_samples_are_chosen_by_tag_and_by_view(run: Running) -> None:
    run.change(is_training=False)
    for tag, ids in (("dark", ["1", "5"]), ("night", ["5", "9"])):
        assert run.client.EditDataSample(
            stat_name=f"tags:{tag}", samples_ids=ids, sample_origins=["test"], type="EDIT_ADD"
        ).success
    view = run.client.ApplyDataQuery(query="id >= 30 or split == 'train'").view_id
    discarded = run.client.EditDataSample(
        stat_name="discarded", samples_ids=["5"], sample_origins=["test"], bool_value=True
    )
    assert discarded.success
    for fields, rows, tags in (
        ({"tags": ["dark", "night"]}, [1, 5, 9], ["dark", "night"]),
        ({"view_id": view}, list(range(30, COUNT)), ["query: id >= 30 or split == 'train'"]),
        ({"tags": ["night"], "use_full_set": True}, list(range(COUNT)), []),
        ({}, [row for row in range(COUNT) if row != 5], []),
    ):
        assert run.client.TriggerEvaluation(split_name="test", **fields).success
        found = run.ended()
        truth, predicted = answers(run, rows)
        assert found.total == len(rows) and found.metrics["accuracy"] == float((truth == predicted).mean())
        points = run.client.GetLatestLoggerData(request_full_history=True, graph_name="accuracy").points
        assert list([p for p in points if p.is_evaluation_marker][-1].evaluation_tags) == tags
    empty = run.client.ApplyDataQuery(query="split == 'train'").view_id
    refused = run.client.TriggerEvaluation(split_name="test", view_id=empty)
    assert not refused.success and "no sample of test is chosen by the view" in refused.message


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "split_name is empty"),
        ({"split_name": "tset"}, grpc.StatusCode.NOT_FOUND, "no split 'tset'; there are train, val, test"),
        ({"split_name": "test", "tags": ["x"]}, grpc.StatusCode.NOT_FOUND, "no tag 'x'"),
        ({"split_name": "test", "tags": [""]}, grpc.StatusCode.INVALID_ARGUMENT, "a tag is empty"),
        ({"split_name": "test", "tags": ["x"] * 300}, grpc.StatusCode.INVALID_ARGUMENT, "at most 256"),
        ({"split_name": "test", "metrics": ["f1"]}, grpc.StatusCode.INVALID_ARGUMENT, "no metric 'f1'"),
        ({"split_name": "test", "view_id": "view-x"}, grpc.StatusCode.NOT_FOUND, "no view 'view-x'"),
    ],
)
def test_malformed_requests_say_what_would_be_right(
    run: Running, fields: dict[str, Any], code: grpc.StatusCode, message: str
) -> None:
    found, details = run.client.status_of("TriggerEvaluation", pb.TriggerEvaluationRequest(**fields))
    assert found is code and message in details
    assert run.status().status == "idle"


def test_the_mode_is_switched_over_the_wire(run: Running) -> None:
    done = run.change(mode="audit", batch_size=5, is_training=True)
    assert done.success and "Switched from train to audit" in done.message and "batch size 8 → 5" in done.message
    wait_until(lambda: run.training.trainer.session.audit.batches > 3, "an audit")
    now = run.trainer()
    assert (now.mode, now.state) == ("audit", pb.RUNNING)
    assert now.samples_per_second >= 0 and run.trainer().step == now.step
    audited = [p for p in run.client.GetLatestLoggerData().points if p.audit_mode]
    assert {(p.split_name, p.age) for p in audited} == {("train", now.age)}
    code, details = run.client.status_of(
        "ExperimentCommand",
        pb.ExperimentCommandRequest(
            hyper_parameter_change=pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(mode="evaluation"))
        ),
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "mode is train or audit, not 'evaluation'" in details
    undone = run.client.ExperimentCommand(undo_operation=pb.UndoOperation())
    assert undone.success and undone.message.startswith("Undid: Switched")
    run.trains()
    assert run.trainer().mode == "train"


def test_an_audit_needs_no_steps_left(run: Running) -> None:
    run.change(training_steps_to_do=0)
    wait_until(lambda: run.trainer().state == pb.COMPLETED, "the last step")
    refused = run.change(is_training=True, batch_size=4)
    assert not refused.success and "no steps are left" in refused.message
    assert run.change(is_training=True, mode="audit").success
    wait_until(lambda: run.training.trainer.session.audit.batches > 0, "an audit")
    assert run.change(is_training=True, batch_size=4).success


def test_who_may_watch_may_follow_but_not_start(run: Running) -> None:
    with WireClient(run.server.address, run.server.tokens.watch[0]) as watcher:
        assert watcher.GetEvaluationStatus().status == "idle"
        for method, request in (
            ("TriggerEvaluation", pb.TriggerEvaluationRequest(split_name="test")),
            ("CancelEvaluation", pb.CancelEvaluationRequest()),
        ):
            assert watcher.status_of(method, request)[0] is grpc.StatusCode.PERMISSION_DENIED


def test_a_run_that_has_ended_tells_its_last_evaluation(root: Path) -> None:
    made = Running(root)
    try:
        assert made.client.TriggerEvaluation(split_name="test").success
        live = made.ended()
    finally:
        made.close()
    archive = serve_archive(Root(root, read_only=True), Settings(port=0))
    try:
        with WireClient(archive.address, archive.tokens.control[0]) as client:
            kept = client.GetEvaluationStatus()
            live.started_ms = kept.started_ms
            assert kept == live and kept.tables and kept.confusion_matrix.counts
            refused = client.TriggerEvaluation(split_name="test")
            assert not refused.success and "has ended; start a backend on it to evaluate it" in refused.message
    finally:
        archive.stop(grace=0)
