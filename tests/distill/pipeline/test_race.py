"""The race of student kinds: its rules as tables, and whole runs with real students."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.dataset.answers import Answers, answers_of
from distill.dataset.rows import Row, Selection
from distill.gate.cutoffs import Cutoff
from distill.kinds.label import LabelKind
from distill.kinds.lora import LoraKind
from distill.kinds.registry import KINDS, kind_named
from distill.pipeline.pipeline import distil
from distill.pipeline.race import (
    better,
    expected_coverage,
    no_kind_fits,
    not_worth,
    unfit,
    with_winner,
)
from distill.pipeline.rows import save_selection
from distill.pipeline.training import trained_student
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.database.runs import certificates_of_task, events_of_run
from store.database.store import Store
from store.errors import RunError
from store.ids import new_id
from store.records import RaceEntry, RunEvent, RunState, TeacherCall
from store.settings.config import StoreSettings, parse_config
from store.settings.tasks import TaskSettings
from tests.helpers.label_samples import label_rows
from tests.helpers.student_samples import BASE

LABELS = Answers(kind="label", reason="", labels=frozenset({"a", "b"}))


def entry(kind: Any = "label", coverage: float | None = 0.5, **changes: Any) -> RaceEntry:
    return RaceEntry(**{"kind": kind, "coverage": coverage, "agreement": 0.9, **changes})


def cutoff(coverage: float, chance: float) -> Cutoff:
    return Cutoff(0.5, coverage, 0.97, chance, "")


# ---- which kinds race --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        (LABELS, ["label", "lora"]),
        (Answers(kind="label", reason=""), ["lora"]),  # too many labels to be listed
        (Answers(kind="text", reason=""), ["lora"]),
        (Answers(kind="tools", reason=""), ["lora"]),
        (Answers(kind="json", reason="", fields=frozenset({"a"})), ["label", "lora"]),
        (
            Answers(kind="json", reason="", fields=frozenset({"a"}), open_fields=frozenset({"id"})),
            ["lora"],
        ),
        (Answers(kind="json", reason=""), ["lora"]),
    ],
)
def test_kinds_race_for_the_answers_that_they_can_learn(answers: Answers, names: list[str]) -> None:
    settings = TaskSettings.model_validate({"train": {"base": BASE}})

    assert [kind.name for kind in KINDS if not unfit(kind, answers, settings)] == names


@pytest.mark.parametrize("wanted", ["label", "lora"])
def test_the_kind_that_is_set_races_alone(wanted: str) -> None:
    settings = TaskSettings.model_validate({"student": wanted, "train": {"base": BASE}})

    assert [kind.name for kind in KINDS if not unfit(kind, LABELS, settings)] == [wanted]


def test_a_bare_kind_changes_nothing_else_of_a_student() -> None:
    config = parse_config(
        {
            "model_list": [
                {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
            ],
            "task_defaults": {"student": {"request_timeout_s": 3}},
            "tasks": {"triage": {"student": "label"}},
        }
    )
    task, other = config.task("triage").student, config.task("other").student
    assert (task.kind, task.request_timeout_s) == ("label", 3)
    assert (other.kind, other.request_timeout_s) == ("auto", 3)


@pytest.mark.parametrize("base", ["", "/no/such/folder", "./none"])
def test_without_a_base_labels_are_learned_all_the_same(base: str) -> None:
    settings = TaskSettings.model_validate({"train": {"base": base}})

    assert "train.base" in LoraKind().unfit(LABELS, settings)
    assert no_kind_fits(LABELS, settings) == ""
    assert "train.base" in no_kind_fits(Answers(kind="text", reason=""), settings)


def test_an_open_field_is_named() -> None:
    answers = Answers(kind="json", reason="", open_fields=frozenset({"order_id"}))

    assert "order_id" in LabelKind().unfit(answers, TaskSettings())


# ---- the score ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cutoffs", "expected"),
    [
        ([], 0.0),
        ([cutoff(0.6, 1.0)], 0.6),
        ([cutoff(0.6, 0.5)], 0.3),
        ([cutoff(0.6, 0.9), cutoff(0.8, 0.5)], 0.6 * 0.9 + 0.2 * 0.5),
        # a later cutoff is reached only when those before it pass
        ([cutoff(0.6, 0.1), cutoff(0.8, 0.9)], 0.8 * 0.1),
    ],
)
def test_the_coverage_that_is_expected(cutoffs: list[Cutoff], expected: float) -> None:
    assert expected_coverage(cutoffs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("best", "worth", "trained"),
    [
        (None, 0.05, True),
        (entry(coverage=None), 0.05, True),
        (entry(coverage=0.96), 0.05, False),
        (entry(coverage=0.96), 0.03, True),
        (entry(coverage=0.0), 1.0, True),
        (entry(coverage=0.2), 1.0, False),
    ],
)
def test_a_dearer_kind_is_trained_when_enough_is_left(
    best: RaceEntry | None, worth: float, trained: bool
) -> None:
    reason = not_worth(best, worth)

    assert (reason == "") is trained
    assert trained or "race.worth" in reason


@pytest.mark.parametrize(
    ("one", "other", "wins"),
    [
        (entry(coverage=0.6), entry(coverage=0.5, latency_ms=0.0), True),
        (entry(coverage=0.505, latency_ms=9), entry(coverage=0.5, latency_ms=1), False),
        (entry(coverage=0.5, latency_ms=1), entry(coverage=0.505, latency_ms=9), True),
        (entry(coverage=0.0, agreement=0.8), entry(coverage=0.0, agreement=0.7), True),
        (entry(coverage=0.5, disk_mb=9.0), entry(coverage=0.5, disk_mb=1.0), False),
    ],
)
def test_what_decides_between_two_kinds(one: RaceEntry, other: RaceEntry, wins: bool) -> None:
    assert better(one, other) is wins


def test_the_winner_says_against_whom_it_has_won() -> None:
    label, lora = with_winner([entry("label", 0.5), entry("lora", 0.7)], "lora")

    assert (label.won, lora.won) == (False, True)
    assert "0.700" in lora.reason and "label 0.500" in lora.reason


def test_a_student_of_before_there_were_kinds_is_a_lora_one(tmp_path: Path) -> None:
    (tmp_path / "train-real" / "adapter").mkdir(parents=True)
    detail = {"chosen": "real", "base": "a-base", "adapter": "train-real/adapter"}

    trained = trained_student(tmp_path, detail)
    assert (trained.kind, trained.base) == ("lora", "a-base")
    with pytest.raises(RunError, match="gone"):
        trained_student(tmp_path, {})
    with pytest.raises(RunError, match="kind 'oracle'"):
        trained_student(tmp_path, {**detail, "kind": "oracle"})
    with pytest.raises(RunError, match="kind"):
        kind_named("head")


# ---- whole runs --------------------------------------------------------------------------------


def no_teacher(model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
    raise AssertionError(f"run {run.run_id} asks {model}")


def rows_of(train: int, calibration: int, heldout: int) -> list[Row]:
    return [
        *label_rows(train, 1, "train"),
        *label_rows(calibration, 2, "calibration"),
        *label_rows(heldout, 3, "heldout"),
    ]


async def distilled(folder: Path, rows: list[Row], **settings: Any) -> tuple[RunEvent, Database]:
    raw = {"amplify": {"target": 50}, "evaluate": {"teacher_recheck": 0}, **settings}
    run = Run(new_id(), "skills", TaskSettings.model_validate(raw), 0.0, folder)
    save_selection(folder, Selection(rows), {})
    db = Database(folder.parent / f"{run.run_id}.duckdb", StoreSettings())
    parts = Parts(store=Store(db), clock=lambda: 1.0, teacher=no_teacher)
    return await distil(run, parts, lambda *_: None), db


@pytest.mark.slow
async def test_labels_are_certified_without_a_base_or_a_teacher_call(tmp_path: Path) -> None:
    event, db = await distilled(tmp_path / "run", rows_of(300, 150, 250), train={"base": ""})
    with db:
        assert event.state is RunState.PROMOTED, event.reason
        [certificate] = certificates_of_task(db, "skills")
        states = [e.state for e in events_of_run(db, event.run_id)]
        trained = events_of_run(db, event.run_id)[2].detail
        promotion = latest_promotions(db)["skills"]
    assert states == [
        RunState.COLLECTED,
        RunState.AMPLIFIED,
        RunState.TRAINED,
        RunState.EVALUATED,
        RunState.PROMOTED,
    ]
    label, lora = certificate.race
    assert (label.kind, label.won, lora.kind, lora.won) == ("label", True, "lora", False)
    assert "train.base" in lora.reason
    assert certificate.coverage > 0.9
    assert promotion.certificate == certificate
    assert trained["kind"] == "label"
    assert trained_student(tmp_path / "run", trained).adapter.is_dir()
    assert label.seconds > 0


@pytest.mark.slow
async def test_both_kinds_answer_the_calibration_rows_and_the_winner_alone_the_others(
    tmp_path: Path,
) -> None:
    quick = {"base": BASE, "iterations": 4, "validations": 1, "max_seq_length": 256}
    event, db = await distilled(
        tmp_path / "run",
        rows_of(300, 40, 250),
        train=quick,
        race={"worth": 0.0},
        amplify={"target": 0},
        student={"request_timeout_s": 60},
    )
    with db:
        [certificate] = certificates_of_task(db, "skills")
        evaluated = db.query("evaluations_of_run", run_id=event.run_id)
    label, lora = certificate.race
    assert label.won and not lora.won
    assert lora.coverage is not None and lora.rows == label.rows == 40
    assert lora.base == BASE and lora.memory_mb > 0 and lora.disk_mb > 0
    assert len(evaluated) == 290


@pytest.mark.slow
async def test_a_kind_that_cannot_be_trained_leaves_the_race(tmp_path: Path) -> None:
    event, db = await distilled(
        tmp_path / "run",
        rows_of(300, 40, 250),
        train={"base": BASE, "layers": 99},
        race={"worth": 0.0},
        amplify={"target": 0},
    )
    with db:
        [certificate] = certificates_of_task(db, "skills")
    assert event.state is RunState.PROMOTED, event.reason
    assert certificate.race[0].won
    assert "layers" in certificate.race[1].reason


async def test_a_task_that_no_kind_can_learn_is_rejected_before_it_costs_anything(
    tmp_path: Path,
) -> None:
    rows = [replace(row, target=f"{row.target} {i}") for i, row in enumerate(rows_of(9, 9, 250))]
    event, db = await distilled(tmp_path / "run", rows, student="label")
    with db:
        assert event.state is RunState.REJECTED
        assert (
            "answers of the kind text" in event.reason and "student.kind is label" in event.reason
        )


@pytest.mark.slow
async def test_a_label_that_reads_like_json_does_not_make_a_task_one_of_json(
    tmp_path: Path,
) -> None:
    rows = [replace(row, target="[]") if row.target == "Book" else row for row in label_rows(90, 1)]
    run = Run(new_id(), "skills", TaskSettings(), 0.0, tmp_path)
    assert answers_of(rows).kind == "label"
    trained = await LabelKind().train(run, rows, rows, [], lambda *_: None)

    assert trained.numbers["candidates"]["real"]["choices"] == 3
