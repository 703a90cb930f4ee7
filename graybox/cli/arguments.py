"""What the command lines share: ports, and how an error leaves the process."""

from __future__ import annotations

import argparse
import socket
import sys

from graybox.errors import GrayboxError

LOOPBACK = "127.0.0.1"
DEFAULT_ROOT = "./graybox-demo"
DASHBOARD_PORT = 8050


def port_number(text: str) -> int:
    """An argparse type: a TCP port; 0 picks a free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535, or 0 for a free one")
    return int(text)


def free_port(host: str = LOOPBACK) -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def report(verb: str, error: GrayboxError) -> int:
    """Prints the error where the user is; the exit code that goes with it."""
    print(f"graybox {verb}: {error}", file=sys.stderr)
    return 2
