"""The evidence about one student since it was promoted: its comparisons, and its detectors.

Comparisons that belong together (distill.monitor.grouping) count as one: in the bounds and in what
a step waits for by distill.gate.tally, in the detectors by distill.monitor.recount. The audit rate
falls with the groups that were audited. Requests that were not compared are told apart by how their
conversation begins. What says something about the student's server and not about the text, that it
was down, slow or in error, counts each time.

It is read from the store when a student is promoted or the control plane starts, and then updated
with each new comparison and request. Both ways give the same result, since everything is added in
the order of its time. Only the newest MAX_TIMES comparisons and requests are replayed into the
detectors: what is older says little about now. The counts are of all.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from distill.gate.gate import confirmed_bound, extended_bound
from distill.gate.tally import MAX_GROUPS, GroupSums, GroupTally
from distill.monitor.detector import MAX_TIMES, ChangeDetector
from distill.monitor.recount import Recount
from distill.monitor.rollout import Evidence, audit_rate, audits_at_last_share
from store.chat.labels import labels_of
from store.database.comparisons import (
    ComparedGroups,
    ComparisonCounts,
    ComparisonOutcome,
    KindCounts,
    counts_of_student,
    groups_of_student,
    outcomes_of_student,
)
from store.database.database import Database
from store.database.traces import RequestOutcome, requests_of_student
from store.records import Certificate, ComparisonKind, Promotion, Reason
from store.settings.tasks import TaskSettings

MAX_RATES = 20_000  # remembered changes of the audit rate: audits are pending for an hour at most
MAX_RECENT_GROUPS = 1_000
OUTAGE_S = 10.0
FAULT_CONFIDENCE = 0.8  # of the bound on the rate of faults on held-out rows
NO_COMPARISONS = ComparisonCounts(0, 0, 0)
KINDS: tuple[ComparisonKind, ...] = get_args(ComparisonKind)
FAULTS = frozenset(
    {
        Reason.STUDENT_DOWN,
        Reason.STUDENT_ERROR,
        Reason.STUDENT_SLOW,
        Reason.STUDENT_CUT_OFF,
        Reason.STUDENT_MALFORMED,
    }
)
# which are of the answer's text: they say the same of all requests of a conversation
FAULTS_OF_TEXT = frozenset({Reason.STUDENT_CUT_OFF, Reason.STUDENT_MALFORMED})
# by design: no faults
DEFERRED = frozenset(
    {
        Reason.STUDENT_UNSURE,
        Reason.STUDENT_UNFAMILIAR,
        Reason.STUDENT_REDACTED,
        Reason.TEACHER_STATE,
    }
)


@dataclass(frozen=True, slots=True)
class _RateChange:
    """From when on a share of the served requests is audited."""

    at: float
    rate: float


class EvidenceTracker:
    """One student's evidence since `promoted_at`, when its unbroken sequence of steps began."""

    def __init__(
        self,
        promotion: Promotion,
        promoted_at: float,
        threshold: float,
        settings: TaskSettings,
        generic: Collection[str] = (),
    ) -> None:
        """`generic`: the beginnings of many conversations (grouping.generic_beginnings)."""
        self.student_id = str(promotion.run_id)
        self.promoted_at = promoted_at
        self._forced = promotion.forced
        self._certificate = promotion.certificate
        self._bounds: tuple[float, float] | None = None  # of the agreement, until it changes
        self._settings = settings
        self.step_at = promotion.at
        self.last_at = promotion.at  # of the newest comparison
        self.counts: dict[ComparisonKind, ComparisonCounts] = dict.fromkeys(KINDS, NO_COMPARISONS)
        self._generic = generic
        self._groups, self._step_groups = GroupTally(), GroupTally()
        self._audited: set[str] = set()  # groups with an audit, as long as the rate depends on it
        self._audited_before = 0  # the same of groups that are not told apart
        self._compared, self._faulty = Recount(), Recount()
        run_length = settings.audit.run_length
        self.disagreement = ChangeDetector(1 - threshold, run_length)
        # One audit stands for many requests: a run length in audits is a longer one in requests.
        request_run_length = run_length / settings.audit.first_share
        self.faults = ChangeDetector(
            tolerated_faults(promotion.certificate, settings), request_run_length
        )
        self.unsure = ChangeDetector(
            tolerated_unsure(promotion.certificate, settings), request_run_length
        )
        self._output = promotion.route.terms.output if promotion.route else "text"
        self.recall = recall_detectors(promotion.certificate, run_length)
        self._recalled = {label: Recount() for label in self.recall}
        self._recent_groups: dict[str, None] = {}  # oldest first
        self._outage_since: float | None = None  # None: the student answered the last request
        self._rates = [_RateChange(promoted_at, self._current_rate())]

    def add_counts(self, counts: Sequence[KindCounts], groups: Sequence[ComparedGroups]) -> None:
        """Takes over counts of comparisons that are not replayed, by kind and by group."""
        for of_kind in counts:
            self.counts[of_kind.kind] = of_kind.all
        for of_group in groups:
            self._add_groups(of_group)
        self._bounds = None
        self._rates = [_RateChange(self.promoted_at, self._current_rate())]

    def add_comparison(self, outcome: ComparisonOutcome) -> None:
        """Adds a comparison, newer than all before. It counts for the step of its request."""
        self.last_at = max(self.last_at, outcome.at)
        self._bounds = None
        self.counts[outcome.kind] = _counted(self.counts[outcome.kind], outcome)
        if outcome.servable and outcome.kind != "feedback":  # a fair sample
            self._groups.add(outcome.group, outcome.agrees)
            if outcome.begun > self.step_at:
                self._step_groups.add(outcome.group, outcome.agrees)
        if outcome.kind == "audit" and len(self._audited) < self._audits_that_count():
            self._audited.add(outcome.group)
        if outcome.kind == "shadow":
            if outcome.fault not in DEFERRED:
                self.record_call(outcome.fault, outcome.at, outcome.group, begun=outcome.begun)
            if outcome.fault not in FAULTS:
                unsure = outcome.fault is not None
                self._record_confidence(unsure, outcome.group, outcome.begun)
        if outcome.servable:
            self._record_agreement(outcome)
        self._update_rate(outcome.at)

    def add_request(self, request: RequestOutcome) -> None:
        """Adds a client's request that the student was asked."""
        group = self._conversation(request)
        if request.served_by == "student" or request.reason in DEFERRED:
            self.record_call(None, request.end_time, group, begun=request.start_time)
            unsure = request.served_by != "student"
            self._record_confidence(unsure, group, request.start_time)
        elif request.reason in FAULTS:
            self.record_call(request.reason, request.end_time, group, begun=request.start_time)

    def begin_step(self, promotion: Promotion) -> None:
        """The same student moves to another step, or is forced by hand."""
        self.step_at = promotion.at
        self._step_groups = GroupTally()
        self._forced = promotion.forced
        self._update_rate(promotion.at)

    def evidence(self) -> Evidence:
        """What a decision is based on."""
        live, step = self._groups.sums(), self._step_groups.sums()
        if self._bounds is None:
            self._bounds = _bounds(self._certificate, live)
        feedback = self.counts["feedback"]
        return Evidence(
            since=self.promoted_at,
            n=live.groups,
            agreed=live.agreed,
            most_agreed=live.high,
            rows=live.rows,
            step_n=step.groups,
            step_agreed=step.agreed,
            step_rows=step.rows,
            bound=self._bounds[0],
            live_bound=self._bounds[1],
            disagreement=self.disagreement.state(),
            faults=self.faults.state(),
            unsure=self.unsure.state(),
            recall={name: detector.state() for name, detector in self.recall.items()},
            complaints=feedback.n - feedback.agreed,
        )

    def step_agreement(self) -> GroupSums:
        """The servable comparisons since the step began, by group."""
        return self._step_groups.sums()

    def audit_rate_at(self, moment: float) -> float:
        """The share of requests to audit that held at a moment."""
        place = bisect_right(self._rates, moment, key=lambda change: change.at)
        return self._rates[max(place - 1, 0)].rate

    def record_call(
        self, fault: str | None, at: float, group: str, *, begun: float | None = None
    ) -> None:
        """Counts a call of the student, with its fault if it had one.

        Calls in a row that find it down within OUTAGE_S count as one fault: until a crashed process
        is restarted, every call fails. An answer that breaks its form counts once a day for its
        group. `at`: when it was called. `begun`: when the request was made, if that was long
        before.
        """
        if fault != Reason.STUDENT_DOWN:
            self._outage_since = None
        elif self._outage_since is not None and at - self._outage_since < OUTAGE_S:
            return
        else:
            self._outage_since = at
        moment = at if begun is None else begun
        if fault in FAULTS_OF_TEXT:
            if self._faulty.bad_lately(group, moment):
                return
            self._faulty.count(group, moment, bad=True)
        self.faults.update(fault is not None, moment)

    def _record_agreement(self, outcome: ComparisonOutcome) -> None:
        """Counts an answer that a client got, or would have got, if its group is due.

        Feedback is no fair sample, so only complaints count. A trace with a complaint and a failed
        audit counts once.
        """
        if outcome.kind != "feedback" or not outcome.agrees:
            self._record_recall(outcome)
        group, at, bad = outcome.group, outcome.begun, not outcome.agrees
        if outcome.kind == "feedback":
            if not bad or self._compared.bad_lately(group, at):
                return
        elif not self._compared.due(group, at):
            return
        self._compared.count(group, at, bad=bad)
        self.disagreement.update(bad, at)

    def _record_recall(self, outcome: ComparisonOutcome) -> None:
        """Counts whether the student gives each protected label that the teacher gives.

        Once for a group that is due, for each label by itself.
        """
        if not self.recall or outcome.teacher_output is None:
            return
        given = labels_of(outcome.teacher_output, self._output).intersection(self.recall)
        by_student = labels_of(outcome.student_output or "", self._output)
        for label in sorted(given):
            bad = not (outcome.agrees and label in by_student)
            if self._recalled[label].due(outcome.group, outcome.begun):
                self._recalled[label].count(outcome.group, outcome.begun, bad=bad)
                self.recall[label].update(bad, outcome.begun)

    def _record_confidence(self, unsure: bool, group: str, begun: float) -> None:
        """Counts whether an answer was below the cutoff, once for each recent group.

        One odd conversation that comes again and again says nothing about the others.
        """
        if group and group in self._recent_groups:
            return
        self._recent_groups[group] = None
        if len(self._recent_groups) > MAX_RECENT_GROUPS:
            del self._recent_groups[next(iter(self._recent_groups))]
        self.unsure.update(unsure, begun)

    def _conversation(self, request: RequestOutcome) -> str:
        """What tells a request's conversation from others: its own beginning, else its input."""
        own = (one for one in request.beginnings if one not in self._generic)
        return next(own, request.input_hash)

    def _add_groups(self, known: ComparedGroups) -> None:
        """Takes over groups of comparisons that are not replayed."""
        if known.key is None:
            self._groups.add_sums(
                groups=known.groups, rows=known.n, firsts=known.firsts, missed=known.missed
            )
            self._step_groups.add_sums(
                groups=known.step_groups,
                rows=known.step_n,
                firsts=known.step_firsts,
                missed=known.step_missed,
            )
            self._audited_before += known.audited
            return
        self._groups.add_group(
            known.key, rows=known.n, agreed=known.agreed, first=bool(known.firsts)
        )
        if known.step_n:
            self._step_groups.add_group(
                known.key,
                rows=known.step_n,
                agreed=known.step_agreed,
                first=bool(known.step_firsts),
            )
        if known.audited and len(self._audited) < self._audits_that_count():
            self._audited.add(known.key)

    def _audits_that_count(self) -> int:
        """Audited groups from which on the rate stays as it is."""
        return audits_at_last_share(self._settings.audit)

    def _update_rate(self, at: float) -> None:
        rate = self._current_rate()
        if rate != self._rates[-1].rate:
            self._rates.append(_RateChange(at, rate))
        if len(self._rates) > 2 * MAX_RATES:
            del self._rates[:-MAX_RATES]

    def _current_rate(self) -> float:
        return audit_rate(
            audits=len(self._audited) + self._audited_before,
            level=max((self.disagreement.level, *(one.level for one in self.recall.values()))),
            settings=self._settings.audit,
            forced=self._forced,
        )


def load_evidence(
    db: Database,
    promotion: Promotion,
    *,
    promoted_at: float,
    settings: TaskSettings,
    generic: Collection[str] = (),
) -> EvidenceTracker:
    """All that the store knows about the student of a promotion since `promoted_at`.

    `generic`: the beginnings of many conversations (grouping.generic_beginnings).
    """
    certificate = promotion.certificate
    threshold = certificate.threshold if certificate else settings.gate.threshold
    tracker = EvidenceTracker(promotion, promoted_at, threshold, settings, generic)
    student_id = tracker.student_id
    comparisons = outcomes_of_student(
        db, student_id, promoted_at, MAX_TIMES, texts=bool(tracker.recall)
    )
    if len(comparisons) == MAX_TIMES:
        until = comparisons[0].at
        older = counts_of_student(db, student_id, since=promoted_at, until=until)
        groups = groups_of_student(
            db,
            student_id,
            since=promoted_at,
            until=until,
            step_at=promotion.at,
            limit=MAX_GROUPS,
        )
        tracker.add_counts(older, groups)
    requests = requests_of_student(db, student_id, promoted_at, MAX_TIMES)
    streams: list[list[ComparisonOutcome | RequestOutcome]] = [[*comparisons], [*requests]]
    for outcome in heapq.merge(*streams, key=_time_of):
        if isinstance(outcome, ComparisonOutcome):
            tracker.add_comparison(outcome)
        else:
            tracker.add_request(outcome)
    return tracker


def recall_detectors(
    certificate: Certificate | None, run_length: float
) -> dict[str, ChangeDetector]:
    """A detector for each protected label that the certificate proves, by the label.

    It tolerates what the certificate does: a recall at the floor. Comparisons of one label are few,
    so its run length is in comparisons of this label.
    """
    if certificate is None:
        return {}
    tolerated = min(max(1 - certificate.floor, 0.01), 0.9)
    return {
        recall.name: ChangeDetector(tolerated, run_length)
        for recall in certificate.recalls
        if recall.protected and recall.low >= certificate.floor
    }


def tolerated_faults(certificate: Certificate | None, settings: TaskSettings) -> float:
    """The rate of faults that does not demote a student.

    The setting, or more where the held-out rows showed faults and the gate let the student pass
    nevertheless: an upper bound of their rate (Clopper and Pearson 1934, one-sided). Held-out rows
    without a fault are no reason to tolerate more than the setting, however few they are.
    """
    tolerated = settings.audit.fault_rate
    if certificate is None or not certificate.faults:
        return tolerated
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to import

    bad, good = certificate.faults, certificate.heldout - certificate.faults
    bound = float(betaincinv(bad + 1, good, FAULT_CONFIDENCE)) if good > 0 else 1.0
    return min(max(tolerated, bound), 0.9)


def tolerated_unsure(certificate: Certificate | None, settings: TaskSettings) -> float:
    """The rate of answers below the cutoff that does not demote a student.

    Its confidence has to reach the cutoff on `gate.min_coverage` of the live requests too: one that
    defers more costs time and saves little. One that was promoted by hand with less may keep what
    it had.
    """
    coverage = settings.gate.min_coverage
    if certificate is not None:
        coverage = min(coverage, certificate.coverage)
    return min(max(1 - coverage, 0.01), 0.9)


def _bounds(certificate: Certificate | None, live: GroupSums) -> tuple[float, float]:
    """Lower bounds of the agreement: held-out and live groups together, and live groups alone."""
    if certificate is None:
        return 0.0, 0.0
    return (
        extended_bound(certificate, live.groups, live.low),
        confirmed_bound(certificate, live.groups, live.low),
    )


def _time_of(outcome: ComparisonOutcome | RequestOutcome) -> float:
    return outcome.at if isinstance(outcome, ComparisonOutcome) else outcome.end_time


def _counted(counts: ComparisonCounts, outcome: ComparisonOutcome) -> ComparisonCounts:
    return replace(
        counts,
        n=counts.n + 1,
        servable=counts.servable + outcome.servable,
        agreed=counts.agreed + (outcome.servable and outcome.agrees),
    )
