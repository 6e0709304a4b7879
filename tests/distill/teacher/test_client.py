"""The client for paid calls: requests, records, the budget and the errors."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import httpx
import orjson
import pytest
import respx
from pydantic import BaseModel, Field

from distill.teacher.client import (
    CLIENT_RETRIES,
    EXPECTED_OUTPUT,
    VALIDATION_RETRIES,
    TeacherClient,
)
from store.errors import BudgetSpent, TeacherError, TeacherMalformed, TeacherRefused
from store.records import TeacherCall
from tests.helpers.demo_rows import a_client
from tests.helpers.paths import ROOT

URL = "http://teacher.test/v1"
MESSAGES = [
    {"role": "system", "content": "Sort it."},
    {"role": "user", "content": "my private text"},
]
AT_ONCE = {"retry-after-ms": "1"}  # the OpenAI client waits no longer than this


class Shelf(BaseModel):
    """Books on a shelf."""

    titles: list[str] = Field(min_length=1)


def completion(
    content: str | None = "delivery",
    *,
    usage: tuple[int, int] | None = (100, 5),
    finish_reason: str = "stop",
    **message: Any,
) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "demo-teacher",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
        "usage": usage
        and {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        },
    }


def tool_call(arguments: str, **changes: Any) -> dict[str, Any]:
    call = {"id": "t1", "type": "function", "function": {"name": "Shelf", "arguments": arguments}}
    return completion(None, tool_calls=[call], **{"finish_reason": "tool_calls", **changes})


def error(status: int, code: str | None = None, **fields: Any) -> httpx.Response:
    body = {"message": "You said: my private text", "type": "t", "code": code, **fields}
    return httpx.Response(status, json={"error": body}, headers=AT_ONCE)


@pytest.fixture
def calls() -> list[TeacherCall]:
    return []


@pytest.fixture
async def client(calls: list[TeacherCall]) -> Any:
    async with a_client(URL, record=calls.append) as result:
        yield result


@pytest.fixture
def endpoint() -> Any:
    with respx.mock(base_url=URL, assert_all_called=False) as mock:
        yield mock.post("/chat/completions")


def sent(endpoint: respx.Route, number: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(endpoint.calls[number].request.content)
    return body


# ---- requests and records -----------------------------------------------------------------------


async def test_a_production_prompt_is_sent_as_it_is(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall]
) -> None:
    endpoint.respond(json=completion())
    params = {"temperature": 0, "max_tokens": 20, "response_format": {"type": "json_object"}}
    result = await client.answer(MESSAGES, params)

    assert sent(endpoint) == {"model": "demo-teacher", "messages": MESSAGES, **params}
    assert endpoint.calls[0].request.headers["authorization"] == "Bearer sk-very-secret"
    assert (result.text, result.finish_reason) == ("delivery", "stop")
    assert (result.tokens.input, result.tokens.output) == (100, 5)
    [call] = calls
    assert (call.purpose, call.model, call.input_tokens, call.output_tokens) == (
        "answers",
        "demo-teacher",
        100,
        5,
    )
    assert call.duration_ms > 0
    assert client.spent == 105


async def test_a_structured_call_forces_one_tool(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall]
) -> None:
    endpoint.respond(json=tool_call('{"titles": ["Emma"]}'))
    result = await client.structured("inputs", Shelf, MESSAGES, {"temperature": 0.9})

    assert result.value == Shelf(titles=["Emma"])
    assert type(result.value) is Shelf
    body = sent(endpoint)
    assert body["messages"] == MESSAGES
    assert body["temperature"] == 0.9
    assert body["tool_choice"] == {"type": "function", "function": {"name": "Shelf"}}
    [tool] = body["tools"]
    assert tool["function"]["parameters"]["properties"]["titles"]["type"] == "array"
    assert [call.purpose for call in calls] == ["inputs"]


async def test_an_invalid_structure_is_asked_again_and_every_attempt_is_recorded(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall]
) -> None:
    endpoint.side_effect = [
        httpx.Response(200, json=tool_call('{"titles": []}', usage=(100, 5))),
        httpx.Response(200, json=tool_call("not json", usage=(200, 6))),
        httpx.Response(200, json=tool_call('{"titles": ["Emma"]}', usage=(300, 7))),
    ]
    result = await client.structured("policy", Shelf, MESSAGES)

    assert result.value == Shelf(titles=["Emma"])
    assert [(c.input_tokens, c.output_tokens) for c in calls] == [(100, 5), (200, 6), (300, 7)]
    assert (result.tokens.input, result.tokens.output) == (600, 18)
    assert client.spent == 618
    again = sent(endpoint, 1)["messages"]
    assert again[: len(MESSAGES)] == MESSAGES
    assert len(again) > len(MESSAGES)  # it is shown what was wrong


@pytest.mark.parametrize(
    "answer",
    [
        tool_call("{}"),
        tool_call('{"titles": "Em'),
        completion("Here are some titles: Emma"),
        {**completion(), "choices": []},
        {**completion(), "choices": None},
    ],
)
async def test_an_answer_that_stays_invalid_is_malformed(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall], answer: dict[str, Any]
) -> None:
    endpoint.respond(json=answer)
    with pytest.raises(TeacherMalformed, match="no valid Shelf"):
        await client.structured("inputs", Shelf, MESSAGES)
    assert 1 <= len(calls) == endpoint.call_count <= 1 + VALIDATION_RETRIES
    assert client.spent == 105 * len(calls)


async def test_a_structure_that_is_cut_off_is_malformed(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall]
) -> None:
    endpoint.respond(json=tool_call('{"titles": ["Em', finish_reason="length"))
    with pytest.raises(TeacherMalformed):
        await client.structured("inputs", Shelf, MESSAGES)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "I must not."},
        {"content": "x", "refusal": "I must not."},
        {
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
    ],
)
async def test_refusals_and_unrequested_calls_have_no_text(
    client: TeacherClient, endpoint: respx.Route, message: dict[str, Any]
) -> None:
    endpoint.respond(json=completion(**message))
    assert (await client.answer(MESSAGES, {})).text is None


async def test_half_a_surrogate_pair_becomes_a_replacement_character(
    client: TeacherClient, endpoint: respx.Route
) -> None:
    body = orjson.dumps(completion("@")).replace(b'"@"', rb'"a\ud83d"')
    endpoint.respond(content=body, headers={"content-type": "application/json"})
    assert (await client.answer(MESSAGES, {})).text == "a?"


async def test_tokens_are_estimated_when_the_endpoint_does_not_count(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall]
) -> None:
    endpoint.respond(json=completion("delivery", usage=None))
    await client.answer(MESSAGES, {})
    assert calls[0].input_tokens >= len("Sort it. my private text") // 3
    assert calls[0].output_tokens >= len("delivery") // 3
    assert client.spent == calls[0].input_tokens + calls[0].output_tokens


async def test_a_teacher_that_refuses_a_temperature_is_asked_without_from_then_on(
    client: TeacherClient, endpoint: respx.Route
) -> None:
    endpoint.side_effect = [
        error(400, "unsupported_value", param="temperature"),
        httpx.Response(200, json=tool_call('{"titles": ["Emma"]}')),
        httpx.Response(200, json=tool_call('{"titles": ["Ulysses"]}')),
    ]
    for _ in range(2):
        await client.structured("inputs", Shelf, MESSAGES, {"temperature": 0.9})
    assert ["temperature" in sent(endpoint, n) for n in range(3)] == [True, False, False]


# ---- the budget ---------------------------------------------------------------------------------


async def test_a_call_beyond_the_budget_is_not_made(endpoint: respx.Route) -> None:
    async with a_client(URL, budget=EXPECTED_OUTPUT["answers"]) as client:
        with pytest.raises(BudgetSpent, match="0 of 64 tokens are spent"):
            await client.answer(MESSAGES, {})
        with pytest.raises(BudgetSpent):
            await client.structured("inputs", Shelf, MESSAGES)
    assert endpoint.call_count == 0


async def test_earlier_tokens_count_against_the_budget(endpoint: respx.Route) -> None:
    endpoint.respond(json=completion())
    async with a_client(URL, budget=1000) as client:
        await client.answer(MESSAGES, {})
        client.spent += 900
        with pytest.raises(BudgetSpent):
            await client.answer(MESSAGES, {})
    assert endpoint.call_count == 1


async def test_calls_at_the_same_time_share_one_budget(endpoint: respx.Route) -> None:
    """Twenty at once, with tokens for about five: running calls count before they are paid."""
    endpoint.respond(json=completion(usage=(20, 60)))
    async with a_client(URL, budget=500) as client:
        results = await asyncio.gather(
            *(client.answer(MESSAGES, {}) for _ in range(20)), return_exceptions=True
        )
        assert client.spent <= 500
    refused = [r for r in results if isinstance(r, BudgetSpent)]
    assert endpoint.call_count + len(refused) == 20
    assert 1 <= endpoint.call_count <= 6


async def test_retries_of_a_structured_call_stop_at_the_budget(endpoint: respx.Route) -> None:
    endpoint.respond(json=tool_call("{}", usage=(500, 500)))
    async with a_client(URL, budget=1500) as client:
        with pytest.raises(BudgetSpent):
            await client.structured("inputs", Shelf, MESSAGES)
    assert endpoint.call_count == 1


async def test_a_failed_call_releases_its_reserved_tokens(endpoint: respx.Route) -> None:
    endpoint.side_effect = [error(404), httpx.Response(200, json=completion())]
    async with a_client(URL, budget=150) as client:
        with pytest.raises(TeacherRefused):
            await client.answer(MESSAGES, {})
        assert (await client.answer(MESSAGES, {})).text == "delivery"


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, TeacherRefused),
        (404, TeacherRefused),
        (413, TeacherRefused),
        (422, TeacherRefused),
        (401, TeacherError),
        (403, TeacherError),
        (429, TeacherError),
        (500, TeacherError),
        (503, TeacherError),
    ],
)
async def test_errors_name_the_status_and_quote_no_text(
    client: TeacherClient,
    endpoint: respx.Route,
    calls: list[TeacherCall],
    status: int,
    kind: type[TeacherError],
) -> None:
    endpoint.side_effect = [error(status, "some_code")] * (1 + CLIENT_RETRIES)
    for ask in (client.answer(MESSAGES, {}), client.structured("inputs", Shelf, MESSAGES)):
        endpoint.side_effect = [error(status, "some_code")] * (1 + CLIENT_RETRIES)
        with pytest.raises(TeacherError) as raised:
            await ask
        assert type(raised.value) is kind
        assert f"status {status} (some_code)" in str(raised.value)
        assert "private" not in str(raised.value)
        assert "secret" not in str(raised.value)
    retried = status == 429 or status >= 500
    assert endpoint.call_count == 2 * (1 + CLIENT_RETRIES * retried)
    assert calls == []  # an error costs nothing


async def test_an_error_code_that_is_text_is_not_quoted(
    client: TeacherClient, endpoint: respx.Route
) -> None:
    endpoint.side_effect = [error(400, "You said: my private text")]
    with pytest.raises(TeacherRefused, match=r"with status 400$"):
        await client.answer(MESSAGES, {})


async def test_a_teacher_that_recovers_is_not_an_error(
    client: TeacherClient, endpoint: respx.Route, calls: list[TeacherCall]
) -> None:
    endpoint.side_effect = [error(503), error(429), httpx.Response(200, json=completion())]
    assert (await client.answer(MESSAGES, {})).text == "delivery"
    assert len(calls) == 1


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
async def test_an_endpoint_that_is_not_openai_compatible_is_an_error(
    client: TeacherClient, endpoint: respx.Route, content_type: str
) -> None:
    endpoint.respond(content=b"<html>my private text", headers={"content-type": content_type})
    with pytest.raises(TeacherError, match="check api_base") as raised:
        await client.answer(MESSAGES, {})
    assert "private" not in str(raised.value)


async def test_an_unreachable_endpoint_is_an_error() -> None:
    async with a_client("http://127.0.0.1:9/v1") as client:
        client._client.max_retries = 0  # do not wait for it
        with pytest.raises(TeacherError, match="cannot be reached for answers: APIConnectionError"):
            await client.answer(MESSAGES, {})


async def test_neither_prompts_nor_answers_are_logged(
    client: TeacherClient, endpoint: respx.Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.respond(json=tool_call('{"titles": "a secret answer"}'))
    with pytest.raises(TeacherMalformed):
        await client.structured("inputs", Shelf, MESSAGES)
    endpoint.respond(json=completion("a secret answer"))
    await client.answer(MESSAGES, {})
    assert "private" not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.slow
def test_the_first_call_imports_next_to_nothing_once_the_libraries_are_there() -> None:
    """An import on the event loop stops all that it does: seconds, on a busy machine."""
    code = (
        "import sys\n"
        "from distill.teacher.client import TeacherClient, import_libraries\n"
        "import_libraries()\n"
        "before = set(sys.modules)\n"
        "client = TeacherClient(base_url='http://127.0.0.1:9/v1', api_key='k', model='m',\n"
        "    record=print, run_id='r', task='t', token_budget=None)\n"
        "client._client.chat.completions\n"
        "print(len(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 150
