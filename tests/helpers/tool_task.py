"""A made-up task with tools: an e-mail leads to a call, or to a question if something is unclear.

The texts are those of a demo task, so the stand-in teacher can write more of them.
"""

from __future__ import annotations

from typing import Any

import orjson

from demo.tasks.tasks import TASKS
from demo.teacher.teacher import DemoTeacher, last_user_text
from demo.teacher.wire import Reply

TASK = TASKS["order-extraction"]
TEXT = {"type": "string"}
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Finds an order.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"order_id": TEXT, "amount": TEXT},
            "required": ["order_id", "amount"],
            "additionalProperties": False,
        },
    },
}
CANCEL = {
    "type": "function",
    "function": {
        "name": "cancel",
        "description": "Cancels an order.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string", "pattern": "^[A-Z]+-[0-9]+$"}},
            "required": ["order_id"],
            "additionalProperties": False,
        },
    },
}
TOOLS = [LOOK_UP, CANCEL]
ASKING_BACK = "What should the total be?"


def call_of(text: str) -> tuple[str, dict[str, Any]] | None:
    """The function that an e-mail has called, with its arguments; None when the teacher asks."""
    order = orjson.loads(TASK.answer(text))
    if "looks wrong" in text:
        return None
    if "cancel" in text:
        return "cancel", {"order_id": order["order_id"]}
    return "look_up", {"order_id": order["order_id"], "amount": order["amount"]}


class CallingTeacher(DemoTeacher):
    """The stand-in teacher, which calls a tool where the request has some."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []  # of the requests that had tools of their own

    def __call__(self, body: dict[str, Any]) -> Reply:
        if not body.get("tools") or isinstance(body.get("tool_choice"), dict):
            return super().__call__(body)
        self.bodies.append(body)
        result = call_of(last_user_text(body["messages"]))
        if result is None:
            return Reply("answers/asked back", ASKING_BACK)
        name, arguments = result
        return Reply("answers/called", orjson.dumps(arguments).decode(), name)
