"""One call of a model that is anything but trustworthy."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from graybox.service.language_model import MAX_ANSWER_BYTES, LanguageModel, LanguageModelFailed
from graybox.service.language_settings import LanguageSettings
from tests.patience import wait_until
from tests.service.language_server import LanguageServer, raw, said

KEY = "sk-very-secret"
MESSAGES = [{"role": "user", "content": "wörter"}]


def model(port: int, key: str = KEY) -> LanguageModel:
    return LanguageModel(LanguageSettings("http", "127.0.0.1", port, "/v1/chat/completions", "toy", key))


def test_what_is_sent_and_what_comes_back() -> None:
    with LanguageServer("hello ☃") as server:
        assert model(server.port).answer(MESSAGES) == "hello ☃"
        headers, body = server.requests[0]
    assert server.paths == ["/v1/chat/completions"]
    assert (headers["Authorization"], headers["Content-Type"]) == (f"Bearer {KEY}", "application/json")
    assert body == {"model": "toy", "messages": MESSAGES, "stream": False}


def test_without_a_key_none_is_sent_and_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "text": "x"}, {"type": "text", "text": "b"}]
    with LanguageServer(raw(said(parts))) as server:
        assert model(server.port, key="").answer(MESSAGES) == "ab"
        assert "Authorization" not in server.requests[0][0]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (raw(b"no json"), "not as the protocol"),
        (raw(b"\x00\xff\xfe" * 100), "not as the protocol"),
        (raw(b"[]"), "not as the protocol"),
        (raw(b'{"choices": []}'), "not as the protocol"),
        (raw(b'{"choices": [{"message": {"content": 7}}]}'), "not as the protocol"),
        (raw(b'{"choices": [{"message": {"content": [3]}}]}'), "not as the protocol"),
        (raw(b'{"choices": ' + b"[" * 100_000), "not as the protocol"),
        (raw(b'{"choices": ' + b"9" * 10_000 + b"}"), "not as the protocol"),
        (raw(said("x" * MAX_ANSWER_BYTES)), "more than 256 KiB"),
        (raw(b"", 500), "HTTP 500"),
        (raw(b'{"error": {"message": "no model\\u0007 toy"}}', 404), "HTTP 404: no model  toy"),
        (raw(b'{"error": "overloaded"}', 503), "HTTP 503: overloaded"),
        (raw(b"[" * 100_000, 400), "HTTP 400"),
        (raw(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), 401), "refuses the key (HTTP 401)"),
        (raw(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), 400), "bad key ***"),
        (raw(b"", 302, Location="http://127.0.0.1:1/v1"), "sends to another address (HTTP 302)"),
        (raw(b"", 308, Location="file:///etc/passwd"), "sends to another address (HTTP 308)"),
        (raw(said("cut off"), 200, Content_Length="20"), "not as the protocol"),
        (raw(said("x"), 200, Content_Length="-1"), ""),
    ],
)
def test_what_answers_badly_is_told_without_the_key(reply: Callable[[BaseHTTPRequestHandler], None], told: str) -> None:
    with LanguageServer(reply) as server:
        if not told:
            assert model(server.port).answer(MESSAGES) == "x"
            return
        with pytest.raises(LanguageModelFailed) as error:
            model(server.port).answer(MESSAGES)
        assert len(server.requests) == 1, "nothing is followed or asked again"
    assert told in str(error.value) and f"toy at http://127.0.0.1:{server.port}" in str(error.value)
    assert KEY not in str(error.value)


def test_a_key_that_is_said_back_is_left_out() -> None:
    with LanguageServer(f'{{"query": "{KEY}"}}') as server:
        assert model(server.port).answer(MESSAGES) == '{"query": "***"}'


def test_a_server_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(f"SSH-2.0-{KEY}\r\n".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LanguageModelFailed, match="cannot be asked") as error:
            model(listening.getsockname()[1]).answer(MESSAGES)
        thread.join()
    assert KEY not in str(error.value)


def test_nobody_is_there(free_port: Callable[[], int]) -> None:
    with pytest.raises(LanguageModelFailed, match=r"cannot be asked: Connection refused; is GRAYBOX_LLM_URL right"):
        model(free_port()).answer(MESSAGES)


def forever(server: list[LanguageServer], piece: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """A reply that goes on as long as somebody listens: each piece comes well before any timeout of a socket."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        while not server[0].ended.is_set():
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(0.02)

    return reply


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx", b""],
    ids=["continues", "drips its first line", "drips its body", "silent"],
)
def test_a_slow_answer_ends_in_time_however_it_is_slow(piece: bytes) -> None:
    made: list[LanguageServer] = []
    with LanguageServer(forever(made, piece)) as server:
        made.append(server)
        with pytest.raises(LanguageModelFailed, match=r"did not answer within 0 s|cannot be asked"):
            model(server.port).answer(MESSAGES, seconds=0.3)


def test_a_call_is_cut_short_from_another_thread() -> None:
    made: list[LanguageServer] = []
    cuts: list[Callable[[], None]] = []
    with LanguageServer(forever(made, b"")) as server:
        made.append(server)
        raised: list[Exception] = []

        def ask() -> None:
            try:
                model(server.port).answer(MESSAGES, 1_000, cuts.append)
            except LanguageModelFailed as error:
                raised.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: server.requests, "the call to arrive")
        cuts[0]()
        cuts[0]()
        thread.join()
        assert len(raised) == 1
    cuts[0]()  # after its end it does nothing


def test_over_tls_only_to_whom_the_system_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with LanguageServer("hello") as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        settings = LanguageSettings("https", "localhost", server.port, "/v1/chat/completions", "toy", KEY)
        # Whoever cannot show a certificate is not sent the key.
        with pytest.raises(LanguageModelFailed, match="certificate"):
            LanguageModel(settings).answer(MESSAGES)
        assert not server.requests
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert LanguageModel(settings).answer(MESSAGES) == "hello"
