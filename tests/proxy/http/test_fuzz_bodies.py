"""Any JSON, and almost JSON, as a body: understood or refused. See test_fuzz_bytes.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from proxy.app import SURFACES
from tests.helpers.byte_scene import ALIAS, GOOD, HOW, JSON, SEED, Scene, fuzzed, proper, request


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with fuzzed(tmp_path) as found:
        yield found


LEAVES = st.sampled_from(
    [
        *(
            b"null",
            b"true",
            b"0",
            b"-0.0",
            b"1e400",
            b"-1e-400",
            b"NaN",
            b"Infinity",
            b"01",
            b"'x'",
        ),
        *(b"9" * 400, b"9" * 5000, b"0." + b"1" * 3000, b'""', b'"\\ud83d"', b'"\\udc00\\ud83d"'),
        *(
            b'"\xff"',
            b'"\\u0000"',
            b'"a\x00b"',
            b'"' + b"x" * 20_000 + b'"',
            b"[]",
            b"{}",
            b"",
            b",",
        ),
        *(b"[" * 190 + b"]" * 190, b"[" * 260 + b"]" * 260, b"[" * 5000 + b"]" * 5000),
        *(b'{"a":' * 240 + b"1" + b"}" * 240, b"{" * 100_000, b'{"a":1,"a":[2]}', b"\xef\xbb\xbf1"),
        *(b'[{"role":"user","content":"hello"}]', b'[{"role":"user","role":"x"}]', b'["a",null]'),
        *(b'[{"type":"item_reference","id":"resp_1"}]', b'{"task":"triage","user_id":"u"}'),
        *(b'"gpt-4o"', b'"%s"' % ALIAS.encode(), b"[[1,2],[3]]", b'{"type":"json_object"}'),
    ]
)
FIELDS = st.sampled_from(
    [
        *("model", "messages", "input", "prompt", "instructions", "system", "stream", "metadata"),
        *("tools", "tool_choice", "functions", "response_format", "text", "reasoning", "stop"),
        *("max_tokens", "n", "temperature", "store", "user", "previous_response_id", "include"),
        *("output_config", "output_format", "stop_sequences", "thinking", "stream_options"),
        *("conversation", "trace_id", "score", "label", "correction", "a" * 300, "", "\\ud83d"),
    ]
)
VALID = {
    "model": st.sampled_from([b'"gpt-4o"', b'"%s"' % ALIAS.encode()]),
    "messages": st.just(b'[{"role":"user","content":"hello"}]'),
    "input": st.just(b'"hello"'),
}
OBJECTS = st.builds(
    lambda valid, odd: [*valid.items(), *odd],
    st.fixed_dictionaries({}, optional=VALID) | st.fixed_dictionaries(VALID),
    st.lists(st.tuples(FIELDS, LEAVES), max_size=4),
).map(lambda pairs: b"{" + b",".join(b'"%s":%b' % (n.encode(), v) for n, v in pairs) + b"}")
POSTS = st.sampled_from(
    [
        *(surface.path.encode() for surface in SURFACES),
        *(b"/v1/feedback", b"/v1/moderations", b"/v1/responses/input_tokens"),
    ]
)


@pytest.mark.slow
def test_odd_bodies(scene: Scene) -> None:
    @seed(SEED)
    @HOW
    @given(POSTS, OBJECTS | LEAVES, st.sampled_from([JSON, b"text/plain"]))
    def each(path: bytes, body: bytes, kind: bytes) -> None:
        answers = scene.say(request(path, body, b"content-type: " + kind))
        proper(answers)
        assert [a.whole for a in answers] == [True]

    each()


@pytest.mark.slow
def test_lengths_that_lie(scene: Scene) -> None:
    @seed(SEED)
    @HOW
    @given(POSTS, st.integers(-2, 400) | st.sampled_from([2**31, 2**63, 2**64]), st.booleans())
    def each(path: bytes, length: int, twice: bool) -> None:
        body = json.dumps(GOOD).encode()
        fields = [b"content-type: application/json"] + [b"content-length: %d" % length] * twice
        first = request(path, body, *fields).replace(b": %d" % len(body), b": %d" % length, 1)
        proper(scene.say(first, request(b"/health", b"", method=b"GET")))

    each()
