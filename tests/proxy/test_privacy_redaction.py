"""What a rule finds is kept nowhere, whatever way a request goes; all others see it as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from distill.collect import collect
from store.chat.shape import fingerprint, input_hash
from store.database.database import Database
from store.settings.config import StoreSettings
from tests.conftest import StartProxy
from tests.helpers.paths import ROOT
from tests.helpers.serving import (
    CLIENT_KEY,
    ProxyProcess,
    ProxyThread,
    settings,
    student_route,
    wait_until,
)
from tests.helpers.teacher_server import (
    DROP,
    LoopbackServer,
    Received,
    Reply,
    completion,
    error,
    events,
    stream,
)

CANARY = "canary-7f3a"
OTHER = "canary-0b1c"  # the teacher's
RULES = [{"name": "secret", "pattern": "canary-[0-9a-f]{4}"}]
PRIVACY = {"privacy": {"redact": RULES}}
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"It is {CANARY}."}]}


@pytest.fixture
def proxy(start_proxy: StartProxy) -> ProxyThread:
    return start_proxy(**PRIVACY)


def ask(proxy: ProxyThread, **more: Any) -> httpx.Response:
    headers = {"x-understudy-task": "mood", **more.pop("headers", {})}
    path = more.pop("path", "chat/completions")
    return httpx.post(
        f"{proxy.base_url}/{path}", json={**BODY, **more}, headers=headers, timeout=30
    )


def nothing_is_kept(proxy: ProxyThread) -> None:
    """No file of the data folder holds what is secret, nor after all was collected."""
    folder = proxy.config.data_dir
    written = b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file())
    assert written
    assert CANARY.encode() not in written
    assert OTHER.encode() not in written


def test_a_request_and_its_answer_are_redacted(proxy: ProxyThread, teacher: LoopbackServer) -> None:
    teacher.script(completion(f"Yes, {CANARY} and {OTHER}."))
    answer = ask(proxy, user=CANARY)
    assert answer.json()["choices"][0]["message"]["content"] == f"Yes, {CANARY} and {OTHER}."
    assert teacher.requests[0].json == {**BODY, "user": CANARY}
    assert answer.headers["x-understudy-content"] == "redacted"
    [trace] = proxy.traces()
    assert trace["content"] == "redacted"
    assert json.loads(trace["input_messages"]) == [{"role": "user", "content": "It is <SECRET>."}]
    assert json.loads(trace["output_messages"])[0]["content"] == "Yes, <SECRET> and <SECRET>."
    assert trace["end_user"] == "<SECRET>"
    assert trace["input_hash"] == input_hash(json.loads(trace["input_messages"]))
    nothing_is_kept(proxy)


def test_a_request_without_matches_is_kept_in_full(proxy: ProxyThread) -> None:
    answer = ask(proxy, messages=[{"role": "user", "content": "hello"}])
    assert "x-understudy-content" not in answer.headers
    assert proxy.traces()[0]["content"] == "full"


def test_an_answer_is_redacted_when_the_request_is_not(
    proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    teacher.script(completion(OTHER), stream(f"it is {OTHER} now", usage=True))
    hello = [{"role": "user", "content": "hello"}]
    whole, streamed = ask(proxy, messages=hello), ask(proxy, messages=hello, stream=True)
    assert whole.headers["x-understudy-content"] == "redacted"
    # the headers of a stream go before its answer comes
    assert "x-understudy-content" not in streamed.headers
    assert OTHER in streamed.text
    assert [trace["content"] for trace in proxy.traces()] == ["redacted", "redacted"]
    assert proxy.traces()[1]["output_tokens"]
    nothing_is_kept(proxy)


CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "note", "arguments": json.dumps({"text": OTHER, "n": 1})},
}
CALLS = (
    completion("")
    .chunks[0]
    .replace(
        b'"content": "", "refusal": null',
        b'"content": null, "tool_calls": ' + json.dumps([CALL]).encode(),
    )
)
PIECES = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]}
    for piece in (OTHER[:3], OTHER[3:9], OTHER[9:])
]
IN_PIECES = events(*[b"data: %b\n\n" % json.dumps(p).encode() for p in PIECES], b"data: [DONE]\n\n")
BROKEN_JSON = Reply((b'{"choices": [{"message": {"content": "' + OTHER.encode(),))

TRAFFIC: dict[str, tuple[dict[str, Any], Reply | None]] = {
    "an echo": ({}, None),
    "a streamed echo": ({"stream": True}, None),
    "an answer in pieces": ({"stream": True}, IN_PIECES),
    "tool calls": ({}, Reply((CALLS,))),
    "a refusal": ({}, error(400, f"{CANARY} {OTHER} is no good", code="bad")),
    "a stream that is refused": ({"stream": True}, error(429, f"{OTHER}", type="requests")),
    "a stream that breaks": ({"stream": True}, stream(f"a {OTHER} b {OTHER} c").broken(after=4)),
    "an answer that breaks": ({}, Reply((b"{", b"}"), framing="chunked").broken(after=1)),
    "no answer": ({}, DROP),
    "no JSON": ({}, BROKEN_JSON),
    "no such model": ({"model": "another"}, None),
    "what is no chat": ({"messages": CANARY}, None),
    "an old function": (
        {"functions": [{"name": "f", "description": CANARY, "parameters": {"default": CANARY}}]},
        None,
    ),
    "a schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"const": CANARY}},
            }
        },
        None,
    ),
    "metadata": ({"metadata": {"task": "mood", "who": CANARY, CANARY: "x"}}, None),
    "a field of the future": ({"hints": {CANARY: [CANARY]}}, None),
    "the Responses API": (
        {"path": "responses", "input": CANARY, "instructions": f"Be {CANARY}", "user": CANARY},
        None,
    ),
    "the Messages API": ({"path": "messages", "max_tokens": 9, "system": CANARY}, None),
    "completions": ({"path": "completions", "prompt": [CANARY, f"a {CANARY}"]}, None),
    "embeddings": ({"path": "embeddings", "input": [CANARY]}, None),
}


@pytest.mark.parametrize("which", TRAFFIC)
@pytest.mark.slow
def test_no_traffic_leaves_unredacted_text_behind(
    which: str, proxy: ProxyThread, teacher: LoopbackServer, tmp_path: Path
) -> None:
    more, reply = TRAFFIC[which]
    if reply is not None:
        teacher.script(*[reply] * 3)  # what drops a connection is tried again
    try:
        ask(proxy, **more)
    except httpx.RemoteProtocolError:
        assert which == "a stream that breaks"
    # what is refused before it is understood is not logged at all
    if which != "what is no chat":
        wait_until(proxy.traces)
        nothing_is_kept(proxy)
    proxy.__exit__()
    with Database(proxy.config.database_file, StoreSettings()) as db:
        collected = collect(db, proxy.config.journal_dir, {})
    assert collected.damaged == 0
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_a_partial_answer_is_redacted_after_a_client_hangs_up(
    proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    teacher.script(stream(f"a {OTHER} b c d e f g").paced(0.2))
    body = {**BODY, "stream": True}
    with httpx.stream("POST", f"{proxy.base_url}/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if OTHER in line:
                break
    [trace] = proxy.wait_for_traces(1)
    assert trace["outcome"] == "client_gone"
    assert "<SECRET>" in trace["output_messages"]
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_no_log_has_redacted_text(tmp_path: Path, teacher: LoopbackServer) -> None:
    raw = settings(teacher.base_url, tmp_path / "data", server={"log_level": "debug"}, **PRIVACY)
    with ProxyProcess(raw, tmp_path) as running:
        wait_until(lambda: _answers(running))
        for reply in (completion(OTHER), error(400, OTHER), DROP, DROP, DROP):
            teacher.script(reply)
        for _ in range(3):
            httpx.post(f"{running.base_url}/chat/completions", json=BODY, timeout=30)
        running.process.terminate()
        running.process.wait(30)
    assert CANARY not in running.log
    assert OTHER not in running.log


def _answers(proxy: ProxyProcess) -> bool:
    try:
        return httpx.get(f"{proxy.url}/health").status_code == 200
    except httpx.HTTPError:
        return False


# ---- what cannot be redacted ---------------------------------------------------------------------

DEPTH = 1010  # JSON that can be read, and that nobody can walk through


def too_deep(secret: str) -> str:
    """A text that no rule comes to an end with."""
    return "[" * DEPTH + json.dumps(secret) + "]" * DEPTH


def test_a_request_that_cannot_be_redacted_is_served_and_not_kept(
    proxy: ProxyThread, teacher: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(proxy, messages=[{"role": "user", "content": too_deep(CANARY)}])
    assert answer.status_code == 200
    assert answer.headers["x-understudy-content"] == "none"
    [trace] = proxy.traces()
    assert (trace["content"], trace["input_messages"]) == ("none", "[]")
    nothing_is_kept(proxy)
    assert "content_dropped" in caplog.text
    assert CANARY not in caplog.text


def test_an_answer_that_cannot_be_redacted_is_not_kept(
    proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    teacher.script(completion(too_deep(OTHER)))
    assert OTHER in ask(proxy).text
    assert proxy.traces()[0]["content"] == "none"
    nothing_is_kept(proxy)


# ---- students ------------------------------------------------------------------------------------

Publish = Callable[..., None]
ASKED = {**BODY, "messages": [{"role": "user", "content": "It is <SECRET>."}]}


@pytest.fixture
def student() -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda _: completion("good", logprobs=[-0.1])) as server:
        yield server


@pytest.fixture
def publish(proxy: ProxyThread, student: LoopbackServer) -> Publish:
    def go(of: ProxyThread = proxy, body: dict[str, Any] = ASKED, **changes: Any) -> None:
        of.publish(student_route("mood", student.url, fingerprint(body), **changes))
        wait_until(lambda: httpx.get(f"{of.url}/health").json()["routes"]["students"] == 1)

    return go


@pytest.mark.slow
def test_a_student_is_asked_with_the_redacted_request(
    proxy: ProxyThread, publish: Publish, student: LoopbackServer
) -> None:
    publish()
    answer = ask(proxy)
    assert answer.headers["x-understudy-route"] == "student"
    assert student.requests[0].json["messages"] == ASKED["messages"]
    assert proxy.traces()[0]["content"] == "redacted"
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_the_fingerprint_is_that_of_the_redacted_prompt(
    proxy: ProxyThread, publish: Publish
) -> None:
    system = {"role": "system", "content": "You serve <SECRET>."}
    publish(body={**BODY, "messages": [system]})
    for secret in (CANARY, OTHER):
        prompt = {"role": "system", "content": f"You serve {secret}."}
        answer = ask(proxy, messages=[prompt, {"role": "user", "content": "hi"}])
        assert answer.headers["x-understudy-reason"] == "certified"


@pytest.mark.slow
def test_a_students_answer_with_a_placeholder_is_not_served(
    proxy: ProxyThread, publish: Publish, student: LoopbackServer, teacher: LoopbackServer
) -> None:
    publish()
    student.script(completion("Dear <SECRET>,", logprobs=[-0.1]))
    answer = ask(proxy)
    assert answer.headers["x-understudy-route"] == "fallback"
    assert answer.headers["x-understudy-reason"] == "student_redacted"
    assert answer.json()["choices"][0]["message"]["content"] == f"echo: It is {CANARY}."
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_a_students_own_matches_are_redacted_in_the_trace(
    proxy: ProxyThread, publish: Publish, student: LoopbackServer
) -> None:
    publish()
    student.script(completion(OTHER, logprobs=[-0.1]))
    assert ask(proxy).json()["choices"][0]["message"]["content"] == OTHER
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_no_student_is_asked_when_the_redaction_fails(
    proxy: ProxyThread, publish: Publish, student: LoopbackServer
) -> None:
    publish(max_input_chars=10_000)
    assert ask(proxy).headers["x-understudy-reason"] == "certified"
    answer = ask(proxy, messages=[{"role": "user", "content": too_deep(CANARY)}])
    assert answer.headers["x-understudy-reason"] == "not_redacted"
    assert len(student.requests) == 1


# ---- what takes long -----------------------------------------------------------------------------


@pytest.mark.slow
def test_redacting_a_long_text_delays_no_other_request(
    proxy: ProxyThread, start_proxy: StartProxy
) -> None:
    """A megabyte that a rule finds something in at every turn is searched in a thread."""
    long = f"{CANARY} " * 90_000
    answers: list[httpx.Response] = []
    asked = threading.Thread(
        target=lambda: answers.append(ask(proxy, messages=[{"role": "user", "content": long}]))
    )
    asked.start()
    while asked.is_alive():
        assert ask(proxy).status_code == 200
    asked.join()
    assert answers[0].headers["x-understudy-content"] == "redacted"
    nothing_is_kept(proxy)


@pytest.mark.slow
def test_without_rules_re2_is_not_loaded() -> None:
    code = (
        "import sys, proxy.app, proxy.privacy as p, store.privacy.settings as s;"
        "privacy = p.Privacy(s.PrivacySettings());"
        "print(privacy.redacts, {'re2', 'presidio_analyzer', 'spacy'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "False set()\n"


def test_the_sdk_streams_with_redaction(proxy: ProxyThread) -> None:
    with openai.OpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": CANARY}], stream=True
        )
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == f"echo: {CANARY}"
    nothing_is_kept(proxy)


def echo_everything(request: Received) -> Reply:
    return completion(request.body.decode())


def test_several_ready_made_rules_work_together(
    start_proxy: StartProxy, teacher: LoopbackServer
) -> None:
    proxy = start_proxy(privacy={"redact": ["email", "phone", "credit_card"]})
    teacher.answer = echo_everything
    said = "ada@example.org, +49 30 901820, 4111 1111 1111 1111"
    ask(proxy, messages=[{"role": "user", "content": said}])
    [trace] = proxy.traces()
    assert json.loads(trace["input_messages"])[0]["content"] == "<EMAIL>, <PHONE>, <CREDIT_CARD>"
    for secret in ("ada@", "901820", "4111"):
        assert secret not in proxy.journal()
