"""`POST /v1/feedback`: accepted and refused bodies; it is journalled before the 200."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.feedback import LABELS, parse_feedback
from proxy.http.errors import ApiError
from store.files.journal import sealed_segments
from store.ids import new_id
from store.jsontext import to_json
from tests.conftest import StartProxy
from tests.helpers.documents import blocks, text_of
from tests.helpers.serving import CLIENT_KEY, ProxyProcess, ProxyThread, settings
from tests.helpers.teacher_server import LoopbackServer

TRACE = new_id()
SECRET = "what-nobody-may-read"


def journalled(proxy: ProxyThread | ProxyProcess) -> list[dict[str, Any]]:
    """The feedback in the journal, oldest first."""
    return [line for line in proxy.traces() if "feedback_id" in line]


def give(client: openai.OpenAI, **body: Any) -> Any:
    return client.post("/feedback", body={"trace_id": TRACE, **body}, cast_to=object)


@pytest.fixture
def process(teacher: LoopbackServer, tmp_path: Path) -> Iterator[ProxyProcess]:
    raw = settings(teacher.base_url, tmp_path / "data", server={"log_level": "debug"})
    with ProxyProcess(raw, tmp_path) as running:
        yield running


# ---- accepted ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "score", "correction"),
    [
        *(({"label": label}, score, None) for label, score in LABELS.items()),
        ({"score": 0}, 0.0, None),
        ({"score": 1}, 1.0, None),
        ({"score": 0.25}, 0.25, None),
        ({"correction": "shipping"}, None, "shipping"),
        ({"correction": " as it stands\n"}, None, " as it stands\n"),
        ({"label": "bad", "correction": "👩‍🚀"}, 0.0, "👩‍🚀"),
        ({"score": 0.9, "correction": "better", "label": None}, 0.9, "better"),
        ({"score": None, "label": "good", "correction": None}, 1.0, None),
    ],
)
@pytest.mark.slow
def test_the_sdk_gives_feedback_and_finds_it_in_the_journal(
    body: dict[str, Any],
    score: float | None,
    correction: str | None,
    client: openai.OpenAI,
    proxy: ProxyThread,
    teacher: LoopbackServer,
) -> None:
    before = time.time()
    answer = give(client, **body)
    [line] = journalled(proxy)
    assert answer == {"object": "feedback", "id": line["feedback_id"], "trace_id": TRACE}
    assert before <= line.pop("feedback_at") <= time.time()
    assert line == {
        "feedback_id": answer["id"],
        "trace_id": TRACE,
        "score": score,
        "correction": correction,
        "feedback_key": None,
    }
    assert teacher.requests == []


def test_the_trace_of_an_answer_is_what_it_is_about(
    client: openai.OpenAI, proxy: ProxyThread
) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
    )
    said = give(client, trace_id=answer.headers["x-understudy-trace"].upper(), label="up")
    trace, feedback = proxy.traces()
    assert feedback["trace_id"] == trace["trace_id"] == said["trace_id"]


def test_each_feedback_has_its_own_id(client: openai.OpenAI, proxy: ProxyThread) -> None:
    ids = [give(client, score=0)["id"] for _ in range(3)]
    assert [line["feedback_id"] for line in journalled(proxy)] == ids
    assert len(set(ids)) == 3


@pytest.mark.slow
def test_feedback_has_the_hash_of_its_key(start_proxy: StartProxy) -> None:
    keys = [{"key": CLIENT_KEY, "name": "app"}, {"key": "sk-other", "name": "batch"}]
    proxy = start_proxy(server={"keys": keys})
    body = {"trace_id": TRACE, "label": "bad"}
    for key in (CLIENT_KEY, "sk-other", CLIENT_KEY):
        with openai.OpenAI(base_url=proxy.base_url, api_key=key, max_retries=0) as sdk:
            sdk.post("/feedback", body=body, cast_to=object)
    first, second, third = (line["feedback_key"] for line in journalled(proxy))
    assert first == third != second
    assert re.fullmatch("[0-9a-f]{16}", first)
    with (
        openai.OpenAI(base_url=proxy.base_url, api_key="sk-wrong", max_retries=0) as sdk,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        sdk.post("/feedback", body=body, cast_to=object)
    assert caught.value.code == "invalid_api_key"
    assert httpx.post(f"{proxy.base_url}/feedback", json=body).status_code == 401
    assert len(journalled(proxy)) == 3


def test_feedback_needs_no_control_plane(client: openai.OpenAI, proxy: ProxyThread) -> None:
    assert httpx.get(f"{proxy.url}/distill/status").status_code == 503
    give(client, label="bad")
    assert len(journalled(proxy)) == 1


@pytest.mark.slow
def test_feedback_is_kept_while_the_journal_cannot_be_written(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    blocked = tmp_path / "data" / "journal"
    blocked.write_text("in the way")
    proxy = start_proxy()
    body = {"trace_id": TRACE, "label": "bad"}
    assert httpx.post(f"{proxy.base_url}/feedback", json=body).status_code == 200
    assert httpx.get(f"{proxy.url}/health").json()["journal"]["backlog"] == 1
    blocked.unlink()
    [line] = proxy.wait_for_traces(1)
    assert line["trace_id"] == TRACE


# ---- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "score", "missing_required_parameter"),
        ({"score": None, "label": None}, "score", "missing_required_parameter"),
        ({"trace_id": None, "score": 1}, "trace_id", "missing_required_parameter"),
        ({"trace_id": 5, "score": 1}, "trace_id", "invalid_type"),
        ({"trace_id": "", "score": 1}, "trace_id", "invalid_value"),
        ({"trace_id": "chatcmpl-9", "score": 1}, "trace_id", "invalid_value"),
        ({"trace_id": f" {TRACE}", "score": 1}, "trace_id", "invalid_value"),
        ({"trace_id": f"{TRACE}\n", "score": 1}, "trace_id", "invalid_value"),
        ({"trace_id": f"{{{TRACE}}}", "score": 1}, "trace_id", "invalid_value"),
        ({"trace_id": TRACE.replace("-", ""), "score": 1}, "trace_id", "invalid_value"),
        ({"score": -0.1}, "score", "invalid_value"),
        ({"score": 1.01}, "score", "invalid_value"),
        ({"score": 10**40}, "score", "invalid_value"),
        ({"score": "1"}, "score", "invalid_type"),
        ({"score": True}, "score", "invalid_type"),
        ({"score": [1]}, "score", "invalid_type"),
        ({"label": "terrible"}, "label", "invalid_value"),
        ({"label": "Good"}, "label", "invalid_value"),
        ({"label": 1}, "label", "invalid_type"),
        ({"label": {"good": 1}}, "label", "invalid_type"),
        ({"score": 1, "label": "good"}, "label", "mutually_exclusive_parameters"),
        ({"correction": 5}, "correction", "invalid_type"),
        ({"correction": {"a": 1}}, "correction", "invalid_type"),
        ({"correction": ""}, "correction", "invalid_value"),
        ({"label": "bad", "correction": " \n"}, "correction", "invalid_value"),
        ({"label": "bad", "comment": SECRET}, "comment", "unknown_parameter"),
        ({"label": "bad", "comment": None}, "comment", "unknown_parameter"),
        ({"label": "bad", "x" * 999: 1}, "x" * 64, "unknown_parameter"),
    ],
)
@pytest.mark.slow
def test_a_400_says_which_field_is_wrong(
    body: dict[str, Any], param: str, code: str, client: openai.OpenAI, proxy: ProxyThread
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        give(client, **body)
    error = caught.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert f"'{param}'" in error.message
    assert SECRET not in error.message
    assert proxy.traces() == []


def test_an_unknown_field_is_answered_with_the_known_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        give(client, label="bad", comment=SECRET)
    for known in ("trace_id", "score", "label", "correction"):
        assert f"'{known}'" in caught.value.message


@pytest.mark.parametrize("raw", [b"", b"nope", b"[]", b"null", b'"good"', b"[" * 100_000, b"\xff"])
@pytest.mark.slow
def test_400_for_a_body_that_is_not_a_json_object(raw: bytes, proxy: ProxyThread) -> None:
    response = httpx.post(f"{proxy.base_url}/feedback", content=raw)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]
    assert proxy.traces() == []


def test_413_for_a_body_over_the_limit(start_proxy: StartProxy) -> None:
    proxy = start_proxy(server={"body_limit_mb": 0.01})
    body = {"trace_id": TRACE, "correction": "x" * 20_000}
    response = httpx.post(f"{proxy.base_url}/feedback", json=body)
    assert response.status_code == 413
    assert proxy.traces() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_405_for_other_methods(method: str, proxy: ProxyThread, teacher: LoopbackServer) -> None:
    response = httpx.request(method, f"{proxy.base_url}/feedback")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert teacher.requests == []  # it is ours, and not passed through


def test_403_for_a_web_page_of_another_site(proxy: ProxyThread) -> None:
    body = {"trace_id": TRACE, "label": "bad"}
    origin = {"Origin": "https://example.com"}
    assert httpx.post(f"{proxy.base_url}/feedback", json=body, headers=origin).status_code == 403
    assert proxy.traces() == []


# ---- any input at all --------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "trace_id": st.just(TRACE) | st.uuids().map(str) | anything,
        "score": st.floats(-0.5, 1.5) | st.integers(-1, 2) | anything,
        "label": st.sampled_from([*LABELS, "meh"]) | anything,
        "correction": st.text(max_size=20) | anything,
        "comment": anything,
    },
)


def parsed(raw: bytes) -> bool:
    """Whether a body is accepted, and then complete and writable; other bodies are a 400."""
    try:
        found = parse_feedback(raw, at=1.5, key_hash="k")
    except ApiError as error:
        assert error.status == 400
        assert json.loads(error.body())["error"]["message"]
        return False
    assert found.score is not None or found.correction is not None
    assert found.score is None or 0 <= found.score <= 1
    assert found.correction is None or found.correction.strip()
    line = json.loads(to_json(found))
    assert line["trace_id"] == found.trace_id
    assert line["correction"] == found.correction
    return True


@given(nearly | anything)
@example({"trace_id": TRACE, "correction": "half \ud83d a pair"})
@example({"trace_id": TRACE, "score": -0.0})
@pytest.mark.slow
def test_any_json_is_taken_or_refused(body: Any) -> None:
    parsed(json.dumps(body).encode())


@given(st.binary(max_size=80))
@example(b'{"trace_id": "%s", "score": 1e400}' % TRACE.encode())
@example(b'{"trace_id": "%s", "score": NaN}' % TRACE.encode())
@example(b'{"score": %s}' % (b"[" * 5_000))
def test_any_bytes_are_taken_or_refused(raw: bytes) -> None:
    parsed(raw)


@given(
    st.fixed_dictionaries(
        {"trace_id": st.uuids().map(str)},
        optional={"correction": st.text(min_size=1).filter(str.strip)},
    ),
    st.fixed_dictionaries({"score": st.floats(0, 1)})
    | st.fixed_dictionaries({"label": st.sampled_from(list(LABELS))}),
)
def test_documented_feedback_is_accepted(body: dict[str, Any], says: dict[str, Any]) -> None:
    assert parsed(json.dumps({**body, **says}).encode())


# ---- the running process -----------------------------------------------------------------------


@pytest.mark.slow
def test_no_log_line_and_no_error_holds_a_clients_text(process: ProxyProcess) -> None:
    key = {"Authorization": f"Bearer sk-{SECRET}"}
    bodies: list[dict[str, Any]] = [
        {"trace_id": TRACE, "correction": SECRET},
        {"trace_id": SECRET, "correction": SECRET},
        {"trace_id": TRACE, "label": SECRET},
        {"trace_id": TRACE, "score": SECRET},
        {"trace_id": TRACE, "comment": SECRET},
        {"trace_id": TRACE, "score": 7, "correction": SECRET},
    ]
    with httpx.Client(timeout=30) as client:
        for body in bodies:
            response = client.post(f"{process.base_url}/feedback", json=body, headers=key)
            assert response.status_code == (200 if body is bodies[0] else 400)
            assert SECRET not in response.text
    assert SECRET in process.journal()
    assert SECRET not in process.log


@pytest.mark.slow
def test_kill_9_under_load_loses_no_feedback_that_was_acknowledged(process: ProxyProcess) -> None:
    acknowledged: list[str] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=10) as client:
            while not stop.is_set():
                body = {"trace_id": new_id(), "label": "bad", "correction": "x" * 500}
                try:
                    response = client.post(f"{process.base_url}/feedback", json=body)
                except httpx.HTTPError:
                    return
                acknowledged.append(response.json()["id"])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 40:
        time.sleep(0.01)
    os.kill(process.process.pid, SIGKILL)
    process.process.wait(10)
    stop.set()
    process.stop_listening()
    for thread in threads:
        thread.join(30)
    segments = sealed_segments(process.config.journal_dir)
    lines = b"".join(path.read_bytes() for path in segments).splitlines()
    found = [json.loads(line)["feedback_id"] for line in lines]
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))


# ---- the documentation -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_snippet_of_the_manual_works(proxy: ProxyThread) -> None:
    [snippet] = blocks("docs/feedback.md", "python")
    address = f'base_url="{proxy.base_url}", api_key="{CLIENT_KEY}"'
    changes = {'base_url="http://127.0.0.1:4100/v1"': address, "gpt-4.1": "gpt-4o"}
    for written, here in changes.items():
        assert written in snippet
        snippet = snippet.replace(written, here)
    exec(snippet, {})
    trace, feedback = proxy.traces()
    assert trace["task"] == "triage"
    assert feedback["trace_id"] == trace["trace_id"]
    assert feedback["score"] == 0.0
    assert feedback["correction"]
    for label in LABELS:
        assert f"`{label}`" in text_of("docs/feedback.md")
