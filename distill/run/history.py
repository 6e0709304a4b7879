"""The history of one run: its finished stages, their durations, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from store.database.store import Store
from store.jsontext import JsonObject
from store.records import (
    RunEvent,
    RunState,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageResult(Generic[T]):
    """The result of a stage, and the numbers that it adds to the history."""

    value: T
    detail: JsonObject = field(default_factory=dict)


class RunLog:
    """Appends a run's events to the store, each state once, also when the run is resumed."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        task: str,
        events: list[RunEvent],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._task = task
        self._events = events
        self._clock = clock

    @classmethod
    async def open(
        cls, store: Store, run_id: str, task: str, clock: Callable[[], float] = time.time
    ) -> RunLog:
        """Reads the run's events so far."""
        events = await store.events_of_run(run_id)
        return cls(store, run_id, task, events, clock)

    async def stage(self, state: RunState, work: Awaitable[StageResult[T]]) -> T:
        """Awaits a stage and records that it is finished. A resumed stage is not recorded twice.

        The stage itself loads its result when an earlier start of the run has finished it.
        """
        began = time.monotonic()
        result = await work
        if all(e.state is not state for e in self._events):
            await self._append(state, time.monotonic() - began, "", result.detail)
        return result.value

    def detail(self, state: RunState) -> JsonObject | None:
        """The numbers of a stage that the run has finished; None before."""
        return next((e.detail for e in self._events if e.state is state), None)

    async def reached(self, state: RunState, seconds: float, detail: JsonObject) -> None:
        """Records a stage whose parts others have awaited. Once, as `stage` does."""
        if all(e.state is not state for e in self._events):
            await self._append(state, seconds, "", detail)

    async def end(self, state: RunState, reason: str, **detail: Any) -> RunEvent:
        """Records how the run ended, with the stages' `used_until`. Returns this last event."""
        used = next(
            (e.detail["used_until"] for e in self._events if "used_until" in e.detail), None
        )
        if used is not None:
            detail["used_until"] = used
        return await self._append(state, 0.0, reason, detail)

    async def _append(
        self, state: RunState, seconds: float, reason: str, detail: JsonObject
    ) -> RunEvent:
        event = RunEvent(
            run_id=self._run_id,
            seq=len(self._events),
            task=self._task,
            state=state,
            at=self._clock(),
            seconds=round(seconds, 3),
            reason=reason,
            detail=detail,
        )
        await self._store.append_run_event(event)
        self._events.append(event)
        return event
