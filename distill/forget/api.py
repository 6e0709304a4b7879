"""`POST /distill/forget`: the order, and the report that answers it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, Self
from urllib.parse import unquote

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.forget.forgetting import Forgetter, ForgettingResult
from store.database.forgetting import Subject
from store.settings.config import Tag

MAX_TRACES = 1_000  # in one order
REWRITE_TIMEOUT_S = 60.0  # then the answer does not wait for the database file


class ForgetOrder(BaseModel):
    """What is to be forgotten: at least one of traces, user and task."""

    model_config = ConfigDict(extra="forbid")

    traces: list[uuid.UUID] = Field(default_factory=list, max_length=MAX_TRACES)
    user: str | None = Field(default=None, min_length=1, description="the requests' `user`")
    task: Tag | None = Field(default=None, description="every request of a task")
    before: float | None = Field(
        default=None, description="of the user and the task only requests begun before; else all"
    )
    reason: str = Field(default="", max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    demote: bool = Field(default=False, description="the students that learned from it, too")
    dry_run: bool = Field(default=False, description="only say what would go")

    @model_validator(mode="after")
    def _names_a_subject(self) -> Self:
        if not self.traces and self.user is None and self.task is None:
            raise ValueError("say what to forget: traces, a user, a task")
        if self.before is not None and self.user is None and self.task is None:
            raise ValueError("`before` goes with a user or a task")
        return self

    def subjects(self, now: float) -> list[Subject]:
        """The subjects. A time in the future means now: nothing is forgotten in advance."""
        until = now if self.before is None else min(self.before, now)
        subjects = [Subject(kind="trace", subject=str(trace)) for trace in self.traces]
        if self.user is not None:
            subjects.append(Subject(kind="user", subject=self.user, until=until))
        if self.task is not None:
            subjects.append(Subject(kind="task", subject=self.task, until=until))
        return subjects


class AffectedStudent(BaseModel):
    """A student that learned from what was forgotten."""

    task: str
    run_id: str
    traces: int
    synthetic: int
    serving: bool
    demoted: bool


class ForgetReport(BaseModel):
    """What was deleted, or with `dry_run` what would be."""

    done: str = Field(description="in a sentence")
    traces: int
    examples: int = Field(description="real ones, of all splits")
    synthetic: int = Field(
        description="synthetic examples derived from them, in any number of steps"
    )
    policies: int
    feedback: int
    comparisons: int = Field(description="that lose their texts; their numbers stay")
    students: list[AffectedStudent]
    pending: int = Field(description="journal files still being written; it is dropped from them")
    written_anew: bool = Field(description="no byte of it is left in the database file")
    dry_run: bool


def forget_route(forgetter: Forgetter, clock: Callable[[], float]) -> APIRouter:
    """The route. The API that includes it checks who asks."""
    router = APIRouter()

    @router.post("/distill/forget", tags=["by hand"])
    async def by_hand(
        order: ForgetOrder,
        x_understudy_actor: Annotated[str, Header(include_in_schema=False)] = "local",
    ) -> ForgetReport:
        """Forget traces, a user or a task, and everything that was derived from them.

        Students that learned from it are marked: they serve on until a run replaces them.
        """
        return await forget_by(forgetter, order, actor=unquote(x_understudy_actor), clock=clock)

    return router


async def forget_by(
    forgetter: Forgetter, order: ForgetOrder, *, actor: str, clock: Callable[[], float]
) -> ForgetReport:
    """Carries an order out. Raises StoreError."""
    subjects = order.subjects(clock())
    if order.dry_run:
        result = await forgetter.preview(subjects)
    else:
        result = await forgetter.forget(
            subjects,
            actor=actor,
            reason=order.reason.strip(),
            demote=order.demote,
            rewrite_timeout_s=REWRITE_TIMEOUT_S,
        )
    return report_of(result, dry_run=order.dry_run)


def report_of(result: ForgettingResult, *, dry_run: bool) -> ForgetReport:
    """The report, with a sentence that sums it up."""
    deleted, serving = result.deleted, {run.run_id for run in result.serving}
    students = [
        AffectedStudent(
            task=run.task,
            run_id=run.run_id,
            traces=run.traces,
            synthetic=run.synthetic,
            serving=run.run_id in serving and run.task not in result.demoted,
            demoted=run.run_id in serving and run.task in result.demoted,
        )
        for run in deleted.affected
    ]
    return ForgetReport(
        done=_sentence(result, students, dry_run=dry_run),
        traces=deleted.traces,
        examples=deleted.examples,
        synthetic=deleted.synthetic,
        policies=deleted.policies,
        feedback=deleted.feedback,
        comparisons=deleted.comparisons,
        students=students,
        pending=result.pending,
        written_anew=result.rewritten,
        dry_run=dry_run,
    )


def _sentence(result: ForgettingResult, students: list[AffectedStudent], *, dry_run: bool) -> str:
    deleted = result.deleted
    counts = (
        (deleted.traces, "trace"),
        (deleted.examples, "example"),
        (deleted.synthetic, "synthetic example"),
        (deleted.policies, "policy"),
        (deleted.feedback, "piece of feedback"),
    )
    listed = ", ".join(_counted(n, noun) for n, noun in counts if n or noun == "trace")
    parts = [f"would forget {listed}" if dry_run else f"forgot {listed}"]
    demoted = sorted(s.task for s in students if s.demoted)
    serving = sorted(s.task for s in students if s.serving)
    if serving:
        parts.append(
            f"the student of {', '.join(serving)} learned from it and serves on until a run "
            "replaces it"
        )
    if demoted:
        parts.append(f"demoted: {', '.join(demoted)}")
    if result.pending:
        parts.append(
            f"{_counted(result.pending, 'journal file')} still written to: what is in there is "
            "dropped when it is collected"
        )
    if not dry_run and not result.rewritten:
        parts.append(
            "the database file still has to be written anew, which goes on by itself; see the log"
        )
    return "; ".join(parts)


def _counted(n: int, noun: str) -> str:
    if n == 1:
        return f"1 {noun}"
    plural = {"policy": "policies", "piece of feedback": "pieces of feedback"}
    return f"{n:,} {plural.get(noun, noun + 's')}"
