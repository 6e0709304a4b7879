"""A student's response, as the official SDK's own models take it."""

import json

import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from proxy.surfaces.responses.read import ResponseAssembler
from proxy.surfaces.responses.write import StudentResponse
from store.chat.student_wire import StudentAnswer
from store.chat.tools import ToolCall
from store.files.responses import trace_of
from store.ids import new_id

EVENT = pydantic.TypeAdapter(ResponseStreamEvent)
LEAST = {"model": "gpt-4o", "input": "hi"}
TEXT = StudentAnswer("good 🙂", None, "stop", 7, 3)
CALLS = StudentAnswer(
    "", None, "tool_calls", 7, 3, calls=(ToolCall("f", '{"a":1}'), ToolCall("g", "{}"))
)
ANSWERS = {"text": TEXT, "calls": CALLS}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
REQUESTS = {
    "least": LEAST,
    "nulls": {**LEAST, "store": None, "text": None, "tools": None, "metadata": None},
    "much": {
        **LEAST,
        "instructions": "Label it.",
        "max_output_tokens": 9,
        "metadata": {"task": "mood", "team": "a"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": None},
        "store": False,
        "temperature": 0.2,
        "text": {"format": {"type": "json_schema", "name": "l", "schema": {"type": "object"}}},
        "tools": [FUNCTION],
        "tool_choice": {"type": "function", "name": "f"},
        "top_p": 0.5,
        "user": "u-7",
    },
}


def answered(answer=TEXT, body=LEAST, trace_id=None):
    return StudentResponse(answer, body, trace_id=trace_id or new_id())


def events_of(raw):
    """The payloads, each with the name of its event."""
    for block in raw.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        yield payload


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_sdks_models_take_it(answer, request_):
    given = answered(ANSWERS[answer], REQUESTS[request_])
    found = Response.model_validate_json(given.whole(), strict=False)
    assert found.status == "completed"
    assert found.usage.total_tokens == 10
    events = list(events_of(given.events()))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        assert EVENT.validate_python(event).type == event["type"]


def test_a_response_repeats_its_requests_fields():
    found = json.loads(answered(body=REQUESTS["much"]).whole())
    said = {name: found[name] for name in REQUESTS["much"] if name in found}
    expected = {name: value for name, value in REQUESTS["much"].items() if name != "input"}
    schema = {**expected["text"]["format"], "description": None, "strict": False}
    assert said == {
        **expected,
        "metadata": {"team": "a"},  # without the tag
        "reasoning": {"effort": None, "summary": None},
        "text": {"format": schema, "verbosity": "medium"},
        "tools": [{**FUNCTION, "description": None}],
    }


@pytest.mark.parametrize("name", ["least", "nulls"])
def test_the_defaults(name):
    found = json.loads(answered(body=REQUESTS[name]).whole())
    assert found["object"] == "response"
    assert found["created_at"] <= found["completed_at"]
    assert (found["temperature"], found["top_p"], found["top_logprobs"]) == (1.0, 1.0, 0)
    assert (found["store"], found["background"], found["parallel_tool_calls"]) == (
        True,
        False,
        True,
    )
    assert (found["tool_choice"], found["tools"], found["metadata"]) == ("auto", [], {})
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert found["truncation"] == "disabled"
    for absent in ("error", "incomplete_details", "instructions", "previous_response_id", "user"):
        assert found[absent] is None


def test_ids_lead_back_to_the_trace():
    trace_id = new_id()
    for answer in ANSWERS.values():
        found = json.loads(answered(answer, trace_id=trace_id).whole())
        ids = [found["id"], *(item["id"] for item in found["output"])]
        assert [trace_of(name) for name in ids] == [trace_id] * len(ids)
        assert len(set(ids)) == len(ids)


def test_the_events_of_a_text():
    events = list(events_of(answered().events()))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert (events[0]["response"]["output"], events[0]["response"]["usage"]) == ([], None)
    assert (events[3]["part"]["text"], events[4]["delta"]) == ("", TEXT.text)
    assert events[-1]["response"]["output"] == [events[-2]["item"]]


def test_the_events_of_calls():
    events = list(events_of(answered(CALLS).events()))
    of_one = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        *of_one,
        *of_one,
        "completed",
    ]
    assert [event["output_index"] for event in events[2:10]] == [0] * 4 + [1] * 4
    assert events[2]["item"]["arguments"] == ""
    assert events[-1]["response"]["output"][0]["arguments"] == '{"a":1}'


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_trace_holds_the_clients_answer(answer):
    given = answered(ANSWERS[answer])
    assembler = ResponseAssembler()
    assembler.feed(given.events())
    assert assembler.done
    assert assembler.finish() == given.completion()
    assert given.completion().finish_reasons == [ANSWERS[answer].finish_reason]
    [message] = given.completion().messages
    assert message["content"] == (ANSWERS[answer].text or None)
