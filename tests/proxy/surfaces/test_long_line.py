"""A line of a stream that comes in very many pieces."""

from __future__ import annotations

import json

import pytest

from proxy.surfaces.chat.read import CompletionAssembler

TEXT = "a\\u00e4" * 100_000


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r", b""])
@pytest.mark.parametrize("size", [97, 70_001])
def test_a_long_line_is_read_however_it_is_cut(ending: bytes, size: int) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": "stop"}]}
    data = b"data: " + json.dumps(chunk).encode() + ending + b"data: [DONE]\n\n" * bool(ending)
    assembler = CompletionAssembler()
    for at in range(0, len(data), size):
        assembler.feed(data[at : at + size])
    assert assembler.done == bool(ending)
    assert assembler.finish().messages[0]["content"] == TEXT


def test_a_long_line_is_not_copied_with_every_piece() -> None:
    assembler = CompletionAssembler()
    assembler.feed(b"data: " + b"x" * (1 << 17))
    joined = set()
    for _ in range(4_000):
        assembler.feed(b"y" * 1000)
        joined.add(len(assembler._rest))
    assert len(joined) <= 8
