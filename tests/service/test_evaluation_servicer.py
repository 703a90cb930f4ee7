"""Evaluation on demand says that it comes later, and what there is instead."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from tests.service.wire_client import WireClient


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("TriggerEvaluation", pb.TriggerEvaluationRequest(split_name="val")),
        ("GetEvaluationStatus", pb.GetEvaluationStatusRequest()),
        ("CancelEvaluation", pb.CancelEvaluationRequest(reason="x")),
    ],
)
def test_comes_later(client: WireClient, method: str, request_: Any) -> None:
    code, details = client.status_of(method, request_)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "later version" in details
    assert "full_eval_frequency" in details
