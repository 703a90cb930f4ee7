"""The wire: one gRPC channel to one endpoint, and a link that follows the endpoint wherever it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc

from graybox.dashboard.endpoint import BackendFinder, Endpoint, Finder
from graybox.dashboard.settings import DEFAULT_MAX_MESSAGE_BYTES, Tls
from graybox.proto import experiment_service_pb2 as pb
from graybox.proto.experiment_service_pb2_grpc import ExperimentServiceStub

ACTOR = "dashboard"

_LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
_TOKEN = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


class CallFailed(Exception):
    """A call got no answer, or a status instead of one. `str(error)` is for people.

    unreachable: nobody answered at all. unauthorised: the token was refused. missing: what was named does not exist.
    """

    def __init__(
        self, message: str, *, unreachable: bool = False, unauthorised: bool = False, missing: bool = False
    ) -> None:
        super().__init__(message)
        self.unreachable = unreachable
        self.unauthorised = unauthorised
        self.missing = missing


class Client:
    """One channel to one endpoint. Made and used inside one event loop."""

    def __init__(
        self, endpoint: Endpoint, tls: Tls | None = None, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    ) -> None:
        self.endpoint = endpoint
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # A backend that restarts should be found within a second, not after two minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
        ]
        if tls is None:
            self._channel = grpc.aio.insecure_channel(endpoint.address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=tls.ca_file.read_bytes() if tls.ca_file else None,
                private_key=tls.key_file.read_bytes() if tls.key_file else None,
                certificate_chain=tls.cert_file.read_bytes() if tls.cert_file else None,
            )
            self._channel = grpc.aio.secure_channel(endpoint.address, credentials, options=options)
        self._stub: Any = ExperimentServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {endpoint.token}"),) if endpoint.token else ()

    async def call(self, method: str, request: Any, timeout: float) -> Any:
        """Send one request (its message type belongs to the method). Raises CallFailed."""
        try:
            return await getattr(self._stub, method)(request, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _explained(error, self.endpoint.address, timeout) from None
        except grpc.aio.UsageError:
            raise CallFailed("the connection to the backend was replaced; try again", unreachable=True) from None

    async def stream(self, method: str, request: Any, timeout: float) -> AsyncGenerator[Any]:
        """Send one request and pass on what is answered piece by piece. Raises CallFailed. Closed early, it ends the
        call."""
        call = getattr(self._stub, method)(request, timeout=timeout, metadata=self._metadata)
        try:
            async for piece in call:
                yield piece
        except grpc.aio.AioRpcError as error:
            raise _explained(error, self.endpoint.address, timeout) from None
        except grpc.aio.UsageError:
            raise CallFailed("the connection to the backend was replaced; try again", unreachable=True) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel; calls under way fail with CallFailed."""
        await self._channel.close()


def _explained(error: grpc.aio.AioRpcError, address: str, timeout: float) -> CallFailed:
    code, details = error.code(), error.details() or ""
    if code in _LOST:
        return CallFailed(f"no backend answers at {address}", unreachable=True)
    if code in _TOKEN:
        return CallFailed(f"the backend at {address} refused the token: {details}", unauthorised=True)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallFailed(f"the backend at {address} did not answer within {timeout:g} s")
    return CallFailed(details or f"the backend answered {code.name}", missing=code == grpc.StatusCode.NOT_FOUND)


class Link:
    """A client that follows its finder: a new endpoint gets a new channel, the old one is closed behind it."""

    def __init__(
        self, finder: Finder, tls: Tls | None = None, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    ) -> None:
        self._finder = finder
        self._tls = tls
        self._max_message_bytes = max_message_bytes
        self._client: Client | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where the current channel leads; empty when there is none."""
        return self._client.endpoint.address if self._client else ""

    def expected_at(self) -> str:
        """Where a backend is waited for, for people."""
        return self._finder.describe()

    async def call(self, method: str, request: Any, timeout: float = 20.0) -> Any:
        """Send one request to wherever the backend is now. Raises CallFailed."""
        client = self._current()
        try:
            return await client.call(method, request, timeout)
        except CallFailed as error:
            # Somebody else may listen there by now, or the file may have been rewritten within its stamp's grain.
            if (error.unreachable or error.unauthorised) and isinstance(self._finder, BackendFinder):
                self._finder.forget()
            raise

    def stream(self, method: str, request: Any, timeout: float) -> AsyncGenerator[Any]:
        """Send one request to wherever the backend is now, and pass on the pieces of the answer. Raises CallFailed."""
        return self._current().stream(method, request, timeout)

    async def command(self, timeout: float = 20.0, **fields: Any) -> pb.CommandResponse:
        """ExperimentCommand with the given fields. Raises CallFailed."""
        response = await self.call("ExperimentCommand", pb.ExperimentCommandRequest(**fields), timeout)
        assert isinstance(response, pb.CommandResponse)
        return response

    async def close(self) -> None:
        """Close the channel and wait for those closed before."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _current(self) -> Client:
        endpoint = self._finder.find()
        if endpoint is None:
            raise CallFailed(f"no backend has announced itself in {self._finder.describe()}", unreachable=True)
        missing = self._finder.missing_token(endpoint) if isinstance(self._finder, BackendFinder) else ""
        if missing:
            raise CallFailed(missing, unauthorised=True)
        if self._client is None or self._client.endpoint != endpoint:
            if self._client is not None:
                task = asyncio.ensure_future(self._client.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            self._client = Client(endpoint, self._tls, self._max_message_bytes)
        return self._client
