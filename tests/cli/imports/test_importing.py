"""`understudy import`: files become traces, each call once, with or without a server."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from cli.status.client import fetch_status
from distill.collect import Collected, collect
from distill.dataset.rows import choose_rows
from store.chat.shape import fingerprint
from store.database.database import Database
from store.database.statistics import task_statistics
from store.database.traces import (
    exchange_by_id,
    new_teacher_traces,
    task_counts,
    teacher_answers,
    uncovered_teacher_traces,
)
from store.errors import ProductError
from store.settings.config import Config
from store.settings.teachers import Price
from tests.helpers import log_samples as logs
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_trace, write_segment
from tests.helpers.served import Served
from tests.helpers.serving import settings, wait_until
from tests.helpers.teacher_server import LoopbackServer

ASKED = [f"Message {n} about a parcel" for n in range(40)]
FINETUNING = [logs.finetuning(asked) for asked in ASKED]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without a config.yaml."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def imported(data: Path, *arguments: object) -> Result:
    words = ["import", *map(str, arguments), "--data-dir", str(data)]
    return CliRunner().invoke(app, words, catch_exceptions=False)


def taken(db: Database, data: Path, prices: dict[str, Price] | None = None) -> Collected:
    return collect(db, data / "journal", prices or {})


def rows_of(db: Database, task: str = "triage") -> list[dict[str, Any]]:
    return db.query("teacher_answers", task=task, limit=10**6)


@pytest.mark.slow
def test_a_file_becomes_traces_that_a_run_learns_from(
    tmp_path: Path, data: Path, db: Database
) -> None:
    file = jsonl(tmp_path / "ft.jsonl", [*FINETUNING, "{torn", {"messages": logs.MESSAGES}])
    os.utime(file, (1e9, 1e9))
    done = imported(data, file, "--task", "triage", "--model", "gpt-4.1")
    assert done.exit_code == 0, done.output
    assert "ft.jsonl: openai-finetuning, 40 of 42 rows taken" in done.output
    assert "1  not valid JSON" in done.output
    assert "1  it does not end with the assistant's message" in done.output
    assert "parcel" not in done.output
    assert taken(db, data) == Collected(1, 40, 0)
    found = rows_of(db)
    assert {row["source"] for row in found} == {"import:openai-finetuning"}
    assert {row["served_by"] for row in found} == {"teacher"}
    assert {row["start_time"] for row in found} == {1e9}
    assert {row["fingerprint"] for row in found} == {
        fingerprint({"messages": logs.MESSAGES, "model": "gpt-4.1"})
    }
    answers = teacher_answers(db, "triage", 10**6)
    assert exchange_by_id(db, answers[0].trace_id) == answers[0]
    selection = choose_rows(answers, Config.model_fields["task_defaults"].default_factory().split)  # type: ignore[union-attr,call-arg,misc]
    assert (len(selection.rows), selection.left_out) == (40, {})


@pytest.mark.slow
def test_imported_twice_and_in_overlapping_files_each_call_is_there_once(
    tmp_path: Path, data: Path, db: Database
) -> None:
    first = jsonl(tmp_path / "a.jsonl", [*FINETUNING[:30], FINETUNING[3]])
    second = jsonl(tmp_path / "b.jsonl", FINETUNING[20:])
    named = ("--task", "triage", "--model", "gpt-4.1")
    assert imported(data, first, *named).exit_code == 0
    assert taken(db, data).traces == 31  # one was given twice
    assert imported(data, first, second, *named).exit_code == 0
    assert taken(db, data) == Collected(1, 10, 0)
    assert imported(data, second, *named).exit_code == 0
    assert imported(data, second, *named).exit_code == 0
    assert taken(db, data) == Collected(2, 0, 0)
    assert task_counts(db) == {"triage": 41}
    # another task, or another teacher, is meant to be another trace
    imported(data, first, "--task", "other", "--model", "gpt-4.1")
    assert taken(db, data).traces == 31


@pytest.mark.slow
def test_equal_answers_without_ids_in_one_file_are_votes_of_their_own(
    tmp_path: Path, data: Path, db: Database
) -> None:
    rows = [logs.finetuning("Where?", answer) for answer in ["refund"] * 5 + ["shipping"]]
    file = jsonl(tmp_path / "a.jsonl", rows)
    named = ("--task", "triage", "--model", "gpt-4.1")
    imported(data, file, *named)
    imported(data, file, *named)
    taken(db, data)
    answers = [json.loads(row["output_messages"])[0]["content"] for row in rows_of(db)]
    assert sorted(answers) == ["refund"] * 5 + ["shipping"]
    assert len({row["trace_id"] for row in rows_of(db)}) == 6


def test_a_call_with_an_id_that_is_in_a_file_twice_is_one_call(
    tmp_path: Path, data: Path, db: Database
) -> None:
    file = jsonl(tmp_path / "a.jsonl", [logs.spend_log(), logs.spend_log(spend=0.5)])
    imported(data, file, "--task", "triage")
    assert taken(db, data).traces == 1


@pytest.mark.slow
def test_repeats_damage_and_the_proxys_own_traces_in_one_batch(
    tmp_path: Path, data: Path, db: Database
) -> None:
    file = jsonl(tmp_path / "a.jsonl", FINETUNING)
    named = ("--task", "triage", "--model", "gpt-4.1")
    imported(data, file, *named)
    taken(db, data)
    imported(data, file, *named)
    [segment] = (data / "journal").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes() + b"torn\n")
    own = a_trace()
    write_segment(data / "journal", own, own)
    assert taken(db, data) == Collected(2, 1, 1)
    assert (data / "journal" / "damaged" / segment.name).read_bytes() == b"torn\n"


def test_imported_traces_count_as_new_whatever_their_age(
    tmp_path: Path, data: Path, db: Database
) -> None:
    now = time.time()
    write_segment(data / "journal", a_trace(start_time=now - 50))
    imported(data, jsonl(tmp_path / "a.jsonl", [logs.spend_log()]), "--task", "triage")
    taken(db, data)
    assert rows_of(db)[-1]["start_time"] < now - 1e6
    assert new_teacher_traces(db, "triage", 0.0) == 2
    assert new_teacher_traces(db, "triage", now - 10) == 1
    assert uncovered_teacher_traces(db, "triage", now - 10) == 1
    # under another task the former answers do not count
    assert new_teacher_traces(db, "triage", now - 10, asked_since=now - 60) == 0
    assert new_teacher_traces(db, "triage", time.time() + 1) == 0


def test_cost_is_what_the_log_states_else_by_the_prices(
    tmp_path: Path, data: Path, db: Database
) -> None:
    rows = [
        logs.spend_log(),
        logs.spend_log(spend=0.0, response=logs.completion("billing", id="chatcmpl-2")),
    ]
    imported(data, jsonl(tmp_path / "a.jsonl", rows), "--task", "triage")
    taken(db, data, {"gpt-4.1": Price(1e-6, 2e-6)})
    assert sorted(float(row["cost_usd"]) for row in rows_of(db)) == [0.000035, 0.000078]


def test_logs_without_times_do_not_count_in_the_teachers_latency(
    tmp_path: Path, data: Path, db: Database
) -> None:
    write_segment(data / "journal", a_trace(duration_ms=800.0))
    named = ("--task", "triage", "--model", "gpt-4o")
    imported(data, jsonl(tmp_path / "a.jsonl", FINETUNING), *named)
    taken(db, data)
    found = task_statistics(db, "triage", recent_since=0.0, used_until=0.0).served["teacher"]
    assert (found.requests, found.p50_ms, found.recent_p95_ms) == (41, 800.0, 800.0)
    assert found.reasons == {"imported": 40, "no_student": 1}


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        (logs.finetuning(metadata={"task": "triage"}, model="gpt-4.1"), "openai-finetuning"),
        (logs.stored(), "openai-stored"),
        (logs.spend_log(), "litellm"),
        (logs.observation(), "langfuse"),
        (logs.blob_observation(), "langfuse"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
@pytest.mark.slow
def test_the_format_and_the_task_are_found_in_the_data(
    tmp_path: Path, data: Path, db: Database, row: dict[str, Any], format_: str, form: str
) -> None:
    path = tmp_path / f"export.{form}"
    if form == "csv":
        if format_.startswith("openai"):
            pytest.skip("OpenAI exports no CSV")
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(row))
            writer.writeheader()
            writer.writerow(logs.as_text(row))
    else:
        path.write_text(json.dumps([row] if form == "json" else row))
    done = imported(data, path)
    assert f"export.{form}: {format_}, 1 of 1 rows taken" in done.output
    assert taken(db, data).traces == 1
    [found] = rows_of(db)
    assert found["source"] == f"import:{format_}"
    assert found["reason"] == "imported"


def test_the_config_gives_the_data_folder_and_the_teacher(tmp_path: Path, db: Database) -> None:
    config = tmp_path / "config.yaml"
    params = {"model": "openai/gpt-4.1", "api_key": "os.environ/NOT_SET"}
    entries = [{"model_name": "big", "litellm_params": params}]
    config.write_text(json.dumps({"model_list": entries, "data_dir": str(tmp_path / "there")}))
    file = jsonl(tmp_path / "a.jsonl", [FINETUNING[0], logs.finetuning(model="gpt-4.1-2025-04-14")])
    words = ["import", str(file), "--task", "triage", "--config", str(config)]
    assert CliRunner().invoke(app, words).exit_code == 0
    collect(db, tmp_path / "there" / "journal", {})
    assert {row["request_model"] for row in rows_of(db)} == {"big"}


def test_tag_from_names_the_field_of_the_task(tmp_path: Path, data: Path, db: Database) -> None:
    rows = [logs.observation(), logs.observation(traceId="t2", metadata={"feature": "Not A Tag"})]
    done = imported(data, jsonl(tmp_path / "a.jsonl", rows), "--tag-from", "metadata.feature")
    assert "1 of 2 rows taken" in done.output
    assert "1  its task is no tag" in done.output
    assert 'such as "Not A Tag"' in done.output
    taken(db, data)
    assert task_counts(db) == {"inbox": 1}
    missing = imported(data, tmp_path / "a.jsonl", "--tag-from", "metadata.other")
    assert "2  no task: the field of --tag-from is not there, or is empty" in missing.output


def test_a_name_that_is_no_tag_becomes_one_where_asked(
    tmp_path: Path, data: Path, db: Database
) -> None:
    names = ["Ticket Triage", " Größe/2 ", "inbox.v2", 7, "漢字", "x" * 80, ["", "Two"], True]
    rows = [
        logs.observation(traceId=f"t{n}", traceTags=[], metadata={"feature": name})
        for n, name in enumerate(names)
    ]
    file = jsonl(tmp_path / "a.jsonl", rows)
    done = imported(data, file, "--tag-from", "metadata.feature", "--slug")
    assert 'such as "漢字"' in done.output
    taken(db, data)
    assert set(task_counts(db)) == {
        "ticket-triage", "groe-2", "inbox.v2", "7", "x" * 64, "two",
    }  # fmt: skip


def test_a_flattened_column_is_found_by_its_name(tmp_path: Path, data: Path, db: Database) -> None:
    row = {**logs.as_text(logs.observation(metadata=None)), "metadata.feature": "inbox"}
    path = tmp_path / "flat.csv"
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(row), delimiter=";")
        writer.writeheader()
        writer.writerow(row)
    assert "1 of 1 rows taken" in imported(data, path, "--tag-from", "metadata.feature").output
    taken(db, data)
    assert task_counts(db) == {"inbox": 1}


@pytest.mark.slow
def test_an_empty_or_damaged_file_among_others_does_not_end_the_import(
    tmp_path: Path, data: Path, db: Database
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "cut.json").write_text(json.dumps(FINETUNING[:3])[:-20])
    whole = jsonl(tmp_path / "whole.jsonl", FINETUNING[3:5])
    named = ("--task", "triage", "--model", "gpt-4.1")
    first = [tmp_path / "empty.jsonl", tmp_path / "none.json"]
    done = imported(data, *first, whole, *named)
    assert (done.exit_code, "empty.jsonl: it holds no rows" in done.output) == (0, True)
    assert taken(db, data).traces == 2
    done = imported(data, *first, tmp_path / "cut.json", whole, *named)
    assert done.exit_code == 1
    assert "breaks off or is damaged after 2 elements" in done.output
    assert "1 of 4 files could not be read, or not to the end" in done.output
    assert "whole.jsonl: openai-finetuning, 2 of 2 rows taken" in done.output
    assert taken(db, data).traces == 2
    told = json.loads(imported(data, *first, whole, *named, "--json").output)
    assert [one["taken"] for one in told["files"]] == [0, 0, 2]


def test_the_answers_are_described_and_sampled(tmp_path: Path, data: Path) -> None:
    answers = ['{"category": "shipping"}'] * 47 + ["\x1b[31mIt is", '{"category": "shi', "so ..."]
    file = jsonl(tmp_path / "a.jsonl", [logs.finetuning(str(n), a) for n, a in enumerate(answers)])
    done = imported(data, file, "--task", "t", "--model", "m")
    assert "answers: 94 % JSON with the keys category; 4 % short text; 2 % text that" in done.output
    assert '4 different, most often "{"category": "shipping"}" 94 %. 2 look cut off' in done.output
    assert '"[31mIt is"' in done.output
    [told] = json.loads(imported(data, file, "--task", "t", "--model", "m", "--json").output)[
        "files"
    ]
    assert told["answers"]["look_cut_off"] == 2
    assert told["answers"]["shapes"]["JSON with the keys category"] == 47


def test_a_time_that_cannot_be_read_is_not_taken_for_the_files(tmp_path: Path, data: Path) -> None:
    times = ["9999-12-31 00:00:00", "1966-01-01", "yesterday", -5, 10**30, None, ""]
    rows = [
        logs.spend_log(startTime=time, request_id=f"r{n}", response=logs.completion(id=f"r{n}"))
        for n, time in enumerate(times)
    ]
    done = imported(data, jsonl(tmp_path / "a.jsonl", rows), "--task", "t")
    assert "2 of 7 rows taken" in done.output
    assert "3  its time cannot be read" in done.output
    assert "2  its time lies in the future" in done.output


def test_the_report_can_be_json(tmp_path: Path, data: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [logs.spend_log(), "x"])
    told = json.loads(imported(data, file, "--json").output)
    assert told == {
        "data_dir": str(data),
        "files": [
            {
                "file": "a.jsonl",
                "format": "litellm",
                "taken": 1,
                "left_out": {"not valid JSON": 1},
                "not_tags": [],
                "answers": {
                    "shapes": {"short text": 1},
                    "different": 1,
                    "common": {},
                    "look_cut_off": 0,
                    "samples": ["shipping"],
                },
                "error": None,
            }
        ],
    }


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("", (), 1, "it holds no rows"),
        ('{"a": 1}\n', (), 1, "its format is not recognised; --format takes one of litellm"),
        ("secret prompt", (), 1, "neither JSON lines, nor JSON, nor CSV"),
        (json.dumps(FINETUNING[0]), ("--model", "m"), 1, "no row could be taken"),
        (json.dumps(FINETUNING[0]), ("--task", "t"), 1, "no row could be taken"),
        (json.dumps(FINETUNING[0]), ("--task", "No Tag"), 2, "--task takes 1 to 64"),
        (json.dumps(FINETUNING[0]), ("--format", "x"), 2, "--format takes one of"),
        (json.dumps(FINETUNING[0]), ("--task", "t", "--tag-from", "x"), 2, "give one of them"),
    ],
)
def test_a_file_that_cannot_be_imported_has_its_reason(
    tmp_path: Path, data: Path, content: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    done = imported(data, path, *arguments)
    assert done.exit_code == code
    assert said in done.output
    assert "secret prompt" not in done.output
    assert not list(data.glob("journal/*.jsonl"))


def test_without_a_config_the_data_folder_has_to_be_given(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", FINETUNING)
    done = CliRunner().invoke(app, ["import", str(file), "--task", "t"])
    assert (done.exit_code, "give --config or --data-dir" in done.output) == (2, True)


def test_a_row_from_the_future_is_left_out(tmp_path: Path, data: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [logs.spend_log(), logs.spend_log(startTime="2099-01-01")])
    assert "1  its time lies in the future" in imported(data, file).output


@pytest.mark.slow
def test_a_full_disk_ends_the_import_and_what_came_before_stays(
    tmp_path: Path, data: Path, db: Database
) -> None:
    file = jsonl(tmp_path / "a.jsonl", [logs.finetuning(f"{n} " + "x" * 4000) for n in range(100)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        done = imported(data, file, "--task", "triage", "--model", "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 1
    assert "rows of" in done.output
    assert "were taken" in done.output
    some = taken(db, data)
    assert 10 < some.traces < 100
    assert some.damaged == 0
    imported(data, file, "--task", "triage", "--model", "m")
    taken(db, data)
    assert task_counts(db) == {"triage": 100}


@pytest.mark.slow
def test_a_running_server_takes_an_import_once(
    tmp_path: Path, data: Path, teacher: LoopbackServer
) -> None:
    file = jsonl(tmp_path / "a.jsonl", FINETUNING)
    named = ("--task", "triage", "--model", "gpt-4o")
    assert imported(data, file, *named).exit_code == 0  # before anything runs
    config = settings(teacher.base_url, data, server={"port": 0})
    with Served(tmp_path, config) as served:

        def there() -> dict[str, int]:
            try:
                tasks = fetch_status(served.url)["tasks"]
            except ProductError:  # the control plane starts a little later than the proxy
                return {}
            return {t["task"]: t["new_traces"] for t in tasks}

        wait_until(lambda: there() == {"triage": 40})
        assert imported(data, file, *named).exit_code == 0
        more = jsonl(tmp_path / "b.jsonl", [*FINETUNING[30:], logs.finetuning("One more")])
        assert imported(data, more, *named).exit_code == 0
        wait_until(lambda: there() == {"triage": 41} and not list(data.glob("journal/*.jsonl")))
        assert served.stop() == []


@pytest.mark.slow
def test_killed_in_the_middle_and_done_again_each_call_is_there_once(
    tmp_path: Path, data: Path, db: Database
) -> None:
    rows = [logs.finetuning(f"{n} " + "a parcel " * 50) for n in range(20_000)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    named = ["--task", "triage", "--model", "gpt-4.1", "--data-dir", str(data)]
    root = ROOT
    process = subprocess.Popen([sys.executable, "-m", "cli", "import", str(file), *named], cwd=root)
    wait_until(lambda: any(f.stat().st_size > 10_000 for f in data.glob("journal/*.open")))
    process.kill()
    process.wait()
    before = taken(db, data).traces
    assert 0 < before < 20_000
    assert imported(data, file, *named[:4]).exit_code == 0
    assert taken(db, data).traces == 20_000 - before
    assert task_counts(db) == {"triage": 20_000}
