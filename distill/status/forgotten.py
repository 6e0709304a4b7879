"""What the status says of a student that learned from what was forgotten since."""

from __future__ import annotations

import time

from pydantic import BaseModel, Field

from store.database.forgetting import Mark
from store.records import Promotion


class Unlearned(BaseModel):
    """A student whose adapter holds what the store does not hold any more."""

    run_id: str
    traces: int = Field(description="forgotten traces that it learned from")
    synthetic: int = Field(description="and examples that were made from them")
    at: float = Field(description="when the last of it was forgotten")
    says: str = Field(description="what that means, and what to do")


def unlearned(latest: Promotion | None, mark: Mark | None) -> Unlearned | None:
    """Of the task's last student; None when nothing that it learned from was forgotten."""
    if latest is None or mark is None:
        return None
    made = f" and {mark.synthetic} examples made from them" if mark.synthetic else ""
    day = time.strftime("%Y-%m-%d", time.gmtime(mark.at))
    learned = f"learned from {_traces(mark.traces)}{made} that were forgotten since (last {day})"
    if latest.target == "student":
        then = (
            f"it serves on, certified by numbers that still hold, until the next run replaces it; "
            f"`understudy retrain {latest.task}` starts one now, `understudy demote {latest.task}` "
            "has the teacher answer meanwhile"
        )
    else:
        then = f"it serves nobody; `understudy retrain {latest.task}` makes one without them"
    return Unlearned(
        run_id=mark.run_id,
        traces=mark.traces,
        synthetic=mark.synthetic,
        at=mark.at,
        says=f"{learned}: {then}",
    )


def _traces(n: int) -> str:
    return "1 trace" if n == 1 else f"{n} traces"
