"""Who may do what: bearer tokens with the right to watch or to control, checked before any servicer runs."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from graybox.service.settings import Settings

HEADER = "authorization"
SERVICE = "ExperimentService"


class Right(enum.IntEnum):
    """Control includes watch."""

    WATCH = 1
    CONTROL = 2


# ManipulateWeights wants control for a dry run too: planning takes the trainer's time.
WATCHING = frozenset(
    {
        "GetLatestLoggerData",
        "GetEvaluationStatus",
        "GetDataSamples",
        "ApplyDataQuery",  # makes a view of its own that nobody shares
        "GetDataSplits",
        "GetWeights",
        "GetActivations",
        "GetSamples",
        "ExportSamples",
    }
)


def needed_right(method: str, request: Any) -> Right:
    """The right a call needs. ExperimentCommand is judged by its content; what is unknown needs control."""
    if method == "ExperimentCommand":
        return Right.WATCH if request.WhichOneof("command") is None else Right.CONTROL
    return Right.WATCH if method in WATCHING else Right.CONTROL


def _digest(token: str) -> bytes:
    # Digests have one length, so that comparing them tells nothing about the length of a token either.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Tokens:
    """The tokens of one server. Neither `repr` nor any log shows them."""

    control: tuple[str, ...] = field(repr=False)
    watch: tuple[str, ...] = field(repr=False)

    def right_of(self, token: str) -> Right | None:
        """What a token allows; None for an unknown one. Takes the same time whatever the token is."""
        given = _digest(token)
        right: Right | None = None
        for known in self.watch:
            if hmac.compare_digest(given, _digest(known)):
                right = Right.WATCH
        for known in self.control:
            if hmac.compare_digest(given, _digest(known)):
                right = Right.CONTROL
        return right


def make_tokens(settings: Settings) -> Tokens:
    """The user's tokens, which all control; else a fresh one to control. A fresh one to watch in any case."""
    return Tokens(
        control=settings.tokens or (secrets.token_urlsafe(32),),
        watch=(secrets.token_urlsafe(32),),
    )


class RightsInterceptor(grpc.ServerInterceptor):
    """Answers UNAUTHENTICATED without a known token, and PERMISSION_DENIED where the token's right is too small."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        token = _bearer(handler_call_details)
        right = None if token is None else self._tokens.right_of(token)
        if right is None:
            return _unauthenticated("no token was sent" if token is None else "the token is not known here")
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        return _guarded(handler, str(handler_call_details.method).rpartition("/")[2], right)


def _bearer(details: grpc.HandlerCallDetails) -> str | None:
    for key, value in details.invocation_metadata or ():
        if key.lower() == HEADER:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            scheme, _, token = text.strip().partition(" ")
            return token.strip() if scheme.lower() == "bearer" and token.strip() else None
    return None


def _unauthenticated(reason: str) -> grpc.RpcMethodHandler[Any, Any]:
    def refuse(_request: bytes, context: grpc.ServicerContext) -> Any:
        context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            f"{reason}; send the metadata 'authorization: Bearer TOKEN' with a token from backend.json under the "
            "root directory, or from GRPC_AUTH_TOKEN",
        )

    return grpc.unary_unary_rpc_method_handler(refuse)


_MALFORMED = object()


def _guarded(handler: grpc.RpcMethodHandler[Any, Any], method: str, right: Right) -> grpc.RpcMethodHandler[Any, Any]:
    deserialize = handler.request_deserializer
    assert deserialize is not None, "every method takes a message"

    def read(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            return _MALFORMED  # gRPC would answer INTERNAL, but it is the request that is wrong

    def check(request: Any, context: grpc.ServicerContext) -> None:
        if request is _MALFORMED:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the bytes sent are no message that {method} takes")
        if right < needed_right(method, request):
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"this token may watch but not control, which {method} needs here"
            )

    one, several = handler.unary_unary, handler.unary_stream
    if several is not None:

        def guarded_pieces(request: Any, context: grpc.ServicerContext) -> Any:
            check(request, context)
            return several(request, context)

        return grpc.unary_stream_rpc_method_handler(
            guarded_pieces, request_deserializer=read, response_serializer=handler.response_serializer
        )
    assert one is not None, "every method takes one message and answers one or several"

    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        check(request, context)
        return one(request, context)

    return grpc.unary_unary_rpc_method_handler(
        guarded, request_deserializer=read, response_serializer=handler.response_serializer
    )
