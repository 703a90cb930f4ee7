"""What the command lines share: ports, and how an error leaves the process."""

from __future__ import annotations

import argparse
import socket
import sys

from graybox.errors import GrayboxError, Invalid, Refused

LOOPBACK = "127.0.0.1"
DEFAULT_ROOT = "./graybox-demo"
DASHBOARD_PORT = 8050


def port_number(text: str) -> int:
    """An argparse type: a TCP port; 0 picks a free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535, or 0 for a free one")
    return int(text)


def require_free_port(host: str, port: int, flag: str) -> None:
    """Raises Refused when something listens on the port, Invalid when the host is none of this machine's addresses.

    flag: the option that chooses another port, for the message.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as problem:
        raise Invalid(f"there is no address {host!r}: {problem.strerror}") from problem
    with socket.socket(family, kind, protocol) as probe:
        # Without it a port that was used a moment ago, and is free, would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as problem:
            raise Refused(
                f"cannot listen on {host}:{port} ({problem.strerror}); "
                f"stop what uses it, or choose another port with {flag} (0: any free one)"
            ) from problem


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
