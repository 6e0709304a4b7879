"""Amplification with the stand-in teacher: its target, the kept examples, the requests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from demo.tasks.tasks import TASKS
from demo.teacher.teacher import MODEL, DemoTeacher, last_user_text, start_teacher
from demo.teacher.wire import Reply, TeacherServer
from distill.amplify.amplify import Amplified
from distill.amplify.near_duplicates import NearDuplicates
from distill.amplify.policy import LengthRange, extract_policy
from distill.dataset.rows import Row
from distill.dataset.texts import user_text
from store.records import TeacherCall
from tests.helpers.amplifying import amplified, kept, reasons, server, text_of_example
from tests.helpers.demo_rows import (
    EXTRACTION,
    JSON,
    LABELS,
    RUN,
    a_client,
    a_policy,
    hashes,
    rows_of,
)


class Counting(DemoTeacher):
    """The stand-in teacher, which records its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.structured: list[dict[str, Any]] = []

    def __call__(self, body: dict[str, Any]) -> Reply:
        reply = super().__call__(body)
        if reply.tool is None:
            self.asked.append(last_user_text(body["messages"]))
            self.bodies.append(body)
        else:
            self.structured.append(body)
        return reply


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
async def test_the_target_is_reached_exactly_and_nothing_is_bought_beyond_it(
    tmp_path: Path, task: str
) -> None:
    rows = rows_of(task, 60)
    calls: list[TeacherCall] = []
    reports: list[tuple[str, float, float, str]] = []
    async with await start_teacher() as teacher:
        async with a_client(teacher.base_url) as client:
            policy = await extract_policy(client, rows)
        result = await amplified(
            tmp_path,
            teacher.base_url,
            rows,
            policy=policy,
            calls=calls,
            progress=lambda *line: reports.append(line),
        )
    assert result.stopped == "target reached"
    assert len(kept(result)) == 40
    # the rules never give an unsound answer, so each one that was bought is kept
    assert Counter(c.purpose for c in calls)["answers"] == 40
    assert teacher.counts[f"answers/{task}"] == 40
    for example in kept(result):
        messages = orjson.loads(example.input_messages)
        assert messages[0] == rows[0].messages[0]
        assert example.target == TASKS[task].answer(user_text(messages))
    assert reports[-1][:3] == ("amplify", 40, 40)
    assert [done for _, done, _, _ in reports] == sorted(done for _, done, _, _ in reports)


@pytest.mark.slow
async def test_kept_inputs_are_no_near_duplicates_and_rejected_ones_have_a_reason(
    tmp_path: Path,
) -> None:
    rows = rows_of(LABELS, 60)
    async with await start_teacher() as teacher:
        policy = a_policy(input_length_range=LengthRange(minimum=5, maximum=200))
        result = await amplified(tmp_path, teacher.base_url, rows, policy=policy, target=80)
    assert len({e.input_hash for e in kept(result)}) == 80
    assert not {e.input_hash for e in kept(result)} & hashes(rows)
    seen = NearDuplicates(0.9, (user_text(row.messages) for row in rows))
    for example in kept(result):
        text = text_of_example(example)
        assert text not in seen
        assert len(text) <= 200
        seen.add(text)
    assert {"near_duplicate", "input_length"} <= set(reasons(result))
    assert all(e.target == "" for e in result.examples if e.status == "rejected")


async def test_synthetic_examples_name_their_parents_and_model(tmp_path: Path) -> None:
    rows = rows_of(JSON, 30)
    async with await start_teacher() as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows, target=20)
    made: set[str] = set()
    assert len({e.example_id for e in result.examples}) == len(result.examples)
    for example in result.examples:
        assert (example.run_id, example.task, example.split) == (RUN, "a-task", "train")
        assert (example.origin, example.generator_model) == ("synthetic", MODEL)
        assert example.source_trace_id is None
        *shown, policy = example.parent_ids
        assert policy == RUN  # its run's
        context, earlier = shown[:4], shown[4:]  # shown to be followed, and to be kept away from
        assert set(context) <= {row.trace_id for row in rows}
        assert set(earlier) <= made
        made.add(example.example_id)
    assert any(len(example.parent_ids) > 5 for example in result.examples)
    for example in result.examples:
        assert example.created_at > 0


@pytest.mark.slow
async def test_synthetic_answers_are_balanced_over_the_labels(tmp_path: Path) -> None:
    async with await start_teacher() as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows_of(LABELS, 40), target=90)
    counts = Counter(e.target for e in kept(result))
    assert set(counts) == {"positive", "negative", "neutral"}
    assert min(counts.values()) >= 20


async def test_a_synthetic_request_is_a_real_one_with_another_last_text(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "How can I help?"},
    ]
    rows = [
        Row(**{**_fields(row), "messages": [row.messages[0], *turns, row.messages[1]]})
        for row in rows_of(LABELS, 20, params={"temperature": 0, "max_tokens": 30})
    ]
    asked = Counting()
    async with server(asked) as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows, target=10)
    assert len(asked.bodies) == 10
    for body in asked.bodies:
        assert body["messages"][:3] == rows[0].messages[:3]
        assert (body["temperature"], body["max_tokens"]) == (0, 30)
        assert body["model"] == MODEL
    assert {text_of_example(e) for e in kept(result)} == set(asked.asked)


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


async def test_target_0_makes_no_call(tmp_path: Path) -> None:
    async with await start_teacher() as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows_of(LABELS, 10), target=0)
        assert teacher.counts == {}
    assert result == Amplified([], "target reached")


@pytest.mark.slow
async def test_no_more_calls_run_at_once_than_allowed(tmp_path: Path) -> None:
    under_way, most = 0, 0

    class Watched(TeacherServer):
        async def _chat(self, request: Any) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await super()._chat(request)
            finally:
                under_way -= 1

    async with Watched(DemoTeacher(), models=[MODEL], latency_s=0.002) as teacher:
        await amplified(tmp_path, teacher.base_url, rows_of(EXTRACTION, 20), concurrency=3)
    assert most == 3


@pytest.mark.slow
async def test_every_amplify_setting_has_an_effect(tmp_path: Path) -> None:
    asked = Counting()
    rows = rows_of(JSON, 30)
    async with server(asked) as teacher:
        await amplified(
            tmp_path / "a", teacher.base_url, rows, target=10, batch=7, context=3, temperature=0.25
        )
        strict = await amplified(tmp_path / "b", teacher.base_url, rows, near_duplicate=0.6)
        loose = await amplified(tmp_path / "c", teacher.base_url, rows, near_duplicate=1.0)
    first = asked.structured[0]
    assert first["temperature"] == 0.25
    assert "Write 7 new inputs" in first["messages"][-1]["content"]
    assert first["messages"][-1]["content"].count("<example>") == 3
    assert reasons(strict)["near_duplicate"] > reasons(loose)["near_duplicate"]
