"""Who may do what, over the wire: every RPC with no token, a wrong one, and each right."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.security import Right, Tokens, make_tokens
from graybox.service.server import RunningServer, serve
from graybox.service.settings import Settings
from tests.patience import PATIENCE
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import REQUESTS, WireClient

OK = grpc.StatusCode.OK
DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

READING: dict[str, Any] = {
    "GetLatestLoggerData": pb.GetLatestLoggerDataRequest(),
    "GetEvaluationStatus": pb.GetEvaluationStatusRequest(),
    "GetDataSamples": pb.GetDataSamplesRequest(records_cnt=1),
    "ApplyDataQuery": pb.DataQueryRequest(query="loss > 1"),
    "GetDataSplits": pb.GetDataSplitsRequest(),
    "GetWeights": pb.GetWeightsRequest(layer_id="0"),
    "GetActivations": pb.GetActivationsRequest(layer_id="0", sample_id="1"),
    "GetSamples": pb.GetSamplesRequest(sample_ids=["1"]),
    "ExportSamples": pb.ExportSamplesRequest(query="loss > 1"),
}
CHANGING: dict[str, Any] = {
    "RestoreCheckpoint": pb.RestoreCheckpointRequest(experiment_hash="cafe"),
    "TriggerEvaluation": pb.TriggerEvaluationRequest(split_name="val"),
    "CancelEvaluation": pb.CancelEvaluationRequest(),
    "EditDataSample": pb.DataEditRequest(stat_name="discarded", samples_ids=["1"], bool_value=True),
    "ManipulateWeights": pb.ManipulateWeightsRequest(operation=pb.FREEZE, layer_id="0"),
}
COMMANDS_READING = [
    pb.ExperimentCommandRequest(),
    pb.ExperimentCommandRequest(
        get_status=True, get_runs=True, get_hyper_parameters=True, get_interactive_layers=True, get_journal=True,
        get_checkpoints=True, get_data_records=True, get_single_layer_info_id="0",
    ),
]  # fmt: skip
COMMANDS_CHANGING = [
    pb.ExperimentCommandRequest(
        hyper_parameter_change=pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))
    ),
    pb.ExperimentCommandRequest(hyper_parameter_change=pb.HyperParameterChange()),
    pb.ExperimentCommandRequest(plot_note_operation=pb.PlotNoteOperation(metric_name="loss", note="x")),
    pb.ExperimentCommandRequest(load_checkpoint_operation=pb.LoadCheckpointOperation(checkpoint_id="000001")),
    pb.ExperimentCommandRequest(save_checkpoint_operation=pb.SaveCheckpointOperation(name="x"), get_status=True),
    pb.ExperimentCommandRequest(undo_operation=pb.UndoOperation()),
]
MATRIX = [
    *((method, request, Right.WATCH) for method, request in READING.items()),
    *((method, request, Right.CONTROL) for method, request in CHANGING.items()),
    *(("ExperimentCommand", request, Right.WATCH) for request in COMMANDS_READING),
    *(("ExperimentCommand", request, Right.CONTROL) for request in COMMANDS_CHANGING),
]


def test_the_matrix_has_every_rpc() -> None:
    assert {method for method, _, _ in MATRIX} == set(REQUESTS)


@pytest.mark.parametrize("metadata", [None, "wrong", "", "Basic", "watch token in another header"])
def test_nothing_without_a_known_token(server: RunningServer, owner: ToyOwner, metadata: str | None) -> None:
    control = server.tokens.control[0]
    with WireClient(server.address, "wrong") as client:
        if metadata == "Basic":
            client.metadata = (("authorization", f"Basic {control}"),)
        elif metadata == "watch token in another header":
            client.metadata = (("x-token", f"Bearer {control}"),)
        else:
            client.metadata = None if metadata is None else (("authorization", f"Bearer {metadata}"),)
        before = owner.fingerprint()
        for method, request, _ in MATRIX:
            code, details = client.status_of(method, request)
            assert code is UNAUTHENTICATED, method
            assert "authorization: Bearer" in details
            assert control not in details
        assert owner.fingerprint() == before


def test_watching_reads_and_changes_nothing(watcher: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    for method, request, needed in MATRIX:
        code, details = watcher.status_of(method, request)
        if needed is Right.CONTROL:
            assert code is DENIED, method
            assert method in details
        else:
            assert code in (OK, grpc.StatusCode.UNIMPLEMENTED), (method, details)
    assert owner.fingerprint() == before
    assert watcher.status_of("ManipulateWeights", pb.ManipulateWeightsRequest(dry_run=True))[0] is DENIED


def test_controlling_may_do_everything(client: WireClient) -> None:
    codes = {client.status_of(method, request)[0] for method, request, _ in MATRIX}
    assert OK in codes
    assert not codes & {DENIED, UNAUTHENTICATED}


def test_the_scheme_is_read_in_any_case(server: RunningServer) -> None:
    with WireClient(server.address, None) as client:
        client.metadata = (("authorization", f"bearer   {server.tokens.watch[0]} "),)
        assert client.GetDataSplits().success


def test_an_unknown_method_is_unimplemented_only_for_those_who_may_ask(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/ExperimentService/Nonsense")
        for token, code in (("wrong", UNAUTHENTICATED), (server.tokens.watch[0], grpc.StatusCode.UNIMPLEMENTED)):
            with pytest.raises(grpc.RpcError) as error:
                call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=PATIENCE)
            assert error.value.code() is code


def test_bytes_that_are_no_message_are_the_callers_fault(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for method in REQUESTS:
            call = channel.unary_unary(f"/ExperimentService/{method}")
            with pytest.raises(grpc.RpcError) as error:
                call(
                    b"\xff\xff\xff",
                    metadata=(("authorization", f"Bearer {server.tokens.control[0]}"),),
                    timeout=PATIENCE,
                )
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert method in error.value.details()


@pytest.fixture
def own_tokens(owner: ToyOwner) -> Iterator[RunningServer]:
    running = serve(owner.backend(), Settings(port=0, tokens=("mine", "yours")))
    yield running
    running.stop(grace=0)


def test_tokens_of_the_environment_win_and_control(own_tokens: RunningServer) -> None:
    assert own_tokens.tokens.control == ("mine", "yours")
    for token in ("mine", "yours"):
        with WireClient(own_tokens.address, token) as client:
            assert client.ExperimentCommand(
                hyper_parameter_change=pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))
            ).success


def test_tokens_are_never_logged(
    owner: ToyOwner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        running = serve(owner.backend(), Settings(port=0, tokens=("hush-hush-token",)))
        with WireClient(running.address, "hush-hush-token") as client:
            client.ExperimentCommand(get_status=True)
            client.status_of("GetWeights", pb.GetWeightsRequest(layer_id="nope"))
        with WireClient(running.address, "another-secret") as client:
            client.status_of("GetDataSplits", pb.GetDataSplitsRequest())
        running.stop(grace=0)
    said = caplog.text + "".join(capfd.readouterr())
    for secret in ("hush-hush-token", "another-secret", *running.tokens.watch):
        assert secret not in said
        assert secret not in repr(running.tokens)


def test_made_tokens_are_long_and_never_the_same() -> None:
    made = [token for _ in range(20) for tokens in [make_tokens(Settings())] for token in tokens.control + tokens.watch]
    assert len(set(made)) == 40
    assert min(len(token) for token in made) >= 43  # 256 bits


def test_every_known_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def counting(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return real(left, right)

    monkeypatch.setattr("graybox.service.security.hmac.compare_digest", counting)
    tokens = Tokens(control=("a", "b" * 50), watch=("c",))
    for token, right in (
        ("a", Right.CONTROL), ("b" * 50, Right.CONTROL), ("c", Right.WATCH), ("", None), ("ü\udc80", None),
    ):  # fmt: skip
        compared.clear()
        assert tokens.right_of(token) is right
        assert compared == [(32, 32)] * 3
