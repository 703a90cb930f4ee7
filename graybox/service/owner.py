"""Handing a command to the trainer, and waiting for what becomes of it no longer than anybody wants to know."""

from __future__ import annotations

import math
import threading
from contextlib import nullcontext
from typing import cast

import grpc

from graybox.commands import MAX_WAIT_SECONDS, CancelEvaluation, Command, Commands, Outcome, Pause, Resume
from graybox.errors import DeadlinePassed
from graybox.service import limits
from graybox.service.desk import Desk
from graybox.service.errors import ClientGone

DEFAULT_ACTOR = "grpc"
ANSWER_SECONDS = 5.0
"""Beyond a command's deadline: the trainer answers late when a step is long."""

ROUNDED_UP = 0.01
"""Share by which the wire may have rounded a deadline up: to 10 ms from 1 s on, 100 ms from 10 s, 1 s from 100 s."""


def seconds_left(context: grpc.ServicerContext, longest: float = MAX_WAIT_SECONDS) -> float:
    """How long this call may wait: the client's deadline, less what the answer needs to travel, at most `longest`."""
    # The type stubs leave out that a call may have no deadline.
    remaining = cast("float | None", context.time_remaining())
    if remaining is None or not math.isfinite(remaining):
        return longest
    # Without the margin the client's clock would run out just before it is told that nothing was applied. gRPC rounds
    # a deadline up by as much as a hundredth on its way here: the client has that much less than it seems.
    margin = min(0.25, remaining * 0.1) + ROUNDED_UP * remaining
    return max(0.0, min(longest, remaining - margin))


def ask(
    desk: Desk,
    commands: Commands,
    context: grpc.ServicerContext,
    command: Command,
    *,
    command_id: str = "",
    actor: str = "",
) -> Outcome:
    """Submits a command and waits for its outcome.

    Raises what the trainer answers (see graybox.commands), DeadlinePassed when it does not answer in time,
    ClientGone when the client hangs up or the server stops, TooMany when too many requests wait already.
    """
    limits.check_text("command_id", command_id, limits.MAX_COMMAND_ID)
    limits.check_text("actor", actor, limits.MAX_ACTOR)
    # These go past the queue, so they must not be turned away because of it.
    place = nullcontext() if isinstance(command, (Pause, Resume, CancelEvaluation)) else desk.owner_gate.place()
    with place:
        timeout = seconds_left(context)
        future = commands.submit(command, command_id=command_id, actor=actor or DEFAULT_ACTOR, timeout=timeout)
        woken = threading.Event()
        future.add_done_callback(lambda _: woken.set())
        if not context.add_callback(woken.set):
            raise ClientGone("the client hung up")
        woken.wait(timeout + ANSWER_SECONDS)
        if future.done():
            return future.result()
        if not context.is_active():
            raise ClientGone("the client hung up while its command waited")
        raise DeadlinePassed(
            f"the trainer did not answer within {timeout + ANSWER_SECONDS:.0f} s; "
            "what was asked will not be applied later unless it is being applied just now"
        )
