"""A monitor of promoted students with a real store, and a teacher and students on loopback.

The test sets the clock. Requests come into the store through the journal, as a proxy would have
written them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from distill.collect import collect
from distill.monitor.monitor import LiveMonitor
from distill.monitor.sampling import Sampler
from distill.monitor.state import LiveStudent
from distill.monitor.student import MonitorParts
from distill.publish import Publisher, routes_now
from distill.students.students import ReadyStudent
from distill.teacher.client import TeacherClient
from store.chat.shape import input_hash
from store.database.actions import paused_tasks
from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions
from store.database.store import Store
from store.files.routes import read_routes
from store.ids import new_id
from store.jsontext import to_json
from store.records import (
    Comparison,
    Promotion,
    Reason,
    Route,
    TeacherCall,
    Trace,
)
from store.settings.config import parse_config
from tests.helpers.samples import a_certificate, a_promotion, a_route, a_trace, write_segment
from tests.helpers.stored import comparisons_of_student
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, completion

Answer = Callable[[str], str]  # a request's text → the answer to it
EVERY_AUDIT = {"first_share": 1.0, "last_share": 1.0, "forced_share": 1.0}


def right(text: str) -> str:
    return f"answer to {text}"


def wrong(text: str) -> str:
    return f"nonsense about {text}"


def spelled(text: str) -> str:
    """The text with letters for its numbers: texts that differ in a number alone are one group."""
    letters = str.maketrans("0123456789", "bcdfghjklm")
    return re.sub(r"\d+", lambda number: f"{number[0].translate(letters)}o" * 2, text)


def answering(answer: Answer) -> Callable[[Received], Reply]:
    """A teacher or a student that gives these answers."""

    def reply(request: Received) -> Reply:
        return completion(answer(request.json["messages"][-1]["content"]), logprobs=[-0.01])

    return reply


async def until(condition: Callable[[], bool], *, within_s: float = 20) -> None:
    """Waits until the condition holds; fails when it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


class Scene:
    """A monitor and what it monitors. `defaults`: settings of every task."""

    def __init__(self, folder: Path, **defaults: Any) -> None:
        entry = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/m", "api_key": "k"}}
        self.config = parse_config(
            {"model_list": [entry], "data_dir": str(folder), "task_defaults": defaults}
        )
        self.now = time.time()
        self.teacher = LoopbackServer(answering(right))
        self.student = LoopbackServer(answering(right))
        self.ready: dict[str, ReadyStudent] = {}
        self.publisher = Publisher(self.config.routes_file, lambda: self.now)
        self.db = Database(self.config.database_file, self.config.store)
        self.monitor = self.new_monitor()

    def new_monitor(self) -> LiveMonitor:
        """Another monitor over the same store, as after a restart."""
        return LiveMonitor(
            MonitorParts(
                store=Store(self.db),
                clock=lambda: self.now,
                sampler=Sampler(b"k" * 32),
                settings=self.config.task,
                ready=lambda: self.ready,
                teacher=self._client,
                follow=self._follow,
            )
        )

    async def __aenter__(self) -> Self:
        self.teacher.__enter__()
        self.student.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.monitor.stop()
        self.teacher.close()
        self.student.close()
        self.db.close()

    def _client(
        self, model: str, student_id: str, task: str, record: Callable[[TeacherCall], None]
    ) -> TeacherClient:
        return TeacherClient(
            base_url=self.teacher.base_url,
            api_key="k",
            model=model,
            record=record,
            run_id=student_id,
            task=task,
            token_budget=None,
        )

    async def _follow(self) -> None:
        promotions = latest_promotions(self.db)
        paused = paused_tasks(self.db)
        self.publisher.publish(routes_now(promotions, self.ready, self.config, paused))

    # ---- events ---------------------------------------------------------------------------------

    def promote(self, task: str = "triage", **changes: Any) -> Promotion:
        """Promotes a student whose server is up."""
        step = changes.pop("step", "live")
        share = changes.pop("share", {"shadow": 0.0, "live": 1.0}.get(step, 0.05))
        certificate = changes.pop("certificate", {})
        forced = changes.pop("forced", False)
        run_id = changes.pop("run_id", None) or new_id()
        route = a_route(
            task=task,
            student_id=run_id,
            step=step,
            share=share,
            base_url=None,
            cutoff=None,
            **{"output": "text", "timeout_s": 5.0, **changes},
        )
        promotion = a_promotion(
            task=task,
            state=step,
            run_id=run_id,
            at=self.now,
            route=route,
            certificate=a_certificate(task=task, run_id=run_id, **certificate),
            forced=forced,
        )
        append_promotion(self.db, promotion)
        self.ready[task] = ReadyStudent(run_id, self.student.url)
        self.now += 10  # the proxies have read it
        return promotion

    def request(self, text: str, task: str = "triage", **changes: Any) -> Trace:
        """A request that was answered just now, by default by the teacher.

        Of texts with other numbers, each is a group of its own: see `spelled`.
        """
        text = spelled(text)
        messages = [{"role": "user", "content": text}]
        self.now += 0.01
        sent = changes.pop("input_messages", to_json(messages).decode())
        answer = changes.pop("answer", right(text))
        return a_trace(
            task=task,
            start_time=self.now - 0.005,
            end_time=self.now,
            input_messages=sent,
            output_messages=to_json([{"role": "assistant", "content": answer}]).decode(),
            input_hash=input_hash(messages),
            fingerprint="0123456789abcdef",
            **changes,
        )

    def served(
        self, text: str, promotion: Promotion, answer: str | None = None, **changes: Any
    ) -> Trace:
        """A request that the student answered."""
        return self.request(
            text,
            promotion.task,
            answer=right(spelled(text)) if answer is None else answer,
            served_by="student",
            route="student",
            reason=Reason.CERTIFIED,
            student_id=promotion.run_id,
            confidence=-0.01,
            **changes,
        )

    def fell_back(self, text: str, promotion: Promotion, reason: Reason, **changes: Any) -> Trace:
        """A request on which the student fell back to the teacher."""
        return self.request(
            text,
            promotion.task,
            route="fallback",
            reason=reason,
            student_id=promotion.run_id,
            **changes,
        )

    async def tick(self, *traces: Trace) -> None:
        """Collects these requests, and runs a tick of the monitor."""
        got = await asyncio.to_thread(self._collect, traces)
        await self.monitor.tick(got)

    def _collect(self, traces: tuple[Trace, ...]) -> Any:
        if traces:
            write_segment(self.config.journal_dir, *traces)
        return collect(self.db, self.config.journal_dir, {}).requests

    async def settle(self, *traces: Trace) -> None:
        """The same, and waits until the shadow and the audits are idle."""
        await self.tick(*traces)
        await until(lambda: not self.monitor.busy)

    # ---- results --------------------------------------------------------------------------------

    def state(self, task: str = "triage") -> LiveStudent:
        state = self.monitor.state(task)
        assert state is not None, f"task {task} has no promoted student"
        return state

    def promotion(self, task: str = "triage") -> Promotion:
        return latest_promotions(self.db)[task]

    def comparisons(self, promotion: Promotion) -> list[Comparison]:
        return comparisons_of_student(self.db, str(promotion.run_id))

    def route(self, task: str = "triage") -> Route:
        return read_routes(self.config.routes_file)[task]


def later(trace: Trace, seconds: float) -> Trace:
    """The same request, so much later."""
    return msgspec.structs.replace(
        trace, start_time=trace.start_time + seconds, end_time=trace.end_time + seconds
    )
