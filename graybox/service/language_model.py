"""One call of a language model over HTTP, in the protocol that OpenAI's chat completions made common.

Whatever answers is not trusted: how long it takes and how much it says are bounded, nothing is followed anywhere else,
and what it says is a text to its caller and no more.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graybox.errors import GrayboxError
from graybox.service.language_settings import KEY, URL, LanguageSettings

CALL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 256 * 1024
_MAX_SHOWN = 200

Message = dict[str, str]
"""role: "system", "user" or "assistant"; content."""


class LanguageModelFailed(GrayboxError):
    """The language model did not answer, or nothing that can be read."""


class LanguageModel:
    """An endpoint and a model. Every call has a connection of its own, so that any number of threads may ask."""

    def __init__(self, settings: LanguageSettings) -> None:
        self.settings = settings

    def answer(
        self,
        messages: Sequence[Message],
        seconds: float = CALL_SECONDS,
        on_start: Callable[[Callable[[], None]], object] = lambda cut: None,
    ) -> str:
        """What the model says to the messages. Blocks for at most about `seconds`.

        on_start: given a function that cuts the call short, from any thread. Raises LanguageModelFailed, which says why
        and never has the key in it.
        """
        body = json.dumps({"model": self.settings.model, "messages": list(messages), "stream": False}).encode()
        line = _Line(self.settings, seconds)
        try:
            with line.open(on_start) as connection:
                status, answer = self._exchange(connection, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if line.was_cut:
                raise self._failure(f"did not answer within {seconds:.0f} s") from None
            raise self._failure(f"cannot be asked: {_reason(error)}; is {URL} right?") from None
        if line.was_cut:  # what was read until then is not all
            raise self._failure(f"did not answer within {seconds:.0f} s")
        if len(answer) > MAX_ANSWER_BYTES:
            raise self._failure(f"answered more than {MAX_ANSWER_BYTES // 1024} KiB")
        if status != 200:
            raise self._failure(self._refusal(status, answer))
        return self._without_key(self._content(answer))

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self.settings.key:
            headers["Authorization"] = f"Bearer {self.settings.key}"
        connection.request("POST", self.settings.path, body, {**headers, "Connection": "close"})
        with connection.getresponse() as response:
            return response.status, response.read(MAX_ANSWER_BYTES + 1)

    def _content(self, answer: bytes) -> str:
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
            if isinstance(content, list):  # in parts
                content = "".join(part["text"] for part in content if part.get("type") == "text")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise self._failure("answered, but not as the protocol of chat completions says")
        return content

    def _refusal(self, status: int, answer: bytes) -> str:
        if status in (401, 403):
            # What such an answer says may cite the key.
            return f"refuses the key (HTTP {status}); is {KEY} right?"
        if 300 <= status < 400:
            return f"sends to another address (HTTP {status}), which is not followed; set {URL} to the right one"
        try:
            told = json.loads(answer)["error"]
            told = told["message"] if isinstance(told, dict) else told
        except (ValueError, LookupError, TypeError, RecursionError):
            told = ""
        # Before it is cut: half a key would be no less of a secret.
        shown = _printable(self._without_key(told)) if isinstance(told, str) else ""
        return f"answered HTTP {status}" + (f": {shown}" if shown else "")

    def _without_key(self, text: str) -> str:
        return text.replace(self.settings.key, "***") if self.settings.key else text

    def _failure(self, what: str) -> LanguageModelFailed:
        model = f"the language model {_printable(self.settings.model)} at {self.settings.place}"
        return LanguageModelFailed(self._without_key(f"{model} {what}"))


class _Line:
    """A connection that is open for a limited time in all, however slowly the other side answers."""

    def __init__(self, settings: LanguageSettings, seconds: float) -> None:
        self._settings = settings
        self._seconds = seconds
        self._guard = threading.Lock()
        self._socket: socket.socket | None = None
        self.was_cut = False

    def cut(self) -> None:
        """Ends the call, whatever it waits for; from any thread, more than once if need be."""
        with self._guard:
            self.was_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Past the TLS layer, which another thread is reading from.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def open(self, on_start: Callable[[Callable[[], None]], object]) -> Iterator[http.client.HTTPConnection]:
        timer = threading.Timer(self._seconds, self.cut)
        timer.daemon = True
        connection = self._connection(min(CONNECT_SECONDS, self._seconds))
        timer.start()
        try:
            on_start(self.cut)
            connection.connect()
            opened: socket.socket = connection.sock
            opened.settimeout(self._seconds + 1)  # the timer comes first, and is not fooled by small pieces
            with self._guard:
                self._socket = opened
                if self.was_cut:
                    raise TimeoutError("the call was cut short")
            yield connection
        finally:
            timer.cancel()
            with self._guard:
                self._socket = None
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._settings.host, self._settings.port
        if self._settings.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout)


def _reason(error: Exception) -> str:
    return _printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _printable(text: Any) -> str:
    shown = "".join(char if char.isprintable() else " " for char in str(text)[: 4 * _MAX_SHOWN])
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
