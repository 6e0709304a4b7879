"""How the stand-in teacher answers the structured calls of distilling: the policy, new inputs.

New inputs come from the demo's generators. As with a real teacher, some are useless: in every batch
one nearly repeats a given example, and one is far too long.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

import orjson

from demo.tasks.tasks import DemoTask, task_of
from demo.teacher.wire import Refusal, Reply
from store.chat.normal_form import normal_answer
from store.chat.shape import text_of
from store.jsontext import JsonObject

POLICY_TOOL = "TaskPolicy"
INPUTS_TOOL = "SyntheticInputs"
DEFAULT_INPUTS = 10
_MIN_SPOILT_BATCH = 5  # a smaller batch has no useless inputs
_DRAWS_FOR_AN_AIM = 60

_HOW_MANY = re.compile(r"\b(\d+) new inputs\b")
_EXAMPLE = re.compile(r"<input>\n?(.*?)\n?</input>", re.S)
_WANTED = re.compile(r"<wanted [^>]*?answer='(.*?)'/>")


@dataclass(frozen=True, slots=True)
class StructuredCall:
    """A request for JSON of a given schema."""

    name: str  # of the schema
    tool: bool  # asked for as a forced tool call, else as a response format
    prompt: str  # all of the request's text


def structured_call(body: JsonObject) -> StructuredCall | None:
    """The structured call that this request makes, or None when it is an ordinary one."""
    prompt = "\n".join(text_of(m.get("content")) for m in body["messages"])
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return StructuredCall(str(choice["function"]["name"]), True, prompt)
    form = body.get("response_format") or {}
    name = (form.get("json_schema") or {}).get("name") if form.get("type") == "json_schema" else ""
    return StructuredCall(name, False, prompt) if name in (POLICY_TOOL, INPUTS_TOOL) else None


class Writer:
    """Answers structured calls. Repeating a request gives other inputs."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()  # by hash of the prompt

    def reply(self, call: StructuredCall) -> Reply:
        """Raises Refusal for a schema or a task that it does not know."""
        task = task_of(call.prompt)
        if task is None:
            raise Refusal(400, "The prompt holds none of the tasks that this teacher knows.")
        if call.name == POLICY_TOOL:
            return _reply(call, "policy", task.policy)
        if call.name == INPUTS_TOOL:
            return _reply(call, "inputs", {"inputs": self._inputs(task, call.prompt)})
        raise Refusal(400, f"This teacher has no tool named '{call.name}'.", param="tool_choice")

    def _inputs(self, task: DemoTask, prompt: str) -> list[str]:
        digest = blake2b(prompt.encode(), digest_size=16).hexdigest()
        rng = Random(f"{digest}/{self._made[digest]}")
        self._made[digest] += 1
        match = _HOW_MANY.search(prompt)
        count = int(match[1]) if match else DEFAULT_INPUTS
        aims = _WANTED.findall(prompt)
        texts = [_aimed(task, rng, aims[n] if n < len(aims) else "") for n in range(count)]
        if count >= _MIN_SPOILT_BATCH:
            near, off = rng.sample(range(count), 2)
            shown = _EXAMPLE.findall(prompt)
            if shown:
                texts[near] = _hardly_changed(rng.choice(shown), rng)
            texts[off] = " ".join(task.draw(rng)[0] for _ in range(12))
        return texts


def _aimed(task: DemoTask, rng: Random, aim: str) -> str:
    """A text with the wanted answer, if one turns up soon."""
    text, answer = task.draw(rng)
    for _ in range(_DRAWS_FOR_AN_AIM):
        if not aim or normal_answer(answer) == aim:
            break
        text, answer = task.draw(rng)
    return text


def _hardly_changed(text: str, rng: Random) -> str:
    return rng.choice((text.upper(), f"{text}!", f"  {text.rstrip('.')} ", f"{text} :)"))


def _reply(call: StructuredCall, kind: str, payload: JsonObject) -> Reply:
    return Reply(kind, orjson.dumps(payload).decode(), tool=call.name if call.tool else None)
