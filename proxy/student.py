"""Asking a student, and deciding whether its answer may be served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy.upstream.client import Upstream, UpstreamError
from store.chat.confidence import confidence_of
from store.chat.student_wire import (
    StudentAnswer,
    fault_of,
    read_student_answer,
    reply_of,
    student_body,
)
from store.records import Reason, Route

_HEADERS = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking a student."""

    ms: float  # how long it took
    answer: StudentAnswer | None  # as the client gets it when there is no fault; None: none came
    confidence: float | None  # of the answer, by the route's model
    fault: Reason | None  # why the answer may not be served; None: it may


class Student:
    """Asks the student that a route names."""

    def __init__(self, upstream: Upstream, placeholders: Sequence[str] = ()) -> None:
        """`placeholders`: what stands for what is redacted, and no answer may hold."""
        self._upstream = upstream
        self._placeholders = tuple(placeholders)

    async def ask(self, route: Route, body: dict[str, Any]) -> Asked:
        """The student's answer to a request that `decide` has sent to it. Never raises for it."""
        began = time.perf_counter()
        answer, confidence, fault = None, None, None
        try:
            async with asyncio.timeout(route.timeout_s):
                answer = await self._answer(route, body)
        except TimeoutError:
            fault = Reason.STUDENT_SLOW
        except UpstreamError:
            fault = Reason.STUDENT_DOWN
        except ValueError:
            fault = Reason.STUDENT_ERROR
        ms = (time.perf_counter() - began) * 1000
        if answer is not None:
            if answer.signals is not None:
                confidence = confidence_of(answer.signals, route.confidence)
            fault = await fault_of(
                answer,
                output=route.output,
                request=body,
                forms=route.forms,
                confidence=confidence,
                cutoff=route.cutoff,
                placeholders=self._placeholders,
            )
            if fault is None:
                answer = reply_of(answer, body)
        return Asked(ms, answer, confidence, fault)

    async def _answer(self, route: Route, body: dict[str, Any]) -> StudentAnswer:
        """Raises UpstreamError without an answer, ValueError when it is none of a student."""
        response = await self._upstream.send(
            "POST",
            f"{route.base_url}/v1/chat/completions",
            _HEADERS,
            student_body(body["messages"], max_tokens=route.max_tokens, params=body),
        )
        try:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            return read_student_answer(await response.read())
        finally:
            response.close()
