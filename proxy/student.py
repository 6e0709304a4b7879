"""Asking a student, and deciding whether its answer may be served."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from proxy.upstream import Upstream, UpstreamError
from store.models import Reason
from store.output_format import meets_format
from store.student_wire import StudentAnswer, fault_of, read_student_answer, student_body
from store.verdicts import Route

_HEADERS = [("content-type", "application/json")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking a student."""

    ms: float  # how long it took
    answer: StudentAnswer | None  # None: there was none that could be read
    fault: Reason | None  # why the answer may not be served; None: it may


class Student:
    """Asks the student that a route names."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def ask(self, route: Route, body: dict[str, Any]) -> Asked:
        """The student's answer to a request that `decide` has sent to it. Never raises for it."""
        began = time.perf_counter()
        answer, fault = None, None
        try:
            async with asyncio.timeout(route.timeout_s):
                answer = await self._answer(route, body)
        except TimeoutError:
            fault = Reason.STUDENT_SLOW
        except UpstreamError:
            fault = Reason.STUDENT_DOWN
        except ValueError:
            fault = Reason.STUDENT_MALFORMED
        ms = (time.perf_counter() - began) * 1000
        if answer is not None:
            fault = await _fault(answer, route, body)
        return Asked(ms, answer, fault)

    async def _answer(self, route: Route, body: dict[str, Any]) -> StudentAnswer:
        response = await self._upstream.send(
            "POST",
            f"{route.base_url}/v1/chat/completions",
            _HEADERS,
            student_body(
                body["messages"],
                max_tokens=longest_answer(route, body),
                stop=stops(body.get("stop")),
            ),
        )
        try:
            if response.status != 200:
                raise UpstreamError
            return read_student_answer(await response.read())
        finally:
            response.close()


def longest_answer(route: Route, body: dict[str, Any]) -> int:
    """The student's token limit: the certified one, or the client's where that is lower.

    An answer that runs into it goes to the teacher, which counts tokens in its own way.
    """
    limits: list[int | None] = [body.get("max_completion_tokens"), body.get("max_tokens")]
    return max(1, min([route.max_tokens, *(limit for limit in limits if limit is not None)]))


def stops(stop: str | list[str] | None) -> list[str] | None:
    """The client's stop strings as a list."""
    return [stop] if isinstance(stop, str) else stop


async def _fault(answer: StudentAnswer, route: Route, body: dict[str, Any]) -> Reason | None:
    fault = fault_of(answer, cutoff=route.cutoff, output=route.output)
    if fault is None and not await meets_format(answer.text, body.get("response_format")):
        return Reason.STUDENT_MALFORMED
    return fault
