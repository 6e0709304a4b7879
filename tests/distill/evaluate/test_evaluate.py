"""Evaluation: the student is asked as by the proxy, and each failure is a fault of its row."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiohttp import web

from distill.evaluate.evaluate import evaluate
from distill.evaluate.scoring import Scorer
from store.records import (
    Evaluation,
    Reason,
    Signals,
    TermsOfService,
)
from store.settings.tasks import EvaluateSettings
from tests.helpers.student_samples import items, rows

JSON = Scorer("json", 1.0, "json", "")
Answer = Callable[[dict[str, Any]], Awaitable[web.Response]]


def completion(text: str, *, finish: str = "stop", lowest: float = -0.25) -> web.Response:
    """An answer in mlx_lm.server's shape."""
    tokens = [
        {"id": 1, "logprob": -0.01, "top_logprobs": named(-0.01, -5.0)},
        {"id": 2, "logprob": lowest, "top_logprobs": named(lowest, -2.0)},
    ]
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": tokens},
    }
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})


def named(*logprobs: float) -> list[dict[str, Any]]:
    """The likeliest tokens at one position."""
    return [{"id": place, "token": "t", "logprob": value} for place, value in enumerate(logprobs)]


@asynccontextmanager
async def student(answer: Answer) -> AsyncIterator[str]:
    """A scriptable student on loopback."""

    async def handle(request: web.Request) -> web.Response:
        return await answer(await request.json(loads=orjson.loads))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


TERMS = TermsOfService(output="json", max_tokens=50, timeout_s=5.0)


async def ask(answer: Answer, asked_rows: list[Any], **changes: Any) -> list[Evaluation]:
    arguments: dict[str, Any] = {
        "run_id": "run",
        "terms": TERMS,
        "scorer": JSON,
        "settings": EvaluateSettings(),
        "progress": lambda *_: None,
    }
    async with student(answer) as base_url:
        return await evaluate(base_url, asked_rows, **{**arguments, **changes})


async def test_evaluations_are_scored_and_in_the_order_of_the_rows() -> None:
    asked_rows = rows(20, seed=1)
    right = {item.messages[1]["content"]: item.target for item in items(20, seed=1)}

    async def answer(body: dict[str, Any]) -> web.Response:
        text_in = body["messages"][1]["content"]
        await asyncio.sleep(0.02 if "red" in text_in else 0)  # not in the order of asking
        return completion(right[text_in] if "lamp" not in text_in else '{"thing": "lamp"}')

    evaluations = await ask(answer, asked_rows)
    assert [e.input_hash for e in evaluations] == [row.input_hash for row in asked_rows]
    for row, evaluation in zip(asked_rows, evaluations, strict=True):
        lamp = "lamp" in row.target
        assert (evaluation.score, evaluation.agrees) == ((0.5, False) if lamp else (1.0, True))
        assert evaluation.teacher_output == row.target
        assert (evaluation.run_id, evaluation.split, evaluation.scorer) == (
            "run",
            "heldout",
            "json",
        )
        assert evaluation.signals == Signals(
            lowest=-0.25, mean=-0.13, rivals=pytest.approx(math.log(math.exp(-5) + math.exp(-2)))
        )
        assert evaluation.confidence == -0.25  # the lowest, before a model is fitted
        assert evaluation.fingerprint == row.fingerprint
        assert evaluation.latency_ms > 0
        assert evaluation.fault is None
    assert {e.agrees for e in evaluations} == {True, False}


async def test_the_student_is_asked_as_the_proxy_asks() -> None:
    bodies = []

    async def answer(body: dict[str, Any]) -> web.Response:
        bodies.append(body)
        return completion("{}")

    plain, limited = rows(2, seed=1)
    limited = replace(
        limited,
        params={"max_completion_tokens": 7, "max_tokens": 900, "stop": "\n", "temperature": 1.0},
    )
    await ask(answer, [plain, limited])
    first, second = sorted(bodies, key=lambda b: -b["max_tokens"])
    assert first == {
        "model": "default_model",
        "messages": plain.messages,
        "max_tokens": 50,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": False,
    }
    assert second == {**first, "messages": limited.messages, "max_tokens": 7, "stop": ["\n"]}


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (lambda: completion('{"a', finish="length"), Reason.STUDENT_CUT_OFF),
        (lambda: completion("lamp"), Reason.STUDENT_MALFORMED),
        (lambda: completion(""), Reason.STUDENT_MALFORMED),
        (lambda: web.json_response({"object": "nothing"}), Reason.STUDENT_ERROR),
        (lambda: web.Response(text="<html>"), Reason.STUDENT_ERROR),
        (lambda: web.json_response({"error": "no"}, status=404), Reason.STUDENT_ERROR),
    ],
)
async def test_an_unservable_answer_is_a_fault(
    reply: Callable[[], web.Response], fault: Reason
) -> None:
    async def answer(_: dict[str, Any]) -> web.Response:
        return reply()

    (evaluation,) = await ask(answer, rows(1, seed=1))
    assert (evaluation.fault, evaluation.agrees, evaluation.score) == (fault, False, 0.0)


@pytest.mark.parametrize(
    ("requested", "fault"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, None),
        ({"type": "json_schema", "json_schema": {"schema": {"required": ["thing"]}}}, None),
        (
            {"type": "json_schema", "json_schema": {"schema": {"required": ["size"]}}},
            Reason.STUDENT_MALFORMED,
        ),
        ({"type": "of the future"}, Reason.STUDENT_MALFORMED),
    ],
)
async def test_the_requested_format_is_checked_as_the_proxy_does(
    requested: dict[str, Any] | None, fault: Reason | None
) -> None:
    (row,) = rows(1, seed=1)

    async def answer(_: dict[str, Any]) -> web.Response:
        return completion(row.target)

    (evaluation,) = await ask(answer, [replace(row, params={"response_format": requested})])
    assert (evaluation.fault, evaluation.agrees) == (fault, fault is None)
    assert evaluation.signals is not None


@pytest.mark.slow
async def test_a_slow_or_unreachable_student_is_a_fault() -> None:
    release = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.Response:
        await release.wait()
        return completion("{}")

    asyncio.get_running_loop().call_later(0.5, release.set)
    (slow,) = await ask(answer, rows(1, seed=1), terms=replace(TERMS, timeout_s=0.1))
    assert slow.fault == Reason.STUDENT_SLOW
    assert (slow.student_output, slow.confidence, slow.signals) == (None, None, None)

    async with student(answer) as base_url:
        pass
    (unreachable,) = await evaluate(
        base_url,
        rows(1, seed=1),
        run_id="run",
        terms=TERMS,
        scorer=JSON,
        settings=EvaluateSettings(),
        progress=lambda *_: None,
    )
    assert unreachable.fault == Reason.STUDENT_DOWN


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_student_requests_at_once_than_set(concurrency: int) -> None:
    now = most = 0

    async def answer(_: dict[str, Any]) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return completion("{}")

    await ask(answer, rows(12, seed=1), settings=EvaluateSettings(concurrency=concurrency))
    assert most == concurrency


async def test_progress_counts_rows_and_agreement() -> None:
    steps: list[tuple[str, float, float, str]] = []
    asked_rows = rows(3, seed=1)

    async def answer(_: dict[str, Any]) -> web.Response:
        return completion(json.dumps({"nothing": True}))

    await ask(answer, asked_rows, progress=lambda *step: steps.append(step))
    assert steps == [("evaluate", n, 3, f"0 of {n} agree") for n in (1, 2, 3)]


async def test_no_rows_give_no_evaluations() -> None:
    async def answer(_: dict[str, Any]) -> web.Response:
        return completion("{}")

    assert await ask(answer, []) == []
