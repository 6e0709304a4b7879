"""Forgetting deletes everything that was derived from a trace and nothing else, for good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.collect import collect
from store.database import forgetting
from store.database.database import Database
from store.database.forgetting import Subject
from store.database.promotions import latest_promotions
from store.database.runs import (
    append_run_event,
    evaluations_of_run,
    events_of_run,
    replace_examples,
    save_policy,
)
from store.database.traces import task_counts
from store.ids import new_id
from store.records import RunState
from store.settings.config import Config, StoreSettings, parse_config
from tests.helpers.forget_scene import (
    CANARY,
    OTHER,
    TASK,
    USER,
    FilledFolder,
    a_forgetter,
    fill_folder,
    places_of,
    trace_of,
)
from tests.helpers.samples import a_feedback, a_run_event, a_trace, an_example, write_segment
from tests.helpers.stored import comparisons_of_student, examples_of_run, policy_of_run

ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"model_list": [ENTRY], "data_dir": str(tmp_path / "data")})


@pytest.fixture
def filled(config: Config) -> FilledFolder:
    return fill_folder(config)


def opened(config: Config) -> Database:
    return Database(config.database_file, config.store)


def user_subjects(until: float | None = None) -> list[Subject]:
    until = time.time() if until is None else until
    return [Subject(kind="user", subject=USER, until=until)]


# ---- what is deleted, and what stays -----------------------------------------------------------


@pytest.mark.slow
async def test_no_text_of_a_forgotten_user_is_left_anywhere(
    config: Config, filled: FilledFolder
) -> None:
    before = places_of(CANARY, config.data_dir)
    assert len(before) >= 20, before
    others = set(places_of(OTHER, config.data_dir))

    with opened(config) as db:
        found = await a_forgetter(db, config).forget(user_subjects(), actor="ann")
    assert found.deleted.traces == found.deleted.examples == len(filled.theirs)
    assert found.rewritten
    assert places_of(CANARY, config.data_dir) == []
    # the working files of the run that had rows of both are copies, and are deleted as a whole
    gone = others - set(places_of(OTHER, config.data_dir))
    assert all(filled.run_id in place for place in gone), gone


@pytest.mark.slow
async def test_forgetting_a_user_keeps_the_rows_of_others(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        before = examples_of_run(db, filled.clean)
        await a_forgetter(db, config).forget(user_subjects(), actor="ann")
        assert task_counts(db)[TASK] == len(filled.others)
        assert examples_of_run(db, filled.clean) == before
        kept = {e.source_trace_id for e in examples_of_run(db, filled.run_id)}
        assert kept >= {trace.trace_id for trace in filled.others}
        assert policy_of_run(db, filled.clean) is not None
        assert policy_of_run(db, filled.run_id) is None  # the teacher was shown theirs
        numbers = evaluations_of_run(db, filled.run_id)
        assert len(numbers) == 8  # with their scores, if not with their texts
        assert sum(e.teacher_output == "" for e in numbers) == 2
        assert all(e.agrees for e in numbers)
        [comparison] = [
            one
            for one in comparisons_of_student(db, filled.run_id)
            if one.trace_id == filled.theirs[1].trace_id
        ]
        assert comparison.agrees
        assert comparison.teacher_output is None


@pytest.mark.slow
async def test_a_student_that_learned_from_forgotten_traces_is_marked_and_serves_on(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        found = await a_forgetter(db, config, clock=lambda: 7.0).forget(
            user_subjects(), actor="ann"
        )
        [affected] = found.deleted.affected
        assert (affected.run_id, affected.traces) == (filled.run_id, 4)  # of its train split
        assert affected.synthetic > 0
        assert found.serving == (affected,)
        marks = forgetting.marked_runs(db)
        assert set(marks) == {filled.run_id}
        assert (marks[filled.run_id].traces, marks[filled.run_id].at) == (4, 7.0)
        assert latest_promotions(db)[TASK].target == "student"


@pytest.mark.slow
async def test_forgetting_with_demote_demotes_the_student_that_learned_from_it(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        found = await a_forgetter(db, config).forget(user_subjects(), actor="ann", demote=True)
        assert found.demoted == (TASK,)
        latest = latest_promotions(db)[TASK]
        assert (latest.target, latest.actor) == ("teacher", "ann")


@pytest.mark.slow
async def test_a_label_that_only_forgotten_answers_had_leaves_the_routes(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        await a_forgetter(db, config).forget(user_subjects(), actor="ann")
        promotion = latest_promotions(db)[TASK]
        assert promotion.route is not None
        assert promotion.route.terms.forms is not None
        assert promotion.route.terms.forms.labels == [f"{OTHER} label"]
        assert promotion.certificate is not None
        names = [one.name for one in promotion.certificate.slices]
        assert names == ["(forgotten)", f"{OTHER} label"]
        recalls = [one.name for one in promotion.certificate.recalls]
        assert recalls == ["(forgotten)", f"{OTHER} label", "yes"]  # `yes` stands in the config
        assert promotion.certificate.unproven_labels == recalls
        [judged] = [e for e in events_of_run(db, filled.run_id) if "certificate" in e.detail]
        shown = judged.detail["certificate"]
        assert [one["name"] for one in shown["recalls"]] == recalls
        assert shown["unproven_labels"] == recalls
        assert promotion.certificate.lower_bound > 0  # its numbers hold


@pytest.mark.slow
async def test_unfinished_runs_with_forgotten_rows_fail_and_others_go_on(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        await a_forgetter(db, config).forget(user_subjects(), actor="ann")
        [last] = events_of_run(db, filled.unfinished)[-1:]
        assert last.state is RunState.FAILED
        assert "is gone" in last.reason
    left = {path.name for path in config.runs_dir.iterdir()}
    assert left == {filled.run_id, filled.clean}
    folder = config.runs_dir / filled.run_id
    assert (folder / "train-real" / "adapter" / "adapters.safetensors").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "calls.jsonl",
        "route.json",
        "train-real",
    ]
    assert (config.runs_dir / filled.clean / "rows.jsonl").exists()


@pytest.mark.slow
async def test_a_preview_counts_and_changes_nothing(config: Config, filled: FilledFolder) -> None:
    with opened(config) as db:
        await a_forgetter(db, config).preview(user_subjects())  # creates nothing that was not there
    files = {p: p.read_bytes() for p in config.data_dir.rglob("*") if p.is_file()}
    with opened(config) as db:
        found = await a_forgetter(db, config).preview(user_subjects())
        assert found.deleted.traces == len(filled.theirs)
        assert found.deleted.affected
        assert forgetting.unfinished_forgettings(db) == []
        assert forgetting.marked_runs(db) == {}
        assert len(examples_of_run(db, filled.run_id)) == 18 + 8
    for path, content in files.items():
        if "duckdb" not in path.name:
            assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["trace", "task"])
@pytest.mark.slow
async def test_traces_are_forgotten_by_id_and_by_task(
    config: Config, filled: FilledFolder, kind: str
) -> None:
    one = filled.theirs[4]
    subjects = (
        [Subject(kind="trace", subject=one.trace_id)]
        if kind == "trace"
        else [Subject(kind="task", subject=TASK, until=one.start_time)]
    )
    with opened(config) as db:
        found = await a_forgetter(db, config).forget(subjects, actor="ann")
        assert found.deleted.traces == (1 if kind == "trace" else 4 + 4)
        assert task_counts(db)[TASK] == 18 - found.deleted.traces


# ---- collecting afterwards ---------------------------------------------------------------------


@pytest.mark.slow
async def test_forgotten_traces_are_not_collected_again_from_journal_or_import(
    config: Config, filled: FilledFolder
) -> None:
    """From a journal that was still open, by an import, or as feedback."""
    until = time.time()
    late = trace_of(CANARY, 99, user=USER, answer="late", at=until - 1)
    new = trace_of(OTHER, 99, user=USER, answer="new", at=until + 1)  # the user goes on
    again = trace_of(
        CANARY, 0, user="", answer=f"{CANARY} label", at=1.0, source="import:openai-stored"
    )
    with opened(config) as db:
        await a_forgetter(db, config).forget(user_subjects(until), actor="ann")
        write_segment(
            config.journal_dir,
            a_feedback(late.trace_id, correction="early"),
            *filled.theirs,
            late,
            new,
            again,
            a_feedback(late.trace_id, correction="late"),
            a_feedback(new.trace_id),
        )
        got = collect(db, config.journal_dir, {})
        assert (got.traces, got.feedback) == (1, 3)  # of late and of new
        assert got.forgotten == len(filled.theirs) + 2  # late, and what was imported again
        assert db.query("missing_traces", ids=[late.trace_id])
        write_segment(config.journal_dir, a_feedback(late.trace_id, correction="later"))
        assert collect(db, config.journal_dir, {}).forgotten == 1
        assert task_counts(db)[TASK] == len(filled.others) + 1
        assert db.query("exchange_by_id", trace_id=new.trace_id)
        assert not db.query("exchange_by_id", trace_id=late.trace_id)


@pytest.mark.slow
async def test_live_traffic_with_the_same_words_as_a_forgotten_trace_is_collected(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        await a_forgetter(db, config).forget(user_subjects(), actor="ann")
        write_segment(
            config.journal_dir,
            trace_of(CANARY, 0, user="bob", answer=f"{CANARY} label", at=time.time()),
        )
        assert collect(db, config.journal_dir, {}).traces == 1


@pytest.mark.slow
async def test_the_database_keeps_only_hashes_of_what_was_forgotten(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        await a_forgetter(db, config).forget(user_subjects(), actor="ann")
        assert db.query("any_forgotten")
    assert places_of(USER, config.data_dir) == []


@pytest.mark.slow
async def test_forgetting_an_expired_trace_still_marks_who_learned_from_it(
    config: Config, filled: FilledFolder
) -> None:
    with opened(config) as db:
        assert forgetting.expire_traces(db, time.time() + 1, 1000) == 18
        assert forgetting.marked_runs(db) == {}  # expired is not forgotten
        assert examples_of_run(db, filled.run_id) == []
        found = await a_forgetter(db, config).forget(user_subjects(), actor="ann")
        assert found.deleted.traces == 0
        assert [(one.run_id, one.traces) for one in found.deleted.affected] == [(filled.run_id, 4)]
    # labels are what a student may say: they outlive the rows that they came from
    left = [x for x in places_of(CANARY, config.data_dir) if not x.startswith("responses/")]
    views = {f"table {name}" for name in ("promotions", "routes", "run_events", "runs")}
    assert set(left) == {f"runs/{filled.run_id}/route.json", "understudy.duckdb", *views}


# ---- any lineage -------------------------------------------------------------------------------

nodes = st.integers(0, 11)


@st.composite
def lineages(draw: st.DrawFn) -> dict[str, Any]:
    """Traces, examples with any parents, also later ones and themselves, and policies."""
    traces = draw(st.integers(1, 6))
    examples = [
        {
            "run": draw(st.integers(0, 2)),
            "source": draw(st.none() | st.integers(0, traces - 1)),
            "traces": draw(st.lists(st.integers(0, traces - 1), max_size=3)),
            "examples": draw(st.lists(nodes, max_size=3)),
            "policies": draw(st.lists(st.integers(0, 2), max_size=1)),
        }
        for _ in range(draw(st.integers(0, 12)))
    ]
    policies = draw(st.lists(st.lists(st.integers(0, traces - 1), max_size=2), max_size=3))
    doomed = draw(st.sets(st.integers(0, traces - 1)))
    return {"traces": traces, "examples": examples, "policies": policies, "doomed": doomed}


def reachable(edges: dict[str, set[str]], roots: set[str]) -> set[str]:
    """Everything derived from the roots, and the roots."""
    found, todo = set(roots), list(roots)
    while todo:
        for child in edges.get(todo.pop(), set()) - found:
            found.add(child)
            todo.append(child)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Path]]:
    folder = tmp_path_factory.mktemp("lineage")
    with Database(folder / "understudy.duckdb", StoreSettings()) as db:
        yield db, folder / "journal"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lineages())
@pytest.mark.slow
def test_everything_derived_from_a_trace_is_deleted_and_nothing_else(
    shared: tuple[Database, Path], graph: dict[str, Any]
) -> None:
    db, journal = shared
    traces = [a_trace() for _ in range(graph["traces"])]
    write_segment(journal, *traces)
    collect(db, journal, {})
    runs = [new_id() for _ in range(3)]
    ids = [new_id() for _ in graph["examples"]]
    edges: dict[str, set[str]] = {}
    for run, shown in zip(runs, graph["policies"], strict=False):
        parents = [traces[n].trace_id for n in shown]
        save_policy(db, run, TASK, {}, parents)
        for parent in parents:
            edges.setdefault(parent, set()).add(run)
    by_run: dict[str, list[Any]] = {run: [] for run in runs}
    for example_id, spec in zip(ids, graph["examples"], strict=True):
        source = None if spec["source"] is None else traces[spec["source"]].trace_id
        parents = [
            *(traces[n].trace_id for n in spec["traces"]),
            *(ids[n] for n in spec["examples"] if n < len(ids)),
            *(runs[n] for n in spec["policies"]),
        ]
        for parent in [*parents, *([source] if source else [])]:
            edges.setdefault(parent, set()).add(example_id)
        by_run[runs[spec["run"]]].append(
            an_example(
                runs[spec["run"]],
                example_id=example_id,
                origin="synthetic" if source is None else "trace",
                source_trace_id=source,
                parent_ids=parents,
            )
        )
    for run in runs:
        replace_examples(db, run, by_run[run])
        append_run_event(db, a_run_event(run, state=RunState.TRAINED))

    doomed = {traces[n].trace_id for n in graph["doomed"]}
    gone = reachable(edges, doomed)
    asked = [Subject(kind="trace", subject=trace_id) for trace_id in sorted(doomed)]
    forgetting_id = forgetting.request_forgetting(db, asked, at=1.0, actor="", reason="")
    with db.transaction():
        forgetting.stage_deletions(db, forgetting_id)
        forgetting.delete_staged(db, forgetting_id, at=1.0)

    for trace in traces:
        assert bool(db.query("exchange_by_id", trace_id=trace.trace_id)) == (
            trace.trace_id not in gone
        )
    marks = forgetting.marked_runs(db)
    for run, shown in zip(runs, [*graph["policies"], None, None, None], strict=False):
        before = by_run[run]
        left = {example.example_id for example in examples_of_run(db, run)}
        assert left == {e.example_id for e in before} - gone
        kept = policy_of_run(db, run) is not None
        assert kept == (shown is not None and run not in gone)
        assert (run in marks) == any(e.example_id in gone for e in before)
