"""Streams as providers are seen to cut them give the message of the plain answer."""

import json

import pytest

from proxy.surfaces.chat.read import CompletionAssembler, read_completion


def assembled(*deltas, bom=b""):
    assembler = CompletionAssembler()
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    assembler.feed(bom + lines + b"data: [DONE]\n\n")
    completion = assembler.finish()
    assert completion.error_type is None
    [message] = completion.messages
    return message


def call(name, arguments, **more):
    return {"type": "function", **more, "function": {"name": name, "arguments": arguments}}


def calls_of(*parts):
    message = assembled(*[{"tool_calls": [part]} for part in parts])
    return [
        (one.get("id"), one["function"]["name"], one["function"]["arguments"])
        for one in message["tool_calls"]
    ]


def test_content_as_lists_of_text_is_one_text_without_line_ends():
    pieces = [{"content": [{"type": "text", "text": text}]} for text in ("Grü", "ße", "!")]
    assert assembled(*pieces)["content"] == "Grüße!"
    assert assembled({"content": "Grü"}, *pieces[1:])["content"] == "Grüße!"
    assert assembled(pieces[0], {"content": "ße!"})["content"] == "Grüße!"


def test_thoughts_within_content_grow_to_one_part():
    def thought(text):
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

    assert assembled(thought("It "), thought("is"), {"content": "ya"}, {"content": "y"}) == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "It is"}]},
            {"type": "text", "text": "yay"},
        ],
    }


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "reasoning_text", "thinking"])
def test_reasoning_under_any_name_is_whole(name):
    assert assembled({name: "be"}, {name: "cause"}, {"content": "x"})[name] == "because"


def test_details_of_reasoning_grow_by_their_index():
    def detail(text, index=0):
        return {"reasoning_details": [{"type": "reasoning.text", "index": index, "text": text}]}

    details = assembled(detail("a"), detail("b"), detail("c", 1))["reasoning_details"]
    assert [one["text"] for one in details] == ["ab", "c"]


def test_calls_without_an_index_are_not_one_call():
    assert calls_of(call("a", '{"x":1}', id="1"), call("b", '{"y":', id="2"), call("", "2}")) == [
        ("1", "a", '{"x":1}'),
        ("2", "b", '{"y":2}'),
    ]
    assert calls_of(call("a", "{}"), call("a", "{}")) == [(None, "a", "{}")] * 2


def test_calls_under_one_repeated_index_are_not_one_call():
    parts = [call(name, f'{{"n":"{name}"}}', id=f"id-{name}", index=0) for name in "abc"]
    assert [name for _, name, _ in calls_of(*parts)] == ["a", "b", "c"]


def test_a_name_and_an_id_that_are_repeated_with_each_piece_are_one_call():
    parts = [call("a", piece, id="1", index=0) for piece in ('{"x"', ":", "1}")]
    assert calls_of(*parts) == [("1", "a", '{"x":1}')]
    parts = [call("a", piece, id="", index=0) for piece in ('{"x"', ":", "1}")]
    assert calls_of({**parts[0], "id": "1"}, *parts[1:]) == [("1", "a", '{"x":1}')]


def test_another_id_with_each_nameless_piece_is_one_call():
    parts = [call("a", '{"x"', id="1", index=0), call(None, ":1}", id="2", index=0)]
    assert [arguments for _, _, arguments in calls_of(*parts)] == ['{"x":1}']


def test_arguments_as_an_object_are_their_json():
    assert calls_of(call("a", {"x": 1}, id="1", index=0)) == [("1", "a", '{"x":1}')]
    assert calls_of(call("a", ["x"], id="1", index=0)) == [("1", "a", '["x"]')]


def test_a_whole_message_in_place_of_a_delta():
    assembler = CompletionAssembler()
    chunk = {"choices": [{"message": {"role": "assistant", "content": "all"}}]}
    assembler.feed(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode())
    assert assembler.finish().messages[0]["content"] == "all"


def test_a_byte_order_mark_is_not_part_of_the_first_line():
    assert assembled({"content": "x"}, bom=b"\xef\xbb\xbf")["content"] == "x"
    assembler = CompletionAssembler()
    for byte in b'\xef\xbb\xbfdata: {"choices":[{"delta":{"content":"x"}}]}\n\n':
        assembler.feed(bytes([byte]))
    assert assembler.finish().messages[0]["content"] == "x"
    plain = b'\xef\xbb\xbf{"choices":[{"message":{"content":"x"}}]}'
    assert read_completion(plain).messages == [{"content": "x"}]


def test_an_error_in_a_choice_is_an_error():
    choice = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "no"}}
    assembler = CompletionAssembler()
    chunk = {"choices": [{**choice, "delta": {"content": ""}}]}
    assembler.feed(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode())
    assert assembler.finish().error_type == "502"
    plain = {"choices": [{**choice, "message": {"content": "half"}}]}
    assert read_completion(json.dumps(plain).encode()).error_type == "502"


def test_a_stream_with_an_event_that_is_not_understood_is_unread():
    assembler = CompletionAssembler()
    assembler.feed(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: {"choi\n\n')
    assert assembler.finish().error_type == "unread"


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b'{"choices":["x"]}', b'{"a":1}x'])
def test_a_plain_answer_that_is_not_understood_is_unread(raw):
    assert read_completion(raw).error_type == "unread"
