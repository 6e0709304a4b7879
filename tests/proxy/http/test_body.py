"""Reading bodies: sizes, JSON, types."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.body import ClientGone, read_body
from proxy.http.errors import ApiError
from proxy.surfaces.chat.request import parse

GOOD = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def receiver(*parts, gone=False):
    messages = [
        {"type": "http.request", "body": part, "more_body": gone or n < len(parts) - 1}
        for n, part in enumerate(parts)
    ]
    if gone:
        messages.append({"type": "http.disconnect"})
    left = iter(messages)

    async def receive():
        return next(left)

    return receive


def refused(raw):
    with pytest.raises(ApiError) as caught:
        parse(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    assert caught.value.status == 400
    return caught.value


async def test_read_in_one_and_in_several_parts():
    assert await read_body(receiver(b"abc"), [], 3) == b"abc"
    assert await read_body(receiver(b"a", b"", b"bc"), [], 3) == b"abc"
    assert await read_body(receiver(b""), [], 3) == b""


async def test_a_declared_length_over_the_limit_is_refused_unread():
    with pytest.raises(ApiError) as caught:
        await read_body(receiver(), [(b"content-length", b"4")], 3)
    assert caught.value.status == 413


@pytest.mark.parametrize("parts", [(b"abcd",), (b"ab", b"cd"), (b"ab", b"cd", b"never read")])
async def test_a_body_over_the_limit_is_refused_as_soon_as_it_is(parts):
    with pytest.raises(ApiError) as caught:
        await read_body(receiver(*parts), [], 3)
    assert caught.value.status == 413


async def test_a_client_that_hangs_up_in_its_body():
    with pytest.raises(ClientGone):
        await read_body(receiver(b"ab", gone=True), [], 10)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nope", b"\xff\xfe", b'{"model": NaN}', b'{"a":1}x', b"[" * 100_000]
)
def test_malformed_json(raw):
    assert "not valid JSON" in refused(raw).message


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"text"', b"null"])
def test_json_that_is_not_an_object_is_refused(raw):
    assert "JSON object" in refused(raw).message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 4}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [GOOD["messages"][0], {"content": "hi"}]}, "messages[1].role"),
        ({"messages": [{"role": 1}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"n": "2"}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"metadata": "task"}, "metadata"),
        ({"metadata": ["task"]}, "metadata"),
        ({"user": 5}, "user"),
        ({"store": "yes"}, "store"),
        ({"tools": {}}, "tools"),
        ({"response_format": "json"}, "response_format"),
        ({"stop": 1}, "stop"),
    ],
)
def test_wrong_types_are_named(change, param):
    error = refused({**GOOD, **change})
    assert error.param == param
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize(
    "extra",
    [
        {"stream": None, "n": None, "metadata": None, "temperature": None},
        {"temperature": 1, "top_p": 0.5, "n": 3, "max_tokens": 1},
        {"from_the_future": {"deep": [1, {"er": None}]}},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"temperature": 99, "n": -1},  # the teacher's business
    ],
)
def test_unknown_fields_and_values_are_let_through(extra):
    assert parse(json.dumps({**GOOD, **extra}).encode()) == {**GOOD, **extra}


def test_half_a_surrogate_pair_as_javascript_cuts_it():
    raw = json.dumps({**GOOD, "messages": [{"role": "user", "content": "cut \ud83d"}]}).encode()
    assert b"\\ud83d" in raw
    assert parse(raw)["messages"][0]["content"] == "cut \ufffd"


def test_nesting_too_deep_to_be_written_again():
    deep = json.dumps(GOOD).replace('"hi"', "[" * 400 + "]" * 400).encode()
    assert "too deeply" in refused(deep).message
    wide = {**GOOD, "tools": [{"a": [[]]}] * 300}
    assert parse(json.dumps(wide).encode()) == wide


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(raw):
    try:
        assert isinstance(parse(raw), dict)
    except ApiError as error:
        assert error.status == 400
