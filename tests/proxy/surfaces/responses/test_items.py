"""Streams of responses, as servers are seen to cut them, give what the plain answer would."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.completion import Completion
from proxy.surfaces.responses.read import ResponseAssembler, read_response
from tests.helpers.responses_teacher import message, response_object


def sse(*events: Any, named: bool = True) -> bytes:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def assembled(*events: Any, named: bool = True) -> Completion:
    """Of a stream whose last event says nothing of the output."""
    whole = response_object()
    begun = {"type": "response.created", "response": {**whole, "status": "in_progress"}}
    ended = {"type": "response.completed", "response": {**whole, "output": []}}
    assembler = ResponseAssembler()
    assembler.feed(sse(begun, *events, ended, named=named))
    assert assembler.done
    return assembler.finish()


def plain(*output: Any) -> Completion:
    return read_response(json.dumps(response_object(*output)).encode())


def delta(name: str, piece: Any, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{name}.delta", **more, "delta": piece}


def added(item: Any, **more: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", **more, "item": item}


def done(item: Any, **more: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", **more, "item": item}


def call(number: int, arguments: Any = '{"x":1}') -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": f"f{number}",
        "arguments": arguments,
    }


def begun(number: int) -> dict[str, Any]:
    return call(number, "")


def reasoning(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"text": text}]}


ARGUMENTS = "function_call_arguments"
HI = delta("output_text", "Hi", output_index=0)

CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "no index, told by their ids": (
        [
            added(begun(1)),
            added(begun(2)),
            delta(ARGUMENTS, '{"x":1}', item_id="fc_1"),
            delta(ARGUMENTS, '{"x":1}', item_id="fc_2"),
        ],
        [call(1), call(2)],
    ),
    "neither index nor id": (
        [
            added(begun(1)),
            delta(ARGUMENTS, '{"x":1}'),
            added(begun(2)),
            delta(ARGUMENTS, '{"x":1}'),
        ],
        [call(1), call(2)],
    ),
    "one index for all": (
        [
            added(begun(1), output_index=0),
            delta(ARGUMENTS, '{"x":1}', output_index=0),
            added(begun(2), output_index=0),
            delta(ARGUMENTS, '{"x":1}', output_index=0),
        ],
        [call(1), call(2)],
    ),
    "one index for all that are done": (
        [done(call(1), output_index=0), done(call(2), output_index=0)],
        [call(1), call(2)],
    ),
    "another id with each piece": (
        [
            added(begun(1), output_index=0),
            delta(ARGUMENTS, '{"x"', output_index=0, item_id="a"),
            delta(ARGUMENTS, ":1}", output_index=0, item_id="b"),
        ],
        [call(1)],
    ),
    "an item that is added twice": (
        [
            added(begun(1), output_index=0),
            delta(ARGUMENTS, '{"x"', output_index=0),
            added(begun(1), output_index=0),
            delta(ARGUMENTS, ":1}", output_index=0),
        ],
        [call(1)],
    ),
    "arguments as an object": (
        [added(begun(1), output_index=0), delta(ARGUMENTS, {"text": 1}, output_index=0)],
        [call(1, {"text": 1})],
    ),
    "pieces alone": ([HI], [message("Hi")]),
    "a text as a list of parts": (
        [delta("output_text", [{"type": "output_text", "text": "Hi"}], output_index=0)],
        [message("Hi")],
    ),
    "a text as a part": ([delta("output_text", {"text": "Hi"}, output_index=0)], [message("Hi")]),
    "a text that comes whole": (
        [{"type": "response.output_text.done", "output_index": 0, "text": "Hi"}],
        [message("Hi")],
    ),
    "a text in pieces and then whole": (
        [HI, {"type": "response.output_text.done", "output_index": 0, "text": "Hi"}],
        [message("Hi")],
    ),
    "arguments that come whole": (
        [
            added(begun(1), output_index=0),
            {"type": f"response.{ARGUMENTS}.done", "output_index": 0, "arguments": '{"x":1}'},
        ],
        [call(1)],
    ),
    **{
        f"reasoning as {name}": (
            [
                delta(name, "be", output_index=0),
                delta(name, "cause", output_index=0),
                delta("output_text", "Hi", output_index=1),
            ],
            [reasoning("because"), message("Hi")],
        )
        for name in ("reasoning", "reasoning_text", "reasoning_content", "reasoning_summary_text")
    },
    "two parts of a summary": (
        [
            delta("reasoning_summary_text", "a", output_index=0, summary_index=0),
            delta("reasoning_summary_text", "b", output_index=0, summary_index=1),
        ],
        [{"type": "reasoning", "summary": [{"text": "a"}, {"text": "b"}]}],
    ),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_stream_cut_oddly_is_the_plain_answer(name: str, named: bool) -> None:
    events, output = CASES[name]
    found = assembled(*events, named=named)
    assert found == plain(*output)
    assert found.error_type is None


def test_events_whose_data_has_no_type_are_known_by_their_name() -> None:
    ended = response_object(message("Hi"))
    raw = f"event: response.completed\ndata: {json.dumps({'response': ended})}\n\n"
    assembler = ResponseAssembler()
    assembler.feed(raw.encode())
    assert assembler.done
    assert assembler.finish() == plain(message("Hi"))


@pytest.mark.parametrize("kind", ["response.done", None])
def test_a_last_event_under_another_name_is_the_last(kind: str | None) -> None:
    whole = response_object(message("Hi"))
    event = whole if kind is None else {"type": kind, "response": whole}
    assembler = ResponseAssembler()
    assembler.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert assembler.done
    assert assembler.finish() == plain(message("Hi"))


@pytest.mark.parametrize(
    "output",
    [
        {"type": "message", "role": "assistant", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
        {"type": "message", "content": ["Hi"]},
    ],
)
def test_a_plain_message_in_another_form(output: dict[str, Any]) -> None:
    assert plain(output) == plain(message("Hi"))


def test_a_call_without_a_call_id_has_its_own() -> None:
    [answer] = plain({**call(1), "call_id": None}).messages
    assert answer["tool_calls"][0]["id"] == "fc_1"


def test_a_part_that_is_no_text_is_not_lost() -> None:
    image = {"type": "output_image", "image_url": "https://x"}
    both = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}, image]}
    [answer] = plain(both).messages
    assert answer["content"] == "Hi"
    assert answer["items"] == [{"type": "message", "content": [image]}]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_failed_is_an_error(status: str) -> None:
    whole = response_object(message("Hi"), status=status)
    assert read_response(json.dumps(whole).encode()).error_type == "error"
    assembler = ResponseAssembler()
    assembler.feed(sse({"type": f"response.{status}", "response": whole}))
    assert assembler.finish().error_type == "error"


@pytest.mark.parametrize(
    "odd", [{"type": "response.output_text.delta"}, {"type": "response.output_item.added"}, 7, "x"]
)
def test_what_is_not_understood_is_marked_as_unread(odd: Any) -> None:
    assert assembled(HI, odd, named=False).error_type == "unread"


WORDS = st.text(max_size=8)
OUTPUTS = st.lists(
    st.builds(lambda text: ("output_text", text), WORDS)
    | st.builds(lambda text: ("reasoning_text", text), WORDS)
    | st.builds(
        lambda given: (ARGUMENTS, json.dumps(given)), st.dictionaries(WORDS, st.integers(-5, 5))
    ),
    min_size=1,
    max_size=4,
)


@given(OUTPUTS, st.data())
def test_any_output_cut_anyhow_is_the_plain_answer(items: list[Any], data: Any) -> None:
    indexed = data.draw(st.sampled_from(["each", "none", "same"]))
    events, output = [], []
    for number, (name, text) in enumerate(items):
        index = {"each": {"output_index": number}, "none": {}, "same": {"output_index": 0}}[indexed]
        if name == ARGUMENTS:
            opening, whole = begun(number), call(number, text)
        elif name == "output_text":
            opening = {"type": "message", "id": f"msg_{number}", "content": []}
            whole = message(text)
        else:
            opening, whole = {"type": "reasoning", "id": f"rs_{number}"}, reasoning(text)
        output.append(whole)
        cut = data.draw(st.integers(0, len(text)))
        events.append(added(opening, **index))
        events += [delta(name, part, **index) for part in (text[:cut], text[cut:])]
    assert assembled(*events, named=data.draw(st.booleans())) == plain(*output)
