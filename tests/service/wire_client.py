"""A client on a real channel, as a script would use it."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from graybox.proto import experiment_service_pb2 as pb
from graybox.proto import experiment_service_pb2_grpc as pb_grpc
from tests.patience import PATIENCE

REQUESTS: dict[str, Any] = {
    "ExperimentCommand": pb.ExperimentCommandRequest,
    "GetLatestLoggerData": pb.GetLatestLoggerDataRequest,
    "RestoreCheckpoint": pb.RestoreCheckpointRequest,
    "TriggerEvaluation": pb.TriggerEvaluationRequest,
    "GetEvaluationStatus": pb.GetEvaluationStatusRequest,
    "CancelEvaluation": pb.CancelEvaluationRequest,
    "GetDataSamples": pb.GetDataSamplesRequest,
    "ApplyDataQuery": pb.DataQueryRequest,
    "EditDataSample": pb.DataEditRequest,
    "GetDataSplits": pb.GetDataSplitsRequest,
    "GetWeights": pb.GetWeightsRequest,
    "GetActivations": pb.GetActivationsRequest,
    "GetSamples": pb.GetSamplesRequest,
    "ManipulateWeights": pb.ManipulateWeightsRequest,
    "ExportSamples": pb.ExportSamplesRequest,
}
"""Every RPC of the service, with its request's type."""
IN_PIECES = ("ExportSamples",)
"""Answered by a stream, which a call here makes a list of."""


def npy(values: np.ndarray) -> bytes:
    """An array as numpy.save writes it."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


LONGEST_MESSAGE = 64 * 1024 * 1024


class WireClient:
    """Calls by name: `client.GetDataSplits()`; keyword arguments are the request's fields."""

    def __init__(self, address: str, token: str | None, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", LONGEST_MESSAGE))
        self.channel = (
            grpc.insecure_channel(address, options=options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=options)
        )
        self.stub = pb_grpc.ExperimentServiceStub(self.channel)
        self.metadata = None if token is None else (("authorization", f"Bearer {token}"),)

    def call(self, method: str, request: Any, timeout: float | None = PATIENCE) -> Any:
        answer = getattr(self.stub, method)(request, metadata=self.metadata, timeout=timeout)
        return list(answer) if method in IN_PIECES else answer

    def send(self, method: str, request: Any, timeout: float | None = PATIENCE) -> Any:
        """Without waiting: answers the call's future."""
        return getattr(self.stub, method).future(request, metadata=self.metadata, timeout=timeout)

    def status_of(self, method: str, request: Any, timeout: float | None = PATIENCE) -> tuple[grpc.StatusCode, str]:
        """The status a call ends with, and its details; OK where it is answered."""
        try:
            self.call(method, request, timeout)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def __getattr__(self, method: str) -> Any:
        kind = REQUESTS[method]

        def call(*, timeout: float | None = PATIENCE, **fields: Any) -> Any:
            return self.call(method, kind(**fields), timeout)

        return call

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
