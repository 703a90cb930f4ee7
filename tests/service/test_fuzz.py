"""Requests with odd values: answered with a status that fits or success=false, never INTERNAL, and when refused
nothing has changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.server import serve
from graybox.service.settings import Settings
from graybox.store.root import Root
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import REQUESTS, WireClient, npy

EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
}

TEXTS = st.one_of(
    # Words that mean something, so that requests get past the first check.
    st.sampled_from([
        "", "0", "1", "7", "8", "39", "40", "-1", "conv1", "fc", "features.conv2", "train", "val", "weight", "bias",
        "loss", "accuracy", "discarded", "tags", "sample_id", "cafe", "cafe@@step=3", "cafe@@weights_step=3",
        "cafe@@step=", "000001", "../..", "\x00", "ü" * 300, "9" * 400, "{}", "'", "%s", "__class__", "RUN",
    ]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)  # fmt: skip
ARRAYS = [npy(np.zeros(shape, kind)) for shape in ((4,), (4, 1, 3, 3), (1, 6)) for kind in ("f4", "i8")]
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind in NUMBERS:
        low, high = NUMBERS[kind]
        return st.one_of(st.sampled_from([low, -1, 0, 1, 2, 3, 8, 24, high]), st.integers(low, high))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.one_of(st.sampled_from([0.0, 0.5, 1.0, -0.0, float("nan"), float("inf")]), st.floats())
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.one_of(st.sampled_from([*range(13), 99]), st.integers(-(2**31), 2**31 - 1))
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return messages(field.message_type)
    assert kind == FieldDescriptor.CPPTYPE_STRING, "no request holds anything else"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.sampled_from(ARRAYS), st.binary(max_size=200))
    return TEXTS


def messages(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """Any message as the keyword arguments that make it; of a oneof, at most one field."""
    plain: dict[str, st.SearchStrategy[Any]] = {}
    groups: dict[str, list[st.SearchStrategy[dict[str, Any]]]] = {}
    for field in descriptor.fields:
        made = st.lists(values(field), max_size=4) if field.is_repeated else values(field)
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            groups.setdefault(oneof.name, []).append(st.fixed_dictionaries({field.name: made}))
        else:
            plain[field.name] = made
    chosen = [st.one_of(st.just({}), *choices) for choices in groups.values()]
    return st.tuples(st.fixed_dictionaries({}, optional=plain), *chosen).map(
        lambda parts: {name: value for part in parts for name, value in part.items()}
    )


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ToyOwner, WireClient]]:
    owner = ToyOwner(Root(tmp_path_factory.mktemp("fuzz") / "root"))
    owner.train(3)
    running = serve(owner.backend(), Settings(port=0))
    with WireClient(running.address, running.tokens.control[0]) as client:
        client.ExperimentCommand(save_checkpoint_operation=pb.SaveCheckpointOperation(name="first"))
        yield owner, client
    running.stop(grace=0)
    owner.close()


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_odd_requests(fuzzed: tuple[ToyOwner, WireClient], method: str, caplog: pytest.LogCaptureFixture) -> None:
    owner, client = fuzzed
    kind = REQUESTS[method]
    caplog.set_level(logging.CRITICAL, logger="graybox.service")  # the toy data set's defect is logged each time

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(messages(kind.DESCRIPTOR))
    def check(fields: dict[str, Any]) -> None:
        request = kind(**fields)
        # A command id seen before answers what it answered then.
        if "command_id" in fields:
            request.command_id = ""
        before = owner.fingerprint()
        try:
            answer = client.call(method, request)
        except grpc.RpcError as error:
            assert error.code() in EXPECTED, error.details()
            assert error.details()
            refused = True
        else:
            refused = not getattr(answer, "success", True)
            assert not refused or answer.message
        if refused:
            assert owner.fingerprint() == before

    check()
