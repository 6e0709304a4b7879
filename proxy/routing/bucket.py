"""Where a conversation stands in the order in which a student takes conversations over."""

from __future__ import annotations

from typing import Any

import orjson

from store.chat.shape import SYSTEM_ROLES, text_of
from store.hashing import uniform


def position(student_id: str, body: dict[str, Any]) -> float:
    """A number in [0, 1), uniform over conversations: a share s takes those below s.

    It follows from how the conversation begins (what is said up to and including the first user
    message) and from the request's `user` field, keyed by the student. So all turns and retries of
    a conversation get one number, a larger share takes all of a smaller one's conversations, and
    the next student starts with others. System prompts are left out: one that tells the time
    differs between the turns of a conversation.
    """
    opening = []
    for message in body["messages"]:
        if message["role"] not in SYSTEM_ROLES:
            opening.append((message["role"], text_of(message.get("content"))))
            if message["role"] == "user":
                break
    content = orjson.dumps([opening, body.get("user")])
    return uniform(content, key=student_id.encode()[:64])
