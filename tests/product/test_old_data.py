"""A data folder and a config of the version before: today's code opens them and goes on from there.

What they hold, and how they were made, is in tests/fixtures/README.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import openai
import pytest

from distill.collect import Collected, collect
from distill.pipeline.pipeline import distil
from distill.pipeline.promotion import saved_route
from distill.run.run import Parts, Run
from store.database import forgetting
from store.database.actions import actions_of_task
from store.database.database import Database
from store.database.promotions import latest_promotions, promotions_of_task
from store.database.runs import certificates_of_task, events_of_run, unfinished_runs
from store.database.store import Store
from store.files.responses import read_response, trace_of
from store.files.routes import RoutesFile
from store.records import Route, RunState
from tests.helpers.cli_runs import understudy
from tests.helpers.demo_rows import a_client
from tests.helpers.old_data import (
    PROMPTS,
    REVIEWS,
    Old,
    ServedOld,
    environment,
    opening,
    teacher_says,
    unpack,
)
from tests.helpers.samples import a_trace, write_segment
from tests.helpers.serving import wait_until
from tests.helpers.stored import comparisons_of_student
from tests.helpers.teacher_server import LoopbackServer

TEN_YEARS_S = 3650 * 86_400.0
NEW_NAMES = (  # of settings that the old config gives under former names
    "retention.retrain_forgotten",
    "task_defaults.audit.first_share",
    "task_defaults.audit.last_share",
    "task_defaults.evaluate.teacher_recheck",
    "task_defaults.rollout.min_comparisons",
)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Old:
    """The old installation. The environment has no teacher that answers."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return Old(unpack(tmp_path))


@pytest.fixture
def db(old: Old) -> Iterator[Database]:
    with Database(old.config.database_file, old.config.store) as opened:
        yield opened


def sums(old: Old, query: str) -> list[dict[str, Any]]:
    """The rows of a query on the file; nobody has it open."""
    with duckdb.connect(str(old.config.database_file), read_only=True) as connection:
        answer = connection.execute(query)
        names = [column[0] for column in answer.description or []]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the fields of its terms of service beside its own, as they once stood."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= {name: value, **(flat(value) if name == "terms" and value else {})}
    return found


def assert_holds(found: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """Each field that was written has its value still. More fields may have come since."""
    names = flat(found)
    for name, value in written.items():
        if isinstance(value, dict):
            assert_holds(names[name], value)
        else:
            assert json.loads(json.dumps(names[name])) == value, name


# ---- the files, one by one -----------------------------------------------------------------------


def test_the_old_config_means_what_it_meant(old: Old) -> None:
    config = old.config
    assert config.retention.retrain_forgotten is True
    assert config.task("coin").evaluate.teacher_recheck == 0.1
    assert config.task("coin").audit.first_share == config.task("coin").audit.last_share == 0.5
    assert config.task("reviews").rollout.min_comparisons == 6
    assert config.task("reviews").amplify.target == 12


def test_the_old_config_is_accepted_with_a_warning_for_each_former_name(old: Old) -> None:
    checked = understudy("check", "--config", old.config_file)
    assert checked.exit_code == 0, checked.output
    warnings = [line for line in checked.stdout.splitlines() if line.startswith("warning")]
    assert len(warnings) == len(NEW_NAMES)
    for warning, name in zip(sorted(warnings), sorted(NEW_NAMES), strict=True):
        assert name in warning


def test_the_proxy_reads_the_old_routes(old: Old) -> None:
    published = RoutesFile(old.config.routes_file)
    assert published.error is None
    assert published.routes["coin"].reason == "demoted"
    written = json.loads(old.config.routes_file.read_bytes())["routes"]
    for task, route in published.routes.items():
        assert_holds(asdict(route), written[task])


@pytest.mark.slow
def test_the_old_database_opens_with_all_its_rows(old: Old, db: Database) -> None:
    db.close()
    found = sums(
        old,
        "SELECT api, content, cost_usd, input_tokens, n, output_tokens, reason, route, served_by,"
        " task FROM (SELECT coalesce(task, '') task, served_by, route, reason, content, api,"
        " count(*)::int n, sum(input_tokens)::int input_tokens, sum(output_tokens)::int"
        " output_tokens, sum(cost_usd)::varchar cost_usd FROM traces GROUP BY ALL)",
    )
    assert in_order(found) == in_order(old.expected["traces"])
    found = sums(
        old, "SELECT task, origin, split, status, count(*)::int n FROM examples GROUP BY ALL"
    )
    assert in_order(found) == in_order(old.expected["examples"])
    found = sums(
        old,
        "SELECT task, purpose, count(*)::int n, sum(input_tokens)::int input_tokens,"
        " sum(output_tokens)::int output_tokens FROM teacher_calls GROUP BY ALL",
    )
    assert in_order(found) == in_order(old.expected["teacher_calls"])
    found = sums(old, "SELECT trace_id::varchar trace_id, score, correction FROM feedback")
    assert in_order(found) == in_order(old.expected["feedback"])


def in_order(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.parametrize("task", ["reviews", "coin"])
@pytest.mark.slow
def test_promotions_keep_their_certificates_and_routes(old: Old, db: Database, task: str) -> None:
    found = promotions_of_task(db, task, 100)
    written = old.expected["promotions"][task]
    assert len(found) == len(written)
    for promotion, fields in zip(found, written, strict=True):
        assert_holds(asdict(promotion), fields)


@pytest.mark.slow
def test_runs_stand_where_they_stood(old: Old, db: Database) -> None:
    for run in old.expected["runs"]:
        last = events_of_run(db, run["run_id"])[-1]
        assert_holds(asdict(last), run)
    assert [event.task for event in unfinished_runs(db)] == ["openings"]
    assert [c.passed for c in certificates_of_task(db, "reviews")] == [True]
    assert [c.passed for c in certificates_of_task(db, "coin")] == [False, False]


@pytest.mark.slow
def test_evidence_and_actions_are_there(old: Old, db: Database) -> None:
    student = latest_promotions(db)["reviews"].run_id
    found = comparisons_of_student(db, str(student))
    assert len(found) == sum(row["n"] for row in old.expected["comparisons"])
    for row in old.expected["comparisons"]:
        of_kind = [c for c in found if c.kind == row["kind"] and c.agrees == row["agrees"]]
        assert len(of_kind) == row["n"]
    actions = [*actions_of_task(db, "coin"), *actions_of_task(db, "reviews")]
    for action, written in zip(
        sorted(actions, key=lambda a: a.at), old.expected["actions"], strict=True
    ):
        assert_holds(asdict(action), written)


@pytest.mark.slow
def test_the_journal_is_collected_once(old: Old, db: Database) -> None:
    left = old.expected["left_in_journal"]
    ids = [*left["sealed"], *left["open"]]
    assert forgetting.missing_traces(db, ids) == set(ids)
    took = collect(db, old.config.journal_dir, {})
    assert took == Collected(segments=2, traces=len(ids), damaged=0, feedback=1)
    assert collect(db, old.config.journal_dir, {}) == Collected(0, 0, 0)
    assert forgetting.missing_traces(db, ids) == set()
    db.close()
    twice = "SELECT trace_id FROM traces GROUP BY trace_id HAVING count(*) > 1"
    assert sums(old, twice) == []


@pytest.mark.slow
def test_who_was_forgotten_stays_forgotten(old: Old, db: Database) -> None:
    assert {(m.run_id, m.traces) for m in forgetting.marked_runs(db).values()} == {
        (mark["run_id"], mark["traces"]) for mark in old.expected["marks"]
    }
    folder = old.config.journal_dir
    write_segment(folder, a_trace(end_user="leaver", start_time=1.0), a_trace(end_user="bob"))
    assert collect(db, folder, {}).forgotten == 1


def test_each_run_has_the_route_that_it_left(old: Old) -> None:
    for run in old.expected["runs"]:
        folder = old.config.runs_dir / run["run_id"]
        route = saved_route(folder)
        if run["state"] in ("promoted", "rejected"):
            assert isinstance(route, Route)
            assert_holds(asdict(route), json.loads((folder / "route.json").read_bytes()))
        else:
            assert route is None


@pytest.mark.slow
async def test_a_run_that_was_killed_before_its_verdict_asks_and_trains_nothing_again(
    old: Old,
) -> None:
    """All its stages find what they had left: rows, examples, adapter, evaluations, second answers.

    The base had another place then, and a training is known again by all its settings.
    """
    promoted = old.expected["promotions"]["reviews"]
    run_id, certificate = promoted[0]["run_id"], promoted[0]["certificate"]
    settings = old.config.task("reviews")
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"base": "/srv/understudy/base"})}
    )
    run = Run(run_id, "reviews", settings, 0.0, old.config.runs_dir / run_id)
    with duckdb.connect(str(old.config.database_file)) as connection:
        connection.execute("DELETE FROM run_events WHERE state = 'promoted'")
        connection.execute("DELETE FROM promotions WHERE task = 'reviews'")
    with Database(old.config.database_file, old.config.store) as db:
        parts = Parts(
            store=Store(db),
            clock=time.time,
            teacher=lambda model, run, record: a_client("http://127.0.0.1:9/v1"),
        )
        event = await distil(run, parts, lambda *progress: None)
        assert event.state is RunState.PROMOTED, event.reason
        again = latest_promotions(db)["reviews"].certificate
    assert again is not None
    assert_holds(asdict(again), {k: v for k, v in certificate.items() if k != "at"})


def test_a_stored_response_is_found(old: Old) -> None:
    stored = old.expected["response"]
    trace_id = trace_of(stored["id"])
    assert trace_id is not None
    kept = read_response(old.config.responses_dir, trace_id, keep_s=TEN_YEARS_S)
    assert kept is not None
    assert kept.input == [{"role": "user", "content": stored["input"]}]
    assert kept.response["output"][0]["content"][0]["text"] == stored["text"]


@pytest.mark.slow
def test_a_user_is_forgotten_without_a_server(old: Old) -> None:
    done = understudy("forget", "--user", "customer-7", "--yes", "-c", old.config_file)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("forgot ")
    assert sums(old, "SELECT trace_id FROM traces WHERE end_user = 'customer-7'") == []
    assert sums(old, "SELECT trace_id FROM traces WHERE end_user = 'customer-8'")


@pytest.mark.slow
def test_a_label_that_only_forgotten_answers_had_leaves_the_old_routes(old: Old) -> None:
    with Database(old.config.database_file, old.config.store):
        pass  # what was in its write-ahead log is in the file
    things = sums(
        old,
        "SELECT trace_id::varchar id FROM traces WHERE task = 'reviews'"
        " AND served_by = 'teacher' AND output_messages LIKE '%thing%'",
    )
    options = [option for row in things for option in ("--trace", row["id"])]
    done = understudy("forget", *options, "--yes", "-c", old.config_file)
    assert done.exit_code == 0, done.output
    with Database(old.config.database_file, old.config.store) as db:
        routes = [promotion.route for promotion in promotions_of_task(db, "reviews", 100)]
    assert [labels_of(route) for route in routes] == [["person"]] * len(routes)
    run_id = old.expected["promotions"]["reviews"][0]["run_id"]
    assert labels_of(saved_route(old.config.runs_dir / run_id)) == ["person"]


def labels_of(route: Route | None) -> list[str]:
    assert route is not None
    assert route.terms.forms is not None
    return route.terms.forms.labels


# ---- the whole product ---------------------------------------------------------------------------


def ask(client: openai.OpenAI, task: str, text: str) -> tuple[str, str]:
    """The route that a request took, and its answer."""
    raw = client.chat.completions.with_raw_response.create(
        model="demo-teacher",
        messages=[
            {"role": "system", "content": PROMPTS[task]},
            {"role": "user", "content": text},
        ],
        user="customer-0",
        extra_headers={"X-Understudy-Task": task},
    )
    return raw.headers["x-understudy-route"], str(raw.parse().choices[0].message.content)


def status(old: Old, task: str) -> dict[str, Any]:
    """What `understudy status TASK` says; nothing while nobody can say it."""
    shown = understudy("status", task, "--json", "-c", old.config_file)
    return json.loads(shown.stdout) if shown.exit_code == 0 else {}


def serves(old: Old, task: str) -> bool:
    found = status(old, task)
    return bool(found) and found["route"]["target"] == "student" and found["route"]["share"] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_product_goes_on_from_an_old_folder(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(islice(REVIEWS.texts("after the update"), 20))
    unfinished = next(r["run_id"] for r in old.expected["runs"] if r["task"] == "openings")
    with LoopbackServer(teacher_says) as teacher:
        for name, value in environment(teacher.base_url).items():
            monkeypatch.setenv(name, value)
        with ServedOld(old) as served, served.client() as client:
            # the old routes name a student that is not there any more
            assert ask(client, "reviews", texts[0])[1] == opening(texts[0])

            # the promoted student serves from its old adapter
            wait_until(lambda: serves(old, "reviews"), within_s=120)
            asked = REVIEWS.texts("until it serves")  # the proxy follows within a second
            wait_until(lambda: ask(client, "reviews", next(asked))[0] == "student")
            answered = [ask(client, "reviews", text) for text in texts[1:13]]
            of_student = [answer for route, answer in answered if route == "student"]
            assert len(of_student) >= 6
            assert set(of_student) <= {"thing", "person"}
            student = old.expected["promotions"]["reviews"][0]["run_id"]
            assert status(old, "reviews")["route"]["student_id"] == student

            # a response that it gave before the update
            stored = old.expected["response"]
            assert client.responses.retrieve(stored["id"]).output_text == stored["text"]

            # a student that the gate turned down, by its run's route
            promoted = understudy("promote", "coin", "--force", "-c", old.config_file)
            assert promoted.exit_code == 0, promoted.output
            wait_until(lambda: serves(old, "coin"), within_s=120)

            # the run that was killed comes to its end
            def judged() -> bool:
                last = status(old, "openings").get("last_run")
                return bool(last) and last["state"] in ("promoted", "rejected")

            wait_until(judged, within_s=300)
            assert status(old, "openings")["last_run"]["run_id"] == unfinished

            shown = understudy("status", "-c", old.config_file)
            assert shown.exit_code == 0, shown.output
            assert all(task in shown.stdout for task in PROMPTS)

            done = understudy("forget", "--user", "customer-7", "--yes", "-c", old.config_file)
            assert done.exit_code == 0, done.output
            assert done.stdout.startswith("forgot ")
    assert "Traceback" not in served.output
    assert all(name in served.output for name in NEW_NAMES)
    ids = [*old.expected["left_in_journal"]["sealed"], *old.expected["left_in_journal"]["open"]]
    found = sums(old, "SELECT trace_id::varchar id, end_user FROM traces")
    assert len(found) == len({row["id"] for row in found})
    missing = set(ids) - {row["id"] for row in found}
    assert len(missing) == 1  # the one that customer-7 had sent
    assert not [row for row in found if row["end_user"] == "customer-7"]
    feedback = sums(old, "SELECT feedback_id FROM feedback")
    assert len(feedback) == len(old.expected["feedback"]) + 1
