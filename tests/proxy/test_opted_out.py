"""Clients that opt out: answered as ever, and no word of it is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import httpx
import openai
import pytest

from distill.collect import collect
from store.chat.shape import fingerprint
from store.database.database import Database
from store.database.traces import new_teacher_traces, task_counts, teacher_answers
from store.settings.config import StoreSettings
from tests.conftest import StartProxy
from tests.helpers.serving import CLIENT_KEY, ProxyThread, student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer, completion, error, stream

SAID = "the patient is called Zoe"
ANSWER = "she has the flu"
BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "system", "content": SAID}, {"role": "user", "content": SAID}],
    "user": "zoe",
    "metadata": {"task": "mood", "who": "zoe"},
    "stop": ["zoe"],
    "temperature": 0.5,
    "max_tokens": 7,
    "seed": 4711,
    "tools": [{"type": "function", "function": {"name": "zoe", "parameters": {}}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "zoe", "schema": {}}},
    "zoe": 5,
}
KEYS = [{"key": CLIENT_KEY, "name": "app"}, {"key": "sk-silent", "name": "silent", "store": False}]


def ask(proxy: ProxyThread, key: str = CLIENT_KEY, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
    path = more.pop("path", "chat/completions")
    body = more.pop("body", {**BODY, **more})
    return httpx.post(f"{proxy.base_url}/{path}", json=body, headers=headers, timeout=30)


def nothing_is_kept(proxy: ProxyThread) -> None:
    folder = proxy.config.data_dir
    written = b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file())
    assert b"mood" in written or b"teacher" in written
    for secret in (b"Zoe", b"zoe", b"the flu"):
        assert secret not in written.replace(str(folder).encode(), b"")


@pytest.fixture
def proxy(start_proxy: StartProxy) -> ProxyThread:
    return start_proxy(server={"keys": KEYS})


WAYS: dict[str, dict[str, Any]] = {
    "the body": {"store": False},
    "the header": {"headers": {"X-Understudy-Store": "false"}},
    "the header, in capitals": {"headers": {"X-Understudy-Store": "FALSE"}},
    "the header, whatever the body": {"headers": {"X-Understudy-Store": "false"}, "store": True},
    "the key": {"key": "sk-silent"},
    "the key, whatever the header": {"key": "sk-silent", "headers": {"X-Understudy-Store": "true"}},
    "the body, whatever the header": {"store": False, "headers": {"X-Understudy-Store": "true"}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_each_way_to_opt_out_keeps_no_content(
    way: str, proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    teacher.script(completion(ANSWER))
    answer = ask(proxy, **WAYS[way])
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert answer.headers["x-understudy-content"] == "none"
    sent = teacher.requests[0]
    assert sent.json["messages"] == BODY["messages"]
    assert not [name for name in sent.headers if name.startswith("x-understudy")]
    [trace] = proxy.traces()
    assert trace["trace_id"] == answer.headers["x-understudy-trace"]
    left = {name: trace[name] for name in ("content", "task", "route", "reason", "served_by")}
    assert left == {
        "content": "none",
        "task": "mood",
        "route": "teacher",
        "reason": "no_student",
        "served_by": "teacher",
    }
    assert (trace["input_tokens"], trace["output_tokens"]) == (7, 3)
    assert trace["status_code"] == 200
    assert trace["duration_ms"] > 0
    assert (trace["input_messages"], trace["output_messages"]) == ("[]", None)
    assert (trace["tool_definitions"], trace["end_user"]) == (None, None)
    assert (trace["input_hash"], trace["fingerprint"]) == ("", "")
    params = json.loads(trace["request_params"])
    store = {"store": WAYS[way]["store"]} if "store" in WAYS[way] else {}
    assert params == {"model": "gpt-4o", "temperature": 0.5, "max_tokens": 7, **store}
    nothing_is_kept(proxy)


@pytest.mark.parametrize(
    "more", [{}, {"store": True}, {"headers": {"X-Understudy-Store": "true"}}, {"store": None}]
)
def test_other_values_do_not_opt_out(more: dict[str, Any], proxy: ProxyThread) -> None:
    answer = ask(proxy, **more)
    assert "x-understudy-content" not in answer.headers
    [trace] = proxy.traces()
    assert trace["content"] == "full"
    assert SAID in trace["input_messages"]


@pytest.mark.parametrize("value", ["no", "0", "", "falsch"])
def test_an_invalid_store_header_is_refused(
    value: str, proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    answer = ask(proxy, headers={"X-Understudy-Store": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"
    assert (proxy.traces(), teacher.requests) == ([], [])


@pytest.mark.slow
def test_store_false_opts_out_only_in_the_configured_apis(start_proxy: StartProxy) -> None:
    said = {"model": "gpt-4o", "input": SAID, "store": False}
    default = start_proxy()
    assert "x-understudy-content" not in ask(default, path="responses", body=said).headers
    both = start_proxy(privacy={"store_false": ["responses"]})
    assert ask(both, path="responses", body=said).headers["x-understudy-content"] == "none"
    assert "x-understudy-content" not in ask(both, store=False).headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("responses", {"model": "gpt-4o", "input": SAID, "user": "zoe"}),
        ("messages", {"model": "gpt-4o", "max_tokens": 9, "messages": BODY["messages"][1:]}),
        ("completions", {"model": "gpt-4o", "prompt": SAID}),
        ("embeddings", {"model": "gpt-4o", "input": SAID}),
    ],
)
def test_the_header_is_for_every_api(path: str, body: dict[str, Any], proxy: ProxyThread) -> None:
    answer = ask(proxy, path=path, body=body, headers={"X-Understudy-Store": "false"})
    assert answer.headers["x-understudy-content"] == "none"
    assert proxy.traces()[0]["content"] == "none"
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_opted_out_streams_errors_and_aborted_requests_keep_no_content(
    proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    silent = {"x-understudy-store": "false", "authorization": f"Bearer {CLIENT_KEY}"}
    teacher.script(stream(ANSWER), error(400, SAID), stream(ANSWER).broken(after=3))
    assert "flu" in ask(proxy, stream=True, headers=silent).text
    assert ask(proxy, headers=silent).status_code == 400
    with pytest.raises(httpx.RemoteProtocolError):
        ask(proxy, stream=True, headers=silent)
    teacher.script(stream(ANSWER).paced(0.2))
    url, body = f"{proxy.base_url}/chat/completions", {**BODY, "stream": True}
    with httpx.stream("POST", url, json=body, headers=silent) as response:
        next(response.iter_lines())
    traces = proxy.wait_for_traces(4)
    outcomes = [trace["outcome"] for trace in traces]
    assert outcomes == ["complete", "error", "teacher_broke", "client_gone"]
    assert {trace["content"] for trace in traces} == {"none"}
    nothing_is_kept(proxy)


def test_the_sdk_can_opt_out(proxy: ProxyThread) -> None:
    with openai.OpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
        asked = client.chat.completions.with_raw_response
        hello: Any = [{"role": "user", "content": SAID}]
        for more in ({"store": False}, {"extra_headers": {"X-Understudy-Store": "false"}}):
            raw = asked.create(model="gpt-4o", messages=hello, **more)  # type: ignore[call-overload]
            assert raw.parse().choices[0].message.content == f"echo: {SAID}"
            assert raw.headers["x-understudy-content"] == "none"
    nothing_is_kept(proxy)


# ---- students, and what is learned ---------------------------------------------------------------


@pytest.fixture
def student() -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda _: completion("good", logprobs=[-0.1])) as server:
        yield server


PLAIN = {"model": "gpt-4o", "messages": BODY["messages"], "metadata": {"task": "mood"}}


@pytest.mark.slow
def test_a_student_also_answers_opted_out_requests(
    proxy: ProxyThread, student: LoopbackServer
) -> None:
    proxy.publish(student_route("mood", student.url, fingerprint(PLAIN)))
    wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["students"] == 1)
    answer = ask(proxy, body={**PLAIN, "store": False})
    assert answer.headers["x-understudy-route"] == "student"
    assert answer.headers["x-understudy-content"] == "none"
    [trace] = proxy.traces()
    assert (trace["student_id"], trace["served_by"]) == ("run-1", "student")
    assert (trace["output_messages"], trace["fingerprint"]) == (None, "")
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_no_run_learns_from_opted_out_traces(proxy: ProxyThread) -> None:
    for store in (True, False, False):
        ask(proxy, store=store)
    proxy.__exit__()
    with Database(proxy.config.database_file, StoreSettings()) as db:
        assert collect(db, proxy.config.journal_dir, {}).traces == 3
        assert task_counts(db) == {"mood": 3}
        assert len(teacher_answers(db, "mood", 10)) == 1
        assert new_teacher_traces(db, "mood", 0.0) == 1


# ---- feedback ------------------------------------------------------------------------------------


def tell(proxy: ProxyThread, trace: str, key: str = CLIENT_KEY, **given: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **given.pop("headers", {})}
    return httpx.post(
        f"{proxy.base_url}/feedback", json={"trace_id": trace, **given}, headers=headers
    )


@pytest.mark.slow
def test_a_correction_of_an_opted_out_answer_is_not_kept(proxy: ProxyThread) -> None:
    """The data plane knows no traces: the collector forgets it."""
    traces = [ask(proxy, store=False).headers["x-understudy-trace"] for _ in range(3)]
    assert tell(proxy, traces[0], correction=ANSWER).status_code == 200
    assert tell(proxy, traces[1], correction=ANSWER, score=0.2).status_code == 200
    kept = ask(proxy).headers["x-understudy-trace"]
    tell(proxy, kept, correction="another")
    proxy.__exit__()
    with Database(proxy.config.database_file, StoreSettings()) as db:
        collect(db, proxy.config.journal_dir, {})
    with duckdb.connect(str(proxy.config.database_file), read_only=True) as read:
        left = read.execute(
            "SELECT trace_id, score, correction FROM feedback ORDER BY score NULLS LAST"
        ).fetchall()
    assert [(str(t), s, c) for t, s, c in left] == [
        (traces[1], pytest.approx(0.2), None),
        (kept, None, "another"),
    ]


@pytest.mark.slow
def test_an_opted_out_client_cannot_store_a_correction(proxy: ProxyThread) -> None:
    trace = ask(proxy, key="sk-silent").headers["x-understudy-trace"]
    for more in ({"key": "sk-silent"}, {"headers": {"X-Understudy-Store": "false"}}):
        refused = tell(proxy, trace, correction=ANSWER, **more)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "content_not_kept"
        assert tell(proxy, trace, score=0.5, **more).status_code == 200
    nothing_is_kept(proxy)


def test_a_correction_is_redacted(start_proxy: StartProxy) -> None:
    proxy = start_proxy(privacy={"redact": ["email"]})
    trace = ask(proxy).headers["x-understudy-trace"]
    tell(proxy, trace, correction='{"to": "zoe@example.org"}')
    given = proxy.traces()[1]
    assert given["correction"] == '{"to": "<EMAIL>"}'
    assert time.time() - given["feedback_at"] < 60
