"""What is known about one student since it was promoted: comparisons, faults, and two detectors.

It is read from the store when a student is promoted or the control plane starts, and from then on
learns of each new thing as it is found out. Both ways lead to the same, as everything is taken in
the order of its time. The detectors are shown only the newest MAX_REPLAYED comparisons and
requests again: what lies longer back says little of now. The counts are of all.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from distill.gate.gate import confirmed_bound, extended_bound
from distill.monitor.rollout import Evidence, audit_rate
from distill.monitor.standing import Tally
from distill.monitor.watched import MAX_REPLAYED, Watched, tolerated_faults, tolerated_unsure
from store.database.comparisons import ComparisonOutcome, outcomes_of_student, tallies_of_student
from store.database.database import Database
from store.database.traces import RequestOutcome, requests_of_student
from store.records import (
    Certificate,
    ComparisonKind,
    Promotion,
    Reason,
)
from store.settings.tasks import TaskSettings

MAX_RATES = 20_000  # remembered changes of the audit rate: audits are owed for an hour at most
MAX_INPUTS = 1_000
OUTAGE_S = 10.0
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
HELD_BACK = frozenset({Reason.STUDENT_UNSURE, Reason.STUDENT_REDACTED})  # on purpose: no faults


class Dossier:
    """One student's evidence since `promoted_at`, which began its unbroken row of steps."""

    def __init__(
        self, promotion: Promotion, promoted_at: float, threshold: float, settings: TaskSettings
    ) -> None:
        self.student_id = str(promotion.run_id)
        self.promoted_at = promoted_at
        self._forced = promotion.forced
        self._certificate = promotion.certificate
        self._bounds: tuple[float, float] | None = None  # of the agreement, until it changes
        self._settings = settings
        self.step_at = promotion.at
        self.last_at = promotion.at  # of the newest comparison
        self.tallies: dict[ComparisonKind, Tally] = dict.fromkeys(KINDS, Tally())
        self.of_step: dict[ComparisonKind, Tally] = dict.fromkeys(KINDS, Tally())
        run_length = settings.audit.run_length
        self.disagreement = Watched(1 - threshold, run_length)
        # An audit stands for many requests, so a run of so many audits is a longer one of requests.
        self.faults = Watched(
            tolerated_faults(promotion.certificate, settings),
            run_length / settings.audit.first_share,
        )
        self.unsure = Watched(
            tolerated_unsure(promotion.certificate, settings),
            run_length / settings.audit.first_share,
        )
        self._lately: dict[str, None] = {}  # hashes of inputs, in the order of their coming
        self._complained: set[str] = set()  # traces that count as bad already
        self._outage_since: float | None = None  # the last request found the student down
        self._rates: list[tuple[float, float]] = [(promoted_at, self._rate())]

    def start_from(self, older: Sequence[Mapping[str, Any]]) -> None:
        """Takes over counts of comparisons that are not shown again: see `tallies_of_student`."""
        for row in older:
            names = ("n", "servable", "agreed")
            self.tallies[row["kind"]] = Tally(*(row[name] for name in names))
            self.of_step[row["kind"]] = Tally(*(row[f"step_{name}"] for name in names))
        self._rates = [(self.promoted_at, self._rate())]

    def learn(self, found: ComparisonOutcome) -> None:
        """Takes a comparison in, newer than all before. A step's are those of its own requests."""
        self.last_at = max(self.last_at, found.at)
        self._bounds = None
        self.tallies[found.kind] = _counted(self.tallies[found.kind], found)
        if found.begun > self.step_at:
            self.of_step[found.kind] = _counted(self.of_step[found.kind], found)
        if found.kind == "shadow":
            if found.fault not in HELD_BACK:
                self.ask(found.fault, found.at, begun=found.begun)
            if found.fault not in FAULTS:
                self._doubt(found.fault is not None, found.input_hash, found.begun)
        if found.servable:
            self._compare(found)
        self._note_rate(found.at)

    def see(self, routed: RequestOutcome) -> None:
        """Takes in how a request went that the student was asked for."""
        if routed.served_by == "student" or routed.reason in HELD_BACK:
            self.ask(None, routed.end_time, begun=routed.start_time)
            self._doubt(routed.served_by != "student", routed.input_hash, routed.start_time)
        elif routed.reason in FAULTS:
            self.ask(routed.reason, routed.end_time, begun=routed.start_time)

    def begin_step(self, promotion: Promotion) -> None:
        """The same student goes on to another step, or is forced by hand."""
        self.step_at = promotion.at
        self.of_step = dict.fromkeys(KINDS, Tally())
        self._forced = promotion.forced
        self._note_rate(promotion.at)

    def evidence(self) -> Evidence:
        """What a verdict rests on."""
        n, agreed = _fair(self.tallies)
        step_n, step_agreed = _fair(self.of_step)
        if self._bounds is None:
            self._bounds = _bounds(self._certificate, n, agreed)
        feedback = self.tallies["feedback"]
        return Evidence(
            since=self.promoted_at,
            n=n,
            agreed=agreed,
            step_n=step_n,
            step_agreed=step_agreed,
            bound=self._bounds[0],
            live_bound=self._bounds[1],
            disagreement=self.disagreement.suspicion(),
            faults=self.faults.suspicion(),
            unsure=self.unsure.suspicion(),
            failed_feedback=feedback.n - feedback.agreed,
        )

    def audit_rate_at(self, moment: float) -> float:
        """The share of requests to audit that held at a moment."""
        place = bisect_right(self._rates, moment, key=lambda entry: entry[0])
        return self._rates[max(place - 1, 0)][1]

    def _compare(self, found: ComparisonOutcome) -> None:
        """Shows the detector of disagreement what a client was served, or would have been.

        Feedback does not come from a fair sample, so it counts only where it complains, and a trace
        that failed its audit too counts once.
        """
        if found.kind == "feedback" and found.agrees:
            return
        if not found.agrees:
            if found.trace_id in self._complained:
                return
            self._complained.add(found.trace_id)
        self.disagreement.show(not found.agrees, found.begun)

    def ask(self, fault: str | None, at: float, *, begun: float | None = None) -> None:
        """Shows the detector of faults that the student was asked, and what was wrong.

        Requests in a row that find it down within OUTAGE_S are one fault: a process that died, and
        is restarted, fails everything that comes meanwhile. `at`: when it was asked. `begun`: when
        the request was made, if that was long before.
        """
        if fault != Reason.STUDENT_DOWN:
            self._outage_since = None
        elif self._outage_since is not None and at - self._outage_since < OUTAGE_S:
            return
        else:
            self._outage_since = at
        self.faults.show(fault is not None, at if begun is None else begun)

    def _doubt(self, unsure: bool, input_hash: str, begun: float) -> None:
        """Shows the detector of unsureness an answer to an input that did not come lately.

        One odd input that comes again and again says nothing of the others.
        """
        if input_hash and input_hash in self._lately:
            return
        self._lately[input_hash] = None
        if len(self._lately) > MAX_INPUTS:
            del self._lately[next(iter(self._lately))]
        self.unsure.show(unsure, begun)

    def _note_rate(self, at: float) -> None:
        rate = self._rate()
        if rate != self._rates[-1][1]:
            self._rates.append((at, rate))
        if len(self._rates) > 2 * MAX_RATES:
            del self._rates[:-MAX_RATES]

    def _rate(self) -> float:
        return audit_rate(
            audits=self.tallies["audit"].n,
            level=self.disagreement.level,
            settings=self._settings.audit,
            forced=self._forced,
        )


def read_dossier(
    db: Database,
    promotion: Promotion,
    *,
    promoted_at: float,
    settings: TaskSettings,
) -> Dossier:
    """All that the store knows about the student of a promotion since `promoted_at`."""
    certificate = promotion.certificate
    threshold = certificate.threshold if certificate else settings.gate.threshold
    dossier = Dossier(promotion, promoted_at, threshold, settings)
    student_id = dossier.student_id
    findings = outcomes_of_student(db, student_id, promoted_at, MAX_REPLAYED)
    if len(findings) == MAX_REPLAYED:
        older = tallies_of_student(
            db,
            student_id,
            since=promoted_at,
            until=findings[0].at,
            step_at=promotion.at,
        )
        dossier.start_from(older)
    requests = requests_of_student(db, student_id, promoted_at, MAX_REPLAYED)
    things: list[list[ComparisonOutcome | RequestOutcome]] = [[*findings], [*requests]]
    for thing in heapq.merge(*things, key=_moment):
        if isinstance(thing, ComparisonOutcome):
            dossier.learn(thing)
        else:
            dossier.see(thing)
    return dossier


def _bounds(certificate: Certificate | None, n: int, agreed: int) -> tuple[float, float]:
    """Of held-out and live rows together, and of the live rows by themselves."""
    if certificate is None:
        return 0.0, 0.0
    return extended_bound(certificate, n, agreed), confirmed_bound(certificate, n, agreed)


def _fair(tallies: Mapping[ComparisonKind, Tally]) -> tuple[int, int]:
    """Servable comparisons from fair samples, and how many of them agree: all but feedback."""
    shadow, audit = tallies["shadow"], tallies["audit"]
    return shadow.servable + audit.servable, shadow.agreed + audit.agreed


def _moment(thing: ComparisonOutcome | RequestOutcome) -> float:
    return thing.at if isinstance(thing, ComparisonOutcome) else thing.end_time


def _counted(tally: Tally, found: ComparisonOutcome) -> Tally:
    return replace(
        tally,
        n=tally.n + 1,
        servable=tally.servable + found.servable,
        agreed=tally.agreed + (found.servable and found.agrees),
    )
