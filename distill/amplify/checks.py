"""What a synthetic example must pass. Pure functions; each says why not, in one word.

Inputs are checked before their answers are paid for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from distill.amplify.policy import TaskPolicy
from distill.dataset.rows import canonical
from store.chat.formats import meets_schema_now
from store.chat.tools import allowed, parameters, read_said
from store.records import OutputKind

# The share of rows whose answer came once only is a good estimate of how often the next answer is
# a new one (Good and Turing: Good 1953, "The population frequencies of species").
CLOSED_AT = 0.05  # below it, an answer never seen before is a mistake
REPEATS_AT = 1 / 3  # below it, answers repeat so much that one can aim at each
LABEL_CHARS = 80
JSON_SHARE = 0.95


class Fault(StrEnum):
    """Why a synthetic input or example was rejected."""

    # of the input, before anything is paid for its answer
    EMPTY_INPUT = "empty_input"
    INPUT_LENGTH = "input_length"  # outside of the policy's range
    DUPLICATE = "duplicate"  # the same input is real or synthetic already
    NEAR_DUPLICATE = "near_duplicate"
    NOT_ASKED = "not_asked"  # bought, but not needed any more or not affordable
    # of the answer
    TEACHER_REFUSED = "teacher_refused"  # an error status for this input alone
    TEACHER_MALFORMED = "teacher_malformed"
    NO_TEXT = "no_text"  # a refusal in words, or a tool call that nobody asked for
    CUT_OFF = "cut_off"  # did not come to its own end
    OUTPUT_LENGTH = "output_length"  # outside of the policy's range
    NOT_JSON = "not_json"
    OTHER_KEYS = "other_keys"  # keys that no real answer has
    OTHER_LABEL = "other_label"  # a label that no real answer has
    BAD_CALL = "bad_call"  # a tool call that the request's tools do not allow


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What real answers to a task look like."""

    kind: OutputKind
    key_sets: frozenset[frozenset[str]] = frozenset()  # of JSON objects, at the top
    labels: frozenset[str] = frozenset()  # when no other label is to be expected


def form_of(targets: Sequence[str]) -> AnswerForm:
    """The form that these real answers have."""
    values = [value for value in map(parsed, targets) if isinstance(value, dict | list)]
    if targets and len(values) >= JSON_SHARE * len(targets):
        objects = [value for value in values if isinstance(value, dict)]
        keys = frozenset(frozenset(o) for o in objects) if len(objects) == len(values) else ()
        return AnswerForm("json", key_sets=frozenset(keys))
    answers = [canonical(target) for target in targets]
    short = all(len(a) <= LABEL_CHARS and "\n" not in a for a in answers)
    if short and share_seen_once(answers) < REPEATS_AT:
        closed = share_seen_once(answers) < CLOSED_AT
        return AnswerForm("label", labels=frozenset(answers) if closed else frozenset())
    return AnswerForm("text")


def input_fault(text: str, policy: TaskPolicy) -> Fault | None:
    """What is wrong with a synthetic input on its own, if anything."""
    if not text.strip():
        return Fault.EMPTY_INPUT
    return None if text in policy.input_length_range else Fault.INPUT_LENGTH


def answer_fault(
    text: str | None,
    finish_reason: str,
    *,
    form: AnswerForm,
    policy: TaskPolicy,
    request: Mapping[str, Any] | None = None,
) -> Fault | None:
    """What is wrong with the teacher's answer to a synthetic input, if anything.

    `request`: what it was asked with, whose tools a call has to keep to.
    """
    if text is None or not text.strip():
        return Fault.NO_TEXT
    if finish_reason not in ("stop", "tool_calls"):
        return Fault.CUT_OFF
    if request and request.get("tools") and not _may_be_called(text, request):
        return Fault.BAD_CALL
    return _form_fault(text, form) or (
        None if text in policy.output_length_range else Fault.OUTPUT_LENGTH
    )


def _may_be_called(text: str, request: Mapping[str, Any]) -> bool:
    said = read_said(text)
    return (
        said is not None
        and allowed(said, request)
        and all(
            meets_schema_now(call.arguments, parameters(call.name, request)) for call in said.calls
        )
    )


def _form_fault(text: str, form: AnswerForm) -> Fault | None:
    if form.kind == "json":
        value = parsed(text)
        if not isinstance(value, dict | list):
            return Fault.NOT_JSON
        if form.key_sets and (not isinstance(value, dict) or set(value) not in form.key_sets):
            return Fault.OTHER_KEYS
    if form.labels and canonical(text) not in form.labels:
        return Fault.OTHER_LABEL
    return None


def parsed(text: str) -> Any:
    """The JSON value that the text is; None when it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def share_seen_once(values: Sequence[str]) -> float:
    """The share of values that no other one is equal to; 1 when there are none."""
    counts = Counter(values)
    return sum(n == 1 for n in counts.values()) / len(values) if values else 1.0
