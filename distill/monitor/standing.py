"""Where a student that is promoted stands live: what was found out about it so far, for the status.

Frozen numbers, taken from a distill.monitor.evidence at one moment. Counts are since the student
was promoted, unless they are said to be of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from store.records import (
    ComparisonKind,
    Step,
)


@dataclass(frozen=True, slots=True)
class Tally:
    """Comparisons of one kind."""

    n: int = 0
    servable: int = 0  # of the n: the proxy serves such an answer
    agreed: int = 0  # of the servable ones


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorStanding:
    """One change detector."""

    n: int  # what it has seen
    bad: int
    tolerated: float  # rate of bad ones that does not demote
    level: float  # its suspicion that there are more now, from 0; it demotes at 1
    run_length: float  # it demotes for nothing once in so many, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStanding:
    """One task whose student is in shadow, canary or live."""

    task: str
    student_id: str
    step: Step
    share: float  # of the conversations that the student is certified for; 0 in shadow
    forced: bool  # promoted by hand, past the gate
    promoted_at: float  # when this student was, seconds since the epoch
    step_at: float  # when this step began
    comparisons: Mapping[ComparisonKind, Tally]  # every kind is there
    of_step: Mapping[ComparisonKind, Tally]
    audit_rate: float  # share of what the student serves that is asked of the teacher now
    audits_owed: int  # drawn, and not asked of the teacher yet
    audits_dropped: int  # drawn, and never compared: see distill.monitor.audits; since the start
    shed: int  # drawn for the shadow, and not asked of the student in time; since the start
    disagreement: DetectorStanding  # over comparisons
    faults: DetectorStanding  # over requests that the student was asked for
    unsure: DetectorStanding  # over its whole answers: below the cutoff or not
    reason: str  # of the last verdict: why it stays, goes on or goes back
    waits_for: str = ""  # why audits or the shadow wait now; empty when they do not
    dropped: Mapping[str, int] = field(default_factory=dict)  # audits dropped, by why
