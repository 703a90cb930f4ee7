"""What goes wrong in a servicer, as an answer: the mapping that graybox.errors and the contract describe."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from graybox.errors import DeadlinePassed, GrayboxError, Invalid, NotFound, StorageError, Unsupported
from graybox.service.area import Area
from graybox.service.limits import TooMany

log = logging.getLogger("graybox.service")

MAX_DETAIL_BYTES = 2_000
"""A status travels in HTTP/2 trailers, percent-encoded; clients drop those above 8 kB."""

_STATUS: dict[type[GrayboxError], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    DeadlinePassed: grpc.StatusCode.ABORTED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    TooMany: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class ClientGone(Exception):
    """The client hung up (or the server stops) while its request waited. Nobody reads the answer."""


_Servicer = TypeVar("_Servicer", bound=Area)
_Request = TypeVar("_Request", bound=Message)
_Answer = TypeVar("_Answer", bound=Message)
_Method = Callable[[_Servicer, _Request, grpc.ServicerContext], _Answer]


def answers(
    answer: type[_Answer],
) -> Callable[[_Method[_Servicer, _Request, _Answer]], _Method[_Servicer, _Request, _Answer]]:
    """Decorates a servicer's method: what it raises becomes a status, or an answer with success=false.

    Refused and StorageError answer success=false with the reason; where the message has no room for that,
    FAILED_PRECONDITION and INTERNAL with the reason. An exception that is no GrayboxError is a defect: it is
    logged under an id, and the client is told the id only.
    """

    def decorate(method: _Method[_Servicer, _Request, _Answer]) -> _Method[_Servicer, _Request, _Answer]:
        @functools.wraps(method)
        def guarded(self: _Servicer, request: _Request, context: grpc.ServicerContext) -> _Answer:
            try:
                return method(self, request, context)
            except GrayboxError as error:
                failure: Exception = error
            except ClientGone as error:
                failure = error
            except Exception as error:  # the edge of the process: logged, and answered without its inside
                failure = error
            # Outside of `except`: abort raises, and its exception should not drag this one along.
            name = getattr(method, "__name__", "request")
            asked: Any = request  # every request of the contract has a run id; the type of messages at large has none
            return _answer_failure(failure, answer, context, name, lambda: self.desk.run_id(asked.run_id))

        return guarded

    return decorate


_Stream = Callable[[_Servicer, _Request, grpc.ServicerContext], Iterator[_Answer]]


def streams(
    answer: type[_Answer],
) -> Callable[[_Stream[_Servicer, _Request, _Answer]], _Stream[_Servicer, _Request, _Answer]]:
    """As `answers`, for a method that answers piece by piece: what it raises, before or between two pieces, becomes a
    status."""

    def decorate(method: _Stream[_Servicer, _Request, _Answer]) -> _Stream[_Servicer, _Request, _Answer]:
        @functools.wraps(method)
        def guarded(self: _Servicer, request: _Request, context: grpc.ServicerContext) -> Iterator[_Answer]:
            try:
                yield from method(self, request, context)
                return
            except (GrayboxError, ClientGone) as error:
                failure: Exception = error
            except Exception as error:  # the edge of the process: logged, and answered without its inside
                failure = error
            _answer_failure(failure, answer, context, getattr(method, "__name__", "request"), lambda: "")

        return guarded

    return decorate


def _answer_failure(
    failure: Exception, answer: type[_Answer], context: grpc.ServicerContext, method: str, run_id: Callable[[], str]
) -> _Answer:
    if isinstance(failure, ClientGone):
        abort(context, grpc.StatusCode.CANCELLED, str(failure))
    if not isinstance(failure, GrayboxError):
        abort(context, grpc.StatusCode.INTERNAL, note_defect(method, failure))
    for kind, status in _STATUS.items():
        if isinstance(failure, kind):
            abort(context, status, str(failure))
    if isinstance(failure, StorageError):
        log.error("%s: %s", method, failure)
    if {"success", "message"} <= set(answer.DESCRIPTOR.fields_by_name):
        fields: dict[str, Any] = {"success": False, "message": clean(str(failure)), "run_id": run_id()}
        return answer(**fields)
    storage = isinstance(failure, StorageError)
    abort(context, grpc.StatusCode.INTERNAL if storage else grpc.StatusCode.FAILED_PRECONDITION, str(failure))


def note_defect(what: str, failure: Exception) -> str:
    """Logs an exception nobody planned for, and answers the neutral sentence that names its entry in the log."""
    defect = secrets.token_hex(4)
    log.error("%s failed unexpectedly [error %s]", what, defect, exc_info=failure)
    return f"internal error {defect}; the log of the backend says more under this number"


def abort(context: grpc.ServicerContext, status: grpc.StatusCode, message: str) -> NoReturn:
    """Ends the call with a status; the message is shortened to what a trailer carries."""
    raw = clean(message).encode("utf-8")
    if len(raw) > MAX_DETAIL_BYTES:
        raw = raw[: MAX_DETAIL_BYTES - 3].decode("utf-8", "ignore").encode("utf-8") + b"..."
    context.abort(status, raw.decode("utf-8"))
    raise AssertionError("abort always raises")


def clean(text: str) -> str:
    """The text as UTF-8 can carry it: lone surrogates, as in undecodable paths, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
