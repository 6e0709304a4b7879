"""From signals to a confidence, as proxy and control plane compute it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from store.chat.confidence import certainties, confidence_of
from store.records import (
    ConfidenceModel,
    Signals,
)

LOGPROBS = st.floats(min_value=-700, max_value=0)
MODEL = ConfidenceModel(intercept=-2.0, weights={"mean": 0.25, "rivals": 1.0})


def signals(lowest: float = -0.5, mean: float = -0.1, rivals: float = -1.5) -> Signals:
    return Signals(lowest=lowest, mean=mean, rivals=rivals)


def test_without_a_model_the_confidence_is_the_lowest_log_probability() -> None:
    assert confidence_of(signals(lowest=-0.75), None) == -0.75


def test_a_model_weighs_the_logs_of_the_doubts() -> None:
    """-2 + 0.25 · ln 10 + 1.5 is the log of the odds."""
    odds = math.exp(-2 + 0.25 * math.log(10) + 1.5)
    assert math.isclose(confidence_of(signals(), MODEL), odds / (1 + odds))


@given(LOGPROBS, LOGPROBS, LOGPROBS, LOGPROBS)
def test_less_doubt_is_never_less_confidence(
    mean: float, other_mean: float, rivals: float, other_rivals: float
) -> None:
    surer = signals(mean=max(mean, other_mean), rivals=min(rivals, other_rivals))
    less = signals(mean=min(mean, other_mean), rivals=max(rivals, other_rivals))
    assert 0 <= confidence_of(less, MODEL) <= confidence_of(surer, MODEL) <= 1


@given(LOGPROBS, LOGPROBS, st.floats(min_value=-1e6, max_value=1e6))
def test_the_confidence_is_a_probability_for_any_model(
    mean: float, rivals: float, weight: float
) -> None:
    model = ConfidenceModel(intercept=weight, weights={"mean": weight, "rivals": -weight})
    assert 0 <= confidence_of(signals(mean=mean, rivals=rivals), model) <= 1


def test_the_certainty_of_a_sure_answer_is_bounded() -> None:
    sure = certainties(signals(lowest=0.0, mean=0.0, rivals=-700.0))
    assert set(sure.values()) == {math.log(1e6)}


def test_a_model_of_other_signals_trusts_no_answer() -> None:
    """Routes may be newer than the proxy that reads them."""
    newer = ConfidenceModel(intercept=9.0, weights={"rivals": 1.0, "entropy": 1.0})
    assert confidence_of(signals(), newer) == 0.0
