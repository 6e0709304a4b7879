"""Audits and the shadow of a student that calls tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from store.records import Reason
from tests.helpers.live_scene import EVERY_AUDIT, Scene
from tests.helpers.teacher_server import Received, Reply, completion
from tests.helpers.tool_answers import LEARNED, OTHER, as_json, call, output_messages
from tests.helpers.tool_task import TOOLS

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
    messages = output_messages(*(call(*one) for one in made))
    return msgspec.structs.replace(trace, output_messages=messages)


@pytest.mark.slow
async def test_audits_compare_tool_calls(tmp_path: Path) -> None:
    async with Scene(tmp_path, audit=EVERY_AUDIT) as scene:
        student = scene.promote(output="tools", scorer="json")
        first, second = ("cancel", '{"order_id": "A-1"}'), ("cancel", '{"order_id": "A-2"}')
        scene.teacher.answer = lambda request: calls_reply(first)
        await scene.settle(
            logged(scene.served("one", student, **CALLS), first),
            logged(scene.served("two", student, **CALLS), second),
        )
        outcomes = {
            c.student_output: (c.agrees, c.teacher_output) for c in scene.comparisons(student)
        }
        assert outcomes == {LEARNED: (True, LEARNED), OTHER: (False, LEARNED)}
        for request in scene.teacher.requests:
            assert (request.json["tools"], request.json["parallel_tool_calls"]) == (TOOLS, False)


@pytest.mark.slow
async def test_the_shadow_compares_tool_calls(tmp_path: Path) -> None:
    async with Scene(tmp_path, rollout={"shadow_share": 1.0, "min_comparisons": 1000}) as scene:
        student = scene.promote(step="shadow", output="tools", scorer="json")

        def answers(request: Received) -> Reply:
            text = request.json["messages"][-1]["content"]
            return completion({"one": LEARNED, "two": OTHER}.get(text, "Well."), logprobs=[-0.01])

        scene.student.answer = answers
        # without tool settings, which are part of the (made up) fingerprint
        plain = {**CALLS, "request_params": '{"model":"gpt-4o"}'}
        asked = [scene.request(t, reason=Reason.SHADOW, **plain) for t in ("one", "two", "three")]
        await scene.settle(*(logged(t, ("cancel", '{"order_id":"A-1"}')) for t in asked))
        outcomes = {c.student_output: (c.agrees, c.fault) for c in scene.comparisons(student)}
        assert outcomes == {
            LEARNED: (True, None),
            OTHER: (False, None),
            "Well.": (False, Reason.STUDENT_MALFORMED),
        }
