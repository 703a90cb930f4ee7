"""Where and how the server listens, read from the environment; flags win. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graybox.errors import Invalid

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 50051
DEFAULT_MESSAGE_BYTES = 256 * 1024 * 1024
SMALLEST_MESSAGE_BYTES = 64 * 1024
LARGEST_MESSAGE_BYTES = 2**31 - 1

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class TlsSettings:
    """Files in PEM form. With a `ca_file` every client must show a certificate that it signed (mutual TLS)."""

    cert_file: Path
    key_file: Path
    ca_file: Path | None = None


@dataclass(frozen=True)
class Settings:
    """How to listen.

    port: 0 lets the system pick a free one.
    tokens: bearer tokens given by the user, each with control rights; empty: the server makes its own.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    max_message_bytes: int = DEFAULT_MESSAGE_BYTES
    tokens: tuple[str, ...] = field(default=(), repr=False)
    tls: TlsSettings | None = None

    def __post_init__(self) -> None:
        if not self.host or any(c.isspace() for c in self.host):
            raise Invalid(f"the host {self.host!r} is not a host name or address; 127.0.0.1 is the default")
        if not 0 <= self.port <= 65535:
            raise Invalid(f"the port is a whole number from 0 to 65535 (0 picks a free one), not {self.port}")
        for token in self.tokens:
            if not _is_token(token):
                raise Invalid("a token holds visible ASCII characters only, without spaces")


def settings_from_environment(
    environment: Mapping[str, str] | None = None, *, host: str | None = None, port: int | None = None
) -> Settings:
    """The settings that GRPC_BACKEND_HOST, GRPC_BACKEND_PORT, GRPC_TLS_*, GRPC_AUTH_TOKEN(S) and
    GRPC_MAX_MESSAGE_BYTES give; `host` and `port`, where not None, win.

    Raises Invalid, naming the variable (never a token's value), for a value that makes no sense.
    """
    env = os.environ if environment is None else environment
    return Settings(
        host=host if host is not None else _host(env),
        port=port if port is not None else _whole(env, "GRPC_BACKEND_PORT", DEFAULT_PORT, 0, 65535),
        max_message_bytes=_whole(
            env, "GRPC_MAX_MESSAGE_BYTES", DEFAULT_MESSAGE_BYTES, SMALLEST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES
        ),
        tokens=_tokens(env),
        tls=_tls(env),
    )


def _host(env: Mapping[str, str]) -> str:
    host = env.get("GRPC_BACKEND_HOST", "").strip() or DEFAULT_HOST
    if any(c.isspace() for c in host):
        raise Invalid(f"GRPC_BACKEND_HOST={host!r} is not a host name or address; 127.0.0.1 is the default")
    return host


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or not low <= int(text) <= high:
        raise Invalid(f"{name}={text!r} is not a whole number from {low} to {high}; {default} is the default")
    return int(text)


def _is_token(token: str) -> bool:
    return bool(token) and all(33 <= ord(c) <= 126 for c in token)


def _tokens(env: Mapping[str, str]) -> tuple[str, ...]:
    found: list[str] = []
    single = env.get("GRPC_AUTH_TOKEN", "").strip()
    if single:
        if not _is_token(single):
            raise Invalid("GRPC_AUTH_TOKEN holds a character that is not visible ASCII, or a space")
        found.append(single)
    for number, part in enumerate(env.get("GRPC_AUTH_TOKENS", "").split(","), start=1):
        token = part.strip()
        if not token:
            continue
        if not _is_token(token):
            raise Invalid(f"GRPC_AUTH_TOKENS: token {number} holds a character that is not visible ASCII, or a space")
        found.append(token)
    return tuple(dict.fromkeys(found))


def _tls(env: Mapping[str, str]) -> TlsSettings | None:
    text = env.get("GRPC_TLS_ENABLED", "").strip().lower()
    if text in _NO:
        return None
    if text not in _YES:
        raise Invalid(f"GRPC_TLS_ENABLED={text!r} is neither yes nor no; write 1 or 0")
    cert = _file(env, "GRPC_TLS_CERT_FILE")
    key = _file(env, "GRPC_TLS_KEY_FILE")
    if cert is None or key is None:
        missing = "GRPC_TLS_CERT_FILE" if cert is None else "GRPC_TLS_KEY_FILE"
        what = "the server's certificate" if cert is None else "the certificate's private key"
        raise Invalid(f"GRPC_TLS_ENABLED is on, but {missing} is not set; name the PEM file with {what}")
    return TlsSettings(cert_file=cert, key_file=key, ca_file=_file(env, "GRPC_TLS_CA_FILE"))


def _file(env: Mapping[str, str], name: str) -> Path | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise Invalid(f"{name}={text!r}: there is no such file")
    return path
