from __future__ import annotations

import socket

import pytest

from graybox.errors import Invalid, Refused
from graybox.service.listening import check_address


def test_a_port_in_use_is_named_with_the_flag_that_helps() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=rf"port {port} on 127.0.0.1 is in use .* with --port"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)


def test_a_port_that_was_just_used_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server.accept()[0].close()  # whoever closes first keeps the port in TIME_WAIT
        client.close()
    check_address("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(Invalid, match=host.replace(".", r"\.")):
        check_address(host, 50051)
