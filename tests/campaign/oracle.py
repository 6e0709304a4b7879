"""The oracle: whether what a client saw is what the teacher alone would have given it.

    an attempt, what the teacher sent, what the campaign did meanwhile  →  a verdict

Pure functions. An attempt is one HTTP request; a client whose connection broke asks again, as the
OpenAI SDK does, under another number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.campaign import wire
from tests.campaign.teacher import Sent

# What explains an error of a client, while it lasts:
#   killed    a process that held the client's connection was killed
#   down      the whole server is not there: stopped or killed, and not yet started again. A stop
#             lets requests under way finish, so it explains none of which the teacher was asked
#   teacher   nobody listens at the teacher's address
#   crowded   more connections are open than the server has descriptors for
Cause = Literal["killed", "down", "teacher", "crowded"]
AFTER_S = 0.5  # how much later a client may notice it


@dataclass(slots=True)
class Window:
    """A time in which something explains errors; by `time.monotonic`."""

    cause: Cause
    began: float
    ended: float | None = None  # None: it lasts


@dataclass(slots=True)
class Attempt:
    """One request of a client, and what it saw."""

    number: str
    task: str | None
    stream: bool
    began: float
    client: str = "raw"  # or sdk
    ended: float = 0.0
    status: int = 0  # 0: no head came
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    broke: str | None = None  # the transport's error; None: the answer came to its end

    @property
    def trace(self) -> str | None:
        return self.headers.get("x-understudy-trace")

    @property
    def route(self) -> str | None:
        return self.headers.get("x-understudy-route")

    @property
    def answered(self) -> bool:
        """Whether a whole answer came; an error in words is one, too."""
        return self.broke is None and self.trace is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to."""

    kind: Literal["teacher", "student", "teacher failed", "excused", "wrong"]
    why: str = ""
    again: bool = False  # whether the client asks again


def judge(attempt: Attempt, sent: Sequence[Sent], windows: Sequence[Window]) -> Verdict:
    """The verdict on one attempt. `sent`: what the teacher sent for it, once a request."""
    if len(sent) > 1:
        return _wrong(f"the teacher was asked {len(sent)} times")
    if attempt.broke is not None:
        return _broken(attempt, sent, windows)
    if attempt.route == "student" and attempt.status == 200:
        return _by_student(attempt, sent)
    if sent and sent[0].whole:
        return _by_teacher(attempt, sent[0])
    return _in_words(attempt, sent, windows)


def _broken(attempt: Attempt, sent: Sequence[Sent], windows: Sequence[Window]) -> Verdict:
    """The connection broke before the answer's end."""
    cause = _cause(attempt, windows, ("killed",) if sent else ("killed", "down"))
    if cause is not None:
        return Verdict("excused", cause, again=True)
    if sent and not sent[0].whole and attempt.status:
        return Verdict("teacher failed", sent[0].way)
    teacher = _cause(attempt, windows, ("teacher",))
    if teacher is not None and attempt.status:
        return Verdict("teacher failed", teacher)
    crowded = _cause(attempt, windows, ("crowded",))
    if crowded is not None and not attempt.status:
        return Verdict("excused", crowded, again=True)
    return _wrong(f"the connection broke: {attempt.broke}")


def _by_student(attempt: Attempt, sent: Sequence[Sent]) -> Verdict:
    if sent:
        return _wrong("the student's answer, and the teacher was asked too")
    said = wire.text_of(attempt.body, stream=attempt.stream)
    if said != wire.answer(attempt.number):
        return _wrong(f"the student's answer is {said!r}")
    return Verdict("student")


def _by_teacher(attempt: Attempt, sent: Sent) -> Verdict:
    if attempt.status != sent.status:
        return _wrong(f"status {attempt.status}, the teacher sent {sent.status} ({sent.way})")
    if attempt.body != sent.body:
        sizes = f"{len(attempt.body)} bytes, which differ from the teacher's {len(sent.body)}"
        return _wrong(f"{sizes} ({sent.way})")
    return Verdict("teacher")


def _in_words(attempt: Attempt, sent: Sequence[Sent], windows: Sequence[Window]) -> Verdict:
    """An answer that no upstream gave: it has to be our refusal, and to have a reason."""
    code = _code(attempt.body)
    if code is None or attempt.status < 500:
        return _wrong(f"status {attempt.status}, which is no refusal of the teacher's failure")
    if sent:
        return Verdict("teacher failed", sent[0].way)
    if (cause := _cause(attempt, windows, ("teacher",))) is not None:
        return Verdict("teacher failed", cause)
    if code == "too_many_connections" and _cause(attempt, windows, ("crowded",)) is not None:
        return Verdict("excused", "crowded", again=True)
    return _wrong(f"{attempt.status} {code}, and the teacher was not asked")


def _wrong(why: str) -> Verdict:
    return Verdict("wrong", why)


def _cause(attempt: Attempt, windows: Sequence[Window], causes: tuple[Cause, ...]) -> Cause | None:
    """What lasted during the attempt, or ended just before it."""
    for window in windows:
        ended = float("inf") if window.ended is None else window.ended + AFTER_S
        if window.cause in causes and window.began <= attempt.ended and attempt.began <= ended:
            return window.cause
    return None


def _code(body: bytes) -> str | None:
    """The code, or else the type, of an error in OpenAI's shape."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error["type"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
