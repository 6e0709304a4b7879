"""Evaluations, and the gate with the settings of tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from distill.gate.cutoffs import Cutoff, choose_cutoffs
from distill.gate.gate import attempt_alpha, certify
from store.records import (
    Certificate,
    Evaluation,
)
from store.settings.tasks import GateSettings

GATE = GateSettings(threshold=0.95, confidence=0.95, min_coverage=0.5)
ALL = Cutoff(None, 1.0, 1.0, 1.0, "all")


def row(
    agrees: bool,
    confidence: float | None = 0.9,
    fault: str | None = None,
    *,
    label: str = "a",
    fingerprint: str = "f",
) -> Evaluation:
    return Evaluation(
        run_id="run",
        input_hash="hash",
        split="heldout",
        scorer="exact",
        score=float(agrees),
        agrees=agrees,
        teacher_output=label,
        student_output=label if agrees else "another",
        confidence=confidence,
        latency_ms=1.0,
        fault=fault,
        fingerprint=fingerprint,
    )


def rows(agreed: int, n: int, **changes: Any) -> list[Evaluation]:
    return [row(place < agreed, **changes) for place in range(n)]


def judge(
    heldout: Iterable[Evaluation],
    *cutoffs: Cutoff,
    settings: GateSettings = GATE,
    **changes: Any,
) -> Certificate:
    """The gate's certificate for these rows; without a cutoff, everything is served."""
    given: dict[str, Any] = {
        "attempt": 1,
        "output": "text",
        "task": "triage",
        "run_id": "run",
        "scorer": "exact",
        "fingerprints": ["f"],
        "now": 7.0,
    }
    return certify(list(heldout), cutoffs or (ALL,), settings, **{**given, **changes})


def chosen(
    calibration: Sequence[Evaluation], heldout: int | None = None, settings: GateSettings = GATE
) -> list[Cutoff]:
    """The cutoffs for a first attempt; as many held-out rows as calibration rows by default."""
    expected = len(calibration) if heldout is None else heldout
    return choose_cutoffs(calibration, settings, heldout=expected, alpha=attempt_alpha(settings, 1))
