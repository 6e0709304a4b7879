"""Queries on the table of traces: what a run learns from, and what a student was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from store.chat.shape import Messages, beginnings
from store.database.database import Database
from store.database.rows import record
from store.jsontext import JsonMapping, JsonObject
from store.records import ExchangeKind, LoggedExchange, LoggedRequest

MAX_INPUTS = 2_000  # frequent ones that are looked at


MAX_BYTES = 64 << 20  # of messages that are read at once where only some are needed


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome:
    """How a logged request of a task went: whether a student was asked, and who answered."""

    trace_id: str
    task: str
    student_id: str | None  # set when the student was asked, also on fallback
    served_by: str | None
    reason: str  # a Reason
    start_time: float
    end_time: float
    whole: bool  # the client got the whole answer, with status 200
    input_hash: str = ""
    has_texts: bool = True  # False: no chat, or the client opted out; nothing can be compared on it
    beginnings: tuple[str, ...] = ()  # store.chat.shape.beginnings; none where no student was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintTraffic:
    """The recent requests of one fingerprint, answered by the teacher or a student."""

    fingerprint: str
    requests: int
    recent: int  # of those, how many are among the newest of the task
    first_at: float
    last_at: float
    request: LoggedRequest  # the last one


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTraffic:
    """How often one input was asked under one prompt."""

    fingerprint: str
    input_hash: str
    requests: int
    request: LoggedRequest  # the last one


@dataclass(frozen=True, slots=True)
class RecentInputs:
    """The recent requests of a task, answered by anybody."""

    total: int
    inputs: list[InputTraffic]  # those that were asked often


def task_counts(db: Database) -> dict[str, int]:
    """Every task tag that was seen, in alphabetical order, with its number of requests."""
    return {row["task"]: row["traces"] for row in db.query("task_counts")}


def exchange_by_id(db: Database, trace_id: str) -> LoggedExchange | None:
    """A logged request with its answer; None when it was deleted."""
    rows = db.query("exchange_by_id", trace_id=trace_id)
    return logged_exchange(rows[0]) if rows else None


def teacher_answers(db: Database, task: str, limit: int) -> list[LoggedExchange]:
    """The newest whole answers of the teacher for a task, newest first."""
    rows = db.query("teacher_answers", task=task, limit=limit)
    return [logged_exchange(row) for row in rows]


def teacher_answers_before(
    db: Database, task: str, before: float, limit: int
) -> list[LoggedExchange]:
    """The same of requests made before a time, the newest to each input; newest first.

    No more of them than have MAX_BYTES of messages.
    """
    rows = db.query(
        "teacher_answers_before", task=task, before=before, limit=limit, most_bytes=MAX_BYTES
    )
    return [logged_exchange(row) for row in rows]


def teacher_answers_to(
    db: Database, task: str, fingerprints: Sequence[str], limit: int
) -> list[LoggedExchange]:
    """The newest whole answers, of these fingerprints only, newest first."""
    rows = db.query("teacher_answers_to", task=task, fingerprints=list(fingerprints), limit=limit)
    return [logged_exchange(row) for row in rows]


def audited_exchanges(db: Database, task: str, limit: int) -> list[LoggedExchange]:
    """The newest exchanges that a student answered and an audit asked the teacher again."""
    rows = db.query("audited_exchanges", task=task, limit=limit)
    return [logged_exchange(row, "audit", row["teacher_output"]) for row in rows]


def corrected_exchanges(db: Database, task: str, limit: int) -> list[LoggedExchange]:
    """The newest exchanges that clients corrected, each with its newest correction."""
    rows = db.query("corrected_exchanges", task=task, limit=limit)
    return [logged_exchange(row, "correction", row["correction"]) for row in rows]


def traffic_by_fingerprint(
    db: Database, task: str, *, requests: int, newest: int, shapes: int
) -> list[FingerprintTraffic]:
    """The newest `requests` of a task by fingerprint, answered by anybody: at most `shapes` rows.

    `newest`: how many of the requests count as recent.
    """
    rows = db.query(
        "traffic_by_fingerprint", task=task, requests=requests, newest=newest, shapes=shapes
    )
    return [record(FingerprintTraffic, {**row, "request": logged_request(row)}) for row in rows]


def recent_inputs(
    db: Database, task: str, *, requests: int, share: float, least: int
) -> RecentInputs:
    """The newest `requests` of a task, and the inputs that are this share of those to their prompt.

    `least`: how often such an input was asked at least. At most MAX_INPUTS, the commonest.
    """
    total = int(db.query("recent_requests", task=task, requests=requests)[0]["total"])
    rows = db.query(
        "recent_inputs",
        task=task,
        requests=requests,
        share=share,
        least=least,
        limit=MAX_INPUTS,
    )
    inputs = [record(InputTraffic, {**row, "request": logged_request(row)}) for row in rows]
    return RecentInputs(total, inputs)


def logged_exchange(
    row: JsonMapping, kind: ExchangeKind = "answer", replacement: str | None = None
) -> LoggedExchange:
    """A row of `traces` as a record. A damaged JSON column leaves the request or answer empty."""
    request = logged_request(row)
    return LoggedExchange(
        trace_id=row["trace_id"],
        kind=kind,
        asked_at=row["start_time"],
        answered_at=row.get("answered_at", row["start_time"]),
        request=request,
        fingerprint=row["fingerprint"],
        input_hash=row["input_hash"],
        model=str(row["request_model"] or request.params.get("model") or ""),
        choices=_answers(row),
        served_by=row["served_by"],
        status_code=row["status_code"],
        outcome=row["outcome"],
        finish_reasons=row["finish_reasons"],
        confidence=row["confidence"],
        replacement=replacement or "",
        snapshot=(row.get("response_model") or "") if kind == "answer" else "",
        output_tokens=None if row.get("tokens_estimated") else row.get("output_tokens"),
    )


def logged_request(row: JsonMapping) -> LoggedRequest:
    """The request of a row of `traces`; an empty one where a JSON column is damaged."""
    try:
        messages, params = _decoded(row["input_messages"]), _decoded(row["request_params"])
        tools = _tools(row["tool_definitions"])
    except orjson.JSONDecodeError:
        return LoggedRequest(messages=[], params={}, tools=None)
    return LoggedRequest(
        messages=_objects(messages), params=params if isinstance(params, dict) else {}, tools=tools
    )


@lru_cache(maxsize=64)
def _tools(definitions: str | None) -> list[JsonObject] | None:
    """Decoded once: thousands of traces share the same tools, with some kilobytes each."""
    return _decoded(definitions)  # type: ignore[no-any-return]  # tools.beyond_students looks at it


def _objects(value: object) -> list[JsonObject]:
    """A list of JSON objects; an empty one for anything else."""
    return value if isinstance(value, list) and all(isinstance(v, dict) for v in value) else []


def _decoded(text: str | None) -> Any:
    """The value of a JSON column; None when it has none."""
    return orjson.loads(text) if text else None


def _answers(row: JsonMapping) -> list[JsonObject]:
    """The messages of the logged answer; none when the column is damaged."""
    return messages_of(row["output_messages"])


def new_teacher_traces(db: Database, task: str, since: float, *, asked_since: float = 0.0) -> int:
    """How many whole answers of the teacher are new since a time: to requests after `since`, or
    imported after it.

    `asked_since`: count only requests made after this time, whenever they were imported.
    """
    rows = db.query("new_teacher_traces", task=task, since=since, asked_since=asked_since)
    return int(rows[0]["traces"])


def uncovered_teacher_traces(db: Database, task: str, since: float) -> int:
    """Whole answers of the teacher, new since `since`, without those that a student is ready to
    give: the requests of its shadow, and of the conversations beyond its share.
    """
    return int(db.query("uncovered_teacher_traces", task=task, since=since)[0]["traces"])


def requests_of_student(
    db: Database, student_id: str, since: float, limit: int, *, most_bytes: int = MAX_BYTES
) -> list[RequestOutcome]:
    """The newest requests that a student was asked for, begun after `since`, oldest first.

    Where they have more than `most_bytes` of messages, the older ones are without `beginnings`.
    """
    rows = db.query(
        "requests_of_student",
        student_id=student_id,
        since=since,
        limit=limit,
        most_bytes=most_bytes,
    )
    return [request_outcome(row) for row in reversed(rows)]


def request_outcome(row: JsonMapping) -> RequestOutcome:
    """A request with its messages, as JSON or None, as a record."""
    begins = beginnings(messages_of(row["input_messages"]))
    return record(RequestOutcome, {**row, "beginnings": begins})


def messages_of(text: str | None) -> Messages:
    """The messages of a request; none when the column is damaged or empty."""
    try:
        return _objects(_decoded(text))
    except orjson.JSONDecodeError:
        return []


def unaudited_traces(db: Database, student_id: str, since: float) -> list[tuple[str, float]]:
    """(trace_id, end_time) of what a student served after `since` unaudited, oldest first."""
    rows = db.query("unaudited_traces", student_id=student_id, since=since)
    return [(row["trace_id"], row["end_time"]) for row in rows]


def confidences_of_student(db: Database, task: str, student_id: str) -> dict[str, float | None]:
    """How sure a student was of each request that it was asked, by trace id."""
    rows = db.query("confidences_of_student", task=task, student=student_id)
    return {row["trace_id"]: row["confidence"] for row in rows}
