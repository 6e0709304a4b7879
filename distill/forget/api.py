"""`POST /distill/forget`: what is asked for, and what the answer says."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol, Self
from urllib.parse import unquote

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.forget.forgetting import Forgetter, Forgotten
from store.database.forgetting import Subject
from store.settings.config import Tag

MAX_TRACES = 1_000  # in one order
PATIENCE_S = 60.0  # then the answer does not wait for the database file


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
    def _says_what(self) -> Self:
        if not self.traces and self.user is None and self.task is None:
            raise ValueError("say what to forget: traces, a user, a task")
        if self.before is not None and self.user is None and self.task is None:
            raise ValueError("`before` goes with a user or a task")
        return self

    def subjects(self, now: float) -> list[Subject]:
        """What is meant. A time that is to come means now: nobody forgets in advance."""
        until = now if self.before is None else min(self.before, now)
        found = [Subject(kind="trace", subject=str(trace)) for trace in self.traces]
        if self.user is not None:
            found.append(Subject(kind="user", subject=self.user, until=until))
        if self.task is not None:
            found.append(Subject(kind="task", subject=self.task, until=until))
        return found


class Student(BaseModel):
    """A student that learned from what was forgotten."""

    task: str
    run_id: str
    traces: int
    synthetic: int
    serving: bool
    demoted: bool


class Forgot(BaseModel):
    """What went, or with `dry_run` what would go."""

    done: str = Field(description="in a sentence")
    traces: int
    examples: int = Field(description="real ones, of all splits")
    synthetic: int = Field(description="examples that were made from them, in however many steps")
    policies: int
    feedback: int
    comparisons: int = Field(description="that lose their texts; their numbers stay")
    students: list[Student]
    pending: int = Field(description="journal files still being written; it is dropped from them")
    written_anew: bool = Field(description="no byte of it is left in the database file")
    dry_run: bool


class Forgets(Protocol):
    """Carries an order out: `forget_by` with a distill.forget.forgetting.Forgetter."""

    def __call__(self, order: ForgetOrder, *, actor: str) -> Awaitable[Forgot]:
        """Raises StoreError."""


def forget_route(forget: Forgets) -> APIRouter:
    """The route. The API that includes it checks who asks."""
    router = APIRouter()

    @router.post("/distill/forget", tags=["by hand"])
    async def by_hand(
        order: ForgetOrder,
        x_understudy_actor: Annotated[str, Header(include_in_schema=False)] = "local",
    ) -> Forgot:
        """Forget traces, a user or a task, and all that was made from them.

        Students that learned from it are marked: they serve on until a run replaces them.
        """
        return await forget(order, actor=unquote(x_understudy_actor))

    return router


async def forget_by(
    forgetter: Forgetter, order: ForgetOrder, *, actor: str, clock: Callable[[], float]
) -> Forgot:
    """Carries an order out. Raises StoreError."""
    subjects = order.subjects(clock())
    if order.dry_run:
        found = await forgetter.look(subjects)
    else:
        found = await forgetter.forget(
            subjects,
            actor=actor,
            reason=order.reason.strip(),
            demote=order.demote,
            patience_s=PATIENCE_S,
        )
    return told(found, dry_run=order.dry_run)


def told(found: Forgotten, *, dry_run: bool) -> Forgot:
    """The answer, with a sentence that says it."""
    going, serving = found.going, {one.run_id for one in found.serving}
    students = [
        Student(
            task=one.task,
            run_id=one.run_id,
            traces=one.traces,
            synthetic=one.synthetic,
            serving=one.run_id in serving and one.task not in found.demoted,
            demoted=one.run_id in serving and one.task in found.demoted,
        )
        for one in going.learned
    ]
    return Forgot(
        done=_sentence(found, students, dry_run=dry_run),
        traces=going.traces,
        examples=going.examples,
        synthetic=going.synthetic,
        policies=going.policies,
        feedback=going.feedback,
        comparisons=going.comparisons,
        students=students,
        pending=found.pending,
        written_anew=found.written_anew,
        dry_run=dry_run,
    )


def _sentence(found: Forgotten, students: list[Student], *, dry_run: bool) -> str:
    going = found.going
    counts = (
        (going.traces, "trace"),
        (going.examples, "example"),
        (going.synthetic, "synthetic example"),
        (going.policies, "policy"),
        (going.feedback, "piece of feedback"),
    )
    said = ", ".join(_some(n, what) for n, what in counts if n or what == "trace")
    parts = [f"would forget {said}" if dry_run else f"forgot {said}"]
    demoted = sorted(s.task for s in students if s.demoted)
    serving = sorted(s.task for s in students if s.serving)
    if serving:
        parts.append(
            f"the student of {', '.join(serving)} learned from it and serves on until a run "
            "replaces it"
        )
    if demoted:
        parts.append(f"demoted: {', '.join(demoted)}")
    if found.pending:
        parts.append(
            f"{_some(found.pending, 'journal file')} still written to: what is in there is "
            "dropped when it is collected"
        )
    if not dry_run and not found.written_anew:
        parts.append(
            "the database file still has to be written anew, which goes on by itself; see the log"
        )
    return "; ".join(parts)


def _some(n: int, what: str) -> str:
    if n == 1:
        return f"1 {what}"
    plural = {"policy": "policies", "piece of feedback": "pieces of feedback"}
    return f"{n:,} {plural.get(what, what + 's')}"
