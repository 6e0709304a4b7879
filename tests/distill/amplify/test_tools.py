"""Synthetic examples whose answers are tool calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from demo.teacher.wire import Answerer
from demo.teacher.wire import Reply as DemoReply
from distill.amplify.checks import Fault, answer_fault
from distill.amplify.diversity import Aims
from distill.amplify.policy import policy_prompt
from distill.dataset.answers import answers_of, describe
from distill.dataset.rows import Row
from distill.dataset.texts import user_text
from store.chat.normal_form import normal_answer
from tests.helpers.amplifying import amplified, kept, reasons, server
from tests.helpers.demo_rows import a_client, a_policy, a_row
from tests.helpers.tool_answers import LEARNED, WORDS, calling
from tests.helpers.tool_task import LOOK_UP, TASK, TOOLS, CallingTeacher, call_of


def rows_with_tools(count: int = 40) -> list[Row]:
    result = []
    for text in TASK.texts(3):
        if (call := call_of(text)) is not None:
            name, arguments = call
            target = calling((name, arguments))
            params = {"tools": TOOLS, "parallel_tool_calls": False}
            result.append(a_row(TASK.name, text, target=target, params=params))
        if len(result) == count:
            break
    return result


POLICY = a_policy()


@pytest.mark.slow
async def test_synthetic_inputs_are_answered_with_calls(tmp_path: Path) -> None:
    calling_teacher = CallingTeacher()
    async with server(calling_teacher) as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows_with_tools(), target=20)
    assert len(kept(result)) == 20
    for example in kept(result):
        call = call_of(user_text(orjson.loads(example.input_messages)))
        assert call is not None
        assert orjson.loads(example.target) == dict(zip(("name", "arguments"), call, strict=True))
    assert set(reasons(result)) >= {"other_call"}  # words, where no real answer is in words
    for body in calling_teacher.bodies:
        assert (body["tools"], body["parallel_tool_calls"]) == (TOOLS, False)


@pytest.mark.slow
async def test_calls_that_the_tools_do_not_allow_are_not_learned(tmp_path: Path) -> None:
    def with_more(answer: CallingTeacher) -> Answerer:
        def reply(body: dict[str, Any]) -> DemoReply:
            result = answer(body)
            if result.tool == "look_up":
                return DemoReply(result.kind, '{"order_id": 5}', "look_up")
            return result

        return reply

    async with server(with_more(CallingTeacher())) as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows_with_tools(), target=5)
    assert {orjson.loads(e.target)["name"] for e in kept(result)} <= {"cancel"}
    assert reasons(result)["bad_call"] > 0


@pytest.mark.parametrize(
    ("text", "request_of", "fault"),
    [
        (LEARNED, {"tools": TOOLS}, None),
        (LEARNED, {"tools": TOOLS, "tool_choice": "none"}, Fault.BAD_CALL),
        (WORDS, {"tools": TOOLS}, None),
        (WORDS, {"tools": TOOLS, "tool_choice": "required"}, Fault.BAD_CALL),
        (LEARNED, {"tools": [LOOK_UP]}, Fault.BAD_CALL),
        ("Which?", {"tools": TOOLS}, Fault.BAD_CALL),
        ("Which?", {}, None),
    ],
)
def test_the_fault_of_an_answer_to_a_request_with_tools(
    text: str, request_of: dict[str, Any], fault: Fault | None
) -> None:
    for end in ("stop", "tool_calls"):
        answers = describe([LEARNED, WORDS], tools=[LEARNED, WORDS])
        result = answer_fault(text, end, answers=answers, policy=POLICY, request=request_of)
        assert result == fault


def test_tools_are_shown_to_the_teacher_and_functions_are_requested() -> None:
    rows = rows_with_tools()
    prompt = policy_prompt(rows)[1]["content"]
    assert prompt.count("<tools>") == 1
    assert '"name":"cancel"' in prompt
    assert set(Aims(answers_of(rows), [row.target for row in rows]).all) == {"look_up", "cancel"}


async def test_an_answer_with_calls_is_the_target_of_a_student() -> None:
    async with server(CallingTeacher()) as teacher, a_client(teacher.base_url) as client:
        [row] = rows_with_tools(1)
        again = await client.answer(row.messages, row.params)
        assert (normal_answer(again.text or ""), again.whole) == (normal_answer(row.target), True)
        assert again.finish_reason == "tool_calls"
        plain = await client.answer(row.messages, {})
        assert plain.text == TASK.answer(user_text(row.messages))
