"""Whether a task gets a run now: a pure decision with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.backoff import backoff_s
from store.records import (
    RunEvent,
    RunState,
)
from store.settings.tasks import TaskSettings

MAX_BACKOFF_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Due:
    """Whether a run starts now, and why or why not."""

    due: bool
    reason: str


def due(
    *,
    settings: TaskSettings,
    new_traces: int,
    ended: Sequence[RunEvent],
    now: float,
    paused: bool = False,
    demoted_at: float | None = None,
    retrain: bool = False,
    usable_traces: int = 0,
    marked: bool = False,
    retrain_forgotten: bool = False,
) -> Due:
    """Decides whether a task gets a run now.

    `new_traces`: those that no judged run (promoted or rejected) has used; a failed run has used
    none. `ended`: the last events of the task's ended runs, oldest first. `paused`: by hand.
    `demoted_at`: when its student was demoted; None when it is not demoted. `retrain`: a run was
    requested by hand since the last one began; it starts with all `usable_traces`, old and new, and
    without a cooldown. `marked`: the promoted student was trained on forgotten traces: one new
    trace is then enough, and with `retrain_forgotten` the usable ones are.
    """
    if paused or settings.paused:
        return Due(False, "paused")
    if retrain:
        if usable_traces:
            return Due(True, f"due: asked for by hand, with {usable_traces} teacher traces")
        return Due(False, "asked for by hand, but there are no teacher traces to learn from")
    waits_for = settings.min_traces
    if marked:
        waits_for = 0 if retrain_forgotten and usable_traces else 1
    if new_traces < waits_for:
        return Due(False, f"collecting: {new_traces} of {waits_for} new teacher traces")
    cooling = _cooling(settings, ended, demoted_at, now)
    if cooling:
        return Due(False, cooling)
    new = " new" if ended else ""
    why = "its student learned from what was forgotten" if marked else ""
    return Due(True, f"due: {why or f'{new_traces}{new} teacher traces'}")


def _cooling(
    settings: TaskSettings, ended: Sequence[RunEvent], demoted_at: float | None, now: float
) -> str:
    """How long the task still cools down, and why; empty when it does not."""
    failures = _failures_in_a_row(ended)
    pause = backoff_s(failures, first_s=settings.cooldown_s, max_s=MAX_BACKOFF_S)
    run = f"{failures} failed runs in a row" if failures else "the last run"
    ends = [(ended[-1].at + pause, run)] if ended else []
    if demoted_at is not None:
        ends.append((demoted_at + settings.cooldown_s, "the student was demoted"))
    until, cause = max(ends, default=(now, ""))
    return f"cooling down for another {until - now:.0f} s after {cause}" if until > now else ""


def used_until(ended: Sequence[RunEvent]) -> float:
    """The time up to which traces are used up, as seconds since the epoch; 0 when none are.

    A judged run stores it as `used_until`, the time of its newest trace: traces that arrived while
    it was running are new. A failed run uses up none.
    """
    judged = (e for e in ended if e.state is not RunState.FAILED)
    return max((float(e.detail.get("used_until", e.at)) for e in judged), default=0.0)


def _failures_in_a_row(ended: Sequence[RunEvent]) -> int:
    count = 0
    for event in reversed(ended):
        if event.state is not RunState.FAILED:
            break
        count += 1
    return count
