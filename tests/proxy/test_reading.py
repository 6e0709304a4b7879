"""Answers that are too large to be read on the side: bounded memory, and the bytes all the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from proxy import reading as reading_module
from proxy.http.beside import LARGE
from proxy.reading import HeldBytes, Reading
from proxy.surfaces.chat.surface import ChatCompletions
from proxy.surfaces.messages.surface import Messages
from proxy.surfaces.surface import Surface
from proxy.upstream import connection
from tests.helpers.serving import ProxyThread, settings
from tests.helpers.teacher_server import LoopbackServer, Reply, events

MB = 1024 * 1024


class Answered:
    """What a Reading asks of an Exchange."""

    trace_id = "t"
    unread_tokens = 0

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.answer_bytes = 0


def chunk(delta: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def fed(piece: bytes, times: int, *, first: bytes = b"", surface: Surface | None = None) -> Reading:
    """A reading of so many pieces; it has given up when it holds nothing."""
    answered = Answered(surface or ChatCompletions())
    reading = Reading(answered, HeldBytes(1 << 40), stream=True)  # type: ignore[arg-type]
    for one in (first, *[piece] * times):
        reading.feed(one)
        answered.answer_bytes += len(one)
    return reading


LISTS = {"x": [[] for _ in range(2_000)]}
SHAPES: dict[str, tuple[bytes, bytes]] = {
    "words": (b"", chunk({"content": "x"}) * 1_000),
    "fields of no name that we know": (b"", chunk(LISTS)),
    "parts": (b"", chunk({"content": [{"type": "text", "text": "abcdefgh"}] * 300})),
    "calls": (b"", b"".join(chunk({"tool_calls": [{"index": i}]}) for i in range(500))),
    "choices": (b"", b"".join(b'data: {"choices":[{"index":%d}]}\n\n' % i for i in range(3_000))),
    "a line without an end": (b'data: {"', b"x" * 300_000),
    "an event of many lines": (b"", b"data: x\n" * 20_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_stream_leaves_in_memory_is_bounded_whatever_its_shape(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "MAX_HELD", 2 * MB)
    first, piece = SHAPES[shape]
    reading = fed(piece, 40, first=first)
    assert reading._now_held == 0 and reading._failed
    completion = reading.finish()
    assert (completion.error_type, completion.messages) == ("unread", [])
    assert reading._together._free == 1 << 40  # all was given back


def test_a_long_answer_of_words_is_read_to_its_end() -> None:
    """128,000 tokens, as OpenAI sends them: with much around each."""
    piece = json.dumps({"choices": [{"index": 0, "delta": {"content": " word"}}], "o": "x" * 200})
    reading = fed(b"data: " + piece.encode() + b"\n\n", 128_000 // 8)
    text = reading.finish().messages[0]["content"]
    assert text == " word" * (128_000 // 8)
    assert reading._taken < MB * 2


def test_all_answers_of_a_worker_share_what_they_may_hold() -> None:
    together = HeldBytes(MB)
    readings = []
    for _ in range(3):
        answered = Answered(ChatCompletions())
        reading = Reading(answered, together, stream=False)  # type: ignore[arg-type]
        reading.feed(b'{"choices": "' + b"x" * 500_000)
        readings.append(reading)
    assert [reading._failed for reading in readings] == [False, False, True]
    readings[0].close()
    answered = Answered(ChatCompletions())
    later = Reading(answered, together, stream=False)  # type: ignore[arg-type]
    later.feed(b"x" * 500_000)
    assert not later._failed


def test_an_answer_that_is_read_on_after_its_client_left_takes_nothing_more() -> None:
    """Beside the event loop it is read on, whoever waited for it."""
    together = HeldBytes(MB)
    reading = Reading(Answered(ChatCompletions()), together, stream=False)  # type: ignore[arg-type]
    reading.feed(b'{"choices": "' + b"x" * 300_000)
    reading.close()
    reading.feed(b"x" * 300_000)
    assert together._free == MB


def test_many_events_that_say_nothing_are_not_read_on() -> None:
    for surface in (ChatCompletions(), Messages()):
        reading = fed(b"data: 1\n\n" * 500, 3, surface=surface)
        assert reading._failed and reading.finish().error_type == "unread"


def growing(parts: Callable[[int], bytes], count: int) -> Any:
    """The message of a stream of so many pieces."""
    answered = Answered(ChatCompletions())
    reading = Reading(answered, HeldBytes(1 << 40), stream=True)  # type: ignore[arg-type]
    for number in range(count):
        reading.feed(parts(number))
        answered.answer_bytes += 1
    return reading.finish()


def test_parts_that_grow_by_many_pieces_are_joined_in_linear_time() -> None:
    """Each piece was added to a copy of all before: 1 MB of text took a minute."""
    one = {"content": [{"type": "text", "text": "abcdefghijklmnopqrstuvwxyz" * 4}]}
    completion = growing(lambda _: chunk(one), 10_000)
    [message] = completion.messages
    assert message["content"] == "abcdefghijklmnopqrstuvwxyz" * 40_000


def test_long_arguments_are_not_parsed_with_each_piece() -> None:
    """A name with each piece and no id: whether the call is whole is asked each time."""

    def part(number: int) -> bytes:
        function = {"name": "f", "arguments": '{"a": "' if not number else "x" * 100}
        return chunk({"tool_calls": [{"index": 0, "function": function}]})

    assert growing(part, 3_000).error_type == "unread"
    short = growing(part, 50)
    [call] = short.messages[0]["tool_calls"]
    assert call["function"]["arguments"] == '{"a": "' + "x" * 100 * 49


# ---- through the proxy


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_HELD", MB // 2)
    monkeypatch.setattr(connection, "MAX_GATHERED_BYTES", MB // 8)


def ask(proxy: ProxyThread, *, stream: bool) -> bytes:
    body = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=body)
    assert answer.status_code == 200
    return answer.content


@pytest.mark.slow
def test_an_answer_too_large_to_be_read_is_passed_on_and_logged_as_unread(
    small: None, proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    pieces = [chunk({"content": "x"}) * 400] * 40
    end = b"data: [DONE]\n\n"
    teacher.script(events(*pieces, end))
    assert ask(proxy, stream=True) == b"".join(pieces) + end
    plain = b'{"choices": [{"message": {"content": "' + b"y" * MB + b'"}}]}'
    teacher.script(Reply((plain,)))
    assert ask(proxy, stream=False) == plain
    traces = proxy.wait_for_traces(2)
    for trace in traces:
        assert (trace["outcome"], trace["error_type"]) == ("error", "unread")
        assert trace["output_messages"] is None
        assert trace["tokens_estimated"] and trace["output_tokens"] > 1_000  # limits see them
    assert traces[0]["content_bytes"] > len(b"".join(pieces))


@pytest.mark.slow
def test_a_large_request_and_answer_are_read_as_small_ones_are(
    proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    """Beside the event loop, with the same result."""
    text = "word " * 120_000
    answer = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    teacher.script(Reply((json.dumps(answer).encode(),)))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    sent = httpx.post(f"{proxy.base_url}/chat/completions", json=body)
    assert sent.json() == answer
    events_of_it = [chunk({"content": text}), b"data: [DONE]\n\n"]
    teacher.script(events(*events_of_it))
    streamed = httpx.post(f"{proxy.base_url}/chat/completions", json={**body, "stream": True})
    assert streamed.content == b"".join(events_of_it)
    for trace in proxy.wait_for_traces(2):
        assert (trace["outcome"], trace["error_type"]) == ("complete", None)
        assert json.loads(trace["input_messages"]) == body["messages"]
        assert json.loads(trace["output_messages"])[0]["content"] == text
    broken = httpx.post(
        f"{proxy.base_url}/chat/completions", content=json.dumps(body).encode()[:-1]
    )
    assert broken.status_code == 400 and "could not parse" in broken.text


def test_a_body_of_too_many_values_is_refused_and_one_of_brackets_in_a_text_is_not(
    proxy: ProxyThread, teacher: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.http.json_body.MAX_VALUES", 10_000)
    for extra, status in (([[]] * 11_000, 413), ("[{," * 11_000, 200)):
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "x": extra}
        answer = httpx.post(f"{proxy.base_url}/chat/completions", json=body)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/moderations", "/v1/responses/input_tokens"]
)
def test_others_are_answered_while_a_large_request_is_read(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads it does not run in the event loop."""
    with LoopbackServer() as teacher, ProxyThread(settings(teacher.base_url, tmp_path)) as proxy:
        real, in_the_loop = orjson.loads, []

        def loads(raw: bytes) -> Any:
            if len(raw) > LARGE:
                in_the_loop.append(threading.current_thread() is proxy._thread)
            return real(raw)

        monkeypatch.setattr(orjson, "loads", loads)
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 300_000}]}
        assert httpx.post(f"{proxy.url}{path}", json=body).status_code == 200
        assert in_the_loop and not any(in_the_loop)
