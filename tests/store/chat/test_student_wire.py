"""What a student is sent, what is read of its answer, and why an answer may not be served."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest

from store.chat.student_wire import StudentAnswer, fault_of, read_student_answer, student_body
from store.records import OutputKind, Reason, Signals, TermsOfService

MESSAGES = [{"role": "user", "content": "I am glad"}]


def token(*logprobs: float) -> dict[str, Any]:
    """A token as mlx_lm.server tells of it: the first of those that are named counts as it."""
    named = [{"id": place, "token": "t", "logprob": x} for place, x in enumerate(logprobs)]
    return {**named[0], "top_logprobs": named}


def answer(*tokens: dict[str, Any], **choice: Any) -> StudentAnswer:
    content = {"message": {"content": "good"}, "finish_reason": "stop", **choice}
    content["logprobs"] = {"content": list(tokens)}
    return read_student_answer(orjson.dumps({"choices": [content]}))


# ---- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "max_tokens", "stop"),
    [
        ({}, 50, None),
        ({"max_tokens": 20}, 20, None),
        ({"max_completion_tokens": 7, "max_tokens": 20}, 7, None),
        ({"max_tokens": 900, "max_completion_tokens": None}, 50, None),
        ({"max_tokens": 0}, 1, None),
        ({"stop": "\n"}, 50, ["\n"]),
        ({"stop": ["a", "b"]}, 50, ["a", "b"]),
        ({"stop": None}, 50, None),
        ({"stop": []}, 50, None),
    ],
)
def test_the_stricter_limit_and_the_stops_hold(
    params: dict[str, Any], max_tokens: int, stop: list[str] | None
) -> None:
    body = orjson.loads(student_body(MESSAGES, max_tokens=50, params=params))
    assert (body["max_tokens"], body.get("stop")) == (max_tokens, stop)


def test_nothing_else_of_a_client_is_sent() -> None:
    params = {"adapters": "/etc", "draft_model": "x", "seed": 7, "temperature": 2, "model": "m"}
    plain = student_body(MESSAGES, max_tokens=50)
    assert student_body(MESSAGES, max_tokens=50, params=params) == plain
    body = orjson.loads(plain)
    assert (body["temperature"], body["logprobs"], body["top_logprobs"]) == (0.0, True, 2)


# ---- what is read ------------------------------------------------------------------------------


def test_the_signals_of_an_answer() -> None:
    """The end token counts; the likeliest is the chosen one, in whatever order they come."""
    found = answer(token(-0.5, -1.5), token(-3.0, -0.1), token(-0.25, -4.0)).signals
    assert found is not None
    assert (found.lowest, found.mean) == (-0.5, pytest.approx(-0.85 / 3))
    assert math.exp(found.rivals) == pytest.approx(math.exp(-1.5) + math.exp(-3) + math.exp(-4))


def test_without_named_tokens_the_rival_has_all_that_is_left() -> None:
    found = answer({"logprob": -0.5}, {"logprob": -0.1, "top_logprobs": []}, token(-0.2)).signals
    assert found is not None
    assert found.lowest == -0.5
    assert math.exp(found.rivals) == pytest.approx(
        3 - math.exp(-0.5) - math.exp(-0.1) - math.exp(-0.2)
    )


def test_an_answer_without_token_probabilities_has_no_signals() -> None:
    assert answer().signals is None
    assert answer({}, {}).signals is None


@pytest.mark.parametrize(
    "tokens",
    [[token(0.0, -1e9)], [token(1e300, 1e300)], [token(-1e300, -1e300)], [{"logprob": 0}]],
)
def test_signals_are_finite_whatever_a_server_says(tokens: list[dict[str, Any]]) -> None:
    found = answer(*tokens).signals
    assert found is not None
    assert all(math.isfinite(x) and x <= 0 for x in (found.lowest, found.mean, found.rivals))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": ""}, "logprobs": {"content": [{"id": 1}]}}]}',
        b'{"choices": [{"message": {"content": ""}, "logprobs": {"content": [{"logprob": "a"}]}}]}',
        b'{"choices": [{"message": {"content": ""}, "logprobs": {"content": [{"logprob": NaN}]}}]}',
    ],
)
def test_what_is_no_answer_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read_student_answer(raw)


# ---- why not to serve it -----------------------------------------------------------------------

OBJECT = {"type": "json_object"}


@pytest.mark.parametrize(
    ("text", "finish", "output", "asked", "confidence", "cutoff", "fault"),
    [
        ("good", "stop", "label", None, 0.5, None, None),
        ("good", "stop", "label", None, None, None, None),
        ("good", "stop", "label", None, 0.5, 0.5, None),
        ("good", "stop", "label", None, 0.49, 0.5, Reason.STUDENT_UNSURE),
        ("good", "stop", "label", None, None, 0.5, Reason.STUDENT_UNSURE),
        ("good", "length", "label", OBJECT, 0.1, 0.5, Reason.STUDENT_CUT_OFF),
        ("", "stop", "text", None, 0.9, 0.5, Reason.STUDENT_MALFORMED),
        ("good", "stop", "json", None, 0.1, 0.5, Reason.STUDENT_MALFORMED),
        ("good", "stop", "label", OBJECT, 0.1, 0.5, Reason.STUDENT_MALFORMED),
        ("[1]", "stop", "json", None, 0.9, 0.5, None),
        ("[1]", "stop", "json", OBJECT, 0.9, 0.5, Reason.STUDENT_MALFORMED),
        ("{}", "stop", "json", OBJECT, 0.1, 0.5, Reason.STUDENT_UNSURE),
    ],
)
async def test_why_an_answer_may_not_be_served(
    text: str,
    finish: str,
    output: OutputKind,
    asked: dict[str, Any] | None,
    confidence: float | None,
    cutoff: float | None,
    fault: Reason | None,
) -> None:
    given = StudentAnswer(text, Signals(lowest=-1, mean=-1, rivals=-1), finish, 1, 1)
    found = await fault_of(
        given,
        TermsOfService(output=output, cutoff=cutoff),
        {"response_format": asked},
        confidence=confidence,
    )
    assert found == fault


@pytest.mark.parametrize("count", [1e300, 2**70, -1, float("1e19")])
def test_a_students_impossible_usage_is_an_error_of_its_own(count):
    payload = {
        "choices": [{"message": {"content": "refund"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": count, "completion_tokens": 1},
    }
    with pytest.raises(ValueError, match="tokens"):
        read_student_answer(json.dumps(payload).encode())


@pytest.mark.parametrize("text", [["refund"], {"a": 1}, 7])
def test_a_students_content_that_is_no_text_is_an_error_of_its_own(text):
    payload = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    with pytest.raises(ValueError, match="not a chat completion"):
        read_student_answer(json.dumps(payload).encode())
