"""One student at several thresholds: stricter ones serve a part of the lowest one's rows."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from demo.backtest.thresholds import TestRow, at_thresholds
from distill.gate.frequent import InputCheck
from store.records import Evaluation
from store.settings.tasks import GateSettings
from tests.helpers.samples import an_evaluation

GATE = GateSettings(min_coverage=0.2)


def student(count: int, seed: int) -> list[tuple[float, bool]]:
    """(confidence, agrees) of answers whose agreement grows with the confidence."""
    rng = random.Random(seed)
    sure = [rng.random() for _ in range(count)]
    return [(c, rng.random() < 0.7 + 0.3 * min(1, 1.6 * c)) for c in sure]


def evaluations(count: int, seed: int) -> list[Evaluation]:
    found = []
    for number, (confidence, agrees) in enumerate(student(count, seed)):
        split = "calibration" if number % 3 == 0 else "heldout"
        found.append(an_evaluation("r", split=split, confidence=confidence, agrees=agrees))
    return found


@pytest.mark.slow
def test_a_stricter_threshold_serves_less() -> None:
    rows = [
        TestRow(True, confidence, agrees, str(place))
        for place, (confidence, agrees) in enumerate(student(9000, seed=2))
    ]
    sections = at_thresholds([0.98, 0.9], evaluations(6000, seed=1), GATE, "text", rows)

    assert [s["threshold"] for s in sections] == [0.9, 0.98]
    assert all(s["passed"] for s in sections)
    assert not any(s["contradicted"] for s in sections)
    for loose, strict in pairwise(sections):
        assert loose["answered"] > strict["answered"] > 0.2
        assert loose["agreement_of_student"]["share"] < strict["agreement_of_student"]["share"]
        assert loose["agreement_all"] < strict["agreement_all"]
    for section in sections:
        assert 0 < section["confirmed_after"] < len(rows)
        assert 0 < section["confirmed"]["answered"] < section["answered"]
        assert not section["confirmed"]["contradicted"]


@pytest.mark.slow
def test_rows_below_the_cutoff_are_the_teachers() -> None:
    rows = [TestRow(False, 0.99, False, "one")] * 10
    [section] = at_thresholds([0.9], evaluations(3000, seed=1), GATE, "text", rows)

    assert section["passed"]
    assert section["answered"] == 0
    assert section["agreement_of_student"]["n"] == 0
    assert section["agreement_all"] == 1


@pytest.mark.slow
def test_a_test_file_can_contradict_a_certificate() -> None:
    rows = [TestRow(True, 0.99, number % 2 == 0, str(number)) for number in range(100)]
    [section] = at_thresholds([0.9], evaluations(3000, seed=1), GATE, "text", rows)

    assert section["contradicted"]
    assert section["confirmed_after"] is None
    assert section["confirmed"]["answered"] == 0
    assert not section["confirmed"]["contradicted"]


@pytest.mark.parametrize("count", [0, 30])
def test_without_a_certificate_nothing_is_served(count: int) -> None:
    rows = [TestRow(True, 0.99, True, "one")] * 5
    [section] = at_thresholds([0.9], evaluations(count, seed=1), GATE, "text", rows)

    assert not section["passed"]
    assert section["answered"] == 0
    assert section["reason"]


@pytest.mark.slow
def test_frequent_inputs_weigh_by_their_requests_here_too() -> None:
    rows = [TestRow(True, 0.99, True, "one")] * 5
    agreeing = evaluations(3000, seed=1)
    ping = an_evaluation("r", split="frequent", confidence=0.99, agrees=False)
    wrong = InputCheck(
        fingerprint=ping.fingerprint,
        input_hash=ping.input_hash,
        requests=600,
        chosen=300,
        judged=300,
    )
    [plain] = at_thresholds([0.9], agreeing, GATE, "text", rows)
    [weighed] = at_thresholds(
        [0.9], [*agreeing, ping], GATE, "text", rows, checks=[wrong], requests=1000
    )
    assert plain["passed"]
    covered = weighed["certified"]["coverage"]
    assert covered == pytest.approx(0.4 * plain["certified"]["coverage"])
