"""Assembling an answer from its stream: every golden transcript, cut at every byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.chat.read import CompletionAssembler, read_completion
from tests.helpers.transcripts import Transcripts

STREAMS = Transcripts(CompletionAssembler)
TRANSCRIPTS = STREAMS.names


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_done_is_seen_with_its_last_byte(name):
    raw, _ = STREAMS.read(name)
    end = raw.find(b"[DONE]")
    assembler = CompletionAssembler()
    for i in range(len(raw)):
        assembler.feed(raw[i : i + 1])
        assert assembler.done == (end >= 0 and i >= end + len(b"[DONE]") - 1), i


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "index", "tool_calls", "function", "usage", "id", "error"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(json_values)
@pytest.mark.slow
def test_never_raises_on_json_of_any_shape(payload):
    raw = json.dumps(payload).encode()
    STREAMS.assembled(b"data: " + raw + b"\n\n")
    read_completion(raw)


def test_a_stream_stopped_anywhere_gives_what_has_come():
    raw, _ = STREAMS.read("openai")
    cut = raw.index("世界".encode()[:3]) + 1  # inside the first character
    [message] = STREAMS.assembled(raw[:cut])["messages"]
    assert message["content"] == "Grüß dich"


def test_plain_answer():
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": None}
    message = {"role": "assistant", "content": "hi", "annotations": []}
    completion = read_completion(
        json.dumps(
            {
                "id": "chatcmpl-1",
                "model": "gpt-4o",
                "choices": [{"message": message, "finish_reason": "stop"}],
                "usage": usage,
            }
        ).encode()
    )
    assert completion.messages == [message]
    assert completion.finish_reasons == ["stop"]
    assert completion.tokens("prompt_tokens") == 3
    assert completion.tokens("prompt_tokens_details", "cached_tokens") is None
    assert completion.error_type is None


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"error": {"type": "insufficient_quota", "code": "quota"}}, "insufficient_quota"),
        ({"error": {"type": None, "code": "quota"}}, "quota"),
        ({"error": {"message": "?"}}, "error"),
        ({"error": "plain text"}, "error"),
        ({"error": None}, "unread"),
    ],
)
def test_error_type(payload, expected):
    assert read_completion(json.dumps(payload).encode()).error_type == expected
