"""Reading a teacher's response: every golden transcript of typed events, cut at every byte."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.responses.read import ResponseAssembler, completion_of, read_response
from tests.helpers.paths import GOLDEN
from tests.helpers.responses_teacher import message, response_object
from tests.helpers.transcripts import Transcripts

STREAMS = Transcripts(ResponseAssembler, GOLDEN / "responses")
TRANSCRIPTS = STREAMS.names
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


def end_of(raw):
    """Where the data of the last event ends."""
    lines = [line for line in raw.splitlines() if line.startswith(b"data: {")]
    return raw.index(lines[-1]) + len(lines[-1])


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_end_is_seen_with_its_last_byte(name):
    """Byte by byte: a client that waits for no line end has not got it before."""
    raw, expected = STREAMS.read(name)
    end = end_of(raw)
    assembler = ResponseAssembler()
    for i in range(len(raw)):
        assembler.feed(raw[i : i + 1])
        assert assembler.done == (i >= end - 1), i
    assert msgspec.structs.asdict(assembler.finish()) == expected


@pytest.mark.parametrize(
    "name", sorted({*TRANSCRIPTS} - {"error", "error_of_chats_form", "failed"})
)
def test_without_its_last_event(name):
    """What came until then is known, and that it is not finished."""
    raw, expected = STREAMS.read(name)
    last = raw.rindex(b"data: {")
    found = STREAMS.assembled(raw[:last])
    assert found["messages"] == expected["messages"]
    assert found["response_id"] == expected["response_id"]
    assert found["model"] == expected["model"]
    assert (found["finish_reasons"], found["usage"]) == ([], {})


def test_stopped_in_the_middle():
    raw, _ = STREAMS.read("text")
    cut = raw.index("界".encode()) + 1  # inside a character
    assert STREAMS.assembled(raw[:cut])["messages"][0]["content"] == "Grüß dich, 世"
    raw, _ = STREAMS.read("parallel_calls")
    [message] = STREAMS.assembled(raw[: raw.index(b'"delta":"ation')])["messages"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"loc'


def test_a_stream_that_done_ends_without_a_last_event():
    raw, _ = STREAMS.read("text")
    assembler = ResponseAssembler()
    assembler.feed(raw[: raw.rindex(b"event: ")])
    assert not assembler.done
    assembler.feed(b"data: [DONE]")
    assert assembler.done


def test_nothing_after_the_end_counts():
    raw, expected = STREAMS.read("text")
    other, _ = STREAMS.read("refusal")
    assert STREAMS.assembled(raw, other) == expected
    assert STREAMS.assembled(raw + other) == expected


def test_events_of_several_data_lines():
    raw, expected = STREAMS.read("text")
    split = raw.replace(b'data: {"type":', b'data: {\ndata: "type":')
    assert STREAMS.assembled(split) == expected


KEYS = ["type", "response", "item", "output_index", "delta", "output", "content", "usage", "id"]
KINDS = ["response.output_text.delta", "response.created", "response.output_item.done", *ENDS]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(KINDS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "status", "summary", "error"]), inner, max_size=5)
    ),
    max_leaves=15,
)


@given(st.lists(json_values, max_size=4))
@pytest.mark.slow
def test_never_raises_on_json_of_any_shape(payloads):
    raw = b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)
    json.dumps(STREAMS.assembled(raw))
    for payload in payloads:
        json.dumps(msgspec.structs.asdict(read_response(json.dumps(payload).encode())))


def test_a_plain_answer():
    found = read_response(json.dumps(response_object(message("hi"))).encode())
    assert found.response_id.startswith("resp_")
    assert found.model == "gpt-4o-2024-08-06"
    assert found.messages == [{"role": "assistant", "content": "hi"}]
    assert found.finish_reasons == ["stop"]
    assert found.tokens("prompt_tokens") == 36
    assert found.tokens("completion_tokens") == 87
    assert found.tokens("prompt_tokens_details", "cached_tokens") == 4
    assert found.tokens("completion_tokens_details", "reasoning_tokens") == 2
    assert found.error_type is None


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("changes", "finish_reasons"),
    [
        ({"status": "completed"}, ["stop"]),
        ({"output": [CALL]}, ["tool_calls"]),
        ({"output": [message("a"), CALL]}, ["tool_calls"]),
        ({"status": "incomplete"}, ["incomplete"]),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            ["length"],
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            ["content_filter"],
        ),
        ({"status": "failed"}, []),
        ({"status": "in_progress"}, []),
        ({"status": "queued", "output": []}, []),
    ],
)
def test_finish_reasons(changes, finish_reasons):
    assert completion_of(response_object(message("hi")) | changes).finish_reasons == finish_reasons


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"error": {"type": "insufficient_quota", "code": "quota"}}, "insufficient_quota"),
        (response_object(status="failed", error={"code": "server_error"}), "server_error"),
        (response_object(), None),
        ([], "unread"),
    ],
)
def test_error_type(payload, expected):
    assert read_response(json.dumps(payload).encode()).error_type == expected


def test_two_messages_are_one_text():
    found = completion_of(response_object(message("a"), message("b")))
    assert found.messages == [{"role": "assistant", "content": "ab"}]
