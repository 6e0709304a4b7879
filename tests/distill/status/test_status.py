"""What the status says of a certificate and of a task's history."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from distill.status.history import history_entries, pause_state
from distill.status.promise import (
    judge_state,
    label_recall,
    percent,
    promise_sentence,
    spent_budget,
    teacher_ceiling,
)
from store.records import (
    Ceiling,
    JudgeCheck,
    Recall,
)
from store.settings.tasks import TaskSettings
from tests.helpers.samples import a_certificate, a_promotion, a_route, an_action
from tests.helpers.status_samples import a_promotion_to, every_state, one_task, status_json

PASSED = a_certificate(lower_bound=0.95279, at=100.0)
FAILED = a_certificate(lower_bound=0.9, passed=False, at=200.0)
AGREES = "The student agrees with the teacher on at least 95.2 % of what it "


@pytest.mark.parametrize(
    ("latest", "certificate", "expected"),
    [
        (None, None, ""),
        (None, FAILED, "The last student was not good enough: only 90 % agreement"),
        (a_promotion(state="live", certificate=PASSED), PASSED, f"{AGREES}serves, 95 % sure"),
        (a_promotion(state="canary", certificate=PASSED), PASSED, f"{AGREES}serves, 95 % sure"),
        (a_promotion(state="shadow", certificate=PASSED), PASSED, f"{AGREES}would serve, "),
        # a run that was rejected says nothing about the student that serves
        (a_promotion(state="live", certificate=PASSED), FAILED, f"{AGREES}serves"),
        (
            a_promotion(state="live", certificate=FAILED, forced=True),
            FAILED,
            "The student is not proven: only 90 % agreement with the teacher is certain, 95 %",
        ),
        (
            a_promotion_to("demoted", 300.0, certificate=PASSED),
            PASSED,
            "The student was certified for at least 95.2 % agreement, and demoted since.",
        ),
        (
            a_promotion_to("demoted", 150.0, certificate=PASSED),
            FAILED,
            "The last student was not good",
        ),
    ],
)
def test_the_promise_in_a_sentence(latest: Any, certificate: Any, expected: str) -> None:
    result = promise_sentence(latest, asdict(certificate) if certificate else None)
    assert result.startswith(expected)
    assert bool(result) == bool(expected)


def test_a_certificate_of_an_older_version_does_not_raise() -> None:
    old = {"score": 0.97, "passed": True}
    assert promise_sentence(None, old) == ""
    assert spent_budget(old) is teacher_ceiling(old) is judge_state(old) is None


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.95, "95 %"), (0.9529, "95.2 %"), (0.9999, "99.9 %"), (1.0, "100 %"), (0.0, "0 %")],
)
def test_a_promised_share_is_never_rounded_up(share: float, expected: str) -> None:
    assert percent(share) == expected


@pytest.mark.parametrize(
    ("attempt", "alpha", "spent"),
    [(1, 0.025, 0.025), (2, 0.05 / 6, 0.1 / 3), (9, 0.05 / 90, 0.045)],
)
def test_the_spent_error_budget_is_the_sum_over_attempts(
    attempt: int, alpha: float, spent: float
) -> None:
    result = spent_budget(asdict(a_certificate(attempt=attempt, alpha=alpha)))
    assert result is not None
    assert result.alpha_spent == pytest.approx(spent)
    assert result.alpha_spent == pytest.approx(
        sum(0.05 / (k * (k + 1)) for k in range(1, attempt + 1))
    )
    assert result.alpha_spent < result.alpha_total


@pytest.mark.parametrize(
    ("share", "high", "expected"),
    [(0.97, 0.99, ""), (0.94, 0.98, "may lie above it"), (0.85, 0.93, "95 % lies above it")],
)
def test_a_threshold_above_the_teachers_self_consistency_gives_a_hint(
    share: float, high: float, expected: str
) -> None:
    again = Ceiling(n=40, agreed=30, share=share, low=0.5, high=high)
    result = teacher_ceiling(asdict(a_certificate(ceiling=again)))
    assert result is not None
    assert expected in result.hint
    assert bool(result.hint) == bool(expected)


def test_a_judge_is_reported_as_corrected_or_uncorrected() -> None:
    check = JudgeCheck(
        n=40, agreement=0.9, sensitivity=0.95, specificity=None, bias=-0.02, bias_low=-0.1
    )
    assert judge_state(asdict(a_certificate(scorer="exact"))) is None
    bare = judge_state(asdict(a_certificate(scorer="judge")))
    assert bare is not None
    assert not bare.corrected
    assert bare.reason.startswith("uncorrected")
    result = judge_state(asdict(a_certificate(scorer="judge", judge=check)))
    assert result is not None
    assert result.corrected
    assert (result.n, result.agreement, result.specificity) == (40, 0.9, None)


def test_a_task_is_paused_by_the_last_command_or_by_the_config() -> None:
    pause, resume = an_action(command="pause"), an_action(command="resume")
    retrain = an_action(command="retrain")
    by_config = TaskSettings(paused=True)
    by_hand = pause_state([retrain, pause, resume], TaskSettings())
    assert by_hand is not None
    assert (by_hand.by, by_hand.reason) == ("tester", "a new prompt is coming")
    assert pause_state([resume, pause], TaskSettings()) is None
    by_the_config = pause_state([resume, pause], by_config)
    assert by_the_config is not None
    assert by_the_config.by == "config"


def test_the_history_has_route_changes_and_commands_newest_first() -> None:
    turns = history_entries(
        [a_promotion_to("live", 40.0), a_promotion_to("shadow", 10.0)],
        [
            an_action(command="promote", at=40.0),
            an_action(command="resume", at=30.0),
            an_action(command="pause", at=20.0),
        ],
    )
    assert [t.state for t in turns] == ["live", "resume", "pause", "shadow"]
    many = [a_promotion(route=a_route(), at=float(at)) for at in range(20, 0, -1)]
    assert [t.at for t in history_entries(many, [])] == [float(at) for at in range(20, 10, -1)]


def test_the_route_shows_its_terms_of_service_among_its_other_fields() -> None:
    route = one_task("t", a_promotion_to("live", 40.0)).route
    assert {"target", "share", "cutoff", "max_tokens", "timeout_s", "forms"} <= route.keys()
    assert "terms" not in route


def test_a_detectors_fields_for_the_rollout_are_not_sent() -> None:
    sent = status_json(every_state())
    detectors = [d for t in sent["tasks"] if t["live"] for d in t["live"]["suspicion"].values()]
    assert {tuple(d) for d in detectors} == {("n", "bad", "tolerated", "level", "run_length")}


def test_labels_without_a_proof_and_protected_ones_are_in_the_status() -> None:
    recalls = [
        Recall(name="yes", n=33, agreed=33.0, low=0.86, protected=True),
        Recall(name="maybe", n=2, agreed=1.0, low=0.1, protected=True),
        *(Recall(name=f"label {n}", n=1, agreed=1.0, low=0.2) for n in range(30)),
        Recall(name="no", n=300, agreed=300.0, low=0.98),
    ]
    unproven = [r.name for r in recalls if r.low < 0.85]
    certificate = a_certificate(floor=0.85, recalls=recalls, unproven_labels=unproven)
    found = label_recall(asdict(certificate))
    assert found is not None
    assert (found.labels, found.unproven, found.floor) == (33, 31, 0.85)
    assert found.unproven_labels == ["maybe", *(f"label {n}" for n in range(19))]
    assert [(p.name, p.proven) for p in found.protected] == [("yes", True), ("maybe", False)]
    assert label_recall(asdict(a_certificate())) is None
    assert label_recall({"passed": True}) is None  # of before recalls were kept


def test_a_certificate_on_rows_mixed_in_time_says_so() -> None:
    promotion = a_promotion(certificate=a_certificate(passed=True, mixed_in_time=True))
    assert "as old as those that it learned from" in promise_sentence(promotion, None)
    apart = a_promotion(certificate=a_certificate(passed=True))
    assert "as old as" not in promise_sentence(apart, None)
