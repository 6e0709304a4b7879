"""Asking a student, and deciding whether its answer may be served.

The proxy, the evaluation and the shadow all ask through `ask_student`, so that what is certified is
what is served. They bring the transport; the rest is here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from store.chat.confidence import confidence_of
from store.chat.student_wire import (
    StudentAnswer,
    fault_of,
    read_student_answer,
    reply_of,
    student_body,
)
from store.jsontext import JsonMapping
from store.records import Reason, TermsOfService

STUDENT_PATH = "/v1/chat/completions"
# Posts a body to a student and returns the answer's status and body.
# Raises TimeoutError or ConnectionError.
Send = Callable[[bytes], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True)
class StudentReply:
    """The result of asking a student."""

    answer: StudentAnswer | None  # as the student wrote it; None: no readable answer came
    served: StudentAnswer | None  # as a client gets it; None: it may not be served
    confidence: float | None  # of the answer, by the terms' model
    fault: Reason | None  # why the answer may not be served
    ms: float  # until the answer was there, or given up


async def ask_student(
    terms: TermsOfService,
    request: JsonMapping,
    send: Send,
    *,
    placeholders: Sequence[str] = (),
) -> StudentReply:
    """The student's answer to a chat completion request. Never raises for the student's faults.

    The request's own token limit, stops, response format and tools hold beside the terms.
    `placeholders`: of the redaction rules of today, besides those that the terms name.
    """
    answer: StudentAnswer | None = None
    confidence: float | None = None
    fault: Reason | None = None
    began = time.perf_counter()
    try:
        body = student_body(request["messages"], max_tokens=terms.max_tokens, params=request)
        async with asyncio.timeout(terms.timeout_s):
            status, raw = await send(body)
        if status == 200:
            answer = read_student_answer(raw)
        else:
            fault = Reason.STUDENT_ERROR
    except TimeoutError:
        fault = Reason.STUDENT_SLOW
    except ConnectionError:
        fault = Reason.STUDENT_DOWN
    except ValueError:
        fault = Reason.STUDENT_ERROR
    ms = (time.perf_counter() - began) * 1000
    if answer is not None:
        if answer.signals is not None:
            confidence = confidence_of(answer.signals, terms.confidence)
        fault = await fault_of(
            answer, terms, request, confidence=confidence, placeholders=placeholders
        )
    served = (
        reply_of(answer, request, terms.style) if answer is not None and fault is None else None
    )
    return StudentReply(answer, served, confidence, fault, ms)
