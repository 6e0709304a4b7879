"""`POST /v1/feedback`: a client's feedback on an answer, written to the journal.

    {"trace_id": …, "score": 0 to 1}                       `x-understudy-trace` of the answer
    {"trace_id": …, "label": "good", "up", "bad" or "down"}
    {"trace_id": …, "correction": "what it should have said"}

A correction may come with a score or a label. The data plane has no traces to look the id up in:
feedback on a trace that does not exist is accepted and has no effect.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

import orjson

from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.http.asgi import JSON, Headers, Receive, Scope, Send, respond
from proxy.http.beside import LARGE, Beside
from proxy.http.body import read_body
from proxy.http.errors import ApiError, bad_request
from proxy.http.json_body import parse_object, wrong_type
from proxy.privacy import Privacy, correction_not_kept
from store.files.journal import JournalWriter
from store.ids import new_id
from store.jsontext import JsonObject
from store.records import Feedback

PATH = "/v1/feedback"
LABELS = {"good": 1.0, "up": 1.0, "bad": 0.0, "down": 0.0}  # and their scores

_FIELDS = ("trace_id", "score", "label", "correction")
_UUID = re.compile("[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_MAX_NAME_CHARS = 64  # of an unknown field's name, as repeated in the error


class FeedbackIntake:
    """Accepts feedback, under the same keys as everything else. Needs no control plane."""

    def __init__(
        self,
        *,
        keys: Keys,
        limits: Limits,
        body_limit: int,
        journal: JournalWriter,
        privacy: Privacy,
        beside: Beside,
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._privacy = privacy
        self._body_limit = body_limit
        self._journal = journal
        self._beside = beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Journals the feedback before it answers. Raises ApiError."""
        headers: Headers = scope["headers"]
        client = self._keys.authenticate(headers)
        with self._limits.upload(client) as arrived:
            raw = await read_body(receive, headers, self._body_limit, arrived=arrived)
            at, key_hash = time.time(), client.key_hash
            if len(raw) > LARGE:
                feedback = await self._beside.run(parse_feedback, raw, at=at, key_hash=key_hash)
            else:
                feedback = parse_feedback(raw, at=at, key_hash=key_hash)
            if feedback.correction is not None:
                if not self._privacy.keeps_for(headers, client):
                    raise correction_not_kept()
                # RedactionError: it is not accepted, and the client gets a 500
                correction = await self._privacy.text(feedback.correction)
                feedback = replace(feedback, correction=correction)
            self._journal.append(feedback)
        receipt = {"object": "feedback", "id": feedback.feedback_id, "trace_id": feedback.trace_id}
        await respond(send, 200, [JSON], orjson.dumps(receipt))


def parse_feedback(raw: bytes, *, at: float, key_hash: str | None) -> Feedback:
    """The feedback in a request's body. Raises ApiError 400 if it is invalid.

    `at`: when it came, in seconds since the epoch. A field that is null counts as left out.
    """
    body = parse_object(raw)
    for name in body:
        if name not in _FIELDS:
            raise _unknown(name)
    score, correction = _score(body), _correction(body)
    if score is None and correction is None:
        raise bad_request(
            "Missing required parameter: one of 'score', 'label' and 'correction'.",
            param="score",
            code="missing_required_parameter",
        )
    return Feedback(
        feedback_id=new_id(),
        trace_id=_trace_id(body),
        feedback_at=at,
        score=score,
        correction=correction,
        feedback_key=key_hash,
    )


def _trace_id(body: JsonObject) -> str:
    value = body.get("trace_id")
    if value is None:
        raise bad_request(
            "Missing required parameter: 'trace_id'.",
            param="trace_id",
            code="missing_required_parameter",
        )
    if not isinstance(value, str):
        raise wrong_type("trace_id", "a string", value)
    if not _UUID.fullmatch(value):
        raise _invalid("trace_id", "the UUID that an answer's header x-understudy-trace holds")
    return value.lower()


def _score(body: JsonObject) -> float | None:
    score, label = body.get("score"), body.get("label")
    if score is not None and label is not None:
        raise bad_request(
            "Both 'score' and 'label' are given: one of them says how good the answer was.",
            param="label",
            code="mutually_exclusive_parameters",
        )
    if score is not None:
        if type(score) not in (int, float):  # a bool is not a number in JSON
            raise wrong_type("score", "a number", score)
        if not 0 <= score <= 1:
            raise _invalid("score", "a number from 0 (bad) to 1 (good)")
        return float(score)
    if label is None:
        return None
    if not isinstance(label, str):
        raise wrong_type("label", "a string", label)
    if label not in LABELS:
        raise _invalid("label", "one of " + ", ".join(f"'{known}'" for known in LABELS))
    return LABELS[label]


def _correction(body: JsonObject) -> str | None:
    value = body.get("correction")
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_type("correction", "a string", value)
    if not value.strip():
        raise _invalid("correction", "the answer that it should have been, not an empty text")
    return value


def _invalid(param: str, expected: str) -> ApiError:
    return bad_request(
        f"Invalid value for '{param}': expected {expected}.", param=param, code="invalid_value"
    )


def _unknown(name: str) -> ApiError:
    name = name[:_MAX_NAME_CHARS]
    known = ", ".join(f"'{field}'" for field in _FIELDS)
    return bad_request(
        f"Unknown parameter: '{name}'. Feedback has {known}.",
        param=name,
        code="unknown_parameter",
    )
