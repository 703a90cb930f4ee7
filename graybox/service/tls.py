"""Transport encryption of the server: certificates read and checked before gRPC sees them."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from graybox.errors import Invalid
from graybox.service.settings import TlsSettings


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    """Credentials of the files; with a `ca_file` clients must show a certificate signed by it.

    gRPC itself would only fail later, at each handshake and without a reason, so that everything is tried here.
    Raises Invalid naming the variable and the file that is missing or broken.
    """
    cert = _read("GRPC_TLS_CERT_FILE", tls.cert_file)
    key = _read("GRPC_TLS_KEY_FILE", tls.key_file)
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty passphrase: OpenSSL would otherwise ask for one on the terminal.
        probe.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except (ssl.SSLError, ValueError, OSError) as error:
        raise Invalid(
            f"GRPC_TLS_CERT_FILE={str(tls.cert_file)!r} and GRPC_TLS_KEY_FILE={str(tls.key_file)!r} are not a "
            f"certificate in PEM form and its unencrypted private key: {_reason(error)}"
        ) from None
    if tls.ca_file is None:
        return grpc.ssl_server_credentials([(key, cert)])
    ca = _read("GRPC_TLS_CA_FILE", tls.ca_file)
    try:
        probe.load_verify_locations(tls.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise Invalid(
            f"GRPC_TLS_CA_FILE={str(tls.ca_file)!r} holds no certificate in PEM form: {_reason(error)}"
        ) from None
    return grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"{name}={str(path)!r} cannot be read: {error.strerror or error}") from None


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error)
