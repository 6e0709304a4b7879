"""Reading a teacher's messages: every golden transcript, cut at every byte."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.messages.read import MessageAssembler, read_message, usage_of
from tests.helpers.paths import GOLDEN
from tests.helpers.transcripts import Transcripts

STREAMS = Transcripts(MessageAssembler, GOLDEN / "messages")
TRANSCRIPTS = STREAMS.names


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_end_is_seen_with_its_mark(name):
    """Not before all that counts has come, and before the last line has left."""
    raw, _ = STREAMS.read(name)
    marks = [raw.rfind(mark) + len(mark) for mark in MARKS if mark in raw]
    assembler = MessageAssembler()
    for i in range(len(raw)):
        assembler.feed(raw[i : i + 1])
        assert assembler.done == (bool(marks) and i + 1 >= min(marks)), i


MARKS = (b"event: message_stop", b'data: {"type":"message_stop"}')


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_finished_at_the_end_mark_it_is_whole(name):
    raw, expected = STREAMS.read(name)
    assembler = MessageAssembler()
    for i in range(len(raw)):
        assembler.feed(raw[i : i + 1])
        if assembler.done:
            break
    assert msgspec.structs.asdict(assembler.finish()) == expected


NAMES = [
    *("type", "index", "message", "content_block", "content", "delta", "usage", "id", "error"),
    *("text", "thinking", "partial_json", "input", "stop_reason", "input_tokens", "output_tokens"),
    "output_tokens_details",
]
KINDS = [
    *("message_start", "content_block_start", "content_block_delta", "message_delta", "error"),
    *("text", "thinking", "tool_use", "text_delta", "input_json_delta", "message_stop"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.lists(json_values, max_size=4))
@pytest.mark.slow
def test_never_raises_on_json_of_any_shape(payloads):
    STREAMS.assembled(*[b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads])
    for payload in payloads:
        read_message(json.dumps(payload).encode())


def test_a_stream_stopped_anywhere_gives_what_has_come():
    raw, _ = STREAMS.read("tools")
    cut = raw.index(b"San Fra") + len(b"San Fra")
    [message] = STREAMS.assembled(raw[:cut])["messages"]
    assert message["content"] == "I'll look it up."
    [call] = message["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"location":'}


def test_plain_answer():
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "text", "text": "One, "},
        {"type": "text", "text": "two."},
        {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {"zone": "UTC"}},
    ]
    payload = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": content,
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 9},
    }
    completion = read_message(json.dumps(payload).encode())
    function = {"name": "now", "arguments": '{"zone":"UTC"}'}
    assert completion.messages == [
        {
            "role": "assistant",
            "content": "One, two.",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        }
    ]
    assert (completion.response_id, completion.model) == ("msg_1", "claude-x")
    assert completion.finish_reasons == ["tool_calls"]
    assert completion.error_type is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        ("of the future", "of the future"),
    ],
)
def test_finish_reasons(reason, finish):
    raw = json.dumps({"type": "message", "content": [], "stop_reason": reason}).encode()
    assert read_message(raw).finish_reasons == [finish]


@pytest.mark.parametrize(
    ("usage", "prompt", "cached", "said", "thought"),
    [
        ({"input_tokens": 3, "output_tokens": 9}, 3, 0, 9, 0),
        (
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 20,
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 4},
            },
            *(123, 100, 9, 4),
        ),
        (
            {"input_tokens": 3, "cache_read_input_tokens": None, "output_tokens": 9},
            *(3, 0, 9, 0),
        ),
    ],
)
def test_usage(usage, prompt, cached, said, thought):
    assert usage_of(usage) == {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 3}, {"input_tokens": "3"}])
def test_usage_without_counts(usage):
    assert usage_of(usage) == {}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"type": "error", "error": {"type": "overloaded_error"}}, "overloaded_error"),
        ({"error": {"type": "invalid_request_error", "code": "x"}}, "invalid_request_error"),
        ({"type": "error", "error": {}}, "error"),
    ],
)
def test_error_type(payload, expected):
    completion = read_message(json.dumps(payload).encode())
    assert (completion.error_type, completion.messages) == (expected, [])
