"""Answers that are tool calls, on their way from traces to a certificate, and under audit after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from amplifying import amplified, kept, reasons, server
from demo_rows import a_client, a_policy, a_row, trace_columns
from gate_samples import GATE
from gate_samples import rows as evaluated
from live_scene import EVERY_AUDIT, Scene
from teacher_server import Received, Reply, completion
from tool_task import CANCEL, LOOK_UP, TASK, TOOLS, CallingTeacher, call_of

from demo.wire import Answerer
from demo.wire import Reply as DemoReply
from distill.asked import corrected
from distill.checks import AnswerForm, Fault, answer_fault
from distill.dataset import Row, Selection, canonical, choose_rows, read_rows, write_rows
from distill.feedback import complains
from distill.forms import forms_of
from distill.policy import policy_prompt, user_text
from distill.scorers import Scorer, choose_scorer, score
from distill.slices import slices_of
from distill.steering import Aims
from store.models import Reason
from store.shape import fingerprint
from store.task_settings import EvaluateSettings, SplitSettings
from store.tool_calls import read_said
from store.verdicts import Forms

LEARNED = '{"name": "cancel", "arguments": {"order_id": "A-1"}}'
OTHER = '{"name": "cancel", "arguments": {"order_id": "A-2"}}'
WORDS = '{"content": "Which order?"}'
AUTO = EvaluateSettings()


def as_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def said(*calls: dict[str, Any], content: str | None = None) -> str:
    return as_json([{"role": "assistant", "content": content, "tool_calls": list(calls)}])


def a_trace(text: str = "cancel it", **changes: Any) -> dict[str, Any]:
    """A logged request with tools, in answer to which the teacher cancels order A-1."""
    params = {"model": "gpt-big", **changes.pop("params", {})}
    values = {
        "tool_definitions": as_json(TOOLS),
        "request_params": as_json(params),
        "output_messages": said(call("cancel", '{"order_id":"A-1"}')),
        "finish_reasons": ["tool_calls"],
        **changes,
    }
    trace = trace_columns(text, **values)
    body = {**params, "tools": TOOLS, "messages": orjson.loads(trace["input_messages"])}
    return {**trace, "fingerprint": changes.get("fingerprint", fingerprint(body))}


def chosen(*traces: dict[str, Any], **more: Any) -> Selection:
    return choose_rows(traces, SplitSettings(), **more)


# ---- rows ----------------------------------------------------------------------------------------


def test_a_call_becomes_a_row_that_can_be_asked_again() -> None:
    params = {
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "user": "u",
    }
    [row] = chosen(a_trace(params=params)).rows
    assert row.target == LEARNED
    assert row.params == {
        "temperature": 0,
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (LEARNED, {"finish_reasons": ["stop"]}),  # as when it is told which function to call
        (WORDS, {"output_messages": '[{"content":"Which order?"}]', "finish_reasons": ["stop"]}),
        (
            f"[{LEARNED}, {OTHER}]",
            {
                "output_messages": said(
                    call("cancel", '{"order_id": "A-1"}'),
                    call("cancel", '{"order_id": "A-2"}'),
                    content="Both of them.",
                )
            },
        ),
    ],
)
def test_what_is_learned(target: str, changes: dict[str, Any]) -> None:
    assert [row.target for row in chosen(a_trace(**changes)).rows] == [target]


OLD = {"functions": [CANCEL["function"]]}


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("tools", {"output_messages": said(call("cancel", '{"order_id":'))}),
        ("tools", {"output_messages": said({"type": "custom", "custom": {"name": "x"}})}),
        ("tools", {"tool_definitions": None}),  # a call out of nowhere
        ("tools", {"tool_definitions": as_json([{"type": "custom", "custom": {"name": "x"}}])}),
        ("tools", {"params": {"stop": ["."]}}),
        ("tools", {"params": {"tool_choice": {"type": "allowed_tools"}}}),
        ("tools", {"params": OLD, "tool_definitions": as_json(OLD["functions"])}),
        ("old_fingerprint", {"params": {"tool_choice": "none"}, "fingerprint": "0" * 16}),
        ("not_finished", {"finish_reasons": ["length"]}),
        ("not_finished", {"output_messages": '[{"content":"a"}]'}),  # words that end in calls
        ("no_answer", {"output_messages": '[{"content":null}]', "finish_reasons": ["stop"]}),
        (
            "not_text",
            {"input_messages": as_json([{"role": "user", "content": "a"}, {"role": "tool"}])},
        ),
        (
            "not_text",
            {
                "input_messages": as_json(
                    [
                        {"role": "assistant", "content": "a", "tool_calls": [call("cancel", "{}")]},
                        {"role": "user", "content": "a"},
                    ]
                )
            },
        ),
    ],
)
def test_what_is_left_out(reason: str, changes: dict[str, Any]) -> None:
    found = chosen(a_trace(**changes))
    assert (found.rows, found.left_out) == ([], {reason: 1})


def test_rows_share_their_tools(tmp_path: Path) -> None:
    """Thousands of rows with some kilobytes of tools each."""
    found = chosen(*(a_trace(f"cancel order {n}") for n in range(4))).rows
    assert len({id(row.params["tools"]) for row in found}) == 1
    write_rows(tmp_path / "rows.jsonl", found)
    again = read_rows(tmp_path / "rows.jsonl")
    assert again == found
    assert len({id(row.params["tools"]) for row in again}) == 1


def test_calls_in_another_order_say_the_same() -> None:
    assert canonical(f"[{LEARNED}, {OTHER}]") == canonical(f"[{OTHER},{LEARNED}]")
    assert canonical("[1, 2]") != canonical("[2, 1]")


@pytest.mark.parametrize(
    ("correction", "target"),
    [
        (OTHER, OTHER),
        (as_json([call("cancel", '{"order_id":"A-2"}')]), OTHER),
        (as_json({"tool_calls": [call("cancel", '{"order_id":"A-2"}')]}), OTHER),
        (WORDS, WORDS),
        ("Which order?", WORDS),
        ('{"order": "A-2"}', '{"content": "{\\"order\\": \\"A-2\\"}"}'),
    ],
)
def test_corrections(correction: str, target: str) -> None:
    assert corrected(correction, {"tools": TOOLS}) == target
    assert corrected(correction, {}) == correction
    trace = {**a_trace(), "correction": correction, "answered_at": 2.0}
    [row] = chosen(corrections=[trace]).rows
    assert (row.target, row.origin) == (target, "correction")


def test_complaints_about_calls() -> None:
    assert not complains(None, LEARNED, LEARNED)
    assert not complains(None, as_json([call("cancel", '{"order_id":"A-1"}')]), LEARNED)
    assert complains(None, OTHER, LEARNED)
    assert complains(None, "Which order?", LEARNED)
    assert not complains(None, "Which order?", WORDS)


# ---- scores --------------------------------------------------------------------------------------


def test_the_scorer_of_a_task_with_tools() -> None:
    found = choose_scorer([LEARNED, LEARNED, WORDS], AUTO, tools=True)
    assert found == Scorer("json", 1.0, "tools", "2 of 3 answers call tools")
    judge = EvaluateSettings(scorer="judge")
    assert choose_scorer([LEARNED], judge, tools=True).output == "tools"
    assert choose_scorer([LEARNED], AUTO).output == "json"  # somebody's own JSON


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    made = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return json.dumps(made[0] if len(made) == 1 else made)


A, B = ("f", {"x": 1, "y": [1, 2]}), ("g", {})


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (calling(A), calling(A), 1.0),
        (calling(A), calling(("f", {"y": [1, 2], "x": 1.0})), 1.0),
        (calling(A), calling(("f", {"x": 2, "y": [1, 2]})), 3 / 4),
        (calling(A), calling(("f", {"x": 1})), 2 / 4),
        (calling(A), calling(("f", {"x": 1, "y": [1, 2], "z": 0})), 4 / 5),
        (calling(A), calling(("g", A[1])), 0.0),  # another function
        (calling(B), calling(B), 1.0),
        (calling(A, B), calling(B, A), 1.0),  # as a set
        (calling(A, B), calling(A), 4 / 6),
        (calling(A), calling(A, A), 4 / 8),
        (calling(A, ("f", {"x": 2})), calling(("f", {"x": 2}), A), 1.0),
        (calling(("f", {"x": 1}), ("f", {"x": 2})), calling(("f", {"x": 2}), ("f", {})), 3 / 5),
        (calling(("f", {"id": 2**70})), calling(("f", {"id": 2**70 + 1})), 1 / 2),
        (WORDS, WORDS, 1.0),
        (WORDS, '{"content":"Which order? "}', 1.0),
        (WORDS, '{"content":"Which one?"}', 0.0),
        (WORDS, LEARNED, 0.0),
        (LEARNED, WORDS, 0.0),
        (LEARNED, "no JSON", 0.0),
    ],
)  # fmt: skip
def test_calls_are_compared_by_function_and_argument(
    teacher: str, student: str, expected: float
) -> None:
    assert score("json", teacher, student, tools=True) == pytest.approx(expected)
    # other scorers want calls to match in all
    whole = float(expected == 1)
    assert score("exact", teacher, student, tools=True) == whole
    if read_said(teacher) != read_said(WORDS):
        assert score("text", teacher, student, tools=True) == whole


def test_forms_and_slices_by_function() -> None:
    plain = a_row(TASK.name, "a text")
    rows = [
        a_row(TASK.name, "a text", target=target, params={"tools": TOOLS})
        for target in (LEARNED, OTHER, WORDS, calling(A, B))
    ]
    assert forms_of([*rows, plain], "tools") == Forms(calls=["", "cancel", "f", "g"])
    served = [
        *evaluated(30, 30, label=LEARNED),
        *evaluated(20, 30, label=calling(B, A)),
        *evaluated(30, 30, label=WORDS),
    ]
    found = {(s.kind, s.name): (s.n, s.below) for s in slices_of(served, "tools", GATE)}
    assert found == {
        ("fingerprint", "f"): (90, False),
        ("call", "cancel"): (30, False),
        ("call", "f + g"): (30, True),
        ("call", "none"): (30, False),
    }


# ---- amplification -------------------------------------------------------------------------------


def rows_with_tools(count: int = 40) -> list[Row]:
    found = []
    for text in TASK.texts(3):
        if (wanted := call_of(text)) is not None:
            name, arguments = wanted
            target = calling((name, arguments))
            params = {"tools": TOOLS, "parallel_tool_calls": False}
            found.append(a_row(TASK.name, text, target=target, params=params))
        if len(found) == count:
            break
    return found


POLICY = a_policy()


async def test_synthetic_inputs_are_answered_with_calls(tmp_path: Path) -> None:
    calling_teacher = CallingTeacher()
    async with server(calling_teacher) as teacher:
        found = await amplified(tmp_path, teacher.base_url, rows_with_tools(), target=20)
    assert len(kept(found)) == 20
    for example in kept(found):
        wanted = call_of(user_text(orjson.loads(example.input_messages)))
        assert wanted is not None
        assert orjson.loads(example.target) == dict(zip(("name", "arguments"), wanted, strict=True))
    assert set(reasons(found)) >= {"other_keys"}  # words, where no real answer is in words
    for body in calling_teacher.bodies:
        assert (body["tools"], body["parallel_tool_calls"]) == (TOOLS, False)


async def test_calls_that_the_tools_do_not_allow_are_not_learned(tmp_path: Path) -> None:
    def with_more(answer: CallingTeacher) -> Answerer:
        def reply(body: dict[str, Any]) -> DemoReply:
            found = answer(body)
            if found.tool == "look_up":
                return DemoReply(found.kind, '{"order_id": 5}', "look_up")
            return found

        return reply

    async with server(with_more(CallingTeacher())) as teacher:
        found = await amplified(tmp_path, teacher.base_url, rows_with_tools(), target=5)
    assert {orjson.loads(e.target)["name"] for e in kept(found)} <= {"cancel"}
    assert reasons(found)["bad_call"] > 0


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
def test_the_checks_of_synthetic_answers(
    text: str, request_of: dict[str, Any], fault: Fault | None
) -> None:
    for end in ("stop", "tool_calls"):
        form = AnswerForm("text")
        found = answer_fault(text, end, form=form, policy=POLICY, request=request_of)
        assert found == fault


def test_the_teacher_is_shown_the_tools_and_functions_are_aimed_at() -> None:
    rows = rows_with_tools()
    prompt = policy_prompt(rows)[1]["content"]
    assert prompt.count("<tools>") == 1
    assert '"name":"cancel"' in prompt
    assert set(Aims([row.target for row in rows]).all) == {"look_up", "cancel"}


async def test_what_a_teacher_answers_is_what_a_student_should() -> None:
    async with server(CallingTeacher()) as teacher, a_client(teacher.base_url) as client:
        [row] = rows_with_tools(1)
        again = await client.answer(row.messages, row.params)
        assert (canonical(again.text or ""), again.whole) == (canonical(row.target), True)
        assert again.finish_reason == "tool_calls"
        plain = await client.answer(row.messages, {})
        assert plain.text == TASK.answer(user_text(row.messages))


# ---- live ----------------------------------------------------------------------------------------

CALLS = {
    "request_params": as_json({"model": "gpt-4o", "parallel_tool_calls": False}),
    "tool_definitions": as_json(TOOLS),
    "finish_reasons": ["tool_calls"],
}


def calls_reply(*made: tuple[str, str]) -> Reply:
    """A completion that calls tools."""
    reply = completion("")
    payload = orjson.loads(reply.chunks[0])
    message = {"role": "assistant", "tool_calls": [call(*one) for one in made]}
    payload["choices"][0] |= {"message": message, "finish_reason": "tool_calls"}
    return Reply((orjson.dumps(payload),))


def logged(trace: Any, *made: tuple[str, str]) -> Any:
    object.__setattr__(trace, "output_messages", said(*(call(*one) for one in made)))
    return trace


async def test_audits_compare_calls_with_calls(tmp_path: Path) -> None:
    async with Scene(tmp_path, audit=EVERY_AUDIT) as scene:
        student = scene.promote(output="tools", scorer="json")
        first, second = ("cancel", '{"order_id": "A-1"}'), ("cancel", '{"order_id": "A-2"}')
        scene.teacher.answer = lambda request: calls_reply(first)
        await scene.settle(
            logged(scene.served("one", student, **CALLS), first),
            logged(scene.served("two", student, **CALLS), second),
        )
        found = {c.student_output: (c.agrees, c.teacher_output) for c in scene.comparisons(student)}
        assert found == {LEARNED: (True, LEARNED), OTHER: (False, LEARNED)}
        for request in scene.teacher.requests:
            assert (request.json["tools"], request.json["parallel_tool_calls"]) == (TOOLS, False)


async def test_the_shadow_compares_calls_with_calls(tmp_path: Path) -> None:
    async with Scene(tmp_path, rollout={"shadow_share": 1.0, "rows": 1000}) as scene:
        student = scene.promote(step="shadow", output="tools", scorer="json")

        def answers(request: Received) -> Reply:
            text = request.json["messages"][-1]["content"]
            return completion({"one": LEARNED, "two": OTHER}.get(text, "Well."), logprobs=[-0.01])

        scene.student.answer = answers
        # what it says of tools is part of the fingerprint, and this one's is made up
        plain = {**CALLS, "request_params": '{"model":"gpt-4o"}'}
        asked = [scene.request(t, reason=Reason.SHADOW, **plain) for t in ("one", "two", "three")]
        await scene.settle(*(logged(t, ("cancel", '{"order_id":"A-1"}')) for t in asked))
        found = {c.student_output: (c.agrees, c.fault) for c in scene.comparisons(student)}
        assert found == {
            LEARNED: (True, None),
            OTHER: (False, None),
            "Well.": (False, Reason.STUDENT_MALFORMED),
        }
