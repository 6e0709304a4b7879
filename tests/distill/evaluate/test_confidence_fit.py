"""The confidence model: fitted on calibration rows alone, and sensible with few of them."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import orjson
import pytest

from distill.evaluate.confidence_fit import fit_confidence
from distill.pipeline.evaluation import with_confidence
from store.chat.confidence import confidence_of
from store.database.runs import evaluation_of
from store.jsontext import to_json_line
from store.records import (
    Evaluation,
    Reason,
    Signals,
)
from tests.helpers.samples import an_evaluation


def row(rivals: float, mean: float, agrees: bool, **changes: object) -> Evaluation:
    """`rivals` and `mean`: the logs of these doubts."""
    signals = Signals(lowest=-1.0, mean=-math.exp(mean), rivals=rivals)
    return replace(
        an_evaluation("run", split="calibration", agrees=agrees, score=float(agrees)),
        **{"signals": signals, "confidence": None, **changes},  # type: ignore[arg-type]
    )


def drawn(
    count: int, *, seed: int, intercept: float, by_rivals: float, by_mean: float
) -> list[Evaluation]:
    """Rows whose chance to agree is a logistic function of the two."""
    rng, result = random.Random(seed), []
    for _ in range(count):
        rivals, mean = rng.uniform(-9, 0), rng.uniform(-9, 0)
        chance = 1 / (1 + math.exp(-(intercept - by_rivals * rivals - by_mean * mean)))
        result.append(row(rivals, mean, rng.random() < chance))
    return result


@pytest.mark.parametrize(("by_rivals", "by_mean"), [(0.9, 0.0), (0.6, 0.3), (0.0, 0.8)])
def test_the_confidence_weights_the_informative_signal(by_rivals: float, by_mean: float) -> None:
    model = fit_confidence(
        drawn(4000, seed=1, intercept=-1.5, by_rivals=by_rivals, by_mean=by_mean)
    )
    assert model.intercept == pytest.approx(-1.5, abs=0.3)
    assert model.weights == pytest.approx({"rivals": by_rivals, "mean": by_mean}, abs=0.1)


@pytest.mark.slow
def test_the_confidence_is_calibrated_on_other_rows() -> None:
    known = {"intercept": -1.5, "by_rivals": 0.5, "by_mean": 0.3}
    model = fit_confidence(drawn(300, seed=2, **known))
    others = sorted(
        (confidence_of(e.signals, model), e.agrees)
        for e in drawn(6000, seed=3, **known)
        if e.signals is not None
    )
    for place in range(0, 6000, 1000):
        part = others[place : place + 1000]
        expected = sum(confidence for confidence, _ in part) / 1000
        assert sum(agrees for _, agrees in part) / 1000 == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("agreeing", [[], [True] * 2, [True] * 30, [False] * 30, [True, False]])
def test_few_rows_and_rows_that_all_agree_keep_the_order_of_the_rivals(
    agreeing: list[bool],
) -> None:
    model = fit_confidence([row(-place - 1.0, -2.0, a) for place, a in enumerate(agreeing)])
    levels = [Signals(lowest=-1, mean=-0.1, rivals=-float(x)) for x in range(12)]
    result = [confidence_of(signals, model) for signals in levels]
    assert result == sorted(result)
    assert len(set(result)) == len(result)
    assert all(0 < confidence < 1 for confidence in result)


def test_more_doubt_never_raises_the_confidence() -> None:
    """Even when these few rows suggest it."""
    model = fit_confidence([row(-x, -x, x < 5) for x in range(1, 10)] * 20)
    assert min(model.weights.values()) >= 0


def test_faults_and_answers_without_signals_do_not_count() -> None:
    usable = drawn(100, seed=4, intercept=-1.0, by_rivals=0.5, by_mean=0.2)
    others = [
        row(-9.0, -9.0, False, fault=Reason.STUDENT_CUT_OFF),
        row(-9.0, -9.0, False, signals=None),
    ]
    assert fit_confidence([*usable, *others * 50]) == fit_confidence(usable)


def test_held_out_rows_do_not_influence_the_confidence_model() -> None:
    calibration = drawn(100, seed=5, intercept=-1.0, by_rivals=0.5, by_mean=0.2)
    heldout = [replace(e, split="heldout", agrees=not e.agrees) for e in calibration]
    judged = with_confidence([*calibration, *heldout, row(-1, -1, False, signals=None)])
    assert judged.confidence == fit_confidence(calibration)
    for e in judged.evaluations.rows[:-1]:
        assert e.signals is not None
        assert e.confidence == confidence_of(e.signals, judged.confidence)
    assert judged.evaluations.rows[-1].confidence is None


def test_a_resumed_run_has_the_same_confidence() -> None:
    judged = with_confidence(drawn(80, seed=6, intercept=-1.0, by_rivals=0.5, by_mean=0.2))
    kept = b"".join(to_json_line(e) for e in judged.evaluations.rows)
    read = [evaluation_of(orjson.loads(line)) for line in kept.splitlines()]
    assert with_confidence(read) == judged
