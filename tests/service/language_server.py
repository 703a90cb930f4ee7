"""An OpenAI-compatible endpoint on the loopback address that says what a test wants said."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Reply = str | Callable[[BaseHTTPRequestHandler], None]
"""What the model says, or a function that answers the request by itself."""


def said(content: Any) -> bytes:
    """A chat completion."""
    message = {"role": "assistant", "content": content}
    return json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}]}).encode()


def raw(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """A reply of these very bytes."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


class LanguageServer:
    """Gives its replies one after the other, and the last one again and again. requests: what it was sent, each as its
    headers and its body."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.paths: list[str] = []
        self.ended = threading.Event()
        """Set when the test ends: whatever is slow on purpose waits for it."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.paths.append(self.path)
                outer.requests.append((dict(self.headers), json.loads(body)))
                reply = outer.replies[min(len(outer.requests), len(outer.replies)) - 1]
                try:
                    (raw(said(reply)) if isinstance(reply, str) else reply)(self)
                except OSError:
                    self.close_connection = True  # the other side hung up, as some tests have it

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def prompts(self) -> list[str]:
        """All that the model was told, one text for each request."""
        return ["\n".join(message["content"] for message in body["messages"]) for _, body in self.requests]

    def __enter__(self) -> LanguageServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
