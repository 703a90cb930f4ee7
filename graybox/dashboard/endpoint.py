"""Where a backend listens, and how a live one is found: by what was asked for, else by ROOT/backend.json."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

BACKEND_FILE = "backend.json"


@dataclass(frozen=True)
class Endpoint:
    """A gRPC address ("host:port") and the bearer token it wants (empty: none)."""

    address: str
    token: str = field(default="", repr=False)
    started_ms: int = 0


class Finder(Protocol):
    """Says where to connect just now."""

    def find(self) -> Endpoint | None:
        """The endpoint as it stands, or None while there is none. Cheap enough to be asked before every call."""
        ...

    def describe(self) -> str:
        """Where one is expected, for people: "127.0.0.1:50051" or a folder."""
        ...


class BackendFinder:
    """Finds the live backend of a root directory.

    A fixed address wins over the file's; a fixed token over the file's token. The file's token is for the backend that
    wrote it: it goes to the address in the file, or to this machine, and nowhere else. The file is read again whenever
    its stamp changes, so that a backend that comes back on another port is found by itself.
    """

    def __init__(self, root: Path, address: str = "", token: str = "") -> None:
        self._path = root / BACKEND_FILE
        self._root = root
        self._address = address
        self._token = token
        self._stamp: tuple[int, int, int] | None = None
        self._found: Endpoint | None = None

    def find(self) -> Endpoint | None:
        recorded = self._recorded()
        if self._address:
            ours = recorded is not None and (recorded.address == self._address or _is_here(self._address))
            if recorded is None or not ours:
                return Endpoint(self._address, self._token)
            return Endpoint(self._address, self._token or recorded.token, recorded.started_ms)
        if recorded is None:
            return None
        return Endpoint(recorded.address, self._token or recorded.token, recorded.started_ms)

    def describe(self) -> str:
        return self._address or str(self._root)

    def missing_token(self, found: Endpoint) -> str:
        """Why there is no token for a backend elsewhere, and what to do. Empty where there is one, and for a backend on
        this machine, which brings its own when it starts.
        """
        if found.token or _is_here(found.address):
            return ""
        return (
            f"no token for the backend at {found.address}: {self._path} does not announce that address, and its token "
            "is sent to no other machine; set the environment variable GRPC_AUTH_TOKEN to a token of that backend"
        )

    def forget(self) -> None:
        """Read the file again at the next call, even if its stamp looks the same."""
        self._stamp = None

    def _recorded(self) -> Endpoint | None:
        try:
            stat = self._path.stat()
        except OSError:
            self._stamp, self._found = None, None
            return None
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp != self._stamp:
            self._stamp, self._found = stamp, _read(self._path)
        return self._found


def _read(path: Path) -> Endpoint | None:
    """The endpoint that the file names; None where it is not readable or not (yet) whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        address = content["address"]
        token = content.get("control_token") or ""
        started = int(content.get("started_ms") or 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(address, str) or not isinstance(token, str) or not address:
        return None
    return Endpoint(reachable(address), token, started)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_here(address: str) -> bool:
    return is_loopback(address.rpartition(":")[0])


def reachable(address: str) -> str:
    """Where a client on this machine connects to for what a server binds: 0.0.0.0 and [::] are this machine."""
    host, separator, port = address.rpartition(":")
    if not separator:
        return address
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "::", "") else address
