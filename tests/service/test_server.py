"""Starting and stopping: ports, hosts, and backend.json."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from graybox.errors import GrayboxError, Invalid, Refused, StorageError
from graybox.service.server import RunningServer, serve
from graybox.service.settings import Settings
from tests.patience import PATIENCE
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


def test_port_zero_picks_one_on_the_loopback_address(server: RunningServer) -> None:
    assert server.port > 0
    assert server.address == f"127.0.0.1:{server.port}"
    with socket.socket() as elsewhere:  # another address of this machine: nothing listens there
        elsewhere.settimeout(PATIENCE)
        assert elsewhere.connect_ex(("127.0.0.2", server.port)) != 0


def test_a_given_port_is_taken(owner: ToyOwner, free_port: Callable[[], int]) -> None:
    port = free_port()
    running = serve(owner.backend(), Settings(port=port))
    assert (running.port, running.address) == (port, f"127.0.0.1:{port}")
    running.stop(grace=0)
    # At once again, as after a restart.
    again = serve(owner.backend(), Settings(port=port))
    again.stop(grace=0)


def test_a_port_in_use_is_named_with_the_way_out(
    owner: ToyOwner, server: RunningServer, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (owner.root.path / "backend.json").read_bytes()
    with pytest.raises(Refused, match=f"port {server.port} .* in use.*--port"):
        serve(owner.backend(), Settings(port=server.port))
    assert (owner.root.path / "backend.json").read_bytes() == before
    assert "bind" not in capfd.readouterr().err, "gRPC's own noise"


def test_a_port_that_something_else_uses(owner: ToyOwner) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(GrayboxError, match=str(other.getsockname()[1])):
            serve(owner.backend(), Settings(port=other.getsockname()[1]))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "999.1.1.1"])
def test_a_host_that_is_not_ours_is_named(owner: ToyOwner, host: str) -> None:
    with pytest.raises(Invalid, match=f"{host}.*--host"):
        serve(owner.backend(), Settings(host=host, port=0))
    assert not (owner.root.path / "backend.json").exists()


def test_another_host_is_allowed_and_said(owner: ToyOwner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="graybox.service"):
        running = serve(owner.backend(), Settings(host="0.0.0.0", port=0))
    try:
        (record,) = (each for each in caplog.records if each.name == "graybox.service")
        for words in ("0.0.0.0", "other machines", "token", "GRPC_TLS_ENABLED"):
            assert words in record.getMessage()
        assert running.address == f"127.0.0.1:{running.port}", "what a client on this machine connects to"
        with WireClient(running.address, None) as client:
            with pytest.raises(grpc.RpcError) as error:
                client.GetDataSplits()
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        running.stop(grace=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.3"])
def test_loopback_is_nothing_to_warn_about(owner: ToyOwner, host: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="graybox.service"):
        running = serve(owner.backend(), Settings(host=host, port=0))
    running.stop(grace=0)
    assert "graybox.service" not in {record.name for record in caplog.records}


def announced(owner: ToyOwner) -> Path:
    path: Path = owner.root.path / "backend.json"
    return path


def test_backend_json_lets_a_local_client_in_and_nobody_else_read_it(owner: ToyOwner, server: RunningServer) -> None:
    path = announced(owner)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_bytes())
    started = content.pop("started_ms")
    assert abs(started - time.time() * 1000) < 60_000
    assert content == {
        "address": server.address,
        "control_token": server.tokens.control[0],
        "watch_token": server.tokens.watch[0],
        "pid": os.getpid(),
        "run_id": owner.run.run_id,
        "tls": False,
    }
    with WireClient(content["address"], content["watch_token"]) as client:
        assert client.GetDataSplits().success


def test_backend_json_of_a_killed_backend_is_replaced_and_made_private(owner: ToyOwner) -> None:
    path = announced(owner)
    path.write_text("{}")
    path.chmod(0o644)
    running = serve(owner.backend(), Settings(port=0))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_bytes())["address"] == running.address
    running.stop(grace=0)


def test_stopping_takes_backend_json_away_and_can_be_done_twice(owner: ToyOwner) -> None:
    running = serve(owner.backend(), Settings(port=0))
    assert running.wait(0.01), "it still runs"
    running.stop(grace=0)
    running.stop(grace=0)
    assert not announced(owner).exists()
    assert not running.wait(PATIENCE)
    with WireClient(running.address, running.tokens.control[0]) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.GetDataSplits()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_stopping_leaves_the_backend_json_of_another(owner: ToyOwner) -> None:
    first = serve(owner.backend(), Settings(port=0))
    second = serve(owner.backend(), Settings(port=0))
    first.stop(grace=0)
    assert json.loads(announced(owner).read_bytes())["address"] == second.address
    second.stop(grace=0)
    assert not announced(owner).exists()


def test_a_backend_json_that_cannot_be_written_is_named_and_nothing_listens(
    owner: ToyOwner, free_port: Callable[[], int]
) -> None:
    announced(owner).mkdir()
    port = free_port()
    with pytest.raises(StorageError, match=r"backend\.json"):
        serve(owner.backend(), Settings(port=port))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_restarts_get_new_tokens(owner: ToyOwner) -> None:
    first = serve(owner.backend(), Settings(port=0))
    first.stop(grace=0)
    second = serve(owner.backend(), Settings(port=0))
    try:
        with WireClient(second.address, first.tokens.control[0]) as client:
            with pytest.raises(grpc.RpcError) as error:
                client.GetDataSplits()
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        second.stop(grace=0)
