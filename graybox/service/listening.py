"""Whether an address can be listened on, asked before anything heavy is loaded or started. Standard library only."""

from __future__ import annotations

import errno
import socket

from graybox.errors import Invalid, Refused

ADVICE = "choose another port with --port (or GRPC_BACKEND_PORT), 0 picks a free one"


def check_address(host: str, port: int, advice: str = ADVICE) -> None:
    """Binds and lets go: gRPC itself would not say why it cannot, and would write noise to the terminal.

    advice: what to do when it cannot. Raises Refused when the port is taken, Invalid when the host is none of this
    machine's addresses.
    """
    bare = host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise Invalid(f"the host {host!r} is not known; 127.0.0.1 is the default of --host") from None
    failure: OSError | None = None
    usable = False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
            usable = True
        except OSError as error:
            failure = error
            if error.errno == errno.EADDRINUSE:
                raise Refused(f"port {port} on {host} is in use by another program; {advice}") from None
            if error.errno == errno.EACCES:
                raise Refused(f"port {port} on {host} needs rights this user does not have; {advice}") from None
    # "localhost" may name an address of a family that is switched off: one that works is enough.
    if failure is not None and not usable:
        reason = failure.strerror or str(failure)
        raise Invalid(f"cannot listen on {host!r}: {reason}; 127.0.0.1 is the default of --host")
