"""Asking a student under its terms of service, whatever carries the request."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from store.chat.asking import StudentReply, ask_student
from store.records import Forms, Reason, TermsOfService

REQUEST = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "a parcel"}],
    "max_tokens": 9,
}
TERMS = TermsOfService(output="label", forms=Forms(labels=["shipping"]), max_tokens=50)


def said(text: str, *, logprob: float = -0.25, finish: str = "stop") -> bytes:
    """An answer in mlx_lm.server's form."""
    token = {"logprob": logprob, "top_logprobs": [{"logprob": logprob}, {"logprob": -5.0}]}
    choice = {
        "message": {"content": text},
        "logprobs": {"content": [token]},
        "finish_reason": finish,
    }
    return orjson.dumps({"choices": [choice]})


async def reply_to(
    status: int, raw: bytes, terms: TermsOfService = TERMS, **more: Any
) -> StudentReply:
    async def send(_: bytes) -> tuple[int, bytes]:
        return status, raw

    return await ask_student(terms, REQUEST, send, **more)


async def test_the_requests_own_limit_counts_below_that_of_the_terms() -> None:
    bodies = []

    async def send(body: bytes) -> tuple[int, bytes]:
        bodies.append(orjson.loads(body))
        return 200, said("shipping")

    reply = await ask_student(TERMS, REQUEST, send)
    assert bodies[0]["max_tokens"] == 9
    assert (reply.fault, reply.confidence) == (None, -0.25)
    assert reply.served is not None and reply.served.text == "shipping"


@pytest.mark.parametrize(
    ("status", "raw", "fault"),
    [
        (500, said("shipping"), Reason.STUDENT_ERROR),
        (200, b"{}", Reason.STUDENT_ERROR),
        (200, b"<html>", Reason.STUDENT_ERROR),
        (200, said("shipping", finish="length"), Reason.STUDENT_CUT_OFF),
        (200, said("billing"), Reason.STUDENT_MALFORMED),
        (200, said("shipping", logprob=-2.0), Reason.STUDENT_UNSURE),
    ],
)
async def test_an_answer_that_breaks_the_terms_is_not_served(
    status: int, raw: bytes, fault: Reason
) -> None:
    terms = TermsOfService(output="label", forms=TERMS.forms, cutoff=-1.0)
    reply = await reply_to(status, raw, terms)
    assert (reply.fault, reply.served) == (fault, None)


async def test_placeholders_of_todays_rules_are_not_served_either() -> None:
    terms = TermsOfService(forms=Forms(placeholders=["<EMAIL>"]))
    for text in ("to <EMAIL>", "to <PHONE>"):
        reply = await reply_to(200, said(text), terms, placeholders=["<PHONE>"])
        assert reply.fault is Reason.STUDENT_REDACTED


@pytest.mark.parametrize(
    ("error", "fault"),
    [(ConnectionError(), Reason.STUDENT_DOWN), (TimeoutError(), Reason.STUDENT_SLOW)],
)
async def test_a_transport_that_fails_is_the_students_fault(error: OSError, fault: Reason) -> None:
    async def send(_: bytes) -> tuple[int, bytes]:
        raise error

    reply = await ask_student(TERMS, REQUEST, send)
    assert (reply.fault, reply.answer, reply.served) == (fault, None, None)


async def test_an_answer_after_the_time_limit_of_the_terms_is_too_late() -> None:
    async def send(_: bytes) -> tuple[int, bytes]:
        await asyncio.Event().wait()
        raise AssertionError

    reply = await ask_student(TermsOfService(timeout_s=0.01), REQUEST, send)
    assert reply.fault is Reason.STUDENT_SLOW
