"""What the dashboard was asked to do: flags first, then environment variables, then defaults."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graybox.dashboard.endpoint import is_loopback, reachable

DEFAULT_BACKEND_PORT = 50051
DEFAULT_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


class SettingsError(Exception):
    """What was asked for cannot be done; the message is one line for the terminal."""


@dataclass(frozen=True)
class Tls:
    """Files (PEM) for an encrypted connection: the authority's certificate, and the client's own pair for mTLS."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Settings:
    """root: folder with the runs. backend: fixed "host:port", empty: found under root. token: for the backend."""

    root: Path
    backend: str = ""
    host: str = "127.0.0.1"
    port: int = 8050
    token: str = field(default="", repr=False)
    tls: Tls | None = None
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the dashboard."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def build_parser() -> argparse.ArgumentParser:
    """The command line of weights_lab.py and `graybox dashboard`."""
    script = Path(sys.argv[0]).name == "weights_lab.py"
    parser = argparse.ArgumentParser(
        prog="weights_lab.py" if script else "graybox dashboard",
        description="Watch and steer a training run in the browser.",
    )
    parser.add_argument(
        "--root_directory",
        "--root-directory",
        required=True,
        metavar="DIR",
        help="the folder with the runs, the one the backend was given",
    )
    parser.add_argument(
        "--backend",
        default="",
        metavar="HOST:PORT",
        help="where the backend listens (default: as DIR/backend.json says; environment: GRPC_BACKEND_HOST, "
        "GRPC_BACKEND_PORT); elsewhere than on this machine it needs a token of that backend in GRPC_AUTH_TOKEN",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8050, help="port to serve on (default: %(default)s)")
    return parser


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line (flags win) and the environment.

    Raises SettingsError with one line for people. Exits with code 2, as argparse does, for a malformed command line.
    """
    given = build_parser().parse_args(arguments)
    if not 0 <= given.port <= 65535:
        raise SettingsError(f"--port {given.port} is not a port; use a number from 1 to 65535")
    tokens = [part.strip() for part in environment.get("GRPC_AUTH_TOKENS", "").split(",") if part.strip()]
    return Settings(
        root=_root(given.root_directory),
        backend=_backend(given.backend, environment),
        host=given.host,
        port=given.port,
        token=environment.get("GRPC_AUTH_TOKEN", "").strip() or (tokens[0] if tokens else ""),
        tls=_tls(environment),
        max_message_bytes=_positive(environment, "GRPC_MAX_MESSAGE_BYTES", DEFAULT_MAX_MESSAGE_BYTES),
    )


def _root(text: str) -> Path:
    """The root directory. Made when only its last part is missing, so that dashboard and backend start in any order."""
    root = Path(text).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise SettingsError(f"the root directory {root} is a file; give the folder that holds the runs")
    if not root.exists():
        if not root.parent.is_dir():
            raise SettingsError(f"the root directory {root} does not exist, nor does {root.parent}; check the path")
        try:
            root.mkdir()
        except OSError as error:
            raise SettingsError(f"cannot make the root directory {root}: {error.strerror}") from None
    return root


def _backend(flag: str, environment: Mapping[str, str]) -> str:
    if flag:
        return reachable(_checked_address(flag, "--backend"))
    host = environment.get("GRPC_BACKEND_HOST", "").strip()
    port = environment.get("GRPC_BACKEND_PORT", "").strip()
    if not host and not port:
        return ""
    address = f"{host or '127.0.0.1'}:{port or DEFAULT_BACKEND_PORT}"
    return reachable(_checked_address(address, "GRPC_BACKEND_HOST and GRPC_BACKEND_PORT"))


def _checked_address(text: str, source: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) <= 65535:
        raise SettingsError(f"{source}: {text!r} is not HOST:PORT, such as 127.0.0.1:{DEFAULT_BACKEND_PORT}")
    return text


def _tls(environment: Mapping[str, str]) -> Tls | None:
    value = environment.get("GRPC_TLS_ENABLED", "").strip().lower()
    if value in _FALSE:
        return None
    if value not in _TRUE:
        raise SettingsError(f"GRPC_TLS_ENABLED is {value!r}; use true or false")
    files: dict[str, Path | None] = {}
    for name in ("CA", "CERT", "KEY"):
        text = environment.get(f"GRPC_TLS_{name}_FILE", "").strip()
        path = Path(text).expanduser() if text else None
        if path is not None and not path.is_file():
            raise SettingsError(f"GRPC_TLS_{name}_FILE: there is no file {path}")
        files[name] = path
    if (files["CERT"] is None) != (files["KEY"] is None):
        raise SettingsError("GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE belong together; give both or none")
    return Tls(files["CA"], files["CERT"], files["KEY"])


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{name} is {text!r}; use a positive whole number")
    return int(text)
