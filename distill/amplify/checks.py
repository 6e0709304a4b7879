"""The checks of synthetic inputs and answers. Pure functions that return the fault, if any.

Inputs are checked before their answers are paid for.
"""

from __future__ import annotations

from enum import StrEnum

from distill.amplify.policy import TaskPolicy
from distill.dataset.answers import Answers
from distill.dataset.texts import parsed
from store.chat.formats import meets_schema_now
from store.chat.normal_form import normal_text
from store.chat.tools import allowed, parameters, read_tool_answer
from store.jsontext import JsonMapping


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
    NO_TEXT = "no_text"  # a refusal, or a tool call in answer to a request without tools
    CUT_OFF = "cut_off"  # ended by a limit
    OUTPUT_LENGTH = "output_length"  # outside of the policy's range
    NOT_JSON = "not_json"
    OTHER_KEYS = "other_keys"  # keys that no real answer has
    OTHER_LABEL = "other_label"  # a label that no real answer has
    OTHER_CALL = "other_call"  # of a function that no real answer calls, or words where none is
    BAD_CALL = "bad_call"  # a tool call that the request's tools do not allow


def input_fault(text: str, policy: TaskPolicy) -> Fault | None:
    """The fault of a synthetic input, looked at by itself."""
    if not text.strip():
        return Fault.EMPTY_INPUT
    return None if text in policy.input_length_range else Fault.INPUT_LENGTH


def answer_fault(
    text: str | None,
    finish_reason: str,
    *,
    answers: Answers,
    policy: TaskPolicy,
    request: JsonMapping | None = None,
) -> Fault | None:
    """The fault of the teacher's answer to a synthetic input.

    `answers`: of the real rows. `request`: the parameters that it was asked with; a call must keep
    to their tools.
    """
    if text is None or not text.strip():
        return Fault.NO_TEXT
    if finish_reason not in ("stop", "tool_calls"):
        return Fault.CUT_OFF
    if request and request.get("tools") and not _may_be_called(text, request):
        return Fault.BAD_CALL
    return _form_fault(text, answers) or (
        None if text in policy.output_length_range else Fault.OUTPUT_LENGTH
    )


def _may_be_called(text: str, request: JsonMapping) -> bool:
    answer = read_tool_answer(text)
    return (
        answer is not None
        and allowed(answer, request)
        and all(
            meets_schema_now(call.arguments, parameters(call.name, request))
            for call in answer.calls
        )
    )


def _form_fault(text: str, answers: Answers) -> Fault | None:
    if answers.kind == "json":
        value = parsed(text)
        if not isinstance(value, dict | list):
            return Fault.NOT_JSON
        known = tuple(sorted(value)) in answers.key_sets or not answers.key_sets
        if not (known if isinstance(value, dict) else answers.lists):
            return Fault.OTHER_KEYS
    if answers.kind == "tools":
        read = read_tool_answer(text)  # None for an answer to a request without tools
        if read is not None and answers.calls and not answers.calls.issuperset(read.names):
            return Fault.OTHER_CALL
    if answers.closed and normal_text(text) not in answers.labels:
        return Fault.OTHER_LABEL
    return None
