"""Whether a task gets a run now: a pure decision with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.gate.gate import groups_needed
from store.backoff import backoff_s
from store.jsontext import JsonMapping
from store.records import (
    RunEvent,
    RunState,
)
from store.settings.tasks import TaskSettings

MAX_BACKOFF_S = 24 * 3600.0
MIN_GROWTH = 0.1  # of the groups that all traces so far brought, that new ones are taken to bring


@dataclass(frozen=True, slots=True)
class Due:
    """Whether a run starts now, and why or why not."""

    due: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """The groups that the last run lacked, and how many come with the traces."""

    heldout: int  # held-out groups that it had
    needed: int  # without which nothing can be certified
    per_trace: float  # held-out groups that one more trace brings

    @property
    def traces(self) -> int:
        """How many new traces promise the groups that are missing."""
        missing = max(self.needed - self.heldout, 0)
        return math.ceil(missing / self.per_trace) if missing else 0


def due(
    *,
    settings: TaskSettings,
    new_traces: int,
    ended: Sequence[RunEvent],
    ended_ago_s: float = math.inf,
    paused: bool = False,
    demoted_ago_s: float = math.inf,
    supply: Supply | None = None,
    retrain: bool = False,
    usable_traces: int = 0,
    marked: bool = False,
    retrain_forgotten: bool = False,
) -> Due:
    """Decides whether a task gets a run now.

    `new_traces`: those that no judged run (promoted or rejected) has used; a failed run has used
    none. `ended`: the last events of the task's ended runs, oldest first. `ended_ago_s`: how long
    ago the last of them ended. `paused`: by hand. `demoted_ago_s`: how long ago its student was
    demoted, if it is. `supply`: set when the last judged run had too few groups: the next one waits
    for these and not for `min_traces`. `retrain`: a run was requested by hand since the last one
    began; it starts with all `usable_traces`, old and new, and without a cooldown. `marked`: the
    promoted student was trained on forgotten traces: one new trace is then enough, and with
    `retrain_forgotten` the usable ones are.
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
    what = f"collecting: {new_traces} of {waits_for} new teacher traces"
    if supply is not None and not marked:
        waits_for, what = supply.traces, _waits_for_groups(supply, new_traces)
    if new_traces < waits_for:
        return Due(False, what)
    cooling = _cooling(settings, ended, ended_ago_s, demoted_ago_s)
    if cooling:
        return Due(False, cooling)
    new = " new" if ended else ""
    why = "its student learned from what was forgotten" if marked else ""
    return Due(True, f"due: {why or f'{new_traces}{new} teacher traces'}")


def _waits_for_groups(supply: Supply, new_traces: int) -> str:
    return (
        f"waiting for groups: {supply.heldout} held-out groups, {supply.needed} needed; that takes "
        f"about {supply.traces} new teacher traces, and {new_traces} have come"
    )


def supply_of(
    ended: Sequence[RunEvent], settings: TaskSettings, traces_of: Callable[[str], int]
) -> Supply | None:
    """What the last judged run lacked, and what is to be expected; None when it lacked no groups.

    `ended`: as in `due`. `traces_of`: how many traces a run has looked at. Traces may go on with
    groups that are known: where the run before lacked groups as well, what has come since then
    counts, but not as less than MIN_GROWTH of what came with all traces before.
    """
    judged = [event for event in ended if event.state is not RunState.FAILED]
    last = _had(judged[-1]) if judged else None
    if last is None:
        return None
    heldout, traces = int(last["heldout"]), max(traces_of(judged[-1].run_id), 1)
    per_trace = max(heldout, 1) / traces
    before = _had(judged[-2]) if len(judged) > 1 else None
    if before is not None:
        more = traces - traces_of(judged[-2].run_id)
        if more > 0:
            growth = (heldout - int(before["heldout"])) / more
            per_trace = min(max(growth, MIN_GROWTH * per_trace), 1.0)
    needed = groups_needed(
        settings.gate, int(last["attempt"]), calibration=int(last["calibration"])
    )
    return Supply(heldout=heldout, needed=needed, per_trace=per_trace)


def _had(event: RunEvent) -> JsonMapping | None:
    """What a run had that ended for want of groups."""
    supply = event.detail.get("supply")
    return supply if isinstance(supply, dict) else None


def _cooling(
    settings: TaskSettings, ended: Sequence[RunEvent], ended_ago_s: float, demoted_ago_s: float
) -> str:
    """How long the task still cools down, and why; empty when it does not."""
    failures = _failures_in_a_row(ended)
    pause = backoff_s(failures, first_s=settings.cooldown_s, max_s=MAX_BACKOFF_S)
    run = f"{failures} failed runs in a row" if failures else "the last run"
    left = [(settings.cooldown_s - demoted_ago_s, "the student was demoted")]
    if ended:
        left.append((pause - ended_ago_s, run))
    seconds, cause = max(left)
    return f"cooling down for another {seconds:.0f} s after {cause}" if seconds > 0 else ""


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
