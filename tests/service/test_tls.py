"""Encrypted connections and client certificates, with certificates of a toy authority."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme

from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.server import RunningServer, serve
from graybox.service.settings import Settings, TlsSettings
from graybox.service.tls import server_credentials
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


class Papers:
    """An authority, the server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        server = self.authority.issue_cert("127.0.0.1", "localhost")
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        server.cert_chain_pems[0].write_to_path(self.cert)
        server.private_key_pem.write_to_path(self.key)

    def credentials(self, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes(),
            private_key=client.private_key_pem.bytes() if client else None,
            certificate_chain=client.cert_chain_pems[0].bytes() if client else None,
        )


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@contextmanager
def serving(owner: ToyOwner, tls: TlsSettings) -> Iterator[RunningServer]:
    running = serve(owner.backend(), Settings(port=0, tls=tls))
    try:
        yield running
    finally:
        running.stop(grace=0)


def code_of(server: RunningServer, token: str | None, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    with WireClient(server.address, token, credentials) as client:
        return client.status_of("GetDataSplits", pb.GetDataSplitsRequest())[0]


def test_tls_serves_those_who_trust_the_authority(owner: ToyOwner, papers: Papers) -> None:
    with serving(owner, TlsSettings(papers.cert, papers.key)) as server:
        token = server.tokens.watch[0]
        assert code_of(server, token, papers.credentials()) is grpc.StatusCode.OK
        assert code_of(server, None, papers.credentials()) is grpc.StatusCode.UNAUTHENTICATED
        assert code_of(server, token, None) is grpc.StatusCode.UNAVAILABLE
        stranger = grpc.ssl_channel_credentials(root_certificates=trustme.CA().cert_pem.bytes())
        assert code_of(server, token, stranger) is grpc.StatusCode.UNAVAILABLE


def test_an_authority_makes_client_certificates_a_must(owner: ToyOwner, papers: Papers) -> None:
    with serving(owner, TlsSettings(papers.cert, papers.key, papers.ca)) as server:
        token = server.tokens.watch[0]
        known = papers.credentials(papers.authority.issue_cert("client@example.org"))
        assert code_of(server, token, known) is grpc.StatusCode.OK
        # A certificate says who may connect; what they may do is still said by a token.
        assert code_of(server, "wrong", known) is grpc.StatusCode.UNAUTHENTICATED
        assert code_of(server, token, papers.credentials()) is grpc.StatusCode.UNAVAILABLE
        forged = papers.credentials(trustme.CA().issue_cert("client@example.org"))
        assert code_of(server, token, forged) is grpc.StatusCode.UNAVAILABLE


def test_broken_files_are_named_before_anything_listens(papers: Papers, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("not a certificate")
    other_key = tmp_path / "other-key.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(other_key)
    missing = tmp_path / "missing.pem"
    for tls, words in (
        (TlsSettings(missing, papers.key), ["GRPC_TLS_CERT_FILE", str(missing)]),
        (TlsSettings(papers.cert, missing), ["GRPC_TLS_KEY_FILE", str(missing)]),
        (TlsSettings(papers.cert, papers.key, missing), ["GRPC_TLS_CA_FILE", str(missing)]),
        (TlsSettings(nonsense, papers.key), ["GRPC_TLS_CERT_FILE", str(nonsense)]),
        (TlsSettings(papers.cert, other_key), ["GRPC_TLS_KEY_FILE", str(other_key)]),
        (TlsSettings(papers.cert, papers.key, nonsense), ["GRPC_TLS_CA_FILE", str(nonsense)]),
    ):
        with pytest.raises(Invalid) as error:
            server_credentials(tls)
        for word in words:
            assert word in str(error.value)


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(papers: Papers, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(papers.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    with pytest.raises(Invalid, match="unencrypted private key"):
        server_credentials(TlsSettings(papers.cert, locked))
