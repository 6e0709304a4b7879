"""Requests with tools through the proxy: the student's calls, or the teacher's before a byte."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from proxy.surfaces.chat.write import StudentCompletion
from store.chat.formats import meets_schema_now
from store.chat.shape import fingerprint
from store.chat.student_wire import StudentAnswer, fault_of, reply_of
from store.chat.tools import parameters
from store.records import Forms, MessageStyle, Reason, TermsOfService
from tests.helpers.serving import ProxyThread, student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, completion

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
TOOLS = [WEATHER, TIME]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "system", "content": "Help."}, {"role": "user", "content": "In Paris?"}],
    "tools": TOOLS,
}
PARIS = {"name": "get_weather", "arguments": {"city": "Paris", "unit": "c"}}
NOW = {"name": "get_time", "arguments": {}}


def calls(*made: dict[str, Any]) -> str:
    return json.dumps(made[0] if len(made) == 1 else made)


def words(text: str) -> str:
    return json.dumps({"content": text})


def says(text: str) -> Callable[[Received], Reply]:
    return lambda request: completion(text, logprobs=[-0.1])


@pytest.fixture
def student() -> Any:
    with LoopbackServer(says(calls(PARIS))) as server:
        yield server


Publish = Callable[..., None]
Ask = Callable[..., tuple[httpx.Headers, Any]]


@pytest.fixture
def publish(proxy: ProxyThread, student: LoopbackServer) -> Publish:
    """Publishes a route to the student and waits until the proxy follows it."""

    def go(body: dict[str, Any] = BODY, **changes: Any) -> None:
        changes = {"output": "tools", **changes}
        proxy.publish(student_route("t", student.url, fingerprint(body), **changes))
        wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["students"] == 1)

    return go


@pytest.fixture
def ask(client: openai.OpenAI) -> Ask:
    """Asks through the SDK; gives the headers and the choice that it makes of the answer."""

    def go(stream: bool = False, **more: Any) -> tuple[httpx.Headers, Any]:
        request = {**BODY, **more, "extra_headers": {"X-Understudy-Task": "t"}}
        if stream:
            with client.chat.completions.stream(**request) as events:
                return events._response.headers, events.get_final_completion().choices[0]
        raw = client.chat.completions.with_raw_response.create(**request)
        return raw.headers, raw.parse().choices[0]

    return go


# ---- form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.slow
def test_calls_have_openais_form(
    stream: bool, ask: Ask, publish: Publish, student: LoopbackServer, proxy: ProxyThread
) -> None:
    publish()
    student.answer = says(calls(PARIS, NOW))
    headers, choice = ask(stream)
    assert headers["x-understudy-route"] == "student"
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    first, second = choice.message.tool_calls
    assert (first.function.name, second.function.name) == ("get_weather", "get_time")
    assert (first.function.arguments, second.function.arguments) == (
        '{"city":"Paris","unit":"c"}',
        "{}",
    )
    assert first.id != second.id
    assert all(re.fullmatch("call_[A-Za-z0-9]{24}", c.id) for c in (first, second))
    assert "tools" not in student.requests[0].json
    [trace] = proxy.wait_for_traces(1)
    [message] = json.loads(trace["output_messages"])
    assert [c["id"] for c in message["tool_calls"]] == [first.id, second.id]
    assert (message["content"], trace["finish_reasons"]) == (None, ["tool_calls"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.slow
def test_a_student_may_answer_in_words_despite_tools(
    stream: bool, ask: Ask, publish: Publish, student: LoopbackServer
) -> None:
    publish()
    student.answer = says(words('Which "city"?\n'))
    headers, choice = ask(stream)
    assert headers["x-understudy-route"] == "student"
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert choice.message.content == 'Which "city"?\n'


@pytest.mark.slow
def test_the_chunks_come_as_openais_do(
    publish: Publish, client: openai.OpenAI, student: LoopbackServer
) -> None:
    publish()

    def deltas() -> list[dict[str, Any]]:
        chunks = client.chat.completions.create(
            **BODY,  # type: ignore[call-overload]
            stream=True,
            extra_headers={"X-Understudy-Task": "t"},
        )
        return [c.choices[0].delta.model_dump(exclude_unset=True) for c in chunks]

    opening, arguments, end = deltas()
    assert opening["role"] == "assistant"
    assert opening["content"] is None
    [begun] = opening["tool_calls"]
    assert begun.pop("id").startswith("call_")
    function = {"name": "get_weather", "arguments": ""}
    assert begun == {"index": 0, "type": "function", "function": function}
    said = {"arguments": '{"city":"Paris","unit":"c"}'}
    assert arguments == {"tool_calls": [{"index": 0, "function": said}]}
    assert end == {}
    student.answer = says(calls(PARIS, NOW))
    places = [[c["index"] for c in d.get("tool_calls", [])] for d in deltas()]
    assert places == [[], [0], [0], [1], [1], []]


class GetWeather(BaseModel):
    city: str
    unit: str


@pytest.mark.slow
def test_openais_own_parsing(
    publish: Publish, client: openai.OpenAI, student: LoopbackServer
) -> None:
    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    publish({**BODY, "tools": [tool]})
    raw = client.chat.completions.with_raw_response.parse(
        model="gpt-4o",
        messages=BODY["messages"],  # type: ignore[arg-type]
        tools=[tool],
        extra_headers={"X-Understudy-Task": "t"},
    )
    assert raw.headers["x-understudy-route"] == "student"
    [call] = raw.parse().choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == GetWeather(city="Paris", unit="c")


# ---- who answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "text", "served"),
    [
        ({}, calls(PARIS), True),
        ({}, calls(NOW), True),
        ({}, calls(PARIS, PARIS), True),
        ({}, words("Which?"), True),
        ({}, calls({"name": "rm", "arguments": {}}), False),
        ({}, calls(PARIS, {"name": "rm", "arguments": {}}), False),
        ({}, calls({**PARIS, "arguments": {"city": "Paris"}}), False),
        ({}, calls({**PARIS, "arguments": {"city": "Paris", "unit": "k"}}), False),
        ({}, calls({**PARIS, "arguments": {"city": "P", "unit": "c", "x": 1}}), False),
        ({}, calls({**NOW, "arguments": {"zone": "CET"}}), False),  # it takes nothing
        ({}, "In which city?", False),
        ({}, calls(PARIS)[:-1], False),
        ({}, calls(PARIS) + " Done.", False),
        ({"tool_choice": "required"}, calls(PARIS), True),
        ({"tool_choice": "required"}, words("Which?"), False),
        ({"tool_choice": "none"}, words("Which?"), True),
        ({"tool_choice": "none"}, calls(PARIS), False),
        ({"tool_choice": NAMED}, calls(PARIS), True),
        ({"tool_choice": NAMED}, calls(NOW), False),
        ({"tool_choice": NAMED}, words("Which?"), False),
        ({"parallel_tool_calls": False}, calls(PARIS), True),
        ({"parallel_tool_calls": False}, calls(PARIS, NOW), False),
        # a format is asked of words alone
        ({"response_format": {"type": "json_object"}}, calls(PARIS), True),
        ({"response_format": {"type": "json_object"}}, words('{"a": 1}'), True),
        ({"response_format": {"type": "json_object"}}, words("a"), False),
    ],
)
@pytest.mark.slow
def test_only_what_the_request_allows_is_served(
    asked: dict[str, Any],
    text: str,
    served: bool,
    ask: Ask,
    publish: Publish,
    student: LoopbackServer,
) -> None:
    publish({**BODY, **asked})
    student.answer = says(text)
    headers, choice = ask(**asked)
    assert headers["x-understudy-route"] == ("student" if served else "fallback")
    assert headers["x-understudy-reason"] == ("certified" if served else "student_malformed")
    if not served:
        assert choice.message.content == "echo: In Paris?"


@pytest.mark.slow
def test_a_function_that_is_told_to_be_called_stops(ask: Ask, publish: Publish) -> None:
    publish({**BODY, "tool_choice": NAMED})
    _, choice = ask(tool_choice=NAMED)
    assert (choice.finish_reason, len(choice.message.tool_calls)) == ("stop", 1)


@pytest.mark.slow
def test_a_function_that_the_teacher_never_calls(
    ask: Ask, publish: Publish, student: LoopbackServer
) -> None:
    publish(forms=Forms(calls=["get_weather"]))
    assert ask()[0]["x-understudy-route"] == "student"
    for text in (calls(NOW), calls(PARIS, NOW), words("Which?")):
        student.answer = says(text)
        assert ask()[0]["x-understudy-reason"] == "student_malformed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tool_choice": "required"}, "other_fingerprint"),
        ({"tool_choice": "none"}, "other_fingerprint"),
        ({"tool_choice": NAMED}, "other_fingerprint"),
        ({"parallel_tool_calls": False}, "other_fingerprint"),
        ({"tools": [WEATHER]}, "other_fingerprint"),
        ({"stop": ["x"]}, "tools"),
        (
            {
                "messages": [
                    *BODY["messages"],
                    {"role": "tool", "tool_call_id": "c", "content": "9"},
                ]
            },
            "tools",
        ),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, "certified"),
    ],
)
@pytest.mark.slow
def test_what_was_not_certified_goes_to_the_teacher(
    changes: dict[str, Any], reason: str, ask: Ask, publish: Publish
) -> None:
    publish()
    assert ask(**changes)[0]["x-understudy-reason"] == reason


@pytest.mark.slow
def test_a_student_of_words_gets_no_tools(ask: Ask, publish: Publish) -> None:
    publish(output="json")
    assert ask()[0]["x-understudy-reason"] == "tools"


# ---- whatever a student says ---------------------------------------------------------------------

arguments = st.dictionaries(
    st.sampled_from(["city", "unit", "x"]),
    st.sampled_from(["Paris", "c", "f", 1, None, ["c"]]),
    max_size=3,
)
made = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["get_weather", "get_time", "rm", "", 5]),
        "arguments": arguments | st.text(max_size=3) | st.none(),
    },
    optional={"id": st.text(max_size=2)},
)
spoken = (
    st.text(max_size=30)
    | st.lists(made, max_size=3).map(lambda found: calls(*found))
    | arguments.map(lambda found: calls({"name": "get_weather", "arguments": found}))
    | st.text(max_size=5).map(words)
)
spoilt = st.builds(
    lambda text, cut, more: text[:cut] + more,
    spoken,
    st.integers(0, 120),
    st.sampled_from(["", "}", " ", "x", '"', '{"content": "a"}']),
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "tool_choice": st.sampled_from(["auto", "none", "required", NAMED, None]),
        "parallel_tool_calls": st.sampled_from([True, False, None]),
        "response_format": st.sampled_from([None, {"type": "json_object"}]),
    },
)


@settings(max_examples=400)
@given(spoken | spoilt, rules)
@pytest.mark.slow
def test_a_client_gets_a_valid_call_or_the_teachers_answer(
    text: str, asked: dict[str, Any]
) -> None:
    request = {**BODY, **asked}
    answer = StudentAnswer(text, None, "stop", 1, 1)
    fault = asyncio.run(fault_of(answer, TermsOfService(output="tools"), request))
    if fault is not None:
        assert fault == Reason.STUDENT_MALFORMED
        return
    served = StudentCompletion(
        reply_of(answer, request), trace_id="a-b", student_id="c", model="gpt-4o"
    )
    [choice] = orjson.loads(served.whole())["choices"]
    message, choice_asked = choice["message"], asked.get("tool_choice")
    assert served.completion().messages == [message]
    if not message.get("tool_calls"):
        assert message["content"].strip()
        assert choice_asked in (None, "auto", "none")
        assert choice["finish_reason"] == "stop"
        return
    assert message["content"] is None
    assert choice_asked != "none"
    assert choice["finish_reason"] == ("stop" if choice_asked == NAMED else "tool_calls")
    if asked.get("parallel_tool_calls") is False:
        assert len(message["tool_calls"]) == 1
    for call in message["tool_calls"]:
        function = call["function"]
        assert function["name"] in ("get_weather", "get_time")
        if choice_asked == NAMED:
            assert function["name"] == "get_weather"
        given = json.loads(function["arguments"])
        assert meets_schema_now(given, parameters(function["name"], request))


@pytest.mark.slow
def test_the_same_through_the_proxy(
    ask: Ask, publish: Publish, student: LoopbackServer, teacher: LoopbackServer
) -> None:
    publish()

    @settings(max_examples=40)
    @given(spoken | spoilt)
    def asked(text: str) -> None:
        student.answer = says(text)
        headers, choice = ask()
        if headers["x-understudy-route"] == "fallback":
            assert choice.message.content == "echo: In Paris?"
            return
        assert headers["x-understudy-route"] == "student"
        for call in choice.message.tool_calls or []:
            given = json.loads(call.function.arguments)
            assert meets_schema_now(given, parameters(call.function.name, BODY))
        assert bool(choice.message.tool_calls) != bool(choice.message.content)

    asked()


# ---- a student's call as part of a later turn ----------------------------------------------------


@pytest.mark.slow
def test_the_id_of_a_call_has_the_form_of_the_teachers_own(ask: Ask, publish: Publish) -> None:
    """Or a teacher that wants its own form refuses the next turn."""
    publish(style=MessageStyle(call_id="{alnum:9}"))
    for stream in (False, True):
        [made] = ask(stream=stream)[1].message.tool_calls
        assert re.fullmatch(r"[a-zA-Z0-9]{9}", made.id)


@pytest.mark.slow
def test_no_call_is_served_where_the_teachers_calls_carry_state(
    ask: Ask, publish: Publish, proxy: ProxyThread
) -> None:
    publish(style=MessageStyle(stateful_calls=True))
    headers, _ = ask()
    assert headers["x-understudy-route"] == "fallback"
    assert headers["x-understudy-reason"] == "teacher_state"


@pytest.mark.parametrize("fields", [[], ["refusal"], ["annotations", "refusal"]])
@pytest.mark.slow
def test_a_message_has_no_field_that_the_teachers_do_not_have(
    fields: list[str], ask: Ask, publish: Publish, proxy: ProxyThread
) -> None:
    publish(style=MessageStyle(fields=fields))
    ask()
    [message] = json.loads(proxy.traces()[0]["output_messages"])
    assert sorted(message) == sorted(["role", "content", "tool_calls", *fields])
