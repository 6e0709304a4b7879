"""The backtest's report: pure arithmetic over the sent requests, the answers and the costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import ceil

from scipy.stats import binomtest

from demo.backtest.logs import Layout, LogRow
from demo.backtest.replay import TOKEN_RULE, Tally, tokens_of
from demo.drive.driver import SentRequest, Status
from store.jsontext import JsonObject
from store.settings.tasks import TaskSettings
from store.settings.teachers import Price

CONFIDENCE = 0.95  # of the intervals around the agreement on test rows

Report = JsonObject


def build_report(
    *,
    task: str,
    layout: Layout,
    settings: TaskSettings,
    price: Price,
    ledger: Mapping[str, Tally],
    status: Status,
    exchanges: Sequence[SentRequest],
    agrees: Callable[[str, str], bool],
    seconds: Mapping[str, float],
) -> Report:
    """Puts the report together. `exchanges`: one a test row, in its order.

    `agrees(recorded, answer)` is the task's scorer. Times are seconds unless named `_ms`, prices
    and costs US dollars.
    """
    last_run = status["last_run"]
    certificate = status["certificate"]
    threshold = certificate["threshold"] if certificate else settings.gate.threshold
    return {
        "task": task,
        "result": last_run["state"],
        "reason": last_run["reason"],
        "rows": {
            "traffic": len(layout.traffic),
            "pool": len(layout.pool),
            "test": len(layout.test),
            "duplicates": layout.duplicates,
            "conflicts": layout.conflicts,
            "left_out_of_pool": layout.left_out,
            "test_seen_in_traffic": layout.test_seen,
        },
        "teacher": {
            "token_rule": TOKEN_RULE,
            "by_purpose": {purpose: tally.as_dict() for purpose, tally in ledger.items()},
        },
        "examples": status["examples"],
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "certificate": certificate,
        "test": test_section(layout.test, exchanges, agrees, threshold),
        "savings": savings(layout.test, ledger, price),
        "run": last_run["detail"],
        "settings": settings.model_dump(mode="json"),
    }


def test_section(
    rows: Sequence[LogRow],
    exchanges: Sequence[SentRequest],
    agrees: Callable[[str, str], bool],
    threshold: float,
) -> JsonObject:
    """The results on the test rows.

    `certificate_contradicted`: even the upper end of the interval around the agreement of the
    student's answers lies below the threshold.
    """
    right = [
        exchange.answer is not None and agrees(row.answer, exchange.answer)
        for row, exchange in zip(rows, exchanges, strict=True)
    ]
    by_student = [ok for ok, e in zip(right, exchanges, strict=True) if e.route == "student"]
    of_student = agreement(by_student)
    errors = Counter(e.error for e in exchanges if e.error)
    routes = sorted({e.route or "none" for e in exchanges})
    return {
        "n": len(rows),
        "answered_by_student": {
            "n": len(by_student),
            "share": round(len(by_student) / len(rows), 4),
        },
        "agreement_of_student": of_student,
        "agreement_all": agreement(right),
        "certificate_contradicted": bool(by_student) and of_student["high"] < threshold,
        "errors": errors.total(),
        "error_kinds": dict(errors),
        "by_route": {
            name: times([e.latency_ms for e in exchanges if (e.route or "none") == name])
            for name in routes
        },
        "reasons": dict(Counter(e.reason or "none" for e in exchanges)),
    }


def savings(test: Sequence[LogRow], ledger: Mapping[str, Tally], price: Price) -> JsonObject:
    """The teacher's cost for the test rows without and with the student, and the cost of the run.

    `pays_off_after`: requests like these until the saving has paid for the distilling; None when
    nothing is saved.
    """
    tokens = [tokens_of(row.messages, row.answer) for row in test]
    without = _cost(sum(t for t, _ in tokens), sum(t for _, t in tokens), price)
    paid = {name: _cost(t.input_tokens, t.output_tokens, price) for name, t in ledger.items()}
    with_student = paid["test"]
    distilling = paid["policy"] + paid["inputs"] + paid["answers"]
    a_request = (without - with_student) / len(test)
    return {
        "price": {
            "input_usd_per_million": round(price.input * 1e6, 6),
            "output_usd_per_million": round(price.output * 1e6, 6),
        },
        "teacher_usd_without": round(without, 6),
        "teacher_usd_with": round(with_student, 6),
        "distilling_usd": round(distilling, 6),
        "saved_share": round(1 - with_student / without, 4) if without else 0.0,
        "pays_off_after": ceil(distilling / a_request) if a_request > 0 else None,
    }


def agreement(right: Sequence[bool]) -> JsonObject:
    """The share that agrees, with its exact (Clopper-Pearson) two-sided 95 % interval."""
    if not right:
        return {"n": 0, "agreed": 0, "share": None, "low": 0.0, "high": 1.0}
    agreed, n = sum(right), len(right)
    interval = binomtest(agreed, n).proportion_ci(CONFIDENCE, method="exact")
    return {
        "n": n,
        "agreed": agreed,
        "share": round(agreed / n, 4),
        "low": round(float(interval.low), 4),
        "high": round(float(interval.high), 4),
    }


def times(latencies_ms: Sequence[float]) -> JsonObject:
    """How many, and how long half and 95 % of them took at most."""
    return {
        "n": len(latencies_ms),
        "p50_ms": round(percentile(latencies_ms, 0.50), 2),
        "p95_ms": round(percentile(latencies_ms, 0.95), 2),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed."""
    return sorted(values)[max(ceil(share * len(values)), 1) - 1]


def _cost(input_tokens: int, output_tokens: int, price: Price) -> float:
    return input_tokens * price.input + output_tokens * price.output
