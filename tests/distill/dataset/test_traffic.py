"""The rows of a run with edited or varying prompts, with corrections, and after a demotion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.dataset.rows import Row, choose_rows
from distill.dataset.templates import SeenShape
from distill.dataset.traffic import NEWEST, Shape, Traffic, seen_shape
from store.chat.shape import input_hash
from store.database.traces import FingerprintTraffic
from store.records import LoggedExchange
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

SHARES = SplitSettings()


def traffic_of(traces: Sequence[LoggedExchange]) -> Traffic:
    """The recent traffic of these requests, newest last, as the database returns it."""
    newest = list(traces)[::-1]
    shapes: dict[str, SeenShape] = {}
    for fingerprint in dict.fromkeys(t.fingerprint for t in newest):
        places = [n for n, t in enumerate(newest) if t.fingerprint == fingerprint]
        shapes[fingerprint] = seen_shape(
            FingerprintTraffic(
                fingerprint=fingerprint,
                requests=len(places),
                recent=sum(place < NEWEST for place in places),
                first_at=newest[places[-1]].asked_at,
                last_at=newest[places[0]].asked_at,
                request=newest[places[0]].request,
            )
        )
    return Traffic(shapes.values())


def some(count: int, system: str, *, at: float = 0.0, **changes: Any) -> list[LoggedExchange]:
    return [
        an_exchange(f"{system} says {n}", system=system, at=at + n / 1000, **changes)
        for n in range(count)
    ]


def prompts(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row.messages[0]["content"] for row in rows)


# ---- which shapes count ------------------------------------------------------------------------


@pytest.mark.slow
def test_after_an_edit_the_new_prompt_counts_however_many_traces_the_old_one_has() -> None:
    old, new = some(3000, "old"), some(1000, "new", at=10)
    selection = choose_rows([*old, *new], SHARES, traffic=traffic_of([*old, *new]))
    assert prompts(selection.rows) == {"new": 1000}
    assert selection.left_out == {"rare_fingerprint": 3000}
    first = choose_rows([*old, *new[:150]], SHARES, traffic=traffic_of([*old, *new[:150]]))
    assert prompts(first.rows) == {"old": 3000, "new": 150}


@pytest.mark.slow
def test_a_prompt_that_a_student_serves_is_not_dropped() -> None:
    served = some(900, "served", at=50, served_by="student", route="student")
    taught = [*some(40, "served"), *some(400, "other", at=60)]
    selection = choose_rows(taught, SHARES, traffic=traffic_of([*taught, *served]))
    assert prompts(selection.rows) == {"served": 40, "other": 400}


def test_the_commonest_learnable_shape_counts_beside_unlearnable_traffic() -> None:
    tools = some(900, "tools", tool_definitions='[{"type": "function"}]')
    few, fewer = some(60, "few"), some(40, "fewer")
    selection = choose_rows([*few, *fewer], SHARES, traffic=traffic_of([*tools, *few, *fewer]))
    assert prompts(selection.rows) == {"few": 60}


def test_without_recent_traffic_the_traces_decide_which_shapes_count() -> None:
    traces = [*some(50, "one"), *some(40, "two"), *some(3, "three")]
    elsewhere = traffic_of(some(100, "something else"))
    for traffic in (None, Traffic(), elsewhere):
        selection = choose_rows(traces, SHARES, traffic=traffic)
        assert prompts(selection.rows) == {"one": 50, "two": 40}
        assert selection.fingerprints == sorted({t.fingerprint for t in traces[:90]})
        assert selection.templates == []


# ---- prompts that vary -------------------------------------------------------------------------

RULES = "You route requests of an assistant. Answer with the name of the intent."


def dated(day: int, text: str, **changes: Any) -> LoggedExchange:
    system = f"Today is 2026-{1 + day // 28:02d}-{1 + day % 28:02d}. {RULES}"
    return an_exchange(text, system=system, at=float(day), **changes)


def test_rows_of_a_varying_prompt_have_its_template_as_fingerprint() -> None:
    traces = [dated(day, f"request {day} {n}") for day in range(40) for n in range(5)]
    selection = choose_rows(traces, SHARES, traffic=traffic_of(traces))
    [template] = selection.templates
    assert len(selection.rows) == 200 and not selection.left_out
    assert {row.fingerprint for row in selection.rows} == {template.template_id}
    assert selection.fingerprints == sorted([template.template_id, template.shape])
    # what the recent traffic no longer shows is made from it too
    old = dated(41, "an old one")
    again = choose_rows([*traces, old], SHARES, traffic=traffic_of(traces))
    assert {row.fingerprint for row in again.rows} == {template.template_id}
    assert len(again.rows) == 201


def test_another_date_in_the_prompt_is_another_input() -> None:
    traces = [dated(day, "lights on") for day in range(40)]
    twice = [dated(day, "Lights  ON") for day in range(40)]
    selection = choose_rows([*traces, *twice], SHARES, traffic=traffic_of(traces))
    assert len(selection.rows) == 40
    assert selection.left_out == {"duplicate": 40}
    assert len({row.input_hash for row in selection.rows}) == 40
    plain = input_hash(selection.rows[0].messages)
    assert plain not in {row.input_hash for row in selection.rows}


def test_versions_of_a_prompt_keep_their_fingerprints() -> None:
    traces = [t for n in (1, 2, 3) for t in some(50, f"{RULES} Version {n}.", at=10.0 * n)]
    selection = choose_rows(traces, SHARES, traffic=traffic_of(traces))
    assert selection.templates == []
    assert selection.fingerprints == sorted({t.fingerprint for t in traces})


def test_a_request_of_no_known_template_is_a_shape_of_its_own() -> None:
    traces = [dated(day, "hi") for day in range(20)]
    traffic = traffic_of(traces)
    other = an_exchange("hi", system="another").request
    assert traffic.shape_of("f" * 16, other) == Shape(name="f" * 16)
    assert traffic.shape_of(traces[0].fingerprint, other).values == ["2026-01-01"]


# ---- audits and corrections --------------------------------------------------------------------


def audit(text: str, answer: str, at: float, **changes: Any) -> LoggedExchange:
    """An exchange that a student answered wrongly, with the teacher's answer to the audit."""
    columns = {"served_by": "student", **changes}
    served = an_exchange(text, "the student's answer", at=at, **columns)
    return replace(served, kind="audit", replacement=answer, answered_at=at + 1)


def correction(trace: LoggedExchange, answer: str, at: float) -> LoggedExchange:
    return replace(trace, kind="correction", replacement=answer, answered_at=at)


def test_audits_are_rows_like_any_other() -> None:
    selection = choose_rows([an_exchange("a"), audit("b", "refund", 2000.0)], SHARES)
    assert [(row.target, row.origin) for row in selection.rows] == [
        ("delivery", "trace"),
        ("refund", "trace"),
    ]
    votes = choose_rows(
        [
            an_exchange("a", "delivery", at=1),
            audit("a", "refund", 2.0),
            audit("A ", "refund", 3.0),
        ],
        SHARES,
    )
    assert [row.target for row in votes.rows] == ["refund"]
    assert votes.left_out == {"contradicted": 1, "duplicate": 1}


def test_audits_and_corrections_of_unlearnable_requests_are_left_out() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
    selection = choose_rows(
        [
            audit("a", " ", 1.0),
            audit("b", "x", 1.0, tool_definitions='[{"type": "function"}]'),
            audit("c", "x", 1.0, input_messages=orjson.dumps(image).decode()),
            correction(an_exchange("d"), "", 2.0),
        ],
        SHARES,
    )
    assert selection.rows == []
    assert selection.left_out == {"no_answer": 2, "not_text": 1, "tools": 1}


def test_the_newest_correction_beats_any_vote() -> None:
    answered = [an_exchange("a", "delivery", at=float(n)) for n in range(5)]
    student = an_exchange("a", "nonsense", at=6.0, served_by="student")
    selection = choose_rows(
        [
            *answered,
            audit("a", "delivery", 7.0),
            correction(answered[0], "billing", 8.0),
            correction(student, "refund", 9.0),
        ],
        SHARES,
    )
    [row] = selection.rows
    assert (row.target, row.origin, row.trace_id) == ("refund", "correction", student.trace_id)
    assert selection.left_out == {"contradicted": 6}


def test_a_corrected_trace_counts_once() -> None:
    trace = an_exchange("a", "delivery")
    selection = choose_rows([trace, correction(trace, "delivery", 2000.0)], SHARES)
    assert [row.origin for row in selection.rows] == ["correction"]
    assert selection.left_out == {}


# ---- after a demotion --------------------------------------------------------------------------


def test_after_a_demotion_only_later_answers_to_an_input_count() -> None:
    before = [an_exchange("a", "delivery", at=float(n)) for n in range(5)]
    after = an_exchange("a", "refund", at=20.0)
    old_word = correction(before[0], "billing", 9.0)
    selection = choose_rows([*before, after, old_word], SHARES, suspect_since=10.0)
    assert [row.target for row in selection.rows] == ["refund"]
    assert selection.left_out == {"outdated": 5}
    new_word = correction(before[0], "billing", 21.0)
    selection = choose_rows([*before, after, new_word], SHARES, suspect_since=10.0)
    assert [(row.target, row.origin) for row in selection.rows] == [("billing", "correction")]
    assert selection.left_out == {"contradicted": 1, "outdated": 4}


def test_rows_from_before_a_demotion_train_but_do_not_judge() -> None:
    traces = [an_exchange(f"text {n}", at=float(n)) for n in range(400)]
    selection = choose_rows(traces, SHARES, suspect_since=200.0)
    at = {t.trace_id: t.asked_at for t in traces}
    early = Counter(row.split for row in selection.rows if at[row.trace_id] < 200)
    late = Counter(row.split for row in selection.rows if at[row.trace_id] >= 200)
    assert early == {"train": 200}
    assert set(late) == {"train", "calibration", "heldout"}
    assert late.total() == 200
    assert selection.left_out == {}


texts = st.sampled_from(["a", "b", "B ", "c", "d"])
answers = st.sampled_from(["x", "y", " "])
traces_of_any_kind = st.lists(
    st.builds(
        an_exchange,
        texts,
        answers,
        at=st.floats(0, 100),
        served_by=st.sampled_from(["teacher", "student"]),
        system=st.sampled_from(["s", "t"]),
    ),
    max_size=15,
)


@settings(deadline=None)
@given(
    traces_of_any_kind,
    st.lists(st.builds(audit, texts, answers, st.floats(0, 100)), max_size=5),
    st.lists(st.tuples(st.integers(0, 14), answers, st.floats(0, 100)), max_size=5),
    st.none() | st.floats(0, 100),
)
@pytest.mark.slow
def test_every_trace_is_a_row_or_counted(
    traces: list[LoggedExchange],
    audits: list[LoggedExchange],
    words: list[tuple[int, str, float]],
    since: float | None,
) -> None:
    corrections = [correction(traces[n], word, at) for n, word, at in words if n < len(traces)]
    selection = choose_rows([*traces, *audits, *corrections], SHARES, suspect_since=since)
    asked_at = {t.trace_id: t.asked_at for t in [*traces, *audits]}
    assert len(selection.rows) + sum(selection.left_out.values()) == len(asked_at)
    assert len({(row.fingerprint, row.input_hash) for row in selection.rows}) == len(selection.rows)
    corrected = {t.trace_id for t in corrections}
    for row in selection.rows:
        assert (row.origin == "correction") == (row.trace_id in corrected)
