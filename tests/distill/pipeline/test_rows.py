"""The first stage of a run, from the store to the files in its folder."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from distill.collect import collect
from distill.dataset.rows import SPLITS, Row, Selection
from distill.pipeline.rows import (
    MANIFEST,
    collect_rows,
    newest_answers,
    recent_traffic,
    save_selection,
    shortage,
    suspect_since,
)
from distill.run.history import StageResult
from distill.run.run import Parts, Run, some_groups
from store.chat.shape import fingerprint, input_hash
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.store import Store
from store.ids import new_id
from store.records import Trace
from store.settings.tasks import TaskSettings
from tests.helpers.samples import a_comparison, a_feedback, a_promotion, a_trace, write_segment

TASK = "triage"
RULES = "You route requests of an assistant. Answer with the name of the intent."


def a_request(text: str, *, at: float, system: str = RULES, **changes: Any) -> Trace:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    values = {
        "start_time": at,
        "end_time": at + 0.25,
        "request_params": '{"model":"gpt-4o"}',
        "input_messages": orjson.dumps(messages).decode(),
        "input_hash": input_hash(messages),
        "fingerprint": fingerprint({"model": "gpt-4o", "messages": messages}),
    }
    return a_trace(**{**values, **changes})


def take(db: Database, folder: Path, *traces: Trace) -> None:
    write_segment(folder / "journal", *traces)
    collect(db, folder / "journal", {})


def chosen(db: Database, folder: Path) -> StageResult[Selection]:
    def no_teacher(*_: Any) -> Any:
        raise AssertionError("no teacher is asked for rows")

    run = Run(folder.name, TASK, TaskSettings(), 5000.0, folder)
    parts = Parts(store=Store(db), clock=lambda: 5000.0, teacher=no_teacher)
    return asyncio.run(collect_rows(run, parts, lambda *_: None))


@pytest.mark.slow
def test_rows_of_a_varying_prompt_are_chosen_once_per_run(db: Database, tmp_path: Path) -> None:
    traces = [
        a_request(f"request {n}", at=float(n), system=f"Today is 2026-01-{1 + n // 8:02d}. {RULES}")
        for n in range(200)
    ]
    take(db, tmp_path, *traces, a_request("of another task", at=1.0, task="orders"))
    result = chosen(db, tmp_path / "run")
    [template] = result.value.templates
    assert len(result.value.rows) == 200
    assert {row.fingerprint for row in result.value.rows} == {template.template_id}
    [template_summary] = result.detail["templates"]
    assert template_summary["skeleton"] == f"Today is …. {RULES}"
    assert (template_summary["prompts"], template_summary["holes"]) == (25, [14])
    assert result.detail["traces"] == 200
    assert result.detail["used_until"] == 199.0
    assert sum(result.detail["rows"].values()) == 200

    # a run that goes on finds what it chose, whatever came in meanwhile
    take(db, tmp_path, *(a_request(f"late {n}", at=300.0 + n) for n in range(300)))
    assert chosen(db, tmp_path / "run") == result
    assert chosen(db, tmp_path / "another").value != result.value
    # without the manifest nothing counts
    (tmp_path / "run" / MANIFEST).unlink()
    assert chosen(db, tmp_path / "run").value != result.value


@pytest.mark.slow
def test_an_edited_prompt_is_learnt_although_the_old_one_has_the_traces(
    db: Database, tmp_path: Path
) -> None:
    old = [a_request(f"old {n}", at=n / 10, system="Sort it.") for n in range(1500)]
    new = [a_request(f"new {n}", at=1000.0 + n, system="Sort it well.") for n in range(1000)]
    take(db, tmp_path, *old, *new)
    result = chosen(db, tmp_path / "run")
    assert {row.messages[0]["content"] for row in result.value.rows} == {"Sort it well."}
    assert result.detail["left_out"] == {"rare_fingerprint": 1500}


@pytest.mark.slow
def test_a_served_prompt_is_learnt_again_from_old_traces(db: Database, tmp_path: Path) -> None:
    """Also when other traces have pushed its own out of the newest."""
    taught = [a_request(f"taught {n}", at=float(n), system="Served.") for n in range(60)]
    served = [
        a_request(f"s {n}", at=900.0 + n, system="Served.", served_by="student", route="student")
        for n in range(80)
    ]
    other = [a_request(f"other {n}", at=500.0 + n, system="Other.") for n in range(200)]
    take(db, tmp_path, *taught, *served, *other)
    result = newest_answers(db, TASK, recent_traffic(db, TASK), most=100)
    assert Counter(t.fingerprint for t in result) == {
        taught[0].fingerprint: 60,
        other[0].fingerprint: 100,
    }
    assert len({t.trace_id for t in result}) == 160
    assert len(newest_answers(db, TASK, recent_traffic(db, TASK), most=1000)) == 260
    systems = Counter(row.messages[0]["content"] for row in chosen(db, tmp_path / "r").value.rows)
    assert systems == {"Served.": 60, "Other.": 200}


@pytest.mark.slow
def test_audits_corrections_and_the_last_demotion_reach_the_rows(
    db: Database, tmp_path: Path
) -> None:
    taught = [a_request(f"taught {n}", at=float(n)) for n in range(300)]
    served = [
        a_request(f"served {n}", at=1000.0 + n, served_by="student", route="student")
        for n in range(3)
    ]
    take(db, tmp_path, *taught, *served)
    write_comparisons(
        db,
        [
            a_comparison(trace_id=served[0].trace_id, kind="audit", teacher_output="refund"),
            a_comparison(trace_id=served[1].trace_id, kind="feedback", teacher_output="billing"),
            a_comparison(trace_id=taught[1].trace_id, kind="shadow", teacher_output="shadow"),
        ],
    )
    write_segment(
        tmp_path / "journal",
        a_feedback(served[2].trace_id, correction="cancel", feedback_at=2001.0),
        a_feedback(served[2].trace_id, correction="an older word", feedback_at=2000.0),
        a_feedback(served[2].trace_id, correction=" ", feedback_at=2002.0),
        a_feedback(taught[0].trace_id, correction="account", feedback_at=2000.0),
        a_feedback(taught[1].trace_id, correction=None, score=1.0, feedback_at=2000.0),
    )
    collect(db, tmp_path / "journal", {})
    append_promotion(
        db,
        a_promotion(task=TASK, target="teacher", state="demoted", at=1500.0, suspect_since=150.0),
    )
    result = chosen(db, tmp_path / "run")
    assert result.detail["suspect_since"] == 150.0
    by_trace = {row.trace_id: row for row in result.value.rows}
    for trace, target, origin in (
        (served[0], "refund", "trace"),
        (served[2], "cancel", "correction"),
        (taught[0], "account", "correction"),
        (taught[1], "shipping", "trace"),
    ):
        row = by_trace.get(trace.trace_id)
        if row is not None:  # those from before that would have judged are out
            assert (row.target, row.origin) == (target, origin)
    assert served[0].trace_id in by_trace and served[2].trace_id in by_trace
    assert served[1].trace_id not in by_trace
    assert result.detail["corrections"] == sum(r.origin == "correction" for r in by_trace.values())
    before = {t.trace_id for t in taught if t.start_time < 150}
    assert {row.split for row in result.value.rows if row.trace_id in before} == {"train"}
    assert {row.split for row in result.value.rows} == set(SPLITS)


def test_suspicion_ends_when_a_later_student_is_live() -> None:
    def step(state: str, **changes: Any) -> Any:
        target = "teacher" if state == "demoted" else "student"
        return a_promotion(target=target, state=state, **changes)

    old, new = step("demoted", suspect_since=10.0), step("demoted", suspect_since=20.0)
    by_hand = step("demoted")
    assert suspect_since([]) is None
    assert suspect_since([step("live"), step("shadow")]) is None
    assert suspect_since([new, step("live"), old]) == 20.0
    assert suspect_since([step("canary"), step("shadow"), new, old]) == 20.0
    assert suspect_since([by_hand, step("shadow"), new]) == 20.0
    assert suspect_since([step("live"), step("shadow"), new]) is None
    assert suspect_since([by_hand, step("live"), new]) is None


@pytest.mark.slow
def test_a_selection_reads_back_as_it_was_written(db: Database, tmp_path: Path) -> None:
    traces = [a_request(f"text {n} 📦", at=float(n)) for n in range(20)]
    take(db, tmp_path, *traces)
    result = chosen(db, tmp_path / "run")
    save_selection(tmp_path / "copy", result.value, result.detail)
    assert chosen(db, tmp_path / "copy") == result


def rows(count: int, split: Any) -> list[Row]:
    return [
        Row(
            trace_id=new_id(),
            input_hash=new_id(),
            split=split,
            fingerprint="f",
            model="m",
            messages=[],
            params={},
            target="t",
        )
        for _ in range(count)
    ]


@pytest.mark.slow
def test_too_few_rows_for_a_certificate_are_reported() -> None:
    def short(train: int, calibration: int, heldout: int, attempt: int = 1) -> str:
        sizes = zip(SPLITS, (train, calibration, heldout), strict=True)
        selection = Selection([row for split, n in sizes for row in rows(n, split)])
        assert selection.sizes == {"train": train, "calibration": calibration, "heldout": heldout}
        found = shortage(selection, TaskSettings(), attempt)
        return found.reason if found else ""

    assert short(100, 40, 10).startswith("10 held-out groups, but a threshold of 0.95")
    assert short(100, 40, 500) == ""
    assert (
        short(0, 40, 500) == short(100, 0, 500) == "no rows in the train or the calibration split"
    )
    enough = next(n for n in range(20, 500) if not short(100, 40, n))
    assert short(100, 40, enough, attempt=2).endswith("in attempt 2 even without a disagreement")


@pytest.mark.slow
def test_inputs_are_frequent_by_the_requests_that_anybody_answered(
    db: Database, tmp_path: Path
) -> None:
    ping = "are you still there?"
    taught = [a_request(f"request {n * 7919}", at=float(n)) for n in range(60)]
    pings = [a_request(ping, at=100.0 + n) for n in range(4)]
    served = [
        a_request(ping, at=200.0 + n, served_by="student", route="student") for n in range(96)
    ]
    unknown = [
        a_request("never asked before", at=300.0 + n, served_by="student", route="student")
        for n in range(20)
    ]
    failed = [a_request("x", at=400.0 + n, served_by=None, route="teacher") for n in range(90)]
    take(db, tmp_path, *taught, *pings, *served, *unknown, *failed)
    result = chosen(db, tmp_path / "run")
    found = {one.input_hash: one for one in result.value.frequent}
    assert set(found) == {pings[0].input_hash, unknown[0].input_hash}
    assert found[pings[0].input_hash].requests == 100
    assert len(found[pings[0].input_hash].answers) == 4
    assert found[unknown[0].input_hash].answers == []
    assert result.value.requests == 180
    assert result.detail["frequent"] == {"inputs": 2, "share": 120 / 180}
    assert chosen(db, tmp_path / "run") == result


@pytest.mark.slow
def test_a_prompt_that_has_been_edited_since_is_no_part_of_the_traffic(
    db: Database, tmp_path: Path
) -> None:
    old = [a_request(f"old {n}", at=n / 10, system="Sort it.") for n in range(1200)]
    new = [a_request(f"new {n * 7919}", at=1000.0 + n, system="Sort it well.") for n in range(990)]
    often = [a_request("ping", at=5000.0 + n, system="Sort it well.") for n in range(10)]
    take(db, tmp_path, *old, *new, *often)
    result = chosen(db, tmp_path / "run").value
    assert [one.requests for one in result.frequent] == [10]
    assert result.requests == 1000


def test_a_shortage_of_groups_says_what_there_is_and_one_by_a_setting_what_it_is() -> None:
    held = [replace(row, group=n // 10) for n, row in enumerate(rows(3000, "heldout"))]
    others = [*rows(300, "train"), *rows(90, "calibration")]
    few = shortage(Selection([*others, *held[:220]]), TaskSettings())
    assert few is not None
    assert few.reason.startswith("22 held-out groups (220 rows)")
    assert few.supply == {"heldout": 22, "calibration": 90, "attempt": 1}
    most = TaskSettings.model_validate({"evaluate": {"max_rows": 500}})
    many = shortage(Selection([*others, *held]), most)
    assert many is not None
    assert "50 held-out groups (500 rows)" in many.reason
    assert many.reason.endswith("evaluate.max_rows is 500, which is too few for more")
    assert many.supply is None
    assert shortage(Selection([*others, *held]), TaskSettings()) is None
    assert shortage(Selection([*others, *rows(400, "heldout")]), TaskSettings()) is None


def test_a_sample_for_the_evaluation_has_whole_groups_of_any_size() -> None:
    sizes = [1, 2, 5, 20] * 50
    held = [
        replace(row, group=group)
        for group, size in enumerate(sizes)
        for row in rows(size, "heldout")
    ]
    chosen = some_groups(held, 400)
    kept = {row.group for row in chosen}
    assert 380 <= len(chosen) <= 400
    assert len(chosen) == sum(sizes[group] for group in kept if group is not None)
    assert chosen == [row for row in held if row.group in kept]
    assert some_groups(list(reversed(held)), 400) == list(reversed(chosen))
    # large groups are neither preferred nor avoided
    assert 4 <= sum(sizes[group or 0] == 20 for group in kept) <= 24
    assert some_groups(held, len(held)) == held


def test_one_group_larger_than_the_sample_is_cut() -> None:
    held = [replace(row, group=1) for row in rows(50, "heldout")]
    assert len(some_groups(held, 20)) == 20
