"""Live evidence: the same, whether updated step by step or read from the store."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from distill.collect import collect
from distill.monitor.detector import MAX_TIMES
from distill.monitor.evidence import (
    EvidenceTracker,
    load_evidence,
    tolerated_faults,
    tolerated_unsure,
)
from distill.monitor.rollout import decide
from store.database.comparisons import ComparisonOutcome, write_comparisons
from store.database.database import Database
from store.database.traces import RequestOutcome
from store.ids import new_id
from store.records import (
    Comparison,
    Promotion,
    Reason,
    Recall,
)
from store.settings.tasks import GateSettings, TaskSettings
from tests.helpers.live_scene import Scene
from tests.helpers.samples import (
    a_certificate,
    a_comparison,
    a_promotion,
    a_route,
    a_trace,
    write_segment,
)

SETTINGS = TaskSettings.model_validate({"audit": {"first_share": 0.5, "last_share": 0.1}})
BEGAN = 1_000_000.0


def promoted(**changes: Any) -> Promotion:
    return a_promotion(at=BEGAN, **changes)


def read(db: Database, promotion: Promotion) -> EvidenceTracker:
    return load_evidence(db, promotion, promoted_at=BEGAN, settings=SETTINGS)


def finding(comparison: Comparison) -> ComparisonOutcome:
    return ComparisonOutcome(
        trace_id=comparison.trace_id,
        kind=comparison.kind,
        agrees=comparison.agrees,
        servable=comparison.servable,
        fault=comparison.fault,
        at=comparison.at,
        begun=comparison.at,
        group=comparison.group_key or comparison.trace_id,
    )


def some_comparisons(promotion: Promotion, count: int, seed: int) -> list[Comparison]:
    draw = random.Random(seed)
    result = []
    for number in range(count):
        kind = draw.choice(["shadow", "audit"])
        fault = draw.choice([None, *[Reason.STUDENT_UNSURE, Reason.STUDENT_DOWN]])
        fault = fault if kind == "shadow" else None
        result.append(
            a_comparison(
                student_id=promotion.run_id,
                kind=kind,
                servable=fault is None,
                fault=fault,
                agrees=fault is None and draw.random() < 0.97,
                at=BEGAN + 1 + number,
            )
        )
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_evidence_read_from_the_store_equals_evidence_updated_step_by_step(
    db: Database, tmp_path: Path, seed: int
) -> None:
    promotion = promoted()
    updated = read(db, promotion)
    comparisons = some_comparisons(promotion, 150, seed)
    draw = random.Random(seed)
    requests = [
        a_trace(
            start_time=c.at + 0.4,
            end_time=c.at + 0.5,
            served_by=draw.choice(["student", "teacher"]),
            reason=draw.choice([Reason.CERTIFIED, Reason.STUDENT_DOWN, Reason.STUDENT_SLOW]),
            student_id=promotion.run_id,
        )
        for c in comparisons
    ]
    write_segment(tmp_path, *requests)
    for comparison, request in zip(comparisons, collect(db, tmp_path, {}).requests, strict=True):
        updated.add_comparison(finding(comparison))
        updated.add_request(request)
    write_comparisons(db, comparisons)

    again = read(db, promotion)
    assert again.evidence() == updated.evidence()
    assert (again.counts, again.step_agreement()) == (updated.counts, updated.step_agreement())
    assert again.faults.state() == updated.faults.state()
    moments = [BEGAN + n / 2 for n in range(320)]
    assert [again.audit_rate_at(m) for m in moments] == [updated.audit_rate_at(m) for m in moments]


@pytest.mark.slow
def test_counts_include_comparisons_that_are_not_replayed(db: Database) -> None:
    promotion = promoted()
    one = some_comparisons(promotion, 2, 0)
    many = [
        replace(
            one[n % 2], trace_id=new_id(), kind="audit", servable=True, fault=None, at=BEGAN + n
        )
        for n in range(1, MAX_TIMES + 400)
    ]
    write_comparisons(db, many)
    tracker = load_evidence(
        db, replace(promotion, at=BEGAN + 100), promoted_at=BEGAN, settings=SETTINGS
    )
    assert tracker.counts["audit"].n == len(many)
    assert tracker.counts["audit"].agreed == sum(c.agrees for c in many)
    assert tracker.evidence().n == tracker.evidence().rows == len(many)
    assert tracker.evidence().agreed == tracker.counts["audit"].agreed
    assert tracker.step_agreement().groups == len(many) - 100
    assert tracker.disagreement.state().n == MAX_TIMES
    assert tracker.audit_rate_at(BEGAN + len(many)) == pytest.approx(0.1)


@pytest.mark.slow
def test_groups_that_are_not_replayed_go_on(db: Database) -> None:
    """Twenty conversations of a thousand comparisons, and then as many new ones."""
    promotion = promoted()
    one = a_comparison(student_id=promotion.run_id, kind="audit")
    names = [new_id() for _ in range(20)]
    comparisons = [
        replace(
            one,
            trace_id=new_id(),
            at=BEGAN + n,
            group_key=names[n % 20],
            agrees=n % 20 > 0 or n > MAX_TIMES,  # the first conversation begins badly
        )
        for n in range(1, MAX_TIMES + 1001)
    ]
    write_comparisons(db, comparisons)
    known = read(db, promotion).evidence()
    share = sum(c.agrees for c in comparisons if c.group_key == names[0]) / 1050
    assert (known.n, known.rows) == (20, MAX_TIMES + 1000)
    assert known.agreed == pytest.approx(19 + share)
    assert known.most_agreed == pytest.approx(19 + share)
    assert read(db, promotion).audit_rate_at(2 * BEGAN) == 0.5  # for the first hundred groups


@pytest.mark.slow
def test_complaints_about_one_conversation_count_once(db: Database) -> None:
    promotion = promoted()
    audit = a_comparison(student_id=promotion.run_id, kind="audit", at=BEGAN + 1)
    key = audit.trace_id
    complaints = [
        replace(audit, trace_id=new_id(), kind="feedback", agrees=False, at=BEGAN + 2 + n)
        for n in range(30)
    ]
    write_comparisons(db, [replace(c, group_key=key) for c in (audit, *complaints)])
    known = read(db, promotion).evidence()
    assert (known.disagreement.n, known.disagreement.bad) == (2, 1)
    assert known.complaints == 30


def unsure_turn(turn: int, *, begins: str) -> RequestOutcome:
    """A turn of a conversation, below the cutoff."""
    return replace(unsure(turn, same_input=False), beginnings=(begins, f"{begins}/{turn}"))


@pytest.mark.parametrize(
    ("begins", "generic", "n"), [("a", [], 1), ("hello", ["hello"], 40)], ids=["own", "generic"]
)
@pytest.mark.slow
def test_one_conversation_below_the_cutoff_counts_once(
    begins: str, generic: list[str], n: int
) -> None:
    """But a greeting, or an example before each input, is no conversation."""
    tracker = EvidenceTracker(promoted(), BEGAN, 0.95, SETTINGS, generic)
    for turn in range(40):
        tracker.add_request(unsure_turn(turn, begins=begins))
    assert tracker.unsure.state().n == n


def test_a_step_counts_only_comparisons_of_its_own_requests(db: Database, tmp_path: Path) -> None:
    """Not those that were pending when it began."""
    promotion = promoted()
    times = (BEGAN + 1, BEGAN + 200)
    traces = [a_trace(start_time=t, end_time=t, student_id=promotion.run_id) for t in times]
    write_segment(tmp_path, *traces)
    collect(db, tmp_path, {})
    comparison = a_comparison(student_id=promotion.run_id, kind="audit", at=BEGAN + 300)
    write_comparisons(db, [replace(comparison, trace_id=t.trace_id) for t in traces])
    step = replace(promotion, at=BEGAN + 100)
    result = load_evidence(db, step, promoted_at=BEGAN, settings=SETTINGS).evidence()
    assert (result.n, result.step_n) == (2, 1)


def test_comparisons_before_the_promotion_do_not_count(db: Database) -> None:
    promotion = promoted()
    old = replace(some_comparisons(promotion, 1, 0)[0], at=BEGAN - 1)
    write_comparisons(db, [old])
    assert read(db, promotion).evidence().n == 0


def test_a_complaint_and_a_failed_audit_of_one_trace_count_once(db: Database) -> None:
    promotion = promoted()
    audit = a_comparison(student_id=promotion.run_id, kind="audit", agrees=False, at=BEGAN + 1)
    complaint = replace(audit, kind="feedback", at=BEGAN + 2)
    praise = replace(complaint, trace_id=new_id(), agrees=True, at=BEGAN + 3)
    other = replace(complaint, trace_id=new_id(), at=BEGAN + 4)
    write_comparisons(db, [audit, complaint, praise, other])
    tracker = read(db, promotion)
    assert (tracker.disagreement.state().n, tracker.disagreement.state().bad) == (2, 2)
    assert tracker.evidence().n == 1  # feedback is no fair sample
    assert tracker.evidence().complaints == 2


def test_the_audit_rate_is_remembered_by_time(db: Database) -> None:
    promotion = promoted()
    tracker = read(db, promotion)
    assert tracker.audit_rate_at(BEGAN) == tracker.audit_rate_at(BEGAN + 1e6) == 0.5
    for number in range(400):
        tracker.add_comparison(
            finding(a_comparison(student_id=promotion.run_id, kind="audit", at=BEGAN + 1 + number))
        )
    assert tracker.audit_rate_at(BEGAN + 50) == 0.5
    assert tracker.audit_rate_at(BEGAN + 200) == pytest.approx(0.25)
    assert tracker.audit_rate_at(BEGAN + 1e6) == pytest.approx(0.125)


def test_a_forced_student_has_the_forced_audit_rate(db: Database) -> None:
    assert read(db, promoted(forced=True)).audit_rate_at(BEGAN) == SETTINGS.audit.forced_share


@pytest.mark.parametrize(
    ("faults", "heldout", "low", "high"),
    [
        (0, 60, 0.02, 0.02),  # none on held-out rows: the setting, however few the rows
        (1, 1000, 0.02, 0.02),
        (3, 100, 0.03, 0.07),
        (20, 200, 0.10, 0.14),
        (9, 9, 0.9, 0.9),
    ],
)
def test_tolerated_faults_follow_the_setting_or_the_heldout_rows(
    faults: int, heldout: int, low: float, high: float
) -> None:
    certificate = a_certificate(faults=faults, heldout=heldout)
    assert low <= tolerated_faults(certificate, SETTINGS) <= high


def test_without_a_certificate_the_setting_is_tolerated() -> None:
    assert tolerated_faults(None, SETTINGS) == SETTINGS.audit.fault_rate


def unsure(number: int, same_input: bool) -> RequestOutcome:
    at = BEGAN + 1 + number
    return RequestOutcome(
        trace_id=new_id(),
        task="triage",
        student_id=new_id(),
        served_by="teacher",
        reason=Reason.STUDENT_UNSURE,
        start_time=at,
        end_time=at,
        whole=True,
        input_hash="same" if same_input else str(number),
    )


@pytest.mark.parametrize(("same_input", "alarm"), [(False, True), (True, False)])
def test_a_student_that_defers_nearly_every_input_is_demoted(same_input: bool, alarm: bool) -> None:
    """But not for one odd input that comes again and again."""
    tracker = EvidenceTracker(promoted(), BEGAN, 0.95, SETTINGS)
    for number in range(60):
        tracker.add_request(unsure(number, same_input))
    known = tracker.evidence()
    assert known.unsure.alarm == alarm
    assert not known.faults.alarm
    assert decide(promoted(), known, SETTINGS, BEGAN + 100).action == (
        "demote" if alarm else "stay"
    )


@pytest.mark.parametrize(
    ("min_coverage", "certified", "tolerated"),
    [(0.5, 0.8, 0.5), (0.9, 0.95, 0.1), (0.5, 0.3, 0.7), (1.0, 1.0, 0.01)],
)
def test_tolerated_deferrals_follow_from_the_coverage(
    min_coverage: float, certified: float, tolerated: float
) -> None:
    settings = TaskSettings(gate=GateSettings(min_coverage=min_coverage))
    result = tolerated_unsure(a_certificate(coverage=certified), settings)
    assert result == pytest.approx(tolerated)


# ---- protected labels --------------------------------------------------------------------------


def protecting(output: str = "label", low: float = 0.9) -> Promotion:
    """A student of which the recall of `yes` was proven, unless `low` is below the floor."""
    recalls = [
        Recall(name="yes", n=40, agreed=40.0, low=low, protected=True),
        Recall(name="no", n=900, agreed=900.0, low=0.99),
    ]
    certificate = a_certificate(floor=0.85, recalls=recalls)
    return promoted(certificate=certificate, route=a_route(output=output, step="live"))


def answers_of(promotion: Promotion, teacher: str, student: str, at: float) -> Comparison:
    return a_comparison(
        student_id=promotion.run_id,
        kind="audit",
        agrees=teacher == student,
        teacher_output=teacher,
        student_output=student,
        at=BEGAN + at,
    )


@pytest.mark.slow
def test_a_student_that_stops_giving_a_protected_label_is_demoted(db: Database) -> None:
    """One comparison in 50 is a `yes`: 2 % disagree, which the agreement tolerates for ever."""
    promotion = protecting()
    made = [
        answers_of(promotion, "yes" if n % 50 == 0 else "no", "no", n + 1.0) for n in range(600)
    ]
    write_comparisons(db, made)
    tracker = read(db, promotion)
    evidence = tracker.evidence()
    assert not evidence.disagreement.alarm
    assert evidence.recall["yes"].alarm
    assert (evidence.recall["yes"].n, evidence.recall["yes"].bad) == (12, 12)
    decision = decide(promotion, evidence, SETTINGS, BEGAN + 700)
    assert decision.action == "demote"
    assert "comparisons with the protected label yes disagree" in decision.reason
    assert decision.suspect_since == pytest.approx(BEGAN + 1.0)
    step_by_step = EvidenceTracker(promotion, BEGAN, 0.95, SETTINGS)
    for one in made:
        texts = {"teacher_output": one.teacher_output, "student_output": one.student_output}
        step_by_step.add_comparison(replace(finding(one), **texts))
    assert step_by_step.evidence() == evidence


def test_a_student_that_gives_its_protected_labels_stays(db: Database) -> None:
    promotion = protecting()
    made = [answers_of(promotion, "yes", "yes", n + 1.0) for n in range(300)]
    write_comparisons(db, [*made, answers_of(promotion, "no", "yes", 400.0)])
    evidence = read(db, promotion).evidence()
    assert (evidence.recall["yes"].n, evidence.recall["yes"].bad) == (300, 0)
    assert decide(promotion, evidence, SETTINGS, BEGAN + 500).action != "demote"


@pytest.mark.slow
def test_a_protected_label_that_goes_wrong_raises_the_audit_rate() -> None:
    """Where it is rare, the calm rate would take months to see enough of it."""
    tracker = EvidenceTracker(protecting(), BEGAN, 0.95, SETTINGS)

    def add(number: int, teacher: str) -> None:
        one = answers_of(protecting(), teacher, "no", number + 1.0)
        texts = {"teacher_output": teacher, "student_output": "no", "group": str(number)}
        tracker.add_comparison(replace(finding(one), **texts))

    for number in range(1000):
        add(number, "no")
    calm = tracker.audit_rate_at(BEGAN + 5000)
    for number in range(1000, 1200):
        add(number, "yes" if number % 50 == 0 else "no")
    assert tracker.disagreement.level < 0.3
    assert not tracker.recall["yes"].alarmed
    assert tracker.audit_rate_at(BEGAN + 5000) > 2 * calm


def test_a_label_that_was_never_proven_demotes_nobody() -> None:
    assert not EvidenceTracker(protecting(low=0.5), BEGAN, 0.95, SETTINGS).recall
    assert not EvidenceTracker(promoted(), BEGAN, 0.95, SETTINGS).recall


def test_a_live_label_is_compared_by_itself_where_a_part_is_enough_to_agree() -> None:
    promotion = promoted(
        route=a_route(output="json"),
        certificate=a_certificate(
            floor=0.85,
            recalls=[Recall(name="urgent=true", n=40, agreed=40.0, low=0.9, protected=True)],
        ),
    )
    tracker = EvidenceTracker(promotion, BEGAN, 0.95, SETTINGS)
    usual, urgent = (f'{{"team": "a", "urgent": {value}}}' for value in ("false", "true"))
    one = answers_of(promotion, urgent, usual, 1.0)
    outcome = replace(finding(one), agrees=True, teacher_output=urgent, student_output=usual)
    tracker.add_comparison(outcome)
    assert tracker.recall["urgent=true"].bad == 1


@pytest.mark.slow
async def test_restarts_do_not_change_which_traces_are_audited(tmp_path: Path) -> None:
    """Also while the rate falls, although the sample is not stored."""
    traces = [new_id() for _ in range(90)]
    audited = []
    for restarts in (False, True):
        folder = tmp_path / str(restarts)
        async with Scene(folder, audit={"first_share": 0.7, "last_share": 0.05}) as scene:
            scene.now = 1_800_000_000.0
            student = scene.promote()
            early = a_comparison(student_id=student.run_id, kind="audit", at=student.at + 1)
            write_comparisons(scene.db, [replace(early, trace_id=new_id()) for _ in range(150)])
            for start in range(0, len(traces), 30):
                await scene.settle(
                    *(
                        msgspec.structs.replace(scene.served(trace_id, student), trace_id=trace_id)
                        for trace_id in traces[start : start + 30]
                    )
                )
                if restarts:
                    await scene.monitor.stop()
                    scene.monitor = scene.new_monitor()
                    await scene.settle()
            audited.append({c.trace_id for c in scene.comparisons(student)} & {*traces})
    assert audited[0] == audited[1]
    assert 15 < len(audited[0]) < 60
