"""A Messages request as the chat completion that asks the same, field by field."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.errors import ApiError
from proxy.routing.decision import beyond_students
from proxy.surfaces.messages.surface import Messages
from proxy.surfaces.messages.view import chat_view
from store.chat.shape import fingerprint
from store.records import Reason

HELLO = {"role": "user", "content": "hello"}
BODY = {"model": "claude", "max_tokens": 64, "messages": [HELLO]}
VIEW = {"model": "claude", "max_completion_tokens": 64, "messages": [HELLO]}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "output", "strict": True, "schema": SCHEMA},
}
TOOL = {"name": "now", "description": "The time.", "input_schema": SCHEMA}
FUNCTION = {
    "type": "function",
    "function": {"name": "now", "description": "The time.", "parameters": SCHEMA},
}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
TEXT = {"type": "text", "text": "hello"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "noon"}
CITED = {**TEXT, "citations": [{"type": "char_location", "cited_text": "x"}]}


def view(**change):
    messages = Messages()
    return messages.read_request(json.dumps({**BODY, **change}).encode(), None).chat


def user(*blocks):
    return {"messages": [{"role": "user", "content": list(blocks)}]}


UNKNOWN, NOT_TEXT, TOOLS = Reason.UNKNOWN_FIELD, Reason.NOT_TEXT, Reason.TOOLS
# change of the body → change of the view, and why no student may answer
TABLE = [
    ({}, {}, None),
    # who says what
    (
        {"system": "Label it."},
        {"messages": [{"role": "system", "content": "Label it."}, HELLO]},
        None,
    ),
    (
        {"system": [{**TEXT, **CACHED}, TEXT]},
        {"messages": [{"role": "system", "content": [TEXT, TEXT]}, HELLO]},
        None,
    ),
    ({"system": ""}, {}, None),
    ({"system": []}, {}, None),
    ({"system": None}, {}, None),
    (
        {"system": [IMAGE]},
        {"messages": [{"role": "system", "content": [IMAGE]}, HELLO]},
        NOT_TEXT,
    ),
    (user({**TEXT, **CACHED, "citations": None}), user(TEXT), None),
    (user(TEXT, IMAGE), user(TEXT, IMAGE), NOT_TEXT),
    (user(RESULT), user(RESULT), NOT_TEXT),
    (user(CITED), user(CITED), UNKNOWN),
    (user({"type": "text"}), user({"type": "text"}), UNKNOWN),
    (user("text"), user("text"), NOT_TEXT),
    (
        {"messages": [HELLO, {"role": "assistant", "content": "yes?"}, HELLO]},
        {"messages": [HELLO, {"role": "assistant", "content": "yes?"}, HELLO]},
        None,
    ),
    (
        {"messages": [HELLO, {"role": "assistant", "content": [TEXT, USE]}, HELLO]},
        {"messages": [HELLO, {"role": "assistant", "content": [TEXT, USE]}, HELLO]},
        NOT_TEXT,
    ),
    (
        {"messages": [HELLO, {"role": "assistant", "content": "It is"}]},
        {"messages": [HELLO, {"role": "assistant", "content": "It is"}], "prefill": True},
        UNKNOWN,
    ),
    # how to answer
    ({"max_tokens": 0}, {"max_completion_tokens": None, "messages.max_tokens": 0}, UNKNOWN),
    ({"max_tokens": None}, {"max_completion_tokens": None}, None),
    ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}, None),
    ({"stream": True}, {"stream": True}, None),
    ({"service_tier": "auto"}, {"service_tier": "auto"}, None),
    ({"stop_sequences": []}, {}, None),
    ({"stop_sequences": ["\n"]}, {"stop": ["\n"], "stop_sequences": ["\n"]}, UNKNOWN),
    ({"top_k": 5}, {"top_k": 5}, UNKNOWN),
    ({"thinking": {"type": "disabled"}}, {}, None),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        UNKNOWN,
    ),
    ({"cache_control": {"type": "ephemeral"}}, {}, None),
    ({"output_config": {"format": FORMAT}}, {"response_format": RESPONSE_FORMAT}, None),
    ({"output_config": {"format": None}}, {}, None),
    ({"output_config": {"effort": "low"}}, {"output_config": {"effort": "low"}}, UNKNOWN),
    (
        {"output_config": {"effort": "low", "format": FORMAT}},
        {"output_config": {"effort": "low"}, "response_format": RESPONSE_FORMAT},
        UNKNOWN,
    ),
    (
        {"output_config": {"format": {"type": "grammar"}}},
        {"output_config": {"format": {"type": "grammar"}}},
        UNKNOWN,
    ),
    ({"output_format": FORMAT}, {"response_format": RESPONSE_FORMAT}, None),
    ({"output_format": {"type": "new"}}, {"output_format": {"type": "new"}}, UNKNOWN),
    (
        {"output_format": FORMAT, "output_config": {"format": FORMAT}},
        {"output_format": FORMAT, "response_format": RESPONSE_FORMAT},
        UNKNOWN,
    ),
    # for whom
    ({"metadata": {"user_id": "u-7"}}, {"user": "u-7"}, None),
    (
        {"metadata": {"user_id": None, "task": "triage"}},
        {"metadata": {"task": "triage"}},
        None,
    ),
    # tools
    ({"tools": []}, {}, None),
    ({"tools": [{**TOOL, **CACHED}]}, {"tools": [FUNCTION]}, None),
    ({"tools": [{**TOOL, "type": "custom"}]}, {"tools": [FUNCTION]}, None),
    ({"tools": [SEARCH]}, {"tools": [SEARCH]}, TOOLS),
    ({"tools": [TOOL, SEARCH]}, {"tools": [FUNCTION, SEARCH]}, TOOLS),
    (
        {"tools": [{**TOOL, "defer_loading": True}]},
        {"tools": [{**TOOL, "defer_loading": True}]},
        TOOLS,
    ),
    ({"tools": ["now"]}, {"tools": ["now"]}, TOOLS),
    (
        {"tools": [TOOL], "tool_choice": {"type": "auto"}},
        {"tools": [FUNCTION], "tool_choice": "auto"},
        None,
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
        None,
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"tools": [FUNCTION], "tool_choice": "none"},
        None,
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "now"}},
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "function": {"name": "now"}},
        },
        None,
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "new"}},
        {"tools": [FUNCTION], "tool_choice": {"type": "new"}},
        TOOLS,
    ),
    ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}, TOOLS),
    # what only Anthropic has, and what nobody has yet
    ({"mcp_servers": [{"url": "x"}]}, {"mcp_servers": [{"url": "x"}]}, UNKNOWN),
    ({"mcp_servers": []}, {}, None),
    ({"container": "c"}, {"container": "c"}, UNKNOWN),
    ({"context_management": {"edits": []}}, {"context_management": {"edits": []}}, UNKNOWN),
    ({"speed": "fast"}, {"speed": "fast"}, UNKNOWN),
    ({"from_the_future": 1}, {"from_the_future": 1}, UNKNOWN),
    ({"from_the_future": None}, {}, None),
    # what means something else in a chat completion
    ({"stop": "x"}, {"messages.stop": "x"}, UNKNOWN),
    ({"user": {"a": 1}}, {"messages.user": {"a": 1}}, UNKNOWN),
    ({"response_format": "json"}, {"messages.response_format": "json"}, UNKNOWN),
    ({"seed": 1}, {"messages.seed": 1}, UNKNOWN),
    ({"n": 1}, {"messages.n": 1}, UNKNOWN),
    ({"parallel_tool_calls": True}, {"messages.parallel_tool_calls": True}, UNKNOWN),
]


@pytest.mark.parametrize(("change", "expected", "beyond"), TABLE)
def test_the_view_and_who_may_answer(change, expected, beyond):
    wanted = {name: value for name, value in {**VIEW, **expected}.items() if value is not None}
    found = view(**change)
    assert found == wanted
    assert beyond_students(found) == beyond


def test_the_view_has_the_fingerprint_of_the_equal_chat_completion():
    chat = {
        "model": "claude",
        "messages": [{"role": "system", "content": "Label it."}, HELLO],
        "response_format": RESPONSE_FORMAT,
    }
    asked = view(system=[{**TEXT, "text": "Label it."}], output_config={"format": FORMAT})
    assert fingerprint(asked) == fingerprint(chat)


def test_the_body_is_not_changed():
    body = {
        **BODY,
        "system": [{**TEXT, **CACHED}],
        "tools": [{**TOOL, **CACHED}],
        "metadata": {"user_id": "u"},
    }
    before = json.dumps(body)
    chat_view(body)
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"messages": None},
        {"messages": []},
        {"messages": ["hello"]},
        {"messages": [{"content": "hello"}]},
        {"messages": [{"role": "user", "content": {}}]},
        {"max_tokens": "64"},
        {"max_tokens": True},
        {"stream": 1},
        {"temperature": "hot"},
        {"system": {}},
        {"stop_sequences": "x"},
        {"metadata": "u"},
        {"metadata": {"user_id": 7}},
        {"tools": {}},
        {"tool_choice": "auto"},
        {"output_config": "json"},
        {"output_format": "json"},
    ],
)
def test_what_cannot_be_a_request_is_refused(change):
    with pytest.raises(ApiError) as caught:
        view(**change)
    assert caught.value.status == 400
    payload = json.loads(Messages().write_error(caught.value))
    assert payload["type"] == "error"
    assert payload["error"]["type"] == "invalid_request_error"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "name", "format", "schema", "input_schema", "role"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
fields = st.sampled_from(
    [
        *("system", "metadata", "tools", "tool_choice", "output_config", "output_format"),
        *("stop_sequences", "thinking", "max_tokens", "stream", "user", "stop", "functions"),
    ]
)


@given(st.dictionaries(fields, json_values), json_values)
@example({"tool_choice": {"type": []}}, "hi")
@pytest.mark.slow
def test_any_json_is_viewed_or_refused(change, content):
    try:
        found = view(**change, messages=[{"role": "user", "content": content}])
    except ApiError as error:
        assert error.status == 400
        return
    assert isinstance(found["messages"], list)
    assert len(fingerprint(found)) == 16
    beyond_students(found)
