"""Evaluations to judge, and the gate that judges them in tests."""

from __future__ import annotations

from collections.abc import Iterable

from distill.gate import Cutoff, certify
from store.task_settings import GateSettings
from store.verdicts import Certificate, Evaluation

GATE = GateSettings(threshold=0.95, confidence=0.95, min_coverage=0.5)
ALL = Cutoff(None, 1.0, 1.0, 1.0, "all")


def row(agrees: bool, confidence: float | None = -0.1, fault: str | None = None) -> Evaluation:
    return Evaluation(
        run_id="run",
        input_hash="hash",
        split="heldout",
        scorer="exact",
        score=float(agrees),
        agrees=agrees,
        teacher_output="a",
        student_output="a" if agrees else "b",
        confidence=confidence,
        latency_ms=1.0,
        fault=fault,
    )


def rows(agreed: int, n: int) -> list[Evaluation]:
    return [row(place < agreed) for place in range(n)]


def judge(
    heldout: Iterable[Evaluation], cutoff: Cutoff = ALL, settings: GateSettings = GATE
) -> Certificate:
    return certify(
        list(heldout),
        cutoff,
        settings,
        task="triage",
        run_id="run",
        scorer="exact",
        fingerprints=["f"],
        now=7.0,
    )
