"""The whole product with a task whose answers are tool calls: learned, certified, served.

The teacher is the demo's, behind real HTTP, and calls tools; the student is trained by mlx_lm and
served by mlx_lm.server; the client is OpenAI's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionMessage

from demo.drive.driver import Product
from demo.drive.ramp import is_live
from demo.journey.journey import JourneyPlan, product_config
from demo.teacher.teacher import MODEL
from demo.teacher.wire import TeacherServer
from store.chat.tools import read_tool_answer
from store.database.database import Database
from store.database.traces import teacher_answers
from store.records import RunState
from tests.helpers.stored import examples_of_run
from tests.helpers.tool_task import ASKING_BACK, TASK, TOOLS, CallingTeacher, call_of

pytestmark = [pytest.mark.rare, pytest.mark.slow, pytest.mark.timeout(600)]

TRAFFIC = 150
FRESH = 24


def config(teacher_url: str) -> dict[str, Any]:
    """The demo's settings, smaller: this is about the way, not about how good the student gets."""
    plan = JourneyPlan(traces={TASK.name: TRAFFIC}, synthetic=24, threshold=0.7)
    found = product_config(plan, teacher_url)
    task = found["task_defaults"]
    task["gate"] |= {"min_coverage": 0.3, "confidence": 0.9}
    # many small steps learn to copy an order's number sooner than few large ones
    task["train"] |= {"compare": False, "validations": 4, "batch_size": 2}
    found["tasks"][TASK.name]["train"] = {"epochs": 4}
    task["evaluate"] |= {"teacher_recheck": 0}
    task["rollout"] = {"shares": [1.0], "min_comparisons": 0, "confirm": False}
    task["audit"] = {"first_share": 1.0, "last_share": 1.0}
    return found


def promoted(status: dict[str, Any]) -> bool:
    last = status["last_run"]
    if last and RunState(last["state"]).ended:
        assert last["state"] == "promoted", last["reason"]
    return is_live(status)


class Asked:
    """An answer as a client got it, and its source."""

    def __init__(self, text: str, route: str, message: ChatCompletionMessage, end: str) -> None:
        self.text, self.route, self.message, self.end = text, route, message, end

    @property
    def right(self) -> bool:
        wanted = call_of(self.text)
        if wanted is None:
            return self.message.content == ASKING_BACK
        calls = [c for c in self.message.tool_calls or [] if c.type == "function"]
        made = [(c.function.name, orjson.loads(c.function.arguments)) for c in calls]
        return made == [wanted]

    def check_form(self) -> None:
        """As OpenAI's: calls and no words, or words."""
        if not self.message.tool_calls:
            assert (self.message.content, self.end) != (None, "tool_calls")
            return
        assert (self.message.content, self.end) == (None, "tool_calls")
        for call in self.message.tool_calls:
            assert call.type == "function"
            assert call.id.startswith("call_")
            assert call.function.name in {tool["function"]["name"] for tool in TOOLS}


async def ask(client: openai.AsyncOpenAI, texts: list[str], *, stream: bool = False) -> list[Asked]:
    slots = asyncio.Semaphore(4)

    async def one(text: str) -> Asked:
        request: dict[str, Any] = {
            "model": MODEL,
            "messages": TASK.messages(text),
            "tools": TOOLS,
            "extra_headers": {"X-Understudy-Task": TASK.name},
        }
        async with slots:
            if stream:
                async with client.chat.completions.stream(**request) as events:
                    completion: Any = await events.get_final_completion()
                    route = events._response.headers["x-understudy-route"]
            else:
                raw = await client.chat.completions.with_raw_response.create(**request)
                completion, route = raw.parse(), raw.headers["x-understudy-route"]
        [choice] = completion.choices
        return Asked(text, route, choice.message, choice.finish_reason)

    return await asyncio.gather(*map(one, texts))


async def test_from_calls_to_a_student_that_calls(tmp_path: Path) -> None:
    calling = CallingTeacher()
    async with (
        TeacherServer(calling, models=[MODEL]) as teacher,
        Product(tmp_path, config(teacher.base_url)) as ours,
        ours.client() as client,
    ):
        first = await ask(client, list(islice(TASK.texts("traffic"), TRAFFIC)))
        assert {a.route for a in first} == {"teacher"}
        assert all(a.right for a in first)
        status = await ours.wait(TASK.name, promoted, timeout_s=420)
        assert status["certificate"]["scorer"] == "json"
        assert status["examples"]["synthetic"]["kept"] == 24
        # synthetic inputs are asked through the production prompt, tools and all
        assert len(calling.bodies) >= TRAFFIC + 24
        assert {orjson.dumps(body["tools"]) for body in calling.bodies} == {orjson.dumps(TOOLS)}

        await asyncio.sleep(1.0)  # the proxy reads a new route within a second
        fresh = await ask(client, list(islice(TASK.texts("fresh"), FRESH)))
        streamed = await ask(client, list(islice(TASK.texts("streamed"), FRESH)), stream=True)
        for answers in (fresh, streamed):
            routes = Counter(a.route for a in answers)
            assert routes["student"] >= FRESH * 0.3
            served = [a for a in answers if a.route == "student"]
            assert sum(a.right for a in served) >= 0.7 * len(served)
            assert any(a.message.tool_calls for a in served)
            for answer in answers:
                answer.check_form()

        # requests that the certificate does not cover
        raw = client.chat.completions.with_raw_response
        request: dict[str, Any] = {
            "model": MODEL,
            "messages": TASK.messages(fresh[0].text),
            "extra_headers": {"X-Understudy-Task": TASK.name},
        }
        other = await raw.create(**request, tools=TOOLS, tool_choice="required")
        assert other.headers["x-understudy-reason"] == "other_fingerprint"
        other = await raw.create(**request, tools=TOOLS[:1])
        assert other.headers["x-understudy-reason"] == "other_fingerprint"
        other = await raw.create(**request)
        assert other.headers["x-understudy-reason"] == "other_fingerprint"

        # and the audits compare calls with calls
        served = [a for a in (*fresh, *streamed) if a.route == "student"]
        status = await ours.wait(
            TASK.name,
            lambda s: s["live"]["comparisons"].get("audit", {"n": 0})["n"] == len(served),
            timeout_s=60,
        )
        audits = status["live"]["comparisons"]["audit"]
        assert audits["agreed"] == sum(a.right for a in served)

    with Database(ours.config.database_file, ours.config.store) as db:
        run_id = status["last_run"]["run_id"]
        examples = examples_of_run(db, run_id)
        kept = [e for e in examples if e.status == "kept"]
        said = [read_tool_answer(e.target) for e in kept]
        assert {e.origin for e in kept} == {"trace", "synthetic"}
        assert all(one is not None for one in said)
        traces = teacher_answers(db, TASK.name, 1000)
        assert all(t.request.tools for t in traces if "tools" in t.request.params)
