"""A question in natural language, put to a language model, and once more where its first answer does not do."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from graybox.errors import Refused
from graybox.service.errors import ClientGone
from graybox.service.example_queries import examples_for, nearest_examples
from graybox.service.language_model import CALL_SECONDS, LanguageModel, LanguageModelFailed, Message
from graybox.service.owner import seconds_left
from graybox.service.question_answer import Understood, WrongAnswer, understood
from graybox.service.question_prompt import first_messages, mending_messages
from graybox.store.query.query_error import printable
from graybox.store.sample_table import SampleTable

MAX_QUESTION = 2_000
"""Characters."""
TOLD_EXAMPLES = 12
SHOWN_EXAMPLES = 5
_MAX_CITED = 4_000
"""Characters of an answer that the model is shown again."""
_MAX_SHOWN = 300


class NotUnderstood(Refused):
    """No query came of a question; the message says what the model tried."""


def ask(
    model: LanguageModel, question: str, table: Callable[[], SampleTable], context: grpc.ServicerContext
) -> Understood:
    """What the model makes of a question. Waits for at most 20 s, twice where the first answer does not do, and ends
    before the call's deadline; holds no lock meanwhile.

    table: answers the samples as they are now, of which there may be other columns once the model has answered. Raises
    LanguageModelFailed, NotUnderstood, ClientGone.
    """
    give_up = time.monotonic() + seconds_left(context, 2 * CALL_SECONDS)
    now = table()
    examples = nearest_examples(question, examples_for(now.class_names, now.tags()), TOLD_EXAMPLES)
    messages = first_messages(question, now, examples)
    answer = _answer(model, messages, give_up, context)
    try:
        return understood(answer, table())
    except WrongAnswer as error:
        first = error
    answer = _answer(model, [*messages, *mending_messages(answer[:_MAX_CITED], str(first))], give_up, context)
    try:
        return understood(answer, table())
    except WrongAnswer as error:
        raise NotUnderstood(
            f"the language model found no query that can be read. It tried {_cited(first)}, then {_cited(error)}"
        ) from None


def example_queries(question: str, table: SampleTable) -> list[str]:
    """The queries that are nearest to a question, worked out here."""
    examples = examples_for(table.class_names, table.tags())
    return [each.query for each in nearest_examples(question, examples, SHOWN_EXAMPLES)]


def _answer(model: LanguageModel, messages: list[Message], give_up: float, context: grpc.ServicerContext) -> str:
    def until_hung_up(cut: Callable[[], None]) -> None:
        if not context.add_callback(cut):
            raise ClientGone("the client hung up")

    seconds = max(0.05, min(CALL_SECONDS, give_up - time.monotonic()))
    try:
        return model.answer(messages, seconds, until_hung_up)
    except LanguageModelFailed:
        if not context.is_active():
            raise ClientGone("the client hung up while the language model was asked") from None
        raise


def _cited(error: WrongAnswer) -> str:
    tried = f"{_short(error.tried)}: " if error.tried else ""
    return tried + _short(str(error))


def _short(text: str) -> str:
    shown = printable(text[:_MAX_SHOWN])
    return shown if len(text) <= _MAX_SHOWN else f"{shown}..."
