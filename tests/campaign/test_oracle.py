"""The oracle finds what must not be, and nothing else: each verdict has its row."""

from __future__ import annotations

import json

import pytest

from tests.campaign import wire
from tests.campaign.oracle import AFTER_S, Attempt, Cause, Verdict, Window, judge
from tests.campaign.teacher import Sent

BODY = wire.plain("000001")
OUR_ERROR = json.dumps({"error": {"message": "", "type": "api_error", "code": "teacher_down"}})
CROWDED = OUR_ERROR.replace("teacher_down", "too_many_connections")
WHOLE = Sent("", 200, BODY, whole=True)
HALF = Sent("half a body", 200, BODY, whole=False)


def attempt(
    status: int = 200,
    body: bytes | str = BODY,
    *,
    route: str = "teacher",
    broke: str | None = None,
    stream: bool = False,
) -> Attempt:
    headers = {"x-understudy-route": route, "x-understudy-trace": "t"} if status else {}
    content = body.encode() if isinstance(body, str) else body
    return Attempt(
        *("000001", "alpha", stream, 10.0),
        ended=11.0,
        status=status,
        headers=headers,
        body=content,
        broke=broke,
    )


def during(*causes: Cause) -> list[Window]:
    return [Window(cause, 10.5, 10.6) for cause in causes]


def test_what_the_teacher_gave_is_what_the_client_has_to_see() -> None:
    assert judge(attempt(), [WHOLE], []) == Verdict("teacher")
    assert judge(attempt(529, b"odd"), [Sent("odd", 529, b"odd", True)], []).kind == "teacher"
    assert judge(attempt(body=BODY[:-1]), [WHOLE], []).kind == "wrong"
    assert judge(attempt(502, OUR_ERROR), [WHOLE], []).kind == "wrong"
    assert judge(attempt(), [WHOLE, WHOLE], []).kind == "wrong"


def test_half_an_answer_is_never_a_whole_one() -> None:
    assert judge(attempt(), [HALF], []).kind == "wrong"
    assert judge(attempt(502, OUR_ERROR), [HALF], []).kind == "teacher failed"
    assert judge(attempt(502, "<html>"), [HALF], []).kind == "wrong"
    assert judge(attempt(broke="reset"), [HALF], []).kind == "teacher failed"


def test_a_student_answers_right_or_not_at_all() -> None:
    assert judge(attempt(route="student"), [], []) == Verdict("student")
    events = b"".join(wire.events("000001"))
    assert judge(attempt(body=events, route="student", stream=True), [], []).kind == "student"
    half = b"".join(wire.events("000001")[:-1])
    assert judge(attempt(body=half, route="student", stream=True), [], []).kind == "wrong"
    assert judge(attempt(body=wire.plain("000002"), route="student"), [], []).kind == "wrong"
    assert judge(attempt(route="student"), [WHOLE], []).kind == "wrong"


@pytest.mark.parametrize(
    ("sent", "cause", "kind"),
    [
        ([], None, "wrong"),
        ([], "killed", "excused"),
        ([], "down", "excused"),
        ([WHOLE], "killed", "excused"),
        ([WHOLE], "down", "wrong"),  # a stop waits for what is under way
        ([], "teacher", "wrong"),
    ],
)
def test_a_broken_connection_needs_a_cause(
    sent: list[Sent], cause: Cause | None, kind: str
) -> None:
    windows = during(cause) if cause else []
    verdict = judge(attempt(0, b"", broke="reset"), sent, windows)
    assert verdict.kind == kind
    assert verdict.again == (kind == "excused")


def test_a_refusal_needs_a_cause() -> None:
    assert judge(attempt(502, OUR_ERROR), [], []).kind == "wrong"
    assert judge(attempt(502, OUR_ERROR), [], during("killed")).kind == "wrong"
    assert judge(attempt(502, OUR_ERROR), [], during("teacher")).kind == "teacher failed"
    assert judge(attempt(503, CROWDED), [], []).kind == "wrong"
    assert judge(attempt(503, CROWDED), [], during("crowded")).kind == "excused"
    assert judge(attempt(400, OUR_ERROR), [], during("teacher")).kind == "wrong"


def test_a_cause_counts_while_it_lasts_and_a_moment_longer() -> None:
    broken = attempt(0, b"", broke="reset")
    for began, ended, kind in (
        (9.0, 10.0 - AFTER_S - 0.1, "wrong"),
        (9.0, 10.0 - AFTER_S + 0.1, "excused"),
        (9.0, None, "excused"),
        (11.1, None, "wrong"),
    ):
        assert judge(broken, [], [Window("killed", began, ended)]).kind == kind
