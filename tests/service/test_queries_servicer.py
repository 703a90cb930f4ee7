"""Queries say that they come later, and what there is instead."""

from __future__ import annotations

import grpc

from graybox.proto import experiment_service_pb2 as pb
from tests.service.wire_client import WireClient


def test_comes_later(watcher: WireClient) -> None:
    code, details = watcher.status_of("ApplyDataQuery", pb.DataQueryRequest(query="loss > 1"))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "later version" in details
    assert "GetDataSamples" in details
