"""An amplification of a test's size, and views of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from demo.teacher.teacher import MODEL
from demo.teacher.wire import Answerer, TeacherServer
from distill.amplify.amplify import Amplified, amplify
from distill.amplify.policy import TaskPolicy
from distill.dataset.answers import answers_of
from distill.dataset.rows import Row
from distill.dataset.texts import user_text
from store.records import (
    Example,
    TeacherCall,
)
from store.settings.tasks import AmplifySettings
from tests.helpers.demo_rows import RUN, a_client, a_policy, hashes


async def amplified(
    folder: Path,
    url: str,
    rows: list[Row],
    *,
    policy: TaskPolicy | None = None,
    budget: int = 10_000_000,
    calls: list[TeacherCall] | None = None,
    progress: Callable[[str, float, float, str], None] = lambda *_: None,
    **settings: Any,
) -> Amplified:
    calls = [] if calls is None else calls
    async with a_client(url, budget=budget, record=calls.append) as client:
        client.spent = sum(c.input_tokens + c.output_tokens for c in calls)
        return await amplify(
            folder,
            run_id=RUN,
            task="a-task",
            policy=policy or a_policy(),
            answers=answers_of(rows),
            rows=rows,
            forbidden=hashes(rows),
            client=client,
            settings=AmplifySettings(**{"target": 40, "batch": 8, "context": 4, **settings}),
            progress=progress,
        )


def kept(result: Amplified) -> list[Example]:
    return [e for e in result.examples if e.status == "kept"]


def reasons(result: Amplified) -> Counter[str]:
    return Counter(e.reason for e in result.examples if e.status == "rejected")


def text_of_example(example: Example) -> str:
    return user_text(orjson.loads(example.input_messages))


def server(answerer: Answerer) -> TeacherServer:
    return TeacherServer(answerer, models=[MODEL])
