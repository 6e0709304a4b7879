"""A request to the Responses API as the chat completion that asks the same."""

import json

import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.errors import ApiError
from proxy.routing.decision import beyond_students
from proxy.surfaces.chat.request import parse as parse_chat
from proxy.surfaces.responses.request import parse
from proxy.surfaces.responses.view import chat_view
from store.chat.shape import fingerprint, input_hash
from store.records import Reason
from tests.helpers.teacher_server import error

LEAST = {"model": "gpt-4o", "input": "I am glad"}
USER = {"role": "user", "content": "I am glad"}
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}
FORMAT = {"type": "json_schema", "name": "l", "strict": True, "schema": SCHEMA}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "name": "f", "parameters": PARAMETERS, "strict": True}
CHATS_FUNCTION = {
    "type": "function",
    "function": {"name": "f", "parameters": PARAMETERS, "strict": True},
}


def parsed(body):
    return parse(json.dumps(body).encode())


# Fields of a request beside LEAST → the fields of its view.
SAME = {
    "nothing": ({}, {}),
    "same names": (
        {"temperature": 0.2, "top_p": 0.5, "user": "u", "metadata": {"task": "t"}, "stream": True},
        {"temperature": 0.2, "top_p": 0.5, "user": "u", "metadata": {"task": "t"}, "stream": True},
    ),
    "for the platform alone": (
        {"safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex"},
        {"safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex"},
    ),
    "limit": ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    "store": ({"store": True}, {}),
    "no store": ({"store": False}, {"store": False}),
    "defaults": (
        {
            "background": False,
            "include": [],
            "parallel_tool_calls": True,
            "reasoning": {"effort": None, "summary": None},
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "truncation": "disabled",
            "instructions": "",
        },
        {},
    ),
    "nulls": (dict.fromkeys(["text", "tools", "conversation", "include", "max_output_tokens"]), {}),
    "json": (
        {"text": {"format": {"type": "json_object"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "schema": (
        {"text": {"format": FORMAT}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "l", "strict": True, "schema": SCHEMA},
            }
        },
    ),
    "stream options": (
        {"stream_options": {"include_obfuscation": False}},
        {"stream_options": {"include_obfuscation": False}},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_requests_that_a_student_can_answer(name):
    more, expected = SAME[name]
    body = parsed({**LEAST, **more})
    before = json.dumps(body)
    view = chat_view(body)
    assert view == {"model": "gpt-4o", "messages": [USER], **expected}
    assert beyond_students(view) is None
    assert json.dumps(body) == before


BEYOND = {
    "previous_response_id": ({"previous_response_id": "resp_1"}, Reason.UNKNOWN_FIELD),
    "conversation": ({"conversation": "conv_1"}, Reason.UNKNOWN_FIELD),
    "conversation object": ({"conversation": {"id": "conv_1"}}, Reason.UNKNOWN_FIELD),
    "prompt": ({"prompt": {"id": "pmpt_1"}}, Reason.UNKNOWN_FIELD),
    "prompt alone": ({"prompt": {"id": "pmpt_1"}, "input": None}, Reason.UNKNOWN_FIELD),
    "background": ({"background": True}, Reason.UNKNOWN_FIELD),
    "include": ({"include": ["message.output_text.logprobs"]}, Reason.UNKNOWN_FIELD),
    "logprobs": ({"top_logprobs": 2}, Reason.LOGPROBS),
    "truncation": ({"truncation": "auto"}, Reason.UNKNOWN_FIELD),
    "effort": ({"reasoning": {"effort": "low"}}, Reason.UNKNOWN_FIELD),
    "summary": ({"reasoning": {"effort": "low", "summary": "auto"}}, Reason.UNKNOWN_FIELD),
    "verbosity": ({"text": {"verbosity": "low"}}, Reason.UNKNOWN_FIELD),
    "text of the future": ({"text": {"font": "serif"}}, Reason.UNKNOWN_FIELD),
    "web search": ({"tools": [{"type": "web_search"}]}, Reason.TOOLS),
    "mixed tools": ({"tools": [FUNCTION, {"type": "web_search"}]}, Reason.TOOLS),
    "allowed tools": (
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []},
        },
        Reason.TOOLS,
    ),
    "a choice without tools": ({"tool_choice": "required"}, Reason.TOOLS),
    "max_tool_calls": ({"max_tool_calls": 1}, Reason.UNKNOWN_FIELD),
    "instructions as items": ({"instructions": [USER]}, Reason.UNKNOWN_FIELD),
    "empty input": ({"input": []}, Reason.UNKNOWN_FIELD),
    "a field of the future": ({"mood": "glad"}, Reason.UNKNOWN_FIELD),
    "image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        Reason.NOT_TEXT,
    ),
    "file": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        Reason.NOT_TEXT,
    ),
    "no content": ({"input": [{"role": "user"}]}, Reason.NOT_TEXT),
    "reference": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, Reason.UNKNOWN_FIELD),
    "reasoning": ({"input": [{"type": "reasoning", "summary": []}, USER]}, Reason.UNKNOWN_FIELD),
    "a kind that is called as a role": (
        {"input": [{"type": "user", "content": "x"}]},
        Reason.UNKNOWN_FIELD,
    ),
    "no role": ({"input": [{"content": "x"}]}, Reason.UNKNOWN_FIELD),
    "citations": (
        {
            "input": [
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a", "annotations": [{"a": 1}]}],
                },
                USER,
            ]
        },
        Reason.UNKNOWN_FIELD,
    ),
    "phase": ({"input": [{**USER, "phase": "commentary"}]}, Reason.UNKNOWN_FIELD),
    # chat completions' own names are nothing here
    "messages": ({"messages": [USER]}, Reason.UNKNOWN_FIELD),
    "stop": ({"stop": "\n"}, Reason.UNKNOWN_FIELD),
    "response_format": ({"response_format": {"type": "text"}}, Reason.UNKNOWN_FIELD),
    "max_tokens": ({"max_tokens": 5}, Reason.UNKNOWN_FIELD),
    "n": ({"n": 1}, Reason.UNKNOWN_FIELD),
    "seed": ({"seed": 1}, Reason.UNKNOWN_FIELD),
}


@pytest.mark.parametrize("name", BEYOND)
def test_requests_that_only_the_teacher_can_answer(name):
    more, reason = BEYOND[name]
    assert beyond_students(chat_view(parsed({**LEAST, **more}))) == reason


SAID = "I am glad"
INPUTS = {
    "string": (SAID, [USER]),
    "easy": ([USER], [USER]),
    "typed": ([{"type": "message", **USER}], [USER]),
    "one part": ([{"role": "user", "content": [{"type": "input_text", "text": SAID}]}], [USER]),
    "parts": (
        [{"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}],
        [{"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]}],
    ),
    "roles": (
        [{"role": r, "content": "x"} for r in ("system", "developer", "user", "assistant")],
        [{"role": r, "content": "x"} for r in ("system", "developer", "user", "assistant")],
    ),
    "output": (
        [
            USER,
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "good", "annotations": [], "logprobs": []}
                ],
            },
            USER,
        ],
        [USER, {"role": "assistant", "content": "good"}, USER],
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_messages(name):
    asked, messages = INPUTS[name]
    view = chat_view(parsed({**LEAST, "input": asked}))
    assert view["messages"] == messages
    assert beyond_students(view) is None


def test_calls_and_their_results():
    def call(name, call_id):
        return {"type": "function_call", "name": name, "arguments": "{}", "call_id": call_id}

    def chats_call(name, call_id):
        function = {"name": name, "arguments": "{}"}
        return {"id": call_id, "type": "function", "function": function}

    asked = [
        USER,
        {"role": "assistant", "content": "I look."},
        {**call("f", "c1"), "id": "fc_1", "status": "completed"},
        call("g", "c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "2"}],
        },
        call("f", "c3"),
    ]
    assert chat_view(parsed({**LEAST, "input": asked}))["messages"] == [
        USER,
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [chats_call("f", "c1"), chats_call("g", "c2")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "assistant", "content": None, "tool_calls": [chats_call("f", "c3")]},
    ]


TOOLS = {
    "auto": ({"tools": [FUNCTION]}, {"tools": [CHATS_FUNCTION]}),
    "required": (
        {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [CHATS_FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    "by name": (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
        {"tools": [CHATS_FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    "none": (
        {"tools": [FUNCTION], "tool_choice": "none"},
        {"tools": [CHATS_FUNCTION], "tool_choice": "none"},
    ),
}


@pytest.mark.parametrize("name", TOOLS)
def test_functions(name):
    more, expected = TOOLS[name]
    view = chat_view(parsed({**LEAST, **more}))
    assert view == {"model": "gpt-4o", "messages": [USER], **expected}
    assert beyond_students(view) is None
    chat = {"model": "gpt-4o", "messages": [USER], **expected}
    assert fingerprint(view) == fingerprint(chat)


def test_a_conversation_kept_elsewhere_is_never_learned_from():
    """A part of the conversation is missing: no chat has a message of such a role."""
    for name in ("previous_response_id", "conversation", "prompt"):
        value = {"id": "x"} if name == "prompt" else "x"
        roles = [m["role"] for m in chat_view(parsed({**LEAST, name: value}))["messages"]]
        assert roles == [f"item:{name}", "user"]


class Label(pydantic.BaseModel):
    label: str


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_fingerprint_is_that_of_the_equal_chat_completion(role, teacher):
    """As the SDK sends both."""
    teacher.script(error(400, "no"), error(400, "no"))
    messages = [{"role": role, "content": "Label it."}, USER]
    with openai.OpenAI(base_url=teacher.base_url, api_key="x", max_retries=0) as sdk:
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.parse(model="gpt-4o", messages=messages, response_format=Label)
        with pytest.raises(openai.BadRequestError):
            sdk.responses.parse(
                model="gpt-4o", instructions="Label it.", input="I am glad", text_format=Label
            )
    of_chat, of_response = (request.body for request in teacher.requests)
    chat, view = parse_chat(of_chat), chat_view(parse(of_response))
    assert fingerprint(view) == fingerprint(chat)
    assert view["response_format"] == chat["response_format"]
    assert input_hash(view["messages"]) == input_hash(chat["messages"])


WRONG = {
    "no model": ({"model": None}, "model", "missing_required_parameter"),
    "model": ({"model": 5}, "model", "invalid_type"),
    "no input": ({"input": None}, "input", "missing_required_parameter"),
    "input": ({"input": {}}, "input", "invalid_type"),
    "item": ({"input": ["x"]}, "input[0]", "invalid_type"),
    "role": ({"input": [USER, {"role": 1}]}, "input[1].role", "invalid_type"),
    "type": ({"input": [{"type": []}]}, "input[0].type", "invalid_type"),
    "content": (
        {"input": [{"role": "user", "content": 5}]},
        "input[0].content",
        "invalid_type",
    ),
    "stream": ({"stream": "yes"}, "stream", "invalid_type"),
    "metadata": ({"metadata": []}, "metadata", "invalid_type"),
    "text": ({"text": "json"}, "text", "invalid_type"),
    "tools": ({"tools": {}}, "tools", "invalid_type"),
    "store": ({"store": 1}, "store", "invalid_type"),
    "limit": ({"max_output_tokens": True}, "max_output_tokens", "invalid_type"),
    "previous": ({"previous_response_id": 7}, "previous_response_id", "invalid_type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_requests_are_refused(name):
    more, param, code = WRONG[name]
    with pytest.raises(ApiError) as caught:
        parsed({**LEAST, **more})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


def test_a_request_nested_too_deeply_is_refused():
    def nested(levels):
        return f'{{"model":"m","input":"x","mood":{"[" * levels}{"]" * levels}}}'.encode()

    view = chat_view(parse(nested(200)))
    assert fingerprint(view)
    with pytest.raises(ApiError) as caught:
        parse(nested(251))
    assert "too deeply" in caught.value.message


def test_a_prompt_may_name_the_model():
    body = parsed({"prompt": {"id": "pmpt_1"}})
    assert chat_view(body)["model"] is None


NAMES = ["type", "role", "content", "text", "format", "name", "tools", "tool_calls", "id", "output"]
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["message", "user", "assistant", "input_text", "function_call", "function"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
items = st.lists(st.dictionaries(st.sampled_from(NAMES), any_json, max_size=5), max_size=4)
fields = ["text", "tools", "tool_choice", "reasoning", "instructions", "prompt", "store", "stop"]


@given(
    st.fixed_dictionaries({"model": st.just("m"), "input": items | any_json}),
    st.dictionaries(st.sampled_from([*fields, "stream_options", "include"]), any_json, max_size=4),
)
@pytest.mark.slow
def test_any_json_is_a_request_or_refused(body, more):
    try:
        taken = parsed({**more, **body})
    except ApiError as refused:
        assert refused.status == 400
        return
    view = chat_view(taken)
    fingerprint(view)
    input_hash(view["messages"])
    beyond_students(view)
    json.dumps(view)
