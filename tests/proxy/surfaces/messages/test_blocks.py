"""Streams of messages, as servers are seen to cut them, give what the plain answer would."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.completion import Completion
from proxy.surfaces.messages.read import MessageAssembler, read_message

HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
USAGE = {"input_tokens": 3, "output_tokens": 9}


def sse(*events: Any, named: bool = True) -> bytes:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def assembled(*events: Any, named: bool = True) -> Completion:
    assembler = MessageAssembler()
    begin = {"type": "message_start", "message": {**HEAD, "content": [], "usage": USAGE}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE}
    assembler.feed(sse(begin, *events, end, {"type": "message_stop"}, named=named))
    assert assembler.done
    return assembler.finish()


def plain(*content: Any) -> Completion:
    payload = {**HEAD, "content": list(content), "stop_reason": "end_turn", "usage": USAGE}
    return read_message(json.dumps(payload).encode())


def start(block: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", **more, "content_block": block}


def delta(piece: Any, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", **more, "delta": piece}


TEXT = {"type": "text", "text": ""}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
INPUT = {"type": "input_json_delta", "partial_json": '{"x": [1, 2]}'}
HI = {"type": "text_delta", "text": "Hi"}
THOUGHT = {"type": "thinking", "thinking": "Hm."}

CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "no index": (
        [start(TEXT), delta(HI), start(CALL), delta(INPUT)],
        [{"type": "text", "text": "Hi"}, {**CALL, "input": {"x": [1, 2]}}],
    ),
    "one index for all": (
        [
            start(CALL, index=0),
            delta(INPUT, index=0),
            start({**CALL, "id": "toolu_2"}, index=0),
            delta(INPUT, index=0),
        ],
        [{**CALL, "input": {"x": [1, 2]}}, {**CALL, "id": "toolu_2", "input": {"x": [1, 2]}}],
    ),
    "a call that begins with each piece": (
        [
            start(CALL, index=0),
            delta({**INPUT, "partial_json": '{"x":'}, index=0),
            start(CALL, index=0),
            delta({**INPUT, "partial_json": "1}"}, index=0),
        ],
        [{**CALL, "input": {"x": 1}}],
    ),
    "pieces of a block that never began": ([delta(HI, index=0)], [{"type": "text", "text": "Hi"}]),
    "pieces without a type": (
        [start(TEXT, index=0), delta({"text": "H"}, index=0), delta({"text": "i"}, index=0)],
        [{"type": "text", "text": "Hi"}],
    ),
    "a text in place of a piece": ([delta("Hi", index=0)], [{"type": "text", "text": "Hi"}]),
    "a text as a list of parts": (
        [delta({**HI, "text": [{"type": "text", "text": "H"}, {"text": "i"}]}, index=0)],
        [{"type": "text", "text": "Hi"}],
    ),
    "an input as an object": (
        [start(CALL, index=0), delta({**INPUT, "partial_json": {"text": "y"}}, index=0)],
        [{**CALL, "input": {"text": "y"}}],
    ),
    "an input that begins whole": (
        [start({**CALL, "input": {"x": 1}}, index=0)],
        [{**CALL, "input": {"x": 1}}],
    ),
    "thoughts under another name": (
        [
            start({"type": "reasoning", "reasoning": ""}, index=0),
            delta({"type": "reasoning_delta", "reasoning": "Hm."}, index=0),
            start(TEXT, index=1),
            delta(HI, index=1),
        ],
        [THOUGHT, {"type": "text", "text": "Hi"}],
    ),
    "thoughts as text": (
        [delta({"type": "thinking_delta", "text": "Hm."}, index=0), delta(HI, index=1)],
        [THOUGHT, {"type": "text", "text": "Hi"}],
    ),
    "a piece that is null": (
        [start(TEXT, index=0), delta({**HI, "text": None}, index=0), delta(HI, index=0)],
        [{"type": "text", "text": "Hi"}],
    ),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_stream_cut_oddly_is_the_plain_answer(name: str, named: bool) -> None:
    events, content = CASES[name]
    found = assembled(*events, named=named)
    assert found == plain(*content)
    assert found.error_type is None


def test_events_whose_data_has_no_type_are_known_by_their_name() -> None:
    bare = b"".join(
        b"event: %b\ndata: %b\n\n" % (event.pop("type").encode(), json.dumps(event).encode())
        for event in (
            {"type": "message_start", "message": {**HEAD, "usage": USAGE}},
            delta(HI, index=0),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
            {"type": "message_stop"},
        )
    )
    assembler = MessageAssembler()
    assembler.feed(bare)
    assert assembler.done
    assert assembler.finish() == plain({"type": "text", "text": "Hi"})


def test_a_whole_message_in_one_event_is_the_answer() -> None:
    whole = {**HEAD, "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
    for begin in (whole, {"type": "message_start", "message": whole}):
        assembler = MessageAssembler()
        assembler.feed(sse({**begin, "usage": USAGE}, {"type": "message_stop"}))
        assert assembler.finish().messages == plain({"type": "text", "text": "Hi"}).messages


def test_a_plain_answer_whose_content_is_a_text() -> None:
    payload = {**HEAD, "content": "Hi", "stop_reason": "end_turn", "usage": USAGE}
    assert read_message(json.dumps(payload).encode()) == plain({"type": "text", "text": "Hi"})


@pytest.mark.parametrize("begin", [b"\xef\xbb\xbf", b": hello\n\n", b"retry: 10\n\n", b"id: 1\n"])
def test_what_may_stand_before_a_stream_is_not_part_of_it(begin: bytes) -> None:
    assembler = MessageAssembler()
    assembler.feed(begin + sse(delta(HI, index=0)))
    assert assembler.finish().messages[0]["content"] == "Hi"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "error": {"type": "overloaded_error"}},
        {"error": {"type": "overloaded_error", "message": "no"}},
    ],
)
def test_an_error_within_a_stream_is_an_error(event: dict[str, Any]) -> None:
    assembler = MessageAssembler()
    assembler.feed(sse({**event, "type": event.get("type")}, named=False))
    assert assembler.finish().error_type == "overloaded_error"


@pytest.mark.parametrize(
    "odd",
    [
        delta({"type": "of the future", "text": "x"}, index=0),
        delta({}, index=0),
        delta(7, index=0),
        delta(None, index=0),
        start(7, index=0),  # type: ignore[arg-type]
        {"type": "content_block_delta"},
        {"type": "message_start", "message": 7},
        delta(INPUT, index=5),  # of a call without a name
    ],
)
def test_what_is_not_understood_is_marked_as_unread(odd: dict[str, Any]) -> None:
    assert assembled(start(TEXT, index=0), delta(HI, index=0), odd).error_type == "unread"


def test_a_count_that_is_reset_at_the_end_stays() -> None:
    end = {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 12}}
    usage = assembled(delta(HI, index=0), end).usage
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 12)


WORDS = st.text(max_size=8)
INPUTS = st.dictionaries(WORDS, st.integers(-5, 5) | WORDS | st.lists(WORDS, max_size=2))
BLOCKS = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, WORDS)
    | st.builds(lambda text: {"type": "thinking", "thinking": text}, WORDS)
    | st.builds(lambda given: {**CALL, "input": given}, INPUTS),
    max_size=4,
)


@given(BLOCKS, st.data())
def test_any_message_cut_anyhow_is_the_plain_answer(content: list[Any], data: Any) -> None:
    content = [
        {**block, "id": f"toolu_{number}"} if block["type"] == "tool_use" else block
        for number, block in enumerate(content)
    ]
    indexed = data.draw(st.sampled_from(["each", "none", "same"]))
    events = []
    for number, block in enumerate(content):
        index = {"each": {"index": number}, "none": {}, "same": {"index": 0}}[indexed]
        field = {"text": "text", "thinking": "thinking", "tool_use": "input"}[block["type"]]
        text = json.dumps(block["input"]) if field == "input" else block[field]
        name = {"input": "partial_json"}.get(field, field)
        kind = {"input": "input_json_delta"}.get(field, f"{field}_delta")
        cut = data.draw(st.integers(0, len(text)))
        events.append(start({**block, field: {} if field == "input" else ""}, **index))
        events += [delta({"type": kind, name: part}, **index) for part in (text[:cut], text[cut:])]
    assert assembled(*events, named=data.draw(st.booleans())) == plain(*content)
