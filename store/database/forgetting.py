"""Forgetting, in the database: what is to go, all that was made from it, and what remembers it.

    trace ──▶ example ──▶ synthetic example ──▶ synthetic example
      │ └──▶ policy ────────┘
      └──▶ feedback, texts of evaluations and comparisons

What stood in the prompt that something was written under is its parent. What is asked for is
written down first, as hashes of its subjects. They say what goes now, and what is not taken when it
comes back: from a journal that was not collected yet, or from an import. So whatever is killed
when, the hashes are enough to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

from store.database.database import Database
from store.ids import new_id
from store.jsontext import to_json

SubjectKind = Literal["trace", "user", "task"]
ForgettingState = Literal["asked", "deleted", "done"]
DIGEST_CHARS = 32  # 128 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be forgotten: one trace, or the requests of a user or a task up to a time."""

    kind: SubjectKind
    subject: str  # a trace's id, the request's `user`, a task's tag
    until: float | None = None  # requests begun before; None for a trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A run whose adapter learned from something that is forgotten."""

    run_id: str
    task: str
    traces: int  # real rows of its train split
    synthetic: int  # examples that were made from them, as far as the adapter learned from them


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """What goes, in numbers."""

    traces: int = 0
    examples: int = 0  # real ones
    synthetic: int = 0
    policies: int = 0
    feedback: int = 0
    comparisons: int = 0  # that lose their texts
    learned: tuple[Learned, ...] = ()

    def __bool__(self) -> bool:
        return any(
            (self.traces, self.examples, self.synthetic, self.policies, self.feedback)
        ) or bool(self.comparisons or self.learned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How much of what a run's adapter learned was forgotten."""

    run_id: str
    traces: int
    synthetic: int
    at: float  # when the last of it was


def request_forgetting(
    db: Database, subjects: Sequence[Subject], *, at: float, actor: str, reason: str
) -> str:
    """Notes that these are to be forgotten. Returns the forgetting's id.

    From then on nothing of them is collected.
    """
    forgetting_id = new_id()
    with db.transaction():
        db.execute(
            "insert_forgetting", forgetting_id=forgetting_id, at=at, actor=actor, reason=reason
        )
        db.execute(
            "insert_forgotten",
            forgetting_id=forgetting_id,
            rows=to_json(list(subjects)).decode(),
        )
    return forgetting_id


class _Rollback(Exception):
    """Ends a transaction whose changes are not to be kept."""


def preview_forgetting(db: Database, subjects: Sequence[Subject]) -> Going:
    """What would go if these were forgotten. Changes nothing."""
    going = Going()
    try:
        with db.transaction():
            stage_deletions(
                db, forgetting_id := request_forgetting(db, subjects, at=0.0, actor="", reason="")
            )
            going = count_deletions(db, forgetting_id)
            raise _Rollback
    except _Rollback:
        return going


def stage_deletions(db: Database, forgetting_id: str | None) -> None:
    """Finds what a forgetting is about, and all that was made from it.

    `forgetting_id`: None for what traces that are gone have left behind. Call it, and what follows
    on it, in one transaction.
    """
    if forgetting_id is None:
        db.execute("stage_orphans")
    else:
        db.execute("stage_subjects", forgetting_id=forgetting_id)
    db.execute("stage_going")


def count_deletions(db: Database, forgetting_id: str | None = None) -> Going:
    """How much is staged, and who learned from it."""
    learned = db.query("going_learned", forgetting_id=forgetting_id)
    return Going(**db.query("going_counts")[0], learned=tuple(Learned(**row) for row in learned))


def delete_staged(db: Database, forgetting_id: str | None, *, at: float) -> Going:
    """Deletes what is staged, and marks who learned from it. Returns what went.

    Without an id nothing is marked.
    """
    going = count_deletions(db, forgetting_id)
    if forgetting_id is not None:
        db.execute("insert_forgotten_roots", forgetting_id=forgetting_id)
        if going.learned:
            marks = [
                {
                    "forgetting_id": forgetting_id,
                    "run_id": one.run_id,
                    "task": one.task,
                    "traces": one.traces,
                    "synthetic": one.synthetic,
                    "at": at,
                }
                for one in going.learned
            ]
            db.execute("insert_marks", rows=to_json(marks).decode())
    for query in (
        "blank_evaluations",
        "blank_comparisons",
        "delete_going_feedback",
        "delete_going_news",
        "delete_going_examples",
        "delete_going_policies",
        "delete_going_traces",
    ):
        db.execute(query)
    return going


def advance_forgetting(
    db: Database, forgetting_id: str, state: ForgettingState, going: Going | None = None
) -> None:
    """Notes how far a forgetting has come, and what has gone with that."""
    going = going or Going()
    db.execute(
        "advance_forgetting",
        forgetting_id=forgetting_id,
        state=state,
        traces=going.traces,
        examples=going.examples,
        synthetic=going.synthetic,
    )


def expire_traces(db: Database, before: float, limit: int) -> int:
    """Deletes the oldest traces that came before a time, `limit` at most, with what was made of
    them. Returns how many went.

    Nobody is marked. Who learned from them is noted, so that forgetting one of them later still
    marks them.
    """
    with db.transaction():
        db.execute("stage_expired", before=before, limit=limit)
        db.execute("stage_going")
        db.execute("insert_learned")
        return delete_staged(db, None, at=0.0).traces


def delete_orphans(db: Database) -> Going:
    """Deletes what was made of traces that are gone."""
    with db.transaction():
        stage_deletions(db, None)
        return delete_staged(db, None, at=0.0)


def unfinished_forgettings(db: Database) -> list[tuple[str, ForgettingState]]:
    """The forgettings that did not come to their end, with their state, oldest first."""
    rows = db.query("unfinished_forgettings")
    return [(row["forgetting_id"], row["state"]) for row in rows]


def marked_runs(db: Database) -> dict[str, Mark]:
    """The marked runs by their ids."""
    return {row["run_id"]: Mark(**row) for row in db.query("marked_runs")}


def missing_traces(db: Database, trace_ids: Sequence[str]) -> set[str]:
    """Those of these traces that the store does not have."""
    return {row["id"] for row in db.query("missing_traces", ids=list(trace_ids))}


@dataclass(frozen=True, slots=True)
class Known:
    """Knows the subjects of a forgetting again in a line that is in no table."""

    salt: str
    traces: frozenset[str]  # digests
    until: dict[tuple[str, str], float]  # (kind, digest) → requests begun before

    def takes(self, line: dict[str, Any]) -> bool:
        """Whether a trace, or feedback on one, is to be forgotten. `line`: as in the journal."""
        if self.takes_trace(line.get("trace_id")):
            return True
        begun = line.get("start_time")
        return isinstance(begun, int | float) and any(
            begun < self.until.get((kind, self._digest(kind, line.get(name))), float("-inf"))
            for kind, name in (("user", "end_user"), ("task", "task"))
        )

    def takes_trace(self, trace_id: Any) -> bool:
        """Whether this trace is to be forgotten. `trace_id`: in any way that UUIDs are written."""
        try:
            return self._digest("trace", str(UUID(trace_id))) in self.traces
        except (ValueError, TypeError, AttributeError):
            return False

    def _digest(self, kind: str, subject: Any) -> str:
        """As the queries make it."""
        if not isinstance(subject, str):
            return ""
        return sha256(f"{self.salt}:{kind}:{subject}".encode(errors="replace")).hexdigest()[
            :DIGEST_CHARS
        ]


def subjects_of_forgetting(db: Database, forgetting_id: str) -> Known:
    """What knows the subjects of this forgetting again."""
    rows = db.query("subjects_of_forgetting", forgetting_id=forgetting_id)
    return Known(
        salt=rows[0]["salt"] if rows else "",
        traces=frozenset(row["digest"] for row in rows if row["kind"] == "trace"),
        until={
            (row["kind"], row["digest"]): row["until"] for row in rows if row["until"] is not None
        },
    )
