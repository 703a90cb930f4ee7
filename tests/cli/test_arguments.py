from __future__ import annotations

import argparse
import socket

import pytest

from graybox.cli.arguments import LOOPBACK, free_port, port_number


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("8050", 8050), ("65535", 65535)])
def test_ports(text: str, port: int) -> None:
    assert port_number(text) == port


@pytest.mark.parametrize("text", ["", "-1", "65536", "80.5", "http", "²", " 80", "0x50"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a port; give a number from 1 to 65535"):
        port_number(text)


def test_a_free_port_can_be_listened_on() -> None:
    socket.create_server((LOOPBACK, free_port())).close()
