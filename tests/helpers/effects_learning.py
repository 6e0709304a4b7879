"""The effects of the settings of training, evaluation, gate and student. The table comes last."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from distill.dataset.answers import answers_of, describe
from distill.dataset.rows import SPLITS, Selection
from distill.evaluate.evaluate import evaluate
from distill.evaluate.scoring import Scorer, choose_scorer
from distill.kinds.kind import Trained
from distill.kinds.lora import LoraKind
from distill.kinds.registry import KINDS
from distill.pipeline.evaluation import evaluate_student
from distill.pipeline.pipeline import distil
from distill.pipeline.race import not_worth, unfit
from distill.pipeline.rows import save_selection
from distill.run.run import Parts, Run
from distill.students.server import StudentServer
from distill.teacher.client import TeacherClient
from distill.train.config import training_config
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.database.store import Store
from store.errors import StudentError, TrainingError
from store.files.atomic import write_atomically
from store.ids import new_id
from store.jsontext import to_json_line
from store.records import (
    RaceEntry,
    Reason,
    RunState,
    TeacherCall,
    TermsOfService,
)
from store.settings.config import parse_config
from tests.helpers.counting_server import counting, student_says
from tests.helpers.effects import TASK, Effect, Raw, no_progress, of_task
from tests.helpers.gate_samples import judge
from tests.helpers.gate_samples import row as evaluated
from tests.helpers.gate_samples import rows as evaluated_rows
from tests.helpers.samples import an_evaluation, an_example
from tests.helpers.student_samples import BASE
from tests.helpers.student_samples import rows as student_rows

NOWHERE = "/nowhere/at/all"


# ---- training ----------------------------------------------------------------------------------


def configured(*keys: str | int) -> Callable[[Raw], Any]:
    """A value of the training config for 100 rows; None when it has none."""

    def seen(raw: Raw) -> Any:
        result: Any = training_config(
            of_task(raw).train, base=BASE, data=Path("data"), adapter=Path("adapter"), rows=100
        )
        for key in keys:
            result = result.get(key) if isinstance(result, dict) else result[key]
        return result

    return seen


class EnoughBegunError(Exception):
    """Both trainings have begun; the test need not wait for their end."""


async def train_in(raw: Raw) -> tuple[Path, set[str]]:
    """The folder of a training stage, and the names of the trainings that it has begun.

    The stage goes on to its end, or until a second training begins.
    """
    config = parse_config(raw)
    run = Run(new_id(), TASK, config.task(TASK), 0.0, config.runs_dir / "run")
    real, examples = student_rows(4, seed=1), [an_example(run.run_id)]
    begun = set()

    def tell(stage: str, done: float, total: float, note: str) -> None:
        begun.add(note.partition(":")[0])
        if len(begun) == 2:
            raise EnoughBegunError

    try:
        await LoraKind().train(run, real, real, examples, tell)
    except* (TrainingError, EnoughBegunError):
        pass
    return run.folder, begun


async def trainings_begun(raw: Raw) -> set[str]:
    _, begun = await train_in(raw)
    return begun


async def base_trained(raw: Raw) -> str:
    folder, _ = await train_in(raw)
    [file] = folder.glob("*/config.yaml")
    return str(yaml.safe_load(file.read_text(encoding="utf-8"))["model"])


async def adapters_trained(raw: Raw) -> int:
    folder, _ = await train_in(raw)
    return len(list(folder.glob("*/report.json")))


# ---- evaluation and gate -----------------------------------------------------------------------


def chosen(look: Callable[[Scorer], Any], answers: list[str]) -> Callable[[Raw], Any]:
    """A property of the scorer for these answers."""
    return lambda raw: look(choose_scorer(describe(answers), of_task(raw).evaluate))


async def student_requests_at_a_time(raw: Raw) -> int:
    async with counting(lambda _: student_says("{}")) as (url, most):
        await evaluate(
            url,
            student_rows(12, seed=1),
            run_id="run",
            terms=TermsOfService(output="json", max_tokens=9, timeout_s=60),
            scorer=Scorer("json", 1.0, "json", ""),
            settings=of_task(raw).evaluate,
            progress=no_progress,
        )
        return most()


def no_teacher(model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
    raise AssertionError(f"run {run.run_id} asks for {model}")


async def rows_to_evaluate(raw: Raw) -> set[float]:
    """How many of 5 calibration rows and 8 held-out rows a student is to answer."""
    config, totals = parse_config(raw), set()
    run = Run(new_id(), TASK, config.task(TASK), 0.0, config.runs_dir / "run")
    selection = Selection([*student_rows(5, seed=1, split="calibration"), *student_rows(8, seed=2)])
    answers = answers_of(selection.seen)
    scorer = choose_scorer(answers, run.settings.evaluate)
    terms = TermsOfService(output=scorer.output)
    trained = Trained(Path(BASE), "real", base=run.settings.train.base)

    def tell(stage: str, done: float, total: float, note: str) -> None:
        totals.add(total)

    with Database(config.database_file, config.store) as db:
        parts = Parts(store=Store(db), clock=lambda: 0.0, teacher=no_teacher)
        with suppress(StudentError):  # it is given no time to start
            await evaluate_student(run, parts, selection, trained, scorer, terms, tell)
    return totals


def certified(raw: Raw) -> bool:
    """A student whose 160 served answers out of 200 agree with the teacher's, but for four."""
    unserved = [evaluated(False, fault=Reason.STUDENT_CUT_OFF)] * 40
    return judge([*evaluated_rows(156, 160), *unserved], settings=of_task(raw).gate).passed


def certified_with_a_bad_label(raw: Raw) -> bool:
    """A student that agrees on 12 of 25 answers of one label, and on all of the others."""
    answers = [*evaluated_rows(775, 775, label="one"), *evaluated_rows(12, 25, label="other")]
    return judge(answers, settings=of_task(raw).gate, output="label").passed


def certified_with_bad_rare_labels(raw: Raw) -> bool:
    """A student that agrees on 3 of 5 answers of six labels: together alone are they proven bad."""
    answers = evaluated_rows(775, 775, label="one")
    for number in range(6):
        answers += evaluated_rows(3, 5, label=f"label {number}")
    return judge(answers, settings=of_task(raw).gate, output="label").passed


def certified_with_a_label_of_few_rows(raw: Raw) -> bool:
    """A student that agrees on all answers, three of which have the label `yes`."""
    answers = [*evaluated_rows(775, 775, label="no"), *evaluated_rows(3, 3, label="yes")]
    return judge(answers, settings=of_task(raw).gate, output="label").passed


# ---- the student -------------------------------------------------------------------------------


async def student_is_waited_for(raw: Raw) -> bool:
    """Whether a student that cannot start gets the time to say so itself."""
    config = parse_config(raw)
    settings = config.task(TASK)
    student = StudentServer(NOWHERE, Path(BASE), settings.student, config.data_dir)
    try:
        await student.start()
    except StudentError as failure:
        return "its log ends with" in str(failure)
    raise AssertionError("a student started from nothing")


async def routes_time_limit(raw: Raw) -> float | None:
    """Of the route that a whole run leads to, whose student has answered everything well."""
    config = parse_config(raw)
    # of both values, so that the second run finds the first one's training
    folder = config.data_dir.parent.parent / "run"
    run = Run(new_id(), TASK, config.task(TASK), 0.0, folder)
    rows = [r for n, name in enumerate(SPLITS) for r in student_rows(20, seed=n, split=name)]
    selection = Selection(rows)
    answers = [
        an_evaluation(run.run_id, input_hash=row.input_hash, split=row.split)
        for row in [*selection.calibration, *selection.heldout]
    ]
    save_selection(folder, selection, {})
    write_atomically(folder / "evaluations.jsonl", b"".join(map(to_json_line, answers)))
    with Database(config.database_file, config.store) as db:
        parts = Parts(store=Store(db), clock=lambda: 0.0, teacher=no_teacher)
        ended = await distil(run, parts, no_progress)
        assert ended.state is RunState.PROMOTED, ended.reason
        route = latest_promotions(db)[TASK].route
    return route.terms.timeout_s if route is not None else None


# ---- the race ----------------------------------------------------------------------------------


def kinds_that_race(raw: Raw) -> list[str]:
    """For answers that are labels."""
    labels = describe(LABELS)
    return [kind.name for kind in KINDS if not unfit(kind, labels, of_task(raw))]


def trained_beside(raw: Raw) -> bool:
    """Whether a dearer kind is trained where a cheaper one is expected to serve nine in ten."""
    return not not_worth(RaceEntry(kind="label", coverage=0.9), of_task(raw).race.worth)


# ---- the table ---------------------------------------------------------------------------------

T = "task_defaults"
SHORTEST = {f"{T}.train.base": BASE, f"{T}.train.iterations": 1, f"{T}.train.compare": False}
CUT_SHORT = {**SHORTEST, f"{T}.train.timeout_s": 0.5}
AT_ONCE = {**CUT_SHORT, f"{T}.train.compare": True, f"{T}.train.parallel": 2}
BOTH = {"real", "real+synthetic"}
LAX = {f"{T}.gate.threshold": 0.9}
LABELS = ["yes", "no"] * 10
TEXTS = ["an answer of more than sixty-four characters, which are too many for a label"] * 9

LEARNING: dict[str, Effect] = {
    f"{T}.train.base": Effect(base_trained, (BASE, BASE), (NOWHERE, NOWHERE), CUT_SHORT, slow=True),
    f"{T}.train.rank": Effect(configured("lora_parameters", "rank"), (8, 8), (64, 64)),
    f"{T}.train.scale": Effect(configured("lora_parameters", "scale"), (2.0, 2.0), (10.0, 10.0)),
    f"{T}.train.dropout": Effect(configured("lora_parameters", "dropout"), (0.0, 0.0), (0.1, 0.1)),
    f"{T}.train.layers": Effect(configured("num_layers"), (-1, -1), (2, 2)),
    f"{T}.train.keys": Effect(
        configured("lora_parameters", "keys"),
        (None, None),
        (["self_attn.q_proj"], ["self_attn.q_proj"]),
    ),
    f"{T}.train.learning_rate": Effect(
        configured("lr_schedule", "arguments", 0), (1e-3, 1e-3), (1e-4, 1e-4)
    ),
    f"{T}.train.warmup": Effect(configured("lr_schedule", "warmup"), (0.0, 0), (0.5, 50)),
    f"{T}.train.batch_size": Effect(configured("batch_size"), (4, 4), (8, 8)),
    f"{T}.train.epochs": Effect(configured("iters"), (4, 100), (8, 200)),
    f"{T}.train.iterations": Effect(configured("iters"), (None, 100), (7, 7)),
    f"{T}.train.max_iterations": Effect(configured("iters"), (2000, 100), (9, 9)),
    f"{T}.train.validations": Effect(configured("steps_per_eval"), (10, 10), (2, 50)),
    f"{T}.train.max_seq_length": Effect(configured("max_seq_length"), (64, 64), (512, 512)),
    f"{T}.train.mask_prompt": Effect(configured("mask_prompt"), (True, True), (False, False)),
    f"{T}.train.compare": Effect(
        trainings_begun, (False, {"real+synthetic"}), (True, BOTH), AT_ONCE, slow=True
    ),
    f"{T}.train.parallel": Effect(
        trainings_begun, (1, {"real+synthetic"}), (2, BOTH), AT_ONCE, slow=True
    ),
    f"{T}.train.seed": Effect(configured("seed"), (0, 0), (7, 7)),
    f"{T}.train.timeout_s": Effect(adapters_trained, (0.01, 0), (600, 1), SHORTEST, slow=True),
    f"{T}.evaluate.agree_at": Effect(
        chosen(lambda scorer: scorer.agrees(0.7), TEXTS), (None, False), (0.6, True)
    ),
    f"{T}.evaluate.max_rows": Effect(
        rows_to_evaluate, (3, {6}), (7, {12}), {f"{T}.student.start_timeout_s": 0.01}, slow=True
    ),
    f"{T}.evaluate.concurrency": Effect(student_requests_at_a_time, (1, 1), (3, 3)),
    f"{T}.gate.threshold": Effect(certified, (0.9, True), (0.95, False)),
    f"{T}.gate.confidence": Effect(certified, (0.95, True), (0.999, False), LAX),
    f"{T}.gate.min_coverage": Effect(certified, (0.8, True), (0.81, False), LAX),
    f"{T}.gate.min_slice_rows": Effect(certified_with_bad_rare_labels, (6, False), (5, True)),
    f"{T}.gate.protect": Effect(certified_with_a_label_of_few_rows, ([], True), (["yes"], False)),
    f"{T}.gate.slice_tolerance": Effect(certified_with_a_bad_label, (0.1, False), (0.5, True)),
    f"{T}.race.worth": Effect(trained_beside, (0.05, True), (0.2, False)),
    f"{T}.student.kind": Effect(
        kinds_that_race,
        ("auto", ["label", "lora"]),
        ("label", ["label"]),
        {f"{T}.train.base": BASE},
    ),
    f"{T}.student.request_timeout_s": Effect(
        routes_time_limit,
        (10, 10),
        (3.5, 3.5),
        {
            **SHORTEST,
            f"{T}.amplify.target": 0,
            f"{T}.evaluate.teacher_recheck": 0,
            f"{T}.gate.threshold": 0.5,
        },
        slow=True,
    ),
    f"{T}.student.start_timeout_s": Effect(
        student_is_waited_for, (0.01, False), (120, True), slow=True
    ),
}
