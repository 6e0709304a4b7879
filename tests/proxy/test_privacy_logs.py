"""Other logs, and LiteLLM's callback: redacted by the same rules, opted out where they say so."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.imports.importing import OPTED_OUT
from cli.imports.logged import LoggedCall, Unusable, make_trace
from cli.litellm_callback import (
    CONFIG,
    DATA_DIR,
    LitellmEvent,
    UnderstudyJournal,
    may_keep_content,
    trace_of_event,
)
from cli.main import app
from store.privacy.redaction import redaction_of
from store.privacy.settings import PrivacySettings
from tests.cli.test_litellm_callback import kwargs, lines
from tests.helpers import log_samples as logs
from tests.helpers.serving import settings

SECRET = "ada@example.org"
PRIVACY = PrivacySettings.model_validate({"redact": ["email"]})


def call(said: str = SECRET, **more: Any) -> LoggedCall:
    request = {
        "messages": [{"role": "user", "content": f"mail {said}"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": said}}],
        "user": said,
    }
    answer = {"role": "assistant", "content": json.dumps({"to": said})}
    return LoggedCall(request=request, answers=[answer], end_user=said, start_time=1.0, **more)


def test_a_logged_call_is_redacted() -> None:
    given: dict[str, Any] = {"source": "import:x", "task": "t", "model": "gpt-4.1", "at": 5.0}
    trace = make_trace(call(), **given, redaction=redaction_of(PRIVACY))
    assert trace.content == "redacted"
    assert SECRET not in repr(trace)
    assert json.loads(trace.output_messages or "")[0]["content"] == '{"to": "<EMAIL>"}'
    assert trace.end_user == "<EMAIL>"
    # its id does not reveal the content
    other = make_trace(call("bob@example.org"), **given, redaction=redaction_of(PRIVACY))
    assert other.trace_id == trace.trace_id
    assert make_trace(call("nobody"), **given, redaction=redaction_of(PRIVACY)).content == "full"


def test_a_logged_call_of_a_client_that_opted_out() -> None:
    given: dict[str, Any] = {"source": "litellm", "task": "t", "model": "gpt-4.1", "at": 5.0}
    trace = make_trace(call(input_tokens=7), **given, keep_content=False)
    assert (trace.content, trace.input_tokens, trace.task) == ("none", 7, "t")
    assert SECRET not in repr(trace)
    assert trace.trace_id != make_trace(call(input_tokens=7), **given, keep_content=False).trace_id


def test_a_logged_call_that_cannot_be_redacted_is_left_out() -> None:
    with pytest.raises(Unusable, match="could not be redacted"):
        make_trace(
            call(f"{SECRET} \ud800"),
            source="import:x",
            task="t",
            model="m",
            at=5.0,
            redaction=redaction_of(PRIVACY),
        )


def test_an_imported_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    privacy = {"privacy": {"redact": ["email"]}}
    raw = settings("http://127.0.0.1:9/v1", tmp_path / "data", **privacy)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    rows = [
        {"messages": [*logs.MESSAGES, {"role": "assistant", "content": f"to {SECRET}"}]},
        {"messages": [*logs.MESSAGES, {"role": "assistant", "content": "no"}], "store": False},
        {"messages": [*logs.MESSAGES, {"role": "assistant", "content": "yes"}], "store": True},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    done = CliRunner().invoke(app, ["import", str(file), "--task", "triage", "--json"])
    assert done.exit_code == 0, done.output
    [told] = json.loads(done.output)["files"]
    assert (told["taken"], told["left_out"]) == (2, {OPTED_OUT: 1})
    assert [line["content"] for line in lines(tmp_path / "data")] == ["redacted", "full"]
    assert SECRET.encode() not in b"".join(
        f.read_bytes() for f in (tmp_path / "data").rglob("*") if f.is_file()
    )


# ---- LiteLLM's callback --------------------------------------------------------------------------


def asked(**more: Any) -> dict[str, Any]:
    return kwargs(
        body={"model": "big", "messages": [], "user": SECRET, **more.pop("body", {})},
        messages=[{"role": "user", "content": SECRET}],
        **more,
    )


def test_the_callback_redacts(tmp_path: Path) -> None:
    journal = UnderstudyJournal(tmp_path, privacy=PRIVACY)
    journal.log_success_event(asked(), None, None, None)
    journal.close()
    [trace] = lines(tmp_path)
    assert trace["content"] == "redacted"
    assert SECRET not in json.dumps(trace)


@pytest.mark.parametrize(
    ("body", "headers", "kept"),
    [
        ({}, {}, True),
        ({"store": True}, {"X-Understudy-Store": "true"}, True),
        ({"store": False}, {}, False),
        ({}, {"X-Understudy-Store": "false"}, False),
        ({}, {"x-understudy-store": "no idea"}, False),
    ],
)
def test_a_client_that_opts_out_of_the_callback(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str], kept: bool
) -> None:
    assert may_keep_content(LitellmEvent({}, body, headers), PRIVACY) is kept
    journal = UnderstudyJournal(tmp_path, privacy=PRIVACY)
    journal.log_success_event(asked(body=body, headers=headers), None, None, None)
    journal.close()
    [trace] = lines(tmp_path)
    assert (trace["content"] == "none") is not kept
    assert SECRET not in json.dumps(trace)


def test_store_false_means_what_the_config_says() -> None:
    event = LitellmEvent({}, {"store": False}, {})
    assert may_keep_content(event, PrivacySettings(store_false=[]))
    assert trace_of_event(LitellmEvent({"call_type": "aembedding"}, {}, {})) is None


def test_the_callback_takes_its_rules_from_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    privacy = {"privacy": {"redact": ["email"]}}
    raw = settings("http://127.0.0.1:9/v1", tmp_path / "data", **privacy)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    for folder in (None, tmp_path / "elsewhere"):
        monkeypatch.setenv(CONFIG, str(tmp_path / "config.yaml"))
        if folder is None:
            monkeypatch.delenv(DATA_DIR, raising=False)
        else:
            monkeypatch.setenv(DATA_DIR, str(folder))
        journal = UnderstudyJournal()
        journal.log_success_event(asked(), None, None, None)
        journal.close()
        [trace] = lines(folder or tmp_path / "data")
        assert SECRET not in json.dumps(trace)


@pytest.mark.slow
def test_without_its_rules_the_callback_journals_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = PrivacySettings.model_validate({"presidio": {"entities": ["NO_SUCH_THING"]}})
    journal = UnderstudyJournal(tmp_path, privacy=unknown)
    with caplog.at_level(logging.ERROR):
        journal.log_success_event(asked(), None, None, None)
        writing = journal._writing
        assert writing is not None
        writing._thread.join(0.1)
        writing.put(None)  # type: ignore[arg-type]  # the end, however long Presidio takes to load
        writing._thread.join(60)
    assert lines(tmp_path) == []
    assert "Presidio finds no NO_SUCH_THING" in caplog.text
