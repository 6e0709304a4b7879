"""Forgetting, in the database: what is to be deleted, what was derived from it, what recognises it.

    trace ──▶ example ──▶ synthetic example ──▶ synthetic example
      │ └──▶ policy ────────┘
      └──▶ feedback, texts of evaluations and comparisons

Whatever stood in the prompt that something was generated from is its parent. A request to forget is
recorded first, as hashes of its subjects. They say what is deleted now, and what is not collected
when it comes back: from a journal that was not collected yet, or from an import. So the hashes are
enough to go on from, whatever is killed at whatever point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal
from uuid import UUID

from store.database.database import Database
from store.database.rows import json_rows
from store.ids import new_id
from store.jsontext import JsonMapping

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
class AffectedRun:
    """A run whose adapter learned from something that is forgotten."""

    run_id: str
    task: str
    traces: int  # real rows of its train split
    synthetic: int  # synthetic rows derived from them, as far as the adapter learned from these


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionCounts:
    """How much is deleted."""

    traces: int = 0
    examples: int = 0  # real ones
    synthetic: int = 0
    policies: int = 0
    feedback: int = 0
    comparisons: int = 0  # that lose their texts
    affected: tuple[AffectedRun, ...] = ()

    def __bool__(self) -> bool:
        return any(
            (self.traces, self.examples, self.synthetic, self.policies, self.feedback)
        ) or bool(self.comparisons or self.affected)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTargets:
    """The targets of a run's real rows: those staged for deletion, and the remaining ones."""

    run_id: str
    deleted: list[str]
    remaining: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How much of what a run's adapter learned was forgotten."""

    run_id: str
    traces: int
    synthetic: int
    at: float  # when the last of it was


# ---- requests to forget ------------------------------------------------------------------------


def request_forgetting(
    db: Database, subjects: Sequence[Subject], *, at: float, actor: str, reason: str
) -> str:
    """Records that these are to be forgotten. Returns the forgetting's id.

    From then on nothing of them is collected.
    """
    forgetting_id = new_id()
    with db.transaction():
        db.execute(
            "insert_forgetting", forgetting_id=forgetting_id, at=at, actor=actor, reason=reason
        )
        db.execute("insert_forgotten", forgetting_id=forgetting_id, rows=json_rows(subjects))
    return forgetting_id


def advance_forgetting(
    db: Database,
    forgetting_id: str,
    state: ForgettingState,
    deleted: DeletionCounts | None = None,
) -> None:
    """Records the state that a forgetting has reached, and what was deleted on the way."""
    deleted = deleted or DeletionCounts()
    db.execute(
        "advance_forgetting",
        forgetting_id=forgetting_id,
        state=state,
        traces=deleted.traces,
        examples=deleted.examples,
        synthetic=deleted.synthetic,
    )


def unfinished_forgettings(db: Database) -> list[tuple[str, ForgettingState]]:
    """The ids and states of the forgettings that are not done, oldest first."""
    rows = db.query("unfinished_forgettings")
    return [(row["forgetting_id"], row["state"]) for row in rows]


class _Rollback(Exception):
    """Ends a transaction whose changes are not to be kept."""


def preview_forgetting(db: Database, subjects: Sequence[Subject]) -> DeletionCounts:
    """What would be deleted if these were forgotten. Changes nothing."""
    counts = DeletionCounts()
    try:
        with db.transaction():
            forgetting_id = request_forgetting(db, subjects, at=0.0, actor="", reason="")
            stage_deletions(db, forgetting_id)
            counts = count_deletions(db, forgetting_id)
            raise _Rollback
    except _Rollback:
        return counts


# ---- staging and deleting ----------------------------------------------------------------------


def stage_deletions(db: Database, forgetting_id: str | None) -> None:
    """Stages what a forgetting is about, and everything that was derived from it.

    `forgetting_id`: None for what traces that are deleted already have left behind. To be called in
    one transaction with what follows on it.
    """
    if forgetting_id is None:
        db.execute("stage_orphans")
    else:
        db.execute("stage_subjects", forgetting_id=forgetting_id)
    db.execute("stage_deletions")


def count_deletions(db: Database, forgetting_id: str | None = None) -> DeletionCounts:
    """How much is staged, and which runs learned from it."""
    affected = db.query("affected_runs", forgetting_id=forgetting_id)
    return DeletionCounts(
        **db.query("deletion_counts")[0], affected=tuple(AffectedRun(**row) for row in affected)
    )


def staged_targets(db: Database) -> list[StagedTargets]:
    """The runs with real rows that are staged, with the targets of all their real rows."""
    runs = [row["run_id"] for row in db.query("runs_with_deletions")]
    return [_targets(db, run_id) for run_id in runs]


def _targets(db: Database, run_id: str) -> StagedTargets:
    rows = db.query("targets_of_run", run_id=run_id)
    return StagedTargets(
        run_id=run_id,
        deleted=[row["target"] for row in rows if row["deleted"]],
        remaining=[row["target"] for row in rows if not row["deleted"]],
    )


def delete_staged(db: Database, forgetting_id: str | None, *, at: float) -> DeletionCounts:
    """Deletes what is staged, and marks the runs that learned from it. Returns what was deleted.

    Without an id nothing is marked.
    """
    counts = count_deletions(db, forgetting_id)
    if forgetting_id is not None:
        db.execute("insert_forgotten_roots", forgetting_id=forgetting_id)
        db.execute("blank_learned_inputs", forgetting_id=forgetting_id)
        if counts.affected:
            marks = [
                {
                    "forgetting_id": forgetting_id,
                    "run_id": run.run_id,
                    "task": run.task,
                    "traces": run.traces,
                    "synthetic": run.synthetic,
                    "at": at,
                }
                for run in counts.affected
            ]
            db.execute("insert_marks", rows=json_rows(marks))
    for query in (
        "blank_evaluations",
        "blank_comparisons",
        "delete_feedback_of_roots",
        "delete_news_of_roots",
        "delete_staged_examples",
        "delete_staged_policies",
        "delete_roots",
    ):
        db.execute(query)
    return counts


def forgotten_inputs(db: Database) -> frozenset[str]:
    """The hashes of inputs that no request has but those staged for deletion."""
    return frozenset(row["input_hash"] for row in db.query("forgotten_inputs"))


def delete_orphans(db: Database) -> DeletionCounts:
    """Deletes what was derived from traces that are deleted already."""
    with db.transaction():
        stage_deletions(db, None)
        return delete_staged(db, None, at=0.0)


def expire_traces(db: Database, before: float, limit: int) -> int:
    """Deletes the oldest traces from before a time, `limit` at most, with everything derived from
    them. Returns how many were deleted.

    No run is marked. The runs that learned from them are recorded, so that forgetting one of the
    traces later still marks them.
    """
    with db.transaction():
        db.execute("stage_expired", before=before, limit=limit)
        db.execute("stage_deletions")
        db.execute("insert_learned")
        return delete_staged(db, None, at=0.0).traces


# ---- what remains ------------------------------------------------------------------------------


def marked_runs(db: Database) -> dict[str, Mark]:
    """The marks by run id."""
    return {row["run_id"]: Mark(**row) for row in db.query("marked_runs")}


def missing_traces(db: Database, trace_ids: Sequence[str]) -> set[str]:
    """Those of these traces that the store does not have."""
    return {row["id"] for row in db.query("missing_traces", ids=list(trace_ids))}


@dataclass(frozen=True, slots=True)
class SubjectMatcher:
    """Recognises the subjects of a forgetting in a line that is in no table."""

    salt: str
    traces: frozenset[str]  # digests
    until: dict[tuple[str, str], float]  # (kind, digest) → requests begun before

    def matches(self, line: JsonMapping) -> bool:
        """Whether a trace, or feedback on one, is to be forgotten. `line`: as in the journal."""
        if self.matches_trace(line.get("trace_id")):
            return True
        begun = line.get("start_time")
        return isinstance(begun, int | float) and any(
            begun < self.until.get((kind, self._digest(kind, line.get(name))), float("-inf"))
            for kind, name in (("user", "end_user"), ("task", "task"))
        )

    def matches_trace(self, trace_id: object) -> bool:
        """Whether this trace is to be forgotten. `trace_id`: in any notation of UUIDs."""
        if not isinstance(trace_id, str):
            return False
        try:
            return self._digest("trace", str(UUID(trace_id))) in self.traces
        except ValueError:
            return False

    def _digest(self, kind: str, subject: object) -> str:
        return digest_of(self.salt, kind, subject) if isinstance(subject, str) else ""


def digest_of(salt: str, kind: str, subject: str) -> str:
    """The salted hash of a subject, as the queries compute it."""
    content = f"{salt}:{kind}:{subject}".encode(errors="replace")
    return sha256(content).hexdigest()[:DIGEST_CHARS]


def subject_matcher(db: Database, forgetting_id: str) -> SubjectMatcher:
    """Recognises the subjects of this forgetting."""
    rows = db.query("subjects_of_forgetting", forgetting_id=forgetting_id)
    return SubjectMatcher(
        salt=rows[0]["salt"] if rows else "",
        traces=frozenset(row["digest"] for row in rows if row["kind"] == "trace"),
        until={
            (row["kind"], row["digest"]): row["until"] for row in rows if row["until"] is not None
        },
    )
