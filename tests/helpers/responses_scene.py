"""What tests of the Responses API have in common: a task's student, and asking through the SDK."""

from __future__ import annotations

from typing import Any

import httpx

from proxy.surfaces.responses.view import chat_view
from store.chat.shape import fingerprint
from tests.helpers.serving import CLIENT_KEY, ProxyThread, student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, completion

BODY: dict[str, Any] = {"model": "gpt-4o", "instructions": "Label it.", "input": "I am glad"}
TAG = {"X-Understudy-Task": "mood"}


def sure(text: str, **more: Any) -> Reply:
    """What a student answers."""
    return completion(text, model="default_model", logprobs=[-0.1, -0.02], **more)


def good(_: Received) -> Reply:
    return sure("good")


def publish(
    proxy: ProxyThread, student: LoopbackServer, body: dict[str, Any] = BODY, **changes: Any
) -> None:
    """Publishes a route to the student and waits until the proxy follows it."""
    shape = fingerprint(chat_view(body))
    proxy.publish(student_route("mood", student.url, shape, **changes))

    def follows() -> bool:
        found = httpx.get(f"{proxy.url}/health").json()["routes"]["students"]
        return bool(found) and found != 0

    wait_until(follows)


def post(proxy: ProxyThread, body: dict[str, Any], key: str = CLIENT_KEY) -> httpx.Response:
    """A tagged request without the SDK."""
    headers = {**TAG, "authorization": f"Bearer {key}"}
    return httpx.post(f"{proxy.base_url}/responses", json=body, headers=headers, timeout=20)
