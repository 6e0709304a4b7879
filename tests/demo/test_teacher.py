"""The stand-in teacher: its OpenAI API, and its structured answers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import aiohttp
import openai
import pytest

from demo.tasks.tasks import TASKS, DemoTask
from demo.teacher.teacher import MODEL, start_teacher
from demo.teacher.wire import TeacherServer, text_tokens
from distill.amplify.diversity import Aims, SyntheticInputs, inputs_prompt, plan_batch
from distill.amplify.near_duplicates import NearDuplicates
from distill.amplify.policy import TaskPolicy, policy_prompt
from distill.dataset.answers import answers_of
from store.settings.tasks import AmplifySettings
from tests.helpers.demo_rows import JSON, LABELS, a_policy, rows_of
from tests.helpers.paths import ROOT

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


@pytest.fixture
async def teacher() -> AsyncIterator[TeacherServer]:
    async with await start_teacher() as server:
        yield server


@pytest.fixture
async def sdk(teacher: TeacherServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=teacher.base_url, api_key="any", max_retries=0
    ) as client:
        yield client


# ---- the API ------------------------------------------------------------------------------------


@every_task
async def test_answers_follow_the_rules_plain_and_streamed(
    teacher: TeacherServer, sdk: openai.AsyncOpenAI, task: DemoTask
) -> None:
    text = next(task.texts("api"))
    messages: Any = task.messages(text)
    plain = await sdk.chat.completions.create(model=MODEL, messages=messages)
    assert plain.choices[0].message.content == task.answer(text)
    assert plain.choices[0].finish_reason == "stop"
    assert plain.usage is not None
    assert plain.usage.completion_tokens == text_tokens(task.answer(text))
    assert plain.usage.prompt_tokens == 8 + text_tokens(task.system) + text_tokens(text)

    stream = await sdk.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == task.answer(text)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert {c.usage for c in chunks[:-1]} == {None}
    assert teacher.counts == {f"answers/{task.name}": 2}


async def test_without_include_usage_no_chunk_has_usage(sdk: openai.AsyncOpenAI) -> None:
    messages: Any = TASKS[LABELS].messages("Great lamp.")
    stream = await sdk.chat.completions.create(model=MODEL, messages=messages, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(c.usage is None and c.choices for c in chunks)


async def test_an_unknown_prompt_gets_an_answer_that_depends_on_the_text(
    teacher: TeacherServer, sdk: openai.AsyncOpenAI
) -> None:
    async def ask(text: str) -> str | None:
        found = await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}]
        )
        return found.choices[0].message.content

    assert await ask("hello  there") == await ask("hello there") == "You wrote: hello there"
    assert await ask("bye") == "You wrote: bye"
    assert teacher.counts == {"answers/other": 3}


async def test_several_choices_and_a_length_limit(sdk: openai.AsyncOpenAI) -> None:
    messages: Any = TASKS[JSON].messages("My parcel is late.")
    found = await sdk.chat.completions.create(model=MODEL, messages=messages, n=2, max_tokens=3)
    assert [c.finish_reason for c in found.choices] == ["length", "length"]
    assert {c.message.content for c in found.choices} == {'{"category":'}
    assert found.usage is not None
    assert found.usage.completion_tokens == 6


async def test_the_models_are_listed(sdk: openai.AsyncOpenAI) -> None:
    assert [m.id for m in (await sdk.models.list()).data] == [MODEL]
    assert (await sdk.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("raised", "changes"),
    [
        (openai.NotFoundError, {"model": "gpt-9"}),
        (openai.BadRequestError, {"model": ""}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"messages": "hello"}),
        (openai.BadRequestError, {"messages": ["hello"]}),
        (openai.BadRequestError, {"messages": [{"role": "system", "content": "alone"}]}),
        (openai.BadRequestError, {"max_tokens": 0}),
        (openai.BadRequestError, {"n": "two"}),
        (openai.BadRequestError, {"metadata": {"task": "triage"}}),
    ],
)
async def test_bad_requests_raise_the_sdk_s_own_errors(
    teacher: TeacherServer,
    sdk: openai.AsyncOpenAI,
    raised: type[openai.APIStatusError],
    changes: dict[str, Any],
) -> None:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **changes}
    with pytest.raises(raised) as failed:
        await sdk.chat.completions.create(**asked)
    assert failed.value.type == "invalid_request_error"
    assert sum(teacher.counts.values()) == teacher.counts[f"errors/{failed.value.status_code}"] == 1


async def test_invalid_json_and_unknown_paths_are_refused(teacher: TeacherServer) -> None:
    async with aiohttp.ClientSession() as http:
        for data in (b"{", b"[]", b""):
            async with http.post(f"{teacher.base_url}/chat/completions", data=data) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["type"] == "invalid_request_error"
        async with http.get(f"{teacher.base_url}/nothing") as answer:
            assert answer.status == 404
            assert "error" in await answer.json()
        async with http.get(teacher.base_url.removesuffix("/v1") + "/counts") as answer:
            assert await answer.json() == {"errors/400": 3, "errors/404": 1}


# ---- structured calls ---------------------------------------------------------------------------


def asked_for(task: str, count: int = 10) -> list[dict[str, Any]]:
    """The messages that ask for synthetic inputs of a task."""
    rows = rows_of(task, 60)
    settings = AmplifySettings(batch=count)
    plan = plan_batch(
        Random(1),
        rows,
        settings,
        aims=Aims(answers_of(rows), [r.target for r in rows]),
        so_far={},
        avoid=[],
    )
    return inputs_prompt(plan, a_policy())


def as_tool(schema: type[SyntheticInputs] | type[TaskPolicy]) -> dict[str, Any]:
    name = schema.__name__
    function = {"name": name, "parameters": schema.model_json_schema()}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": name}},
    }


async def inputs_from(sdk: openai.AsyncOpenAI, messages: Any) -> list[str]:
    found = await sdk.chat.completions.create(
        model=MODEL, messages=messages, **as_tool(SyntheticInputs)
    )
    assert found.choices[0].finish_reason == "tool_calls"
    assert found.choices[0].message.content is None
    [call] = found.choices[0].message.tool_calls or []
    assert call.type == "function"
    return SyntheticInputs.model_validate_json(call.function.arguments).inputs


@every_task
async def test_synthetic_inputs_are_new_each_time_and_some_are_useless(
    teacher: TeacherServer, sdk: openai.AsyncOpenAI, task: DemoTask
) -> None:
    messages = asked_for(task.name)
    first, second = await inputs_from(sdk, messages), await inputs_from(sdk, messages)
    assert len(first) == len(second) == 10
    assert set(first) != set(second)
    assert teacher.counts == {"inputs": 2}

    shown = [e.split("\n</input>")[0] for e in messages[-1]["content"].split("<input>\n")[1:]]
    examples = NearDuplicates(0.9, shown)
    assert sum(text in examples for text in first) >= 1
    assert sum(len(text) > task.policy["input_length_range"]["maximum"] for text in first) == 1

    async with await start_teacher() as again:
        other = openai.AsyncOpenAI(base_url=again.base_url, api_key="any")
        assert await inputs_from(other, messages) == first
        await other.close()


async def test_synthetic_inputs_hit_the_answers_that_are_aimed_at(
    sdk: openai.AsyncOpenAI,
) -> None:
    messages = asked_for(LABELS, count=4)  # too few for useless ones
    aims = [line.split("'")[1] for line in messages[-1]["content"].split("answer=")[1:]]
    inputs = await inputs_from(sdk, messages)
    assert [TASKS[LABELS].answer(text) for text in inputs] == aims


@every_task
async def test_the_policy_can_be_asked_for_by_tool_or_response_format(
    teacher: TeacherServer, sdk: openai.AsyncOpenAI, task: DemoTask
) -> None:
    messages: Any = policy_prompt(rows_of(task.name, 20))
    by_tool = await sdk.chat.completions.create(
        model=MODEL, messages=messages, **as_tool(TaskPolicy)
    )
    form = {"name": "TaskPolicy", "schema": TaskPolicy.model_json_schema()}
    by_format = await sdk.chat.completions.create(
        model=MODEL,
        messages=messages,
        response_format={"type": "json_schema", "json_schema": form},  # type: ignore[typeddict-item]
    )
    [call] = by_tool.choices[0].message.tool_calls or []
    assert call.type == "function"
    said = TaskPolicy.model_validate_json(call.function.arguments)
    assert said == TaskPolicy.model_validate(task.policy)
    assert said == TaskPolicy.model_validate_json(by_format.choices[0].message.content or "")
    assert teacher.counts == {"policy": 2}


async def test_a_structured_call_can_be_streamed(sdk: openai.AsyncOpenAI) -> None:
    messages: Any = policy_prompt(rows_of(LABELS, 20))
    stream: Any = await sdk.chat.completions.create(
        model=MODEL, messages=messages, stream=True, **as_tool(TaskPolicy)
    )
    deltas = [chunk.choices[0].delta async for chunk in stream]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert calls[0].function.name == "TaskPolicy"
    TaskPolicy.model_validate_json("".join(call.function.arguments for call in calls))


async def test_a_tool_or_a_task_that_it_does_not_know_is_refused(sdk: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Describe the task."}]
    with pytest.raises(openai.BadRequestError, match="none of the tasks"):
        await sdk.chat.completions.create(model=MODEL, messages=messages, **as_tool(TaskPolicy))
    weather = {"type": "function", "function": {"name": "weather"}}
    known: Any = TASKS[LABELS].messages("Great lamp.")
    with pytest.raises(openai.BadRequestError, match="no tool named 'weather'"):
        await sdk.chat.completions.create(
            model=MODEL,
            messages=known,
            tools=[weather],  # type: ignore[list-item]
            tool_choice=weather,  # type: ignore[arg-type]
        )
    offered = await sdk.chat.completions.create(
        model=MODEL,
        messages=known,
        tools=[weather],  # type: ignore[list-item]
    )
    assert offered.choices[0].message.content == "positive"


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_command_prints_its_address_answers_and_ends_on_a_signal() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo.teacher.teacher", "--port", "0", "--latency-ms", "1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        url = line.split()[-1]
        async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
            messages: Any = TASKS[LABELS].messages("Great lamp.")
            found = await client.chat.completions.create(model=MODEL, messages=messages)
            assert found.choices[0].message.content == "positive"
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
