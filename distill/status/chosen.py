"""What the last run chose of the logged traffic, as the status shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from store.records import RunEvent, RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenRows:
    """The rows of the last run, and what it left out."""

    rows: Annotated[dict[str, int], Field(description="by split")]
    groups: Annotated[
        dict[str, int], Field(description="the same, rows that belong together counted as one")
    ]
    left_out: Annotated[dict[str, int], Field(description="traces by reason, the most first")]
    snapshots: Annotated[
        list[str],
        Field(description="models that the teacher's newest answers name: these count"),
    ]
    other_snapshots: Annotated[
        list[str],
        Field(description="those of its older answers, which are learned from at most"),
    ]


def chosen_rows(events: Sequence[RunEvent]) -> ChosenRows | None:
    """What a run chose, by its history; None when it has not chosen yet."""
    detail = next((e.detail for e in events if e.state is RunState.COLLECTED), None)
    if not detail or "left_out" not in detail:
        return None
    snapshots = detail.get("snapshots") or {}
    left_out = sorted(detail["left_out"].items(), key=lambda one: (-one[1], one[0]))
    return ChosenRows(
        rows=detail.get("rows") or {},
        groups=detail.get("groups") or {},
        left_out=dict(left_out),
        snapshots=list(snapshots.get("current", ())),
        other_snapshots=list(snapshots.get("other", ())),
    )
