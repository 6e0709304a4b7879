"""The rollout bucket of a conversation: a number in [0, 1)."""

from __future__ import annotations

import orjson

from store.chat.shape import SYSTEM_ROLES, text_of
from store.hashing import uniform
from store.jsontext import JsonObject


def rollout_bucket(student_id: str, body: JsonObject) -> float:
    """A number in [0, 1), uniform over conversations: a share s takes those below s.

    A hash of the conversation's beginning (up to and including the first user message) and of the
    request's `user` field, keyed by the student. So all turns and retries of a conversation get one
    number, a larger share includes the conversations of a smaller one, and the next student starts
    with others. System prompts are left out: one that tells the time differs between the turns of a
    conversation.
    """
    opening = []
    for message in body["messages"]:
        if message["role"] not in SYSTEM_ROLES:
            opening.append((message["role"], text_of(message.get("content"))))
            if message["role"] == "user":
                break
    content = orjson.dumps([opening, body.get("user")])
    return uniform(content, key=student_id.encode()[:64])
