"""ExperimentCommand over the wire: what it changes, what it tells, and that a refusal changes nothing."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest

from graybox.commands import NoteBranch
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.snapshot import TrainerState
from graybox.store.root import Root
from tests.service.toy_owner import CLASSES, ToyOwner
from tests.service.wire_client import WireClient

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def change(**fields: object) -> pb.HyperParameterChange:
    return pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(**fields))  # type: ignore[arg-type]


def test_pause_and_resume(client: WireClient, owner: ToyOwner) -> None:
    answer = client.ExperimentCommand(hyper_parameter_change=change(is_training=False), get_status=True)
    assert answer.success
    assert answer.status.state == pb.PAUSED
    assert owner.state is TrainerState.PAUSED
    assert client.ExperimentCommand(hyper_parameter_change=change(is_training=True)).success
    assert owner.state is TrainerState.RUNNING


def test_hyper_parameters_all_at_once(client: WireClient, owner: ToyOwner) -> None:
    wanted = {
        "experiment_name": "new name",
        "training_steps_to_do": 7,
        "learning_rate": 0.125,
        "batch_size": 16,
        "full_eval_frequency": 5,
        "checkpoint_frequency": 3,
    }
    answer = client.ExperimentCommand(hyper_parameter_change=change(**wanted), get_hyper_parameters=True)
    assert answer.success
    assert answer.journal_sequence == 1
    assert owner.hyper_parameters == wanted
    told = {d.name: d.string_value if d.type == "text" else d.numerical_value for d in answer.hyper_parameters_descs}
    assert told == wanted
    rate = next(d for d in answer.hyper_parameters_descs if d.name == "learning_rate")
    assert (rate.type, rate.minimum, rate.exclusive_minimum, rate.HasField("maximum")) == ("number", 0.0, True, False)
    assert owner.state is TrainerState.RUNNING, "a change neither pauses nor resumes"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"batch_size": 0},
        {"batch_size": 4, "learning_rate": -1.0},
        {"training_steps_to_do": -1},
        {"experiment_name": ""},
        {"experiment_name": "n" * 101},
        {"training_steps_to_do": 0, "is_training": True},
        {"learning_rate": -1.0, "is_training": False},
    ],
)
def test_a_bad_hyper_parameter_changes_nothing(client: WireClient, owner: ToyOwner, fields: dict[str, object]) -> None:
    before = owner.fingerprint()
    request = pb.ExperimentCommandRequest(hyper_parameter_change=change(**fields))
    assert client.status_of("ExperimentCommand", request)[0] is INVALID
    assert owner.fingerprint() == before


def test_a_change_with_a_resume_that_would_be_refused_changes_nothing(client: WireClient, owner: ToyOwner) -> None:
    assert client.ExperimentCommand(hyper_parameter_change=change(training_steps_to_do=0, is_training=False)).success
    before = owner.fingerprint()
    answer = client.ExperimentCommand(hyper_parameter_change=change(batch_size=2, is_training=True))
    assert not answer.success
    assert "training_steps_to_do" in answer.message
    assert owner.fingerprint() == before
    assert not client.ExperimentCommand(hyper_parameter_change=change(is_training=True)).success
    assert client.ExperimentCommand(hyper_parameter_change=change(training_steps_to_do=5, is_training=True)).success
    assert owner.state is TrainerState.RUNNING


def test_everything_that_can_be_asked_in_one_answer(client: WireClient, owner: ToyOwner) -> None:
    owner.train(3)
    client.ExperimentCommand(save_checkpoint_operation=pb.SaveCheckpointOperation(name="mine"), actor="ada")
    answer = client.ExperimentCommand(
        get_status=True, get_runs=True, get_hyper_parameters=True, get_interactive_layers=True,
        get_single_layer_info_id="features.conv2", get_data_records=True, get_checkpoints=True, get_journal=True,
    )  # fmt: skip
    assert answer.success
    assert answer.message == ""
    assert answer.run_id == owner.run.run_id
    status = answer.status
    assert (status.state, status.step, status.age, status.run_id) == (pb.RUNNING, 3, 24, owner.run.run_id)
    assert (status.train_loss, status.HasField("eval_loss"), status.device) == (0.5, False, "cpu")
    assert tuple(status.class_names) == CLASSES
    assert status.journal_sequence == 1
    (run,) = answer.runs
    assert (run.run_id, run.live, run.state, run.age) == (owner.run.run_id, True, pb.RUNNING, 24)
    assert run.metrics == {"train/loss": pytest.approx(1 / 3), "train/accuracy": 0.5}
    assert [(b.branch, b.parent) for b in run.branches] == [(0, -1)]
    assert {split.origin: split.number_of_samples for split in answer.sample_statistics.splits} == {
        "train": 40,
        "val": 12,
    }
    train = answer.sample_statistics.splits[0]
    assert train.number_seen == 24
    assert train.number_wrong == 0
    assert train.mean_loss == pytest.approx(sum(row % 5 / 4 for row in range(8, 32)) / 24)
    (checkpoint,) = answer.checkpoints
    assert (checkpoint.id, checkpoint.name, checkpoint.reference) == ("000001", "mine", "cafe@@step=3")
    assert checkpoint.bytes == len(b"weights")
    assert checkpoint.metrics == {"train/loss": 0.5}
    (entry,) = answer.journal_entries
    assert (entry.sequence, entry.actor, entry.kind, entry.outcome) == (1, "ada", "checkpoint_save", "applied")


def test_layers_are_listed_without_their_neurons(client: WireClient, owner: ToyOwner) -> None:
    owner.layers[1].frozen[2:4] = True
    layers = client.ExperimentCommand(get_interactive_layers=True).layer_representations
    assert [layer.layer_name for layer in layers] == ["conv1", "features.conv2", "fc"]
    conv2 = layers[1]
    assert (conv2.layer_id, conv2.layer_type, conv2.neurons_count, conv2.incoming_neurons_count) == (
        "1",
        "Conv2d",
        6,
        4,
    )
    assert list(conv2.kernel_size) == [3, 3]
    assert list(conv2.outgoing_layer_ids) == ["2"]
    assert (conv2.frozen_count, conv2.dead_count) == (2, 1)
    assert (conv2.train_trigger_rate, conv2.eval_trigger_rate) == (0.5, 0.25)
    assert not any(layer.neurons for layer in layers)
    assert [layer.is_output for layer in layers] == [False, False, True]


@pytest.mark.parametrize("name", ["1", "features.conv2"])
def test_one_layer_with_its_neurons_by_id_or_name(client: WireClient, owner: ToyOwner, name: str) -> None:
    owner.layers[1].frozen[2] = True
    owner.layers[1].rate[3] = 0.5
    (layer,) = client.ExperimentCommand(get_single_layer_info_id=name).layer_representations
    assert layer.layer_name == "features.conv2"
    assert [neuron.neuron_id for neuron in layer.neurons] == list(range(6))
    assert [neuron.train_trigger_rate for neuron in layer.neurons] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert [neuron.frozen for neuron in layer.neurons] == [False, False, True, False, False, False]
    assert [neuron.health for neuron in layer.neurons] == [pb.DEAD, pb.GOOD, pb.FROZEN, pb.GOOD, pb.GOOD, pb.GOOD]
    assert layer.neurons[3].learning_rate == 0.5
    assert (layer.neurons[0].train_age, layer.neurons[0].eval_age) == (64, 12)


def test_what_is_known_of_a_neuron(client: WireClient, owner: ToyOwner) -> None:
    owner.layers[0].bias_frozen[1] = True
    owner.layers[2].incoming_frozen[[0, 1, 4]] = True
    (layer,) = client.ExperimentCommand(get_single_layer_info_id="0").layer_representations
    first, second, third = layer.neurons[:3]
    assert (second.train_mean, second.train_std) == pytest.approx((2 / 3, 1))
    assert (second.window_trigger_rate, second.window_mean) == pytest.approx((1 / 12, 1 / 15))
    assert second.relative_change == pytest.approx(1 / 30)
    assert second.weight_norm == pytest.approx(float(np.linalg.norm(owner.layers[0].weight[1])))
    assert second.bias_frozen and not first.bias_frozen
    assert not second.HasField("gradient_norm"), "not measured"
    assert not first.HasField("eval_mean") and second.HasField("eval_mean"), "not a number yet"
    assert (third.health, third.redundant_with) == (pb.REDUNDANT, 1)
    assert not second.HasField("redundant_with")
    assert (layer.dead_count, layer.redundant_count, layer.overfit_count) == (1, 1, 0)
    assert not second.class_trigger_rates and not second.top_samples, "too long to be sent each time"
    (last,) = client.ExperimentCommand(get_single_layer_info_id="fc").layer_representations
    assert [(r.first, r.last) for r in last.frozen_incoming] == [(0, 1), (4, 4)]


def test_details_of_the_neurons_that_are_named(client: WireClient) -> None:
    answer = client.ExperimentCommand(
        get_single_layer_info_id="1", single_layer_neuron_ids=[4, 1], with_neuron_details=True
    )
    found = answer.layer_representations[0].neurons
    assert [neuron.neuron_id for neuron in found] == [4, 1]
    rates = list(found[0].class_trigger_rates)
    assert rates[:2] == pytest.approx([0.8, 0.4]) and np.isnan(rates[2])
    assert [(sample.origin, sample.sample_id) for sample in found[0].top_samples] == [("train", "12"), ("train", "13")]
    everything = client.ExperimentCommand(get_single_layer_info_id="1", with_neuron_details=True)
    assert [len(n.class_trigger_rates) for n in everything.layer_representations[0].neurons] == [3] * 6


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"get_single_layer_info_id": "0", "single_layer_neuron_ids": [4]}, grpc.StatusCode.NOT_FOUND),
        ({"get_single_layer_info_id": "0", "single_layer_neuron_ids": [-1]}, INVALID),
        ({"get_single_layer_info_id": "0", "single_layer_neuron_ids": [1, 1]}, INVALID),
        ({"single_layer_neuron_ids": [1]}, INVALID),
        ({"with_neuron_details": True}, INVALID),
    ],
)
def test_neurons_that_cannot_be_told_are_found_out_before_a_command(
    client: WireClient, owner: ToyOwner, fields: dict[str, object], code: grpc.StatusCode
) -> None:
    before = owner.fingerprint()
    request = pb.ExperimentCommandRequest(hyper_parameter_change=change(batch_size=3), **fields)  # type: ignore[arg-type]
    assert client.status_of("ExperimentCommand", request)[0] is code
    assert owner.fingerprint() == before


def test_more_details_than_fit_are_refused(client: WireClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NEURON_DETAILS", 35)
    answer = client.ExperimentCommand(get_single_layer_info_id="1", with_neuron_details=True)
    assert not answer.success and "single_layer_neuron_ids" in answer.message
    few = client.ExperimentCommand(
        get_single_layer_info_id="1", with_neuron_details=True, single_layer_neuron_ids=range(5)
    )
    assert few.success and len(few.layer_representations[0].neurons) == 5


def test_the_list_holds_the_asked_layer_once(client: WireClient) -> None:
    layers = client.ExperimentCommand(get_interactive_layers=True, get_single_layer_info_id="0").layer_representations
    assert [len(layer.neurons) for layer in layers] == [4, 0, 0]


def test_an_unknown_layer_is_found_out_before_the_command_is_applied(client: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    code, details = client.status_of(
        "ExperimentCommand",
        pb.ExperimentCommandRequest(
            hyper_parameter_change=change(batch_size=3), get_single_layer_info_id="nope", get_status=True
        ),
    )
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'nope'" in details
    assert owner.fingerprint() == before


def test_a_refused_command_still_answers_what_was_asked(client: WireClient, owner: ToyOwner) -> None:
    client.ExperimentCommand(hyper_parameter_change=change(training_steps_to_do=0))
    answer = client.ExperimentCommand(hyper_parameter_change=change(is_training=True), get_status=True, get_runs=True)
    assert not answer.success
    assert "no steps are left" in answer.message
    assert answer.status.state == pb.RUNNING
    assert len(answer.runs) == 1


def test_a_note_on_a_point(client: WireClient, owner: ToyOwner) -> None:
    owner.train(2)
    note = pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=16, note="here ü")
    assert client.ExperimentCommand(plot_note_operation=note).success
    noted = {p.age: p.point_note for p in client.GetLatestLoggerData().points if p.metric_name == "loss"}
    assert noted == {8: "", 16: "here ü"}
    note.note = ""
    assert client.ExperimentCommand(plot_note_operation=note, run_id=owner.run.run_id).success
    assert not any(p.point_note for p in client.GetLatestLoggerData().points)


@pytest.mark.parametrize(
    ("note", "code"),
    [
        (pb.PlotNoteOperation(split_name="train", model_age=8), INVALID),
        (pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=-8), INVALID),
        (pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=8, branch=-1), INVALID),
        (pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=8, note="n" * 2001), INVALID),
        (pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=9), grpc.StatusCode.NOT_FOUND),
        (pb.PlotNoteOperation(metric_name="nope", model_age=8), grpc.StatusCode.NOT_FOUND),
        (pb.PlotNoteOperation(metric_name="loss", run_id="nope"), grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_note_on_nothing(
    client: WireClient, owner: ToyOwner, note: pb.PlotNoteOperation, code: grpc.StatusCode
) -> None:
    owner.train(1)
    before = owner.fingerprint()
    assert client.status_of("ExperimentCommand", pb.ExperimentCommandRequest(plot_note_operation=note))[0] is code
    assert owner.fingerprint() == before


def test_a_note_and_its_request_name_one_run(client: WireClient, owner: ToyOwner) -> None:
    note = pb.PlotNoteOperation(metric_name="loss", run_id=owner.run.run_id)
    request = pb.ExperimentCommandRequest(plot_note_operation=note, run_id="another")
    assert client.status_of("ExperimentCommand", request)[0] is INVALID


def test_a_name_and_a_note_for_a_branch(client: WireClient, owner: ToyOwner) -> None:
    owner.run.add_branch(0, 5, 40)

    def told(**fields: str) -> list[tuple[int, str, str]]:
        operation = pb.BranchNoteOperation(branch=1, **fields)
        answer = client.ExperimentCommand(branch_note_operation=operation, get_runs=True, command_id=str(fields))
        assert answer.success and answer.journal_sequence
        return [(branch.branch, branch.name, branch.note) for branch in answer.runs[0].branches]

    client.ExperimentCommand(branch_note_operation=pb.BranchNoteOperation(branch=0, name="first"))
    # The runs are told as they are before the command.
    assert told(name="wider", note="why ü") == [(0, "first", ""), (1, "", "")]
    assert told(name="") == [(0, "first", ""), (1, "wider", "why ü")]
    assert told(note="") == [(0, "first", ""), (1, "", "why ü")]
    left = client.ExperimentCommand(get_runs=True).runs[0].branches
    assert [(branch.name, branch.note) for branch in left] == [("first", ""), ("", "")]
    assert owner.applied[1:] == [NoteBranch(1, "wider", "why ü"), NoteBranch(1, "", None), NoteBranch(1, None, "")]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (pb.BranchNoteOperation(branch=0), INVALID),
        (pb.BranchNoteOperation(branch=-1, name="x"), INVALID),
        (pb.BranchNoteOperation(branch=0, name="n" * 201), INVALID),
        (pb.BranchNoteOperation(branch=0, note="n" * 2001), INVALID),
        (pb.BranchNoteOperation(branch=3, name="x"), grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_name_for_nothing(
    client: WireClient, owner: ToyOwner, operation: pb.BranchNoteOperation, code: grpc.StatusCode
) -> None:
    before = owner.run.record
    request = pb.ExperimentCommandRequest(branch_note_operation=operation)
    assert client.status_of("ExperimentCommand", request)[0] is code
    assert owner.run.record == before


def test_load_a_checkpoint(client: WireClient, owner: ToyOwner) -> None:
    owner.train(1)
    saved = client.ExperimentCommand(save_checkpoint_operation=pb.SaveCheckpointOperation())
    assert saved.journal_sequence == 1
    load = pb.LoadCheckpointOperation(checkpoint_id="000001")
    answer = client.ExperimentCommand(load_checkpoint_operation=load, get_status=True)
    assert answer.success
    assert (answer.status.state, answer.status.branch) == (pb.PAUSED, 1)
    for reference, code in (("000002", grpc.StatusCode.NOT_FOUND), ("", INVALID)):
        request = pb.ExperimentCommandRequest(
            load_checkpoint_operation=pb.LoadCheckpointOperation(checkpoint_id=reference)
        )
        assert client.status_of("ExperimentCommand", request)[0] is code


def test_the_journal_from_where_one_stands(client: WireClient, owner: ToyOwner) -> None:
    for size in range(1, 6):
        client.ExperimentCommand(hyper_parameter_change=change(batch_size=size))

    def sequences(**fields: int) -> list[int]:
        answer = client.ExperimentCommand(get_journal=True, **fields)
        return [entry.sequence for entry in answer.journal_entries]

    assert sequences() == [1, 2, 3, 4, 5]
    assert sequences(journal_after=3) == [4, 5]
    assert sequences(journal_after=99) == []
    assert sequences(journal_limit=2) == [4, 5]
    assert sequences(journal_after=1, journal_limit=3) == [3, 4, 5]
    entry = client.ExperimentCommand(get_journal=True).journal_entries[0]
    assert json.loads(entry.arguments_json) == {"batch_size": 1}
    assert not client.ExperimentCommand(get_status=True).journal_entries


def test_arguments_of_a_great_journal_line_are_left_out_and_said_to_be(client: WireClient, owner: ToyOwner) -> None:
    owner.journal.append(
        time_ms=1, actor="ada", kind="sample_discard", step=1, age=8, branch=0, summary="many",
        arguments={"rows": list(range(100_000))},
    )  # fmt: skip
    (entry,) = client.ExperimentCommand(get_journal=True).journal_entries
    assert list(json.loads(entry.arguments_json)) == ["left_out"]
    assert len(entry.arguments_json) < 100


def test_asking_for_nothing_is_answered(client: WireClient, owner: ToyOwner) -> None:
    answer = client.ExperimentCommand()
    assert answer == pb.CommandResponse(success=True, run_id=owner.run.run_id)


def test_a_run_that_cannot_be_read_is_left_out_of_the_list(client: WireClient, owner: ToyOwner) -> None:
    root: Root = owner.root
    broken = root.create_run("broken")
    (broken.path / "run.json").write_text("{")
    answer = client.ExperimentCommand(get_runs=True)
    assert answer.success
    assert [run.run_id for run in answer.runs] == [owner.run.run_id]
