"""What is known of a promoted student at one moment, as the status shows it.

Frozen records. Counts are since the student was promoted, unless they are said to be of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distill.monitor.detector import DetectorState
from store.database.comparisons import ComparisonCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditState:
    """A sample of the requests that the student serves, which the teacher is asked too."""

    rate: Annotated[float, Field(description="share of the served requests that is audited now")]
    owed: Annotated[int, Field(description="sampled, and not asked yet")]
    dropped: Annotated[int, Field(description="sampled, and never compared; since the start")]
    dropped_for: Annotated[dict[str, int], Field(description="the dropped ones by reason")]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStudent:
    """A promoted student: its step, what the step waits for, and the live evidence."""

    student_id: str
    step: Annotated[str, Field(description="shadow, canary or live")]
    share: Annotated[float, Field(description="of the conversations that it is certified for")]
    shares: Annotated[list[float], Field(description="of all steps after the shadow")]
    next_share: Annotated[float | None, Field(description="of the next step; None at the last one")]
    promoted_at: float
    step_at: float  # when the step began
    rows: Annotated[int, Field(description="servable comparisons since the step began")]
    groups: Annotated[int, Field(description="the same, those that belong together counted as one")]
    groups_agreed: Annotated[float, Field(description="sum over them of the share that agrees")]
    groups_needed: Annotated[int, Field(description="what a step waits for")]
    reason: Annotated[str, Field(description="why it stays, goes on or goes back")]
    waits_for: Annotated[
        str, Field(description="why comparing itself waits; empty when it does not")
    ]
    comparisons: Annotated[
        dict[str, ComparisonCounts], Field(description="by kind, since it was promoted")
    ]
    shed: Annotated[
        int, Field(description="sampled for the shadow, not asked of the student in time")
    ]
    audits: AuditState
    suspicion: Annotated[
        dict[str, DetectorState],
        Field(description="disagreement, faults, unsure, and `recall of` protected labels"),
    ]
