"""One student, several thresholds: what each would have certified and served.

The gate is a pure function of the run's evaluations, so a stricter certificate needs no further
training: it is computed from the same rows, with a cutoff of its own. It would have served the test
rows that the student answered with at least that confidence.

Both are reported: serving by the certificate alone, from the first row on, and with live
confirmation, where the rows are compared one by one and the student serves once they prove the
threshold by themselves (`rollout.confirm`), those that belong together as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demo.backtest.report import agreement
from distill.evaluate.evaluations import Evaluations
from distill.gate.cutoffs import choose_cutoffs
from distill.gate.frequent import FrequentChecks, InputCheck
from distill.gate.gate import attempt_alpha, certify, confirmed_bound
from distill.gate.groups import GroupedRows
from distill.gate.tally import GroupTally
from distill.pipeline.evaluation import joined
from store.jsontext import JsonMapping, JsonObject
from store.records import (
    Certificate,
    Evaluation,
    OutputKind,
)
from store.settings.tasks import GateSettings


@dataclass(frozen=True, slots=True)
class TestRow:
    """One test row: who answered it, how sure the student was, and whether the answer is right."""

    __test__ = False  # not a test of pytest's

    by_student: bool
    confidence: float | None
    agrees: bool
    group: str  # rows of one group count as one, as in live traffic


def at_thresholds(
    thresholds: Sequence[float],
    evaluations: Sequence[Evaluation],
    gate: GateSettings,
    output: OutputKind,
    rows: Sequence[TestRow],
    *,
    checks: Sequence[InputCheck] = (),
    requests: int = 0,
) -> list[JsonObject]:
    """One section a threshold, in rising order.

    The test rows must have been served under the lowest of the thresholds: a stricter one serves a
    part of them, the teacher answers the rest. `checks`: of the frequent inputs, which are a part
    of the task's `requests`.
    """
    return [
        _section(
            threshold,
            _certificate(evaluations, _at(gate, threshold), output, checks, requests),
            rows,
        )
        for threshold in sorted(thresholds)
    ]


def _at(gate: GateSettings, threshold: float) -> GateSettings:
    return gate.model_copy(update={"threshold": threshold})


def _certificate(
    evaluations: Sequence[Evaluation],
    gate: GateSettings,
    output: OutputKind,
    checks: Sequence[InputCheck],
    requests: int,
) -> Certificate | None:
    rows = Evaluations(evaluations)
    calibration, heldout = rows.calibration, rows.heldout
    if not heldout:
        return None
    cutoffs = choose_cutoffs(
        calibration, gate, heldout=len(GroupedRows(heldout)), alpha=attempt_alpha(gate, attempt=1)
    )
    return certify(
        heldout,
        cutoffs,
        gate,
        attempt=1,
        output=output,
        task="backtest",
        run_id=heldout[0].run_id,
        scorer=heldout[0].scorer,
        fingerprints=sorted({e.fingerprint for e in heldout}),
        now=0.0,
        frequent=FrequentChecks(
            joined(checks, evaluations),
            requests=requests,
            heldout=len(GroupedRows(heldout)),
            threshold=gate.threshold,
        ),
    )


def _section(
    threshold: float, certificate: Certificate | None, rows: Sequence[TestRow]
) -> JsonObject:
    certified = certificate if certificate and certificate.passed else None
    served = [certified is not None and r.by_student and _sure(r, certified) for r in rows]
    after = _confirmed_after(certified, rows, served)
    confirmed = [yes and after is not None and i > after for i, yes in enumerate(served)]
    return {
        "threshold": threshold,
        "passed": certified is not None,
        "reason": certificate.reason if certificate else "the student was not evaluated",
        "certified": _certified(certificate),
        **_served(rows, served, threshold),
        "confirmed_after": None if after is None else after + 1,
        "confirmed": _served(rows, confirmed, threshold),
    }


def _served(rows: Sequence[TestRow], served: Sequence[bool], threshold: float) -> JsonObject:
    """The result if the student answers these rows, and the teacher the others."""
    by_student = agreement([r.agrees for r, yes in zip(rows, served, strict=True) if yes])
    # the teacher's recorded answer agrees with itself
    right = sum(r.agrees if yes else True for r, yes in zip(rows, served, strict=True))
    return {
        "answered": round(sum(served) / len(rows), 4) if rows else 0.0,
        "agreement_of_student": by_student,
        "agreement_all": round(right / len(rows), 4) if rows else None,
        "contradicted": by_student["n"] > 0 and by_student["high"] < threshold,
    }


def _confirmed_after(
    certified: Certificate | None, rows: Sequence[TestRow], served: Sequence[bool]
) -> int | None:
    """The place of the row with which the rows so far prove the threshold; None: they never do."""
    if certified is None:
        return None
    tally = GroupTally()
    for place, (row, yes) in enumerate(zip(rows, served, strict=True)):
        if yes:
            tally.add(row.group, row.agrees)
            sums = tally.sums()
            if confirmed_bound(certified, sums.groups, sums.low) >= certified.threshold:
                return place
    return None


def _sure(row: TestRow, certificate: Certificate) -> bool:
    cutoff = certificate.cutoff
    return cutoff is None or (row.confidence is not None and row.confidence >= cutoff)


def _certified(certificate: Certificate | None) -> JsonMapping | None:
    if certificate is None:
        return None
    names = (
        "n",
        "agreed",
        "rows",
        "heldout",
        "heldout_rows",
        "score",
        "lower_bound",
        "coverage",
        "cutoff",
    )
    return {name: getattr(certificate, name) for name in names}
