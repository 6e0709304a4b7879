"""The progress of a run's stages: one callback, and the board that stores its last values."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

# stage, done, total (both in the unit of the stage: rows, iterations, …), note
Progress = Callable[[str, float, float, str], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a task's current run is."""

    run_id: str
    stage: str
    done: float
    total: float
    note: str
    stage_started_at: float
    run_started_at: float


class Board:
    """The current standing of each task's run, for the status page."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._standings: dict[str, Standing] = {}
        self._clock = clock

    def start(self, task: str, run_id: str, started_at: float) -> Progress:
        """Opens a run on the board and returns the callback that its stages report to."""
        self._standings[task] = Standing(run_id, "collect", 0, 0, "", self._clock(), started_at)

        def report(stage: str, done: float, total: float, note: str = "") -> None:
            standing = self._standings.get(task)
            if standing is None or standing.run_id != run_id:
                return
            began = standing.stage_started_at if standing.stage == stage else self._clock()
            self._standings[task] = replace(
                standing, stage=stage, done=done, total=total, note=note, stage_started_at=began
            )

        return report

    def end(self, task: str) -> None:
        """Takes a run off the board."""
        self._standings.pop(task, None)

    def standing(self, task: str) -> Standing | None:
        """The run that is under way for this task, if any."""
        return self._standings.get(task)
