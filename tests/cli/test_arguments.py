from __future__ import annotations

import argparse
import socket
from collections.abc import Callable

import pytest

from graybox.cli.arguments import LOOPBACK, free_port, port_number, require_free_port
from graybox.errors import Invalid, Refused


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("8050", 8050), ("65535", 65535)])
def test_ports(text: str, port: int) -> None:
    assert port_number(text) == port


@pytest.mark.parametrize("text", ["", "-1", "65536", "80.5", "http", "²", " 80", "0x50"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a port; give a number from 1 to 65535"):
        port_number(text)


def test_a_port_in_use_is_named_with_the_flag_that_helps(free_port: Callable[[], int]) -> None:
    with socket.create_server((LOOPBACK, free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=rf"127.0.0.1:{port} \(Address already in use\).* with --port"):
            require_free_port(LOOPBACK, port, "--port")
    require_free_port(LOOPBACK, port, "--port")


def test_a_port_that_was_just_used_is_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((LOOPBACK, port))
        server.accept()[0].close()  # whoever closes first keeps the port in TIME_WAIT
        client.close()
    require_free_port(LOOPBACK, port, "--port")


@pytest.mark.parametrize(("host", "error"), [("no.such.host.invalid", Invalid), ("192.0.2.1", Refused)])
def test_a_host_that_is_not_this_machine(host: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=host.replace(".", r"\.")):
        require_free_port(host, 50051, "--port")


def test_a_free_port_can_be_listened_on() -> None:
    socket.create_server((LOOPBACK, free_port())).close()
