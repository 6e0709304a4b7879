"""When a task gets a run: a pure decision with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.models import RunEvent, RunState
from store.task_settings import TaskSettings

LONGEST_BACK_OFF_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Due:
    """Whether a run starts now, and why or why not."""

    due: bool
    reason: str


def due(*, settings: TaskSettings, new_traces: int, ended: Sequence[RunEvent], now: float) -> Due:
    """Decides whether a task gets a run now.

    `new_traces`: teacher traces since the last run that was judged (promoted or rejected); a run
    that failed has used up nothing. `ended`: the last events of the task's ended runs, oldest
    first.
    """
    if settings.paused:
        return Due(False, "paused")
    if new_traces < settings.min_traces:
        return Due(False, f"collecting: {new_traces} of {settings.min_traces} new teacher traces")
    if not ended:
        return Due(True, f"due: {new_traces} teacher traces")
    failures = _failures_in_a_row(ended)
    pause = min(settings.cooldown_s * 2 ** max(failures - 1, 0), LONGEST_BACK_OFF_S)
    wait = ended[-1].at + pause - now
    if wait > 0:
        cause = f"after {failures} failed runs in a row" if failures else "after the last run"
        return Due(False, f"cooling down for another {wait:.0f} s {cause}")
    return Due(True, f"due: {new_traces} new teacher traces")


def used_until(ended: Sequence[RunEvent]) -> float:
    """The time up to which traces are used up, as seconds since the epoch; 0 when none are.

    A judged run says in `used_until` when it collected its traces: what arrived while it was
    under way is new. A failed run uses up nothing.
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
