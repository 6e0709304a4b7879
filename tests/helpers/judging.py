"""A teacher on loopback that judges, runs that pay for it, and rows of free text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from distill.dataset.rows import Row
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from store.chat.shape import Messages, input_hash
from store.database.database import Database
from store.database.store import Store
from store.ids import new_id
from store.records import (
    Split,
    TeacherCall,
)
from store.settings.tasks import TaskSettings
from tests.helpers.teacher_server import Answerer, Received, Reply, completion

MARK = re.compile(r"^The mark is ([0-9a-f]{16})\.\n")


def verdict(
    equivalent: Any, difference: str = "none", *, tokens: tuple[int, int] = (7, 3)
) -> Reply:
    """A verdict, as a call of the forced tool."""
    arguments = orjson.dumps({"difference": difference, "equivalent": equivalent}).decode()
    whole = json.loads(completion("").chunks[0])
    function = {"name": "Verdict", "arguments": arguments}
    whole["choices"][0]["message"] = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "t", "type": "function", "function": function}],
    }
    whole["choices"][0]["finish_reason"] = "tool_calls"
    whole["usage"] = {
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "total_tokens": sum(tokens),
    }
    return Reply((json.dumps(whole).encode(),))


def is_judging(request: Received) -> bool:
    return "tools" in request.json


def shown(messages: Messages) -> dict[str, str]:
    """The marked parts of a judge's prompt by name: the request, answer A and answer B."""
    text = messages[-1]["content"]
    result = MARK.match(text)
    assert result is not None
    mark = result[1]
    part = rf"^\[{mark} begin ([\w ]+)\]\n(.*?)\n\[{mark} end \1\]$"
    return dict(re.findall(part, text, re.S | re.M))


def judging(
    equivalent: Callable[[str, str], bool],
    otherwise: Answerer | None = None,
    *,
    tokens: tuple[int, int] = (7, 3),
) -> Answerer:
    """A teacher that judges by this rule, and answers other requests by `otherwise`."""

    def answer(request: Received) -> Reply:
        if not is_judging(request):
            assert otherwise is not None
            return otherwise(request)
        result = shown(request.json["messages"])
        return verdict(equivalent(result["answer A"], result["answer B"]), tokens=tokens)

    return answer


def same_words(one: str, other: str) -> bool:
    """Whether the two have the same words, in any order."""
    return sorted(one.lower().split()) == sorted(other.lower().split())


def a_run(folder: Path, **settings: Any) -> Run:
    return Run(new_id(), "replies", TaskSettings.model_validate(settings), 0.0, folder)


def parts_with(db: Database, teacher_url: str) -> Parts:
    """The services of a run, with this teacher under any name, and the run's own budget."""

    def client(model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
        return TeacherClient(
            base_url=teacher_url,
            api_key="k",
            model=model,
            record=record,
            run_id=run.run_id,
            task=run.task,
            token_budget=run.settings.amplify.token_budget,
        )

    return Parts(store=Store(db), clock=lambda: 0.0, teacher=client)


def letters(count: int, split: Split = "heldout", **changes: Any) -> list[Row]:
    """Letters to a shop, each with a reply of some words."""
    rows = []
    for number in range(count):
        messages: Messages = [
            {"role": "system", "content": "Reply to the letter."},
            {"role": "user", "content": f"where is parcel number {number}"},
        ]
        values: dict[str, Any] = {
            "trace_id": f"trace-{number}",
            "input_hash": input_hash(messages),
            "split": split,
            "fingerprint": "f",
            "model": "gpt-big",
            "messages": messages,
            "params": {"temperature": 0.5, "max_tokens": 99},
            "target": f"Parcel {number} is on its way",
        }
        rows.append(Row(**{**values, **changes}))
    return rows
