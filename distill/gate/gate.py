"""The gate: whether a student may serve, and from which confidence on. Pure functions.

Two steps on two disjoint sets of rows:

1. `choose_cutoffs` uses the calibration rows alone. It fixes which cutoffs are tested and in which
   order (distill.gate.cutoffs), and the prior of the bounds' bets.
2. `certify` uses the held-out rows alone. It tests the cutoffs until one fails: the lower bound of
   the agreement of the answers that it would serve has to reach the threshold, no slice of them may
   lie far below (distill.gate.slices), and the recall of each protected label has to be proven
   (distill.gate.recall). The last one that passed is certified.

All counts are of groups of rows that belong together: one counts once, by the mean over its rows
(distill.gate.groups). The agreement that is certified is that of an answer to a group of its own.

The bound is anytime-valid (distill.gate.bounds), so more rows may be added and looked at at any
time; `extended_bound` continues it with live traffic. Attempt k of a task under the same
fingerprints gets the error probability alpha / (k (k + 1)). These add up to alpha: a student whose
served part agrees less than the threshold passes with a probability of at most 1 - confidence, over
any number of attempts.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from distill.gate.bounds import (
    Prior,
    bias_lower_bound,
    fewest,
    lower_bound,
    prediction_powered_lower_bound,
)
from distill.gate.cutoffs import Cutoff, serves
from distill.gate.frequent import FrequentChecks
from distill.gate.groups import GroupedRows
from distill.gate.recall import (
    MAX_RECALLS,
    LabelledRows,
    Protection,
    floor_of,
    protection_of,
    recalls_of,
)
from distill.gate.slices import RARE, slices_of
from store.records import (
    Ceiling,
    Certificate,
    Evaluation,
    FrequentInputs,
    JudgeCheck,
    OutputKind,
    Recall,
    ScorerName,
    Slice,
)
from store.settings.tasks import GateSettings

METHOD = "beta-mixture"
CORRECTED = "prediction-powered"  # the judge's share, corrected by people's labels

Pairs = Sequence[tuple[bool, bool]]  # (the judge calls an answer good, people call it good)


# ---- attempts ----------------------------------------------------------------------------------


def attempt_alpha(gate: GateSettings, attempt: int) -> float:
    """The error probability of one attempt: those of all attempts add up to 1 - confidence."""
    return (1 - gate.confidence) / (attempt * (attempt + 1))


def attempt_number(earlier: Sequence[Certificate], fingerprints: Sequence[str]) -> int:
    """Which attempt comes next: each earlier certificate that shares a fingerprint counts."""
    own = set(fingerprints)
    return 1 + sum(not own.isdisjoint(c.fingerprints) for c in earlier)


def groups_needed(gate: GateSettings, attempt: int = 1, *, calibration: int = 0) -> int:
    """The fewest served held-out groups that can certify a student, if every one of them agrees.

    `calibration`: how many calibration groups there are. At best all of them agree too, and are the
    prior of the bound's bets.
    """
    alpha = attempt_alpha(gate, attempt)
    prior = (float(calibration), 0.0, gate.threshold) if calibration else ()
    return fewest(gate.threshold, alpha, prior)


# ---- the certificate ---------------------------------------------------------------------------


def certify(
    heldout: Sequence[Evaluation],
    cutoffs: Sequence[Cutoff],
    gate: GateSettings,
    *,
    attempt: int,
    output: OutputKind,
    task: str,
    run_id: str,
    scorer: ScorerName,
    fingerprints: Sequence[str],
    now: float,
    fields: Collection[str] = (),
    known: Collection[str] | None = None,
    ceiling: Ceiling | None = None,
    labelled: Pairs | None = None,
    frequent: FrequentChecks | None = None,
) -> Certificate:
    """Judges a student on rows that nothing was chosen on. The certificate says why it passed.

    A row whose answer cannot be served (a fault, or a confidence below the cutoff) goes to the
    teacher: it lowers the coverage, and is no evidence about the served answers. A cutoff that
    fails ends the sequence. One that only lacks coverage does not, as larger ones follow.

    `attempt`: see `attempt_number`. `fields`: of JSON answers, those whose values are labels.
    `known`: the labels that the task's rows have, held out or not; None: those of these rows.
    `ceiling`: the teacher's agreement with itself. `labelled`: rows that people have judged as
    well, perhaps none; None: the scorer does not err. `frequent`: inputs that are none of these
    rows and are checked by themselves. Raises ValueError without a cutoff.
    """
    if not cutoffs:
        raise ValueError("no cutoff to certify")
    alpha = attempt_alpha(gate, attempt)
    judge = _judge_check(labelled, alpha / 2) if labelled else None
    grouped = GroupedRows(heldout)
    protection = protection_of(gate, output, alpha, known)
    protected = LabelledRows(heldout, output, only=protection.names)
    terms = _Terms(
        gate, attempt, alpha, output, judge, grouped.unit, fields, protection, protected, frequent
    )
    results = _test_in_order(grouped, cutoffs, terms)
    chosen = next((r for r in reversed(results) if not r.objections), results[-1])
    recalls = _recalls(grouped, chosen, terms)
    unproven = [recall.name for recall in recalls if recall.low < floor_of(gate)]
    reasons = _reasons(chosen, results[-1], terms)
    if unproven:
        reasons.append(
            f"a recall of {floor_of(gate):.4g} is not proven for {len(unproven)} of "
            f"{len(recalls)} labels (unproven_labels)"
        )
    if chosen.frequent is not None:
        reasons.append(_frequent_reason(chosen.frequent))
    if labelled is not None:
        reasons.append(_judge_reason(judge))
    if ceiling is not None and ceiling.high < gate.threshold:
        reasons.append(_low_ceiling(ceiling, gate.threshold))
    n, agreed, method = chosen.n, chosen.agreed, METHOD if judge is None else CORRECTED
    return Certificate(
        certificate_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{method}/{run_id}")),
        task=task,
        run_id=run_id,
        method=method,
        scorer=scorer,
        threshold=gate.threshold,
        confidence_level=gate.confidence,
        attempt=attempt,
        alpha=alpha,
        prior=list(chosen.prior),
        n=n,
        agreed=agreed,
        rows=chosen.rows,
        score=chosen.score,
        lower_bound=chosen.bound,
        cutoff=chosen.cutoff,
        cutoffs_tested=len(results),
        coverage=chosen.coverage,
        heldout=len(grouped),
        heldout_rows=len(heldout),
        agreement_all=grouped.total([e.agrees for e in heldout]) / max(len(grouped), 1),
        min_coverage=gate.min_coverage,
        faults=grouped.total([e.fault is not None for e in heldout]),
        frequent=chosen.frequent,
        slices=chosen.slices,
        floor=floor_of(gate),
        recalls=recalls[:MAX_RECALLS],
        unproven_labels=unproven[:MAX_RECALLS],
        ceiling=ceiling,
        judge=judge,
        fingerprints=list(fingerprints),
        passed=not chosen.objections,
        reason="; ".join(reasons),
        at=now,
    )


def extended_bound(certificate: Certificate, live_n: int, live_agreed: float) -> float:
    """The certificate's bound, continued with rows of live traffic that the student would serve.

    Without any it is the certificate's own, recomputed from nothing but what it stores.
    """
    return _bound(
        certificate.agreed + live_agreed,
        certificate.n + live_n,
        certificate.alpha,
        certificate.prior,
        certificate.judge,
    )


def confirmed_bound(certificate: Certificate, live_n: int, live_agreed: float) -> float:
    """The lower bound of the live rows by themselves, at the certificate's error probability.

    The held-out rows decide the bets alone, so it also holds after the live traffic has drifted
    from them.
    """
    prior = (
        float(certificate.agreed),
        float(certificate.n - certificate.agreed),
        certificate.threshold,
    )
    return _bound(live_agreed, live_n, certificate.alpha, prior, certificate.judge)


def _bound(agreed: float, n: float, alpha: float, prior: Prior, judge: JudgeCheck | None) -> float:
    if judge is None:
        return lower_bound(agreed, n, alpha, prior)
    return prediction_powered_lower_bound(agreed, n, judge.bias_low, alpha, prior)


# ---- one cutoff --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Terms:
    """The conditions that all cutoffs of one certificate are tested under."""

    gate: GateSettings
    attempt: int
    alpha: float
    output: OutputKind
    judge: JudgeCheck | None
    unit: str  # what is counted: groups, or rows where none has a group
    fields: Collection[str]  # of JSON answers, those whose values are labels
    protection: Protection
    protected: LabelledRows  # the held-out rows, with their protected labels
    frequent: FrequentChecks | None


@dataclass(frozen=True, slots=True)
class _CutoffResult:
    """The test of one cutoff on the held-out rows."""

    cutoff: float | None
    prior: tuple[float, ...]
    n: int  # groups with a row that it serves
    agreed: float
    rows: int
    score: float
    coverage: float
    bound: float
    frequent: FrequentInputs | None
    slices: list[Slice]
    recalls: list[Recall]  # of the protected labels
    proven: bool  # all but the coverage: the bound, the slices, the protected labels
    objections: list[str]  # every reason why it is not certified, each with its numbers


def _test_in_order(
    heldout: GroupedRows, cutoffs: Sequence[Cutoff], terms: _Terms
) -> list[_CutoffResult]:
    """The tests of the cutoffs, up to the first that is not proven."""
    results: list[_CutoffResult] = []
    for cutoff in cutoffs:
        results.append(_test(heldout, cutoff, terms))
        if not results[-1].proven:
            break
    return results


def _reasons(chosen: _CutoffResult, last: _CutoffResult, terms: _Terms) -> list[str]:
    """Why the chosen cutoff passed or not, and why no later one was taken."""
    reasons = list(chosen.objections) or [_passed(chosen, terms)]
    if chosen is not last:
        reasons.append(f"no further: at coverage {last.coverage:.3f}, {last.objections[0]}")
    return reasons


def _test(heldout: GroupedRows, cutoff: Cutoff, terms: _Terms) -> _CutoffResult:
    gate = terms.gate
    served = [place for place, e in enumerate(heldout.rows) if serves(e, cutoff.value)]
    counts = heldout.counts(served)
    n, agreed = counts.groups, counts.agreed
    coverage = counts.covered / max(len(heldout), 1)
    bound = _bound(agreed, n, terms.alpha, cutoff.prior, terms.judge)
    score = agreed / n if n else 0.0
    frequent = None
    if terms.frequent:
        weighed = terms.frequent.weighed(counts, len(heldout), cutoff.value)
        of_all = _bound(weighed.agreed, weighed.n, terms.alpha, cutoff.prior, terms.judge)
        frequent = terms.frequent.summary(weighed, of_all)
        score, coverage = weighed.score, weighed.coverage
    slices = slices_of([heldout.rows[place] for place in served], terms.output, gate, terms.fields)
    recalls = recalls_of(terms.protected, set(served), terms.protection.names, terms.alpha)
    objections = []
    if n == 0:
        objections.append(f"no servable answer on {len(heldout)} held-out {heldout.unit}")
    elif bound < gate.threshold:
        objections.append(_too_low(n, agreed, bound, cutoff.prior, terms))
    elif frequent is not None and frequent.lower_bound < gate.threshold:
        objections.append(_too_low_by_requests(score, frequent, terms))
    objections.extend(
        f"{_named(s)} on {s.agreed} of {s.n} held-out {heldout.unit} "
        f"({s.agreed / s.n:.3f}), proven below {floor_of(gate):.4g}"
        for s in slices
        if s.below
    )
    unproven = (terms.protection.objection(recall, heldout.unit) for recall in recalls)
    objections.extend(filter(None, unproven))
    proven = not objections
    if n and coverage < gate.min_coverage:
        objections.append(
            f"coverage {coverage:.3f} ({counts.covered:g} of {len(heldout)} held-out "
            f"{heldout.unit}{_and_inputs(frequent)}) is below {gate.min_coverage:g}"
        )
    return _CutoffResult(
        cutoff=cutoff.value,
        prior=cutoff.prior,
        n=n,
        agreed=agreed,
        rows=counts.rows,
        score=score,
        coverage=coverage,
        bound=bound if frequent is None else min(bound, frequent.lower_bound),
        frequent=frequent,
        slices=slices,
        recalls=[replace(recall, protected=True) for recall in recalls],
        proven=proven,
        objections=objections,
    )


def _recalls(heldout: GroupedRows, chosen: _CutoffResult, terms: _Terms) -> list[Recall]:
    """The recall of every label at the chosen cutoff: protected ones first, then the lowest."""
    rows = LabelledRows(heldout.rows, terms.output, fields=terms.fields)
    served = {place for place, e in enumerate(heldout.rows) if serves(e, chosen.cutoff)}
    known = rows.names if terms.protection.known is None else terms.protection.known
    names = set(known).difference(terms.protection.names)
    others = recalls_of(rows, served, sorted(names), terms.alpha)
    return [*chosen.recalls, *sorted(others, key=lambda recall: (recall.low, recall.name))]


def _named(part: Slice) -> str:
    return f"the rare {part.kind}s agree" if part.name == RARE else f"one {part.kind} agrees"


def _too_low(n: int, agreed: float, bound: float, prior: Prior, terms: _Terms) -> str:
    threshold = terms.gate.threshold
    if terms.judge is None:
        needed = fewest(threshold, terms.alpha, prior)
        if n < needed:
            return (
                f"{n} served held-out {terms.unit} are too few: a threshold of {threshold:g} "
                f"{_at_confidence(terms)} needs {needed} even without a disagreement"
            )
    return (
        f"agreement {agreed / n:.3f} ({agreed:g} of {n} held-out {terms.unit}), lower bound "
        f"{bound:.4f} < {threshold:g} {_at_confidence(terms)}"
    )


def _passed(result: _CutoffResult, terms: _Terms) -> str:
    rows = f" ({result.rows} rows)" if result.rows != result.n else ""
    return (
        f"agreement {result.agreed / result.n:.3f} on {result.n} held-out {terms.unit}{rows}, "
        f"lower bound {result.bound:.4f} ≥ {terms.gate.threshold:g} {_at_confidence(terms)}, "
        f"coverage {result.coverage:.3f}"
    )


def _too_low_by_requests(score: float, frequent: FrequentInputs, terms: _Terms) -> str:
    return (
        f"agreement {score:.3f} by requests, lower bound {frequent.lower_bound:.4f} < "
        f"{terms.gate.threshold:g} {_at_confidence(terms)}: on {_inputs(frequent.served)} of "
        f"{frequent.served_share:.1%} of the requests it is {frequent.agreed:.3f}"
    )


def _frequent_reason(frequent: FrequentInputs) -> str:
    """What became of the inputs that are checked by themselves."""
    return (
        f"{_inputs(frequent.inputs)} ({frequent.share:.1%} of the requests) checked one by one: "
        f"{frequent.served} served"
    )


def _and_inputs(frequent: FrequentInputs | None) -> str:
    return f", and {_inputs(frequent.served)}" if frequent is not None else ""


def _inputs(count: int) -> str:
    return f"{count} frequent input{'' if count == 1 else 's'}"


def _at_confidence(terms: _Terms) -> str:
    confidence = f"at confidence {terms.gate.confidence:g}"
    if terms.attempt == 1:
        return confidence
    return f"{confidence} over all attempts (this one is number {terms.attempt})"


def _judge_reason(judge: JudgeCheck | None) -> str:
    if judge is None:
        return "uncorrected for the judge's errors"
    return (
        f"corrected by {judge.n} answers that people have judged too: the share that they call "
        f"good differs from the judge's by {judge.bias:+.3f}, at least {judge.bias_low:+.3f}"
    )


def _low_ceiling(ceiling: Ceiling, threshold: float) -> str:
    return (
        f"the threshold {threshold:g} lies above the teacher's own ceiling: asked again, it agrees "
        f"with itself on {ceiling.agreed} of {ceiling.n} rows ({ceiling.share:.3f}, at most "
        f"{ceiling.high:.3f})"
    )


def _judge_check(pairs: Pairs, alpha: float) -> JudgeCheck:
    """The judge against people. `alpha`: the error probability of the bound of its bias."""
    good = [judge for judge, people in pairs if people]
    bad = [judge for judge, people in pairs if not people]
    return JudgeCheck(
        n=len(pairs),
        agreement=sum(judge == people for judge, people in pairs) / len(pairs),
        sensitivity=sum(good) / len(good) if good else None,
        specificity=1 - sum(bad) / len(bad) if bad else None,
        bias=sum(people - judge for judge, people in pairs) / len(pairs),
        bias_low=bias_lower_bound(pairs, alpha),
    )
