"""Reading a teacher's response: every golden transcript of typed events, cut at every byte."""

import json
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.responses.read import ResponseAssembler, completion_of, read_response
from tests.helpers.paths import GOLDEN as TRANSCRIPTS
from tests.helpers.responses_teacher import message, response_object

GOLDEN = TRANSCRIPTS / "responses"
TRANSCRIPTS = sorted(path.stem for path in GOLDEN.glob("*.sse"))
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


def transcript(name):
    raw = (GOLDEN / f"{name}.sse").read_bytes()
    return raw, json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def assembled(*pieces):
    assembler = ResponseAssembler()
    for piece in pieces:
        assembler.feed(piece)
    return asdict(assembler.finish())


def end_of(raw):
    """Where the data of the last event ends."""
    lines = [line for line in raw.splitlines() if line.startswith(b"data: {")]
    return raw.index(lines[-1]) + len(lines[-1])


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_whole_stream_is_assembled(name):
    raw, expected = transcript(name)
    assert assembled(raw) == expected


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_cut_in_two_anywhere(name):
    raw, expected = transcript(name)
    for cut in range(0, len(raw) + 1, 3):
        assert assembled(raw[:cut], raw[cut:]) == expected, cut


@given(st.sampled_from(TRANSCRIPTS), st.lists(st.integers(0, 9_000), max_size=8))
def test_cut_into_pieces(name, cuts):
    raw, expected = transcript(name)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    assert assembled(*pieces) == expected


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_end_is_seen_with_its_last_byte(name):
    """Byte by byte: a client that waits for no line end has not got it before."""
    raw, expected = transcript(name)
    end = end_of(raw)
    assembler = ResponseAssembler()
    for i in range(len(raw)):
        assembler.feed(raw[i : i + 1])
        assert assembler.done == (i >= end - 1), i
    assert asdict(assembler.finish()) == expected


@pytest.mark.parametrize(
    "name", sorted({*TRANSCRIPTS} - {"error", "error_of_chats_form", "failed"})
)
def test_without_its_last_event(name):
    """What came until then is known, and that it is not finished."""
    raw, expected = transcript(name)
    last = raw.rindex(b"data: {")
    found = assembled(raw[:last])
    assert found["messages"] == expected["messages"]
    assert found["response_id"] == expected["response_id"]
    assert found["model"] == expected["model"]
    assert (found["finish_reasons"], found["usage"]) == ([], {})


def test_stopped_in_the_middle():
    raw, _ = transcript("text")
    cut = raw.index("界".encode()) + 1  # inside a character
    assert assembled(raw[:cut])["messages"][0]["content"] == "Grüß dich, 世"
    raw, _ = transcript("parallel_calls")
    [message] = assembled(raw[: raw.index(b'"delta":"ation')])["messages"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"loc'


def test_a_stream_that_done_ends_without_a_last_event():
    raw, _ = transcript("text")
    assembler = ResponseAssembler()
    assembler.feed(raw[: raw.rindex(b"event: ")])
    assert not assembler.done
    assembler.feed(b"data: [DONE]")
    assert assembler.done


def test_nothing_after_the_end_counts():
    raw, expected = transcript("text")
    other, _ = transcript("refusal")
    assert assembled(raw, other) == expected
    assert assembled(raw + other) == expected


def test_events_of_several_data_lines():
    raw, expected = transcript("text")
    split = raw.replace(b'data: {"type":', b'data: {\ndata: "type":')
    assert assembled(split) == expected


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_never_raises_on_bytes(pieces):
    assembled(*pieces)


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
def test_never_raises_on_json_of_any_shape(payloads):
    raw = b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)
    json.dumps(assembled(raw))
    for payload in payloads:
        json.dumps(asdict(read_response(json.dumps(payload).encode())))


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
        ([], None),
    ],
)
def test_error_type(payload, expected):
    assert read_response(json.dumps(payload).encode()).error_type == expected


def test_two_messages_are_one_text():
    found = completion_of(response_object(message("a"), message("b")))
    assert found.messages == [{"role": "assistant", "content": "ab"}]
