"""The status in a terminal: a short row for each task, all numbers for one."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console, RenderableType

from cli.status.table import render_status, render_task
from store.records import RaceEntry
from tests.helpers.status_samples import every_state, status_json

STATUS: dict[str, Any] = status_json(every_state())
TASKS: dict[str, dict[str, Any]] = {task["task"]: task for task in STATUS["tasks"]}


def shown(what: RenderableType, width: int = 100, *, colours: bool = False) -> str:
    """The text that a terminal of this width shows."""
    console = Console(
        file=io.StringIO(),
        width=width,
        markup=False,
        highlight=False,
        force_terminal=colours,
        color_system="standard" if colours else None,
        _environ={},
    )
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def cells(column: int, task: str) -> str:
    """One cell of the overview, its lines joined."""
    rows = shown(render_status(STATUS)).split("├")
    row = next(r for r in rows if f"│ {task} " in r)
    lines = [line.split("│")[column] for line in row.splitlines() if line.count("│") == 6]
    return " ".join(" ".join(lines).split())


def test_the_overview_fits_a_hundred_columns_and_stays_short() -> None:
    lines = shown(render_status(STATUS)).splitlines()
    assert max(map(len, lines)) <= 100
    rows = "\n".join(lines).split("├")[1:]
    assert max(len(row.splitlines()) for row in rows[:-1]) <= 9


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            "tickets",
            "student: certified shadow, then 5% 12/30 comparisons, 12 agree proven 95.2% ≥ 95%",
        ),
        ("orders", "canary 5%, then 25% 18/30 comparisons, 18 agree"),
        ("reviews", "live 100% 200 groups of 240 comparisons, 190 agree alarm level 72%"),
        ("refunds", "FORCED student: certified live 100%"),
        ("returns", "demoted teacher: "),
        ("summaries", "proven 90.4% < 95%"),
        ("triage", "paused teacher: paused"),
    ],
)
def test_the_overview_names_each_tasks_state(task: str, expected: str) -> None:
    assert expected in cells(3, task)


@pytest.mark.parametrize(
    "expected",
    [
        "refunds: FORCED past the gate by support app, ",
        "the held-out rows are from before",
        "returns: demoted by audit, ",
        "17 of the last 41 audits disagree",
        "the threshold of 95 % lies above it",
        "triage: paused by support app: a new prompt is coming",
    ],
)
def test_notices_stand_in_full_below_the_overview(expected: str) -> None:
    assert expected in shown(render_status(STATUS), 300)


def test_a_forced_student_is_red() -> None:
    text = shown(render_status(STATUS), colours=True)
    assert "\x1b[1;31mFORCED" in text
    assert "\x1b[1;31mrefunds: FORCED past the gate" in text.replace("\x1b[0m\x1b[1;31m", "")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            "orders",
            "The student agrees with the teacher on at least 95.2 % of what it serves, 95 % sure",
        ),
        ("orders", "18 of the 30 comparisons that this step waits for"),
        ("orders", "shadow: 60 compared, 52 servable, 51 agree"),
        ("orders", "disagreement: 9 of 412, 5% tolerated; alarm level 12%, demotes at 100%"),
        ("orders", "5% of the served requests, 2 pending"),
        ("orders", "attempt 1: error budget 2.5%; 2.5% of 5% spent"),
        ("orders", "the teacher agrees with itself on 97.5% (86.8% to 99.9%, n 40)"),
        ("orders", "distilling, audits: $0.0162"),
        ("orders", "canary 5% by rollout: 40 of 40 agree"),
        ("tickets", "varies, treated as input (31 seen): You sort tickets. Today is …. Agent on"),
        ("orders", "train: 210, calibration: 60, heldout: 131 in 99 groups"),
        ("orders", "left out: 41 other_snapshot, 5 refusal, 3 cut_off"),
        ("orders", "snapshots: gpt-4o-2024-08-06; earlier, and not counted: gpt-4o-2024-05-13"),
        ("refunds", "FORCED past the gate by support app"),
        ("refunds", "only 90.4 % agreement with the teacher is certain, 95 % is wanted"),
        ("refunds", "live 100% by support app, forced: the held-out rows"),
        ("returns", "demoted by audit: 17 of the last 41"),
        ("summaries", "judge: uncorrected"),
        ("triage", "pause by support app: a new prompt is coming"),
    ],
)
def test_the_view_of_one_task_has_every_fact(task: str, expected: str) -> None:
    assert expected in shown(render_task(TASKS[task]), 200)


def test_a_corrected_judge_is_shown_with_its_quality() -> None:
    checked = {"agreement": 0.9, "sensitivity": 0.95, "specificity": 0.8, "bias": -0.02}
    judge = {"corrected": True, "reason": "corrected by 40 answers", "n": 40, **checked}
    text = shown(render_task({**TASKS["summaries"], "judge": judge}), 200)
    assert "judge: corrected by 40 answers" in text
    assert "agreement 0.9, sensitivity 0.95, specificity 0.8, bias -0.02" in text


def test_slices_below_their_floor_are_named() -> None:
    below = {"kind": "label", "name": "spam", "n": 30, "agreed": 21, "p_value": 0.001}
    slices = [{**below, "below": True}, {**below, "name": "ham", "below": False}]
    certificate = {**TASKS["orders"]["certificate"], "slices": slices}
    text = shown(render_task({**TASKS["orders"], "certificate": certificate}), 200)
    assert "slices: 2, 1 below" in text
    assert "name spam" in text
    assert "name ham" not in text


def test_unproven_and_protected_labels_are_named() -> None:
    protected = {"name": "yes", "n": 20, "agreed": 18.0, "low": 0.6, "proven": False}
    labels = {
        "floor": 0.85,
        "labels": 77,
        "unproven": 30,
        "unproven_labels": ["yes", "maybe"],
        "protected": [protected],
    }
    text = shown(render_task({**TASKS["orders"], "labels": labels}), 200)
    assert "protected yes: 18 of 20 agree, recall at least 60%, not proven" in text
    assert "a recall of 85% is not proven for 30 of 77 labels" in text
    assert "yes, maybe, …" in text


@pytest.mark.parametrize("name", sorted(next(iter(TASKS.values()))))
@pytest.mark.slow
def test_a_missing_or_null_field_is_shown_without_an_error(name: str) -> None:
    for task in TASKS.values():
        for bare in ({k: v for k, v in task.items() if k != name}, {**task, name: None}):
            shown(render_task(bare))
            shown(render_status({**STATUS, "tasks": [bare]}))


def test_requests_to_apis_without_students_are_counted() -> None:
    teacher = {"requests": 12, "reasons": {"no_student": 8, "other_api": 4}}
    lines = shown(render_task({"task": "search", "served": {"teacher": teacher}})).splitlines()
    assert any("4 of them embeddings or legacy completions" in line for line in lines)


def test_the_race_says_what_each_kind_scored_and_why_one_won() -> None:
    label = RaceEntry(
        kind="label",
        won=True,
        reason="expected to serve 0.940 of the requests",
        coverage=0.94,
        agreement=0.97,
        rows=150,
        latency_ms=1.5,
        seconds=2.4,
        memory_mb=280,
        disk_mb=0.2,
    )
    lora = RaceEntry(kind="lora", reason="train.base is empty")
    task = {**TASKS["tickets"], "race": [asdict(label), asdict(lora)]}
    text = " ".join(shown(render_task(task), 300).split())

    assert "kind label won: expected to serve 0.940 of the requests; coverage 94% expected" in text
    assert "97% of 150 calibration rows agree" in text
    assert "kind lora: train.base is empty" in text
