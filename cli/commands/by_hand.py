"""`understudy pause`, `resume`, `promote`, `demote`, `retrain`: gives a server a command."""

from __future__ import annotations

from typing import Any

from cli.status.client import Refusal, ask, quoted
from store.errors import ProductError
from store.records import Command


def give_command(
    server: str,
    task: str,
    command: Command,
    *,
    key: str | None = None,
    reason: str = "",
    force: bool = False,
) -> Any:
    """What the server has done, as parsed JSON: `done`, a sentence, and the task's `status`.

    `server` is the proxy's URL without `/v1`. Raises ProductError that says why it did nothing.
    """
    body: dict[str, Any] = {"reason": reason}
    if force:
        body["force"] = True
    try:
        return ask(server, f"/distill/tasks/{quoted(task)}/{command}", key=key, body=body)
    except Refusal as refusal:
        if refusal.code == 404:
            said = f": {refusal.said}" if refusal.said else ""
            raise ProductError(f"{server} has no task {task}{said}") from None
        if refusal.code == 409 and refusal.said:
            raise ProductError(refusal.said) from None
        raise ProductError(f"{server} did not {command} {task}: {refusal}") from None
