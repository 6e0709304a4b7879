"""LiteLLM's callback: the trace of a call, and that LiteLLM never waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.imports.litellm import spend_log
from cli.imports.logged import LoggedCall, Unusable, make_trace
from cli.litellm_callback import CONFIG, DATA_DIR, LitellmEvent, UnderstudyJournal, trace_of_event
from cli.serve.litellm_child import KEY_VARIABLE
from store.chat.shape import fingerprint
from tests.helpers import log_samples as logs
from tests.helpers.journal_lines import lines
from tests.helpers.serving import wait_until

PROMPT = "a prompt that no log may hold"


def payload(**more: Any) -> dict[str, Any]:
    """LiteLLM's standard logging payload, with the fields that we read."""
    return {
        "id": "chatcmpl-1",
        "call_type": "acompletion",
        "status": "success",
        "stream": None,
        "custom_llm_provider": "openai",
        "response_cost": 0.000078,
        "cache_hit": None,
        "startTime": 1748852130.25,
        "endTime": 1748852131.75,
        "completionStartTime": 1748852131.0,
        "model": "gpt-4.1",
        "model_group": "big",
        "metadata": {"user_api_key_alias": None, "user_api_key_hash": "0" * 64},
        "request_tags": [],
        "end_user": "",
        "messages": logs.MESSAGES,
        "response": logs.completion(id="chatcmpl-1"),
        "model_parameters": {"temperature": 0},
        "hidden_params": {"additional_headers": {"llm_provider-x-request-id": "r"}},
        "error_information": None,
        **more,
    }


def kwargs(body: Any = None, headers: Any = None, **more: Any) -> dict[str, Any]:
    """LiteLLM's arguments to its callbacks."""
    body = {"model": "big", "messages": logs.MESSAGES} if body is None else body
    sent = {"proxy_server_request": {"body": body, "headers": headers or {}}}
    return {"standard_logging_object": payload(**more), "litellm_params": sent}


def event(**more: Any) -> LitellmEvent:
    return LitellmEvent(payload(**more), {"model": "big", "messages": logs.MESSAGES}, {})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def logged(journal: UnderstudyJournal, **more: Any) -> None:
    asyncio.run(journal.async_log_success_event(kwargs(**more), None, None, None))


def test_a_call_becomes_a_trace(data: Path) -> None:
    journal = UnderstudyJournal(data)
    logged(journal, headers={"X-Understudy-Task": "triage"})
    journal.close()
    [trace] = lines(data)
    assert (trace["task"], trace["source"], trace["reason"]) == ("triage", "litellm", "imported")
    assert (trace["served_by"], trace["outcome"], trace["status_code"]) == (
        "teacher",
        "complete",
        200,
    )
    assert trace["fingerprint"] == fingerprint({"model": "big", "messages": logs.MESSAGES})
    assert (trace["input_tokens"], trace["output_tokens"]) == (31, 2)
    assert (trace["duration_ms"], trace["cost_usd"]) == (1500, 0.000078)
    assert json.loads(trace["input_messages"]) == logs.MESSAGES


@pytest.mark.parametrize(
    ("more", "task"),
    [
        ({"headers": {"x-understudy-task": "a"}, "request_tags": ["b"]}, "a"),
        ({"body": {"model": "big", "metadata": {"task": "a"}}, "request_tags": ["b"]}, "a"),
        ({"metadata": {"requester_metadata": {"task": "a"}}, "request_tags": ["b"]}, "a"),
        ({"request_tags": ["User-Agent: x", "b"]}, "b"),
        ({"request_tags": ["prod", "task:b"]}, "b"),
        ({"metadata": {"user_api_key_alias": "support-app"}}, "support-app"),
        ({}, None),
    ],
)
def test_the_task_comes_from_header_metadata_or_tags(
    data: Path, more: dict[str, Any], task: str | None
) -> None:
    journal = UnderstudyJournal(data)
    logged(journal, **more)
    journal.close()
    assert [line["task"] for line in lines(data)] == [task]


def test_a_failed_call_is_logged_as_an_error() -> None:
    found = {"error_class": "RateLimitError", "error_code": "429"}
    trace = trace_of_event(event(status="failure", response=None, error_information=found))
    assert trace is not None
    assert (trace.outcome, trace.status_code, trace.error_type) == ("error", 429, "RateLimitError")
    assert (trace.served_by, trace.cost_usd, trace.output_messages) == (None, None, None)


def test_redacted_calls_and_other_calls_than_chat_are_ignored() -> None:
    assert trace_of_event(event(call_type="aembedding")) is None
    with pytest.raises(Unusable, match="redacted"):
        trace_of_event(event(messages=[{"role": "user", "content": "redacted-by-litellm"}]))


def test_calls_through_understudy_are_not_logged_twice(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = UnderstudyJournal(data)
    through = {"additional_headers": {"llm_provider-x-understudy-trace": "0196"}}
    logged(journal, hidden_params=through)
    journal.close()
    assert not data.exists()
    with monkeypatch.context() as env:
        env.setenv(KEY_VARIABLE, "sk-child")  # as a child of `understudy serve`
        logged(journal)
    journal.close()
    assert not data.exists()


def test_the_callback_and_an_import_of_its_spend_log_give_one_trace() -> None:
    live = trace_of_event(event(request_tags=["triage"]))
    [found] = spend_log(
        logs.spend_log(
            request_id="chatcmpl-1",
            response=logs.completion(id="chatcmpl-1"),
            proxy_server_request={"model": "big", "messages": logs.MESSAGES},
        )
    )
    assert live is not None
    assert isinstance(found, LoggedCall)
    again = make_trace(found, source="import:litellm", task="triage", model="big", at=0.0)
    assert again.trace_id == live.trace_id


@pytest.mark.slow
def test_litellm_does_not_wait_when_the_queue_is_full(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:

    journal = UnderstudyJournal(data, max_waiting=10)
    slow = [{"role": "user", "content": PROMPT * 20_000}]
    began = time.perf_counter()
    for number in range(300):
        logged(journal, messages=slow, id=f"c{number}")
    each = (time.perf_counter() - began) / 300
    journal_dropped = journal.dropped
    journal.close()
    written = len(lines(data))
    assert each < 0.005
    assert written + journal_dropped.get("the queue was full", 0) == 300
    assert journal_dropped["the queue was full"] > 0
    assert "the queue was full" in caplog.text
    assert PROMPT not in caplog.text


@pytest.mark.parametrize(
    "strange",
    [
        None,
        3,
        {},
        {"standard_logging_object": []},
        {"standard_logging_object": {"messages": 3, "response": 4, "metadata": 5}},
        {"standard_logging_object": payload(messages="text"), "litellm_params": 7},
        {"standard_logging_object": payload(hidden_params=3, request_tags=None, startTime="x")},
        {"standard_logging_object": payload(response=object())},
        {"standard_logging_object": payload(metadata={"user_api_key_alias": {}})},
    ],
)
def test_no_payload_of_litellms_raises(
    data: Path, strange: Any, caplog: pytest.LogCaptureFixture
) -> None:
    journal = UnderstudyJournal(data)
    asyncio.run(journal.async_log_success_event(strange, object(), None, None))
    asyncio.run(journal.async_log_failure_event(strange, object(), None, None))
    journal.log_success_event(strange, None, None, None)
    logged(journal)
    journal.close()
    assert "chatcmpl-1" in {line["response_id"] for line in lines(data)}
    assert logs.ASKED not in caplog.text


@pytest.mark.slow
def test_calls_on_a_full_disk_are_buffered_counted_and_reported(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data / "journal").mkdir(parents=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = UnderstudyJournal(data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        logged(journal)
        time.sleep(0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    wait_until(lambda: lines(data))
    journal.close()
    assert len(lines(data)) == 1


def test_without_a_data_folder_it_logs_one_error_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DATA_DIR, raising=False)
    monkeypatch.delenv(CONFIG, raising=False)
    journal = UnderstudyJournal()
    logged(journal)
    logged(journal)
    assert caplog.text.count(f"set {DATA_DIR} to Understudy's data folder") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", [DATA_DIR, CONFIG])
def test_the_environment_gives_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    config = tmp_path / "config.yaml"
    entry = {"model_name": "big", "litellm_params": {"model": "openai/x"}}
    config.write_text(yaml.safe_dump({"model_list": [entry], "data_dir": str(tmp_path / "d")}))
    monkeypatch.delenv(DATA_DIR, raising=False)
    monkeypatch.setenv(variable, str(config if variable == CONFIG else tmp_path / "d"))
    journal = UnderstudyJournal()
    logged(journal)
    journal.close()
    assert len(lines(tmp_path / "d")) == 1


def test_a_forked_worker_writes_for_itself(data: Path) -> None:
    journal = UnderstudyJournal(data)
    logged(journal)
    wait_until(lambda: (data / "journal").exists() and lines(data))
    pid = os.fork()
    if pid == 0:  # as LiteLLM's workers under a server that forks
        try:
            logged(journal, id="c2", response=logs.completion("billing", id="c2"))
            journal.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    journal.close()
    assert {line["response_id"] for line in lines(data)} == {"chatcmpl-1", "c2"}
