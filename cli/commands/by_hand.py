"""`understudy pause`, `resume`, `promote`, `demote`, `retrain`: has a server carry out a command.

Imports what it needs when it runs, as cli.main does.
"""
# ruff: noqa: PLC0415  (see above)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    KeyOption,
    ReasonOption,
    ServerOption,
    TaskArgument,
    faults,
    print_result,
)

if TYPE_CHECKING:
    from store.jsontext import JsonObject
    from store.records import Command

HELP: dict[Command, str] = {
    "pause": "Stop a task's runs and have the teacher answer it, until resumed.",
    "resume": "Take back a pause.",
    "promote": "Take a task's student to its full share at once, without waiting for evidence.",
    "demote": "Take a task from its student and give it back to the teacher.",
    "retrain": "Start a run of a task now, whatever it would wait for.",
}
ForceOption = Annotated[
    bool, typer.Option("--force", help="Also a demoted student, or one that the gate turned down.")
]


def register(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    for command, text in HELP.items():
        run = _promote if command == "promote" else _without_options(command)
        app.command(command, help=text)(run)


def _promote(
    task: TaskArgument,
    *,
    force: ForceOption = False,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    server: ServerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    _carry_out("promote", task, reason, config, server, key, as_json=as_json, force=force)


def _without_options(command: Command) -> Callable[..., None]:
    """A command with the options that all of them have."""

    def run(
        task: TaskArgument,
        *,
        reason: ReasonOption = "",
        config: ConfigOption = DEFAULT_CONFIG,
        server: ServerOption = None,
        key: KeyOption = None,
        as_json: JsonOption = False,
    ) -> None:
        _carry_out(command, task, reason, config, server, key, as_json=as_json)

    return run


def _carry_out(  # noqa: PLR0917  (the options of a command, in their order)
    command: Command,
    task: str,
    reason: str,
    config: Path,
    server: str | None,
    key: str | None,
    *,
    as_json: bool,
    force: bool = False,
) -> None:
    with faults():
        from cli.status.client import server_of

        if server is None:
            server, key = server_of(config, key, needs="operate")
        result = give_command(server, task, command, key=key, reason=reason, force=force)
        print_result(result, as_json=as_json, before=f"{task}: ")


def give_command(
    server: str,
    task: str,
    command: Command,
    *,
    key: str | None = None,
    reason: str = "",
    force: bool = False,
) -> Any:
    """The server's answer as parsed JSON: `done`, a sentence, and the task's `status`.

    `server` is the proxy's URL without `/v1`. Raises ProductError with the reason of a refusal.
    """
    from cli.status.client import ServerRefused, ask, quoted
    from store.errors import ProductError

    body: JsonObject = {"reason": reason}
    if force:
        body["force"] = True
    try:
        return ask(server, f"/distill/tasks/{quoted(task)}/{command}", key=key, body=body)
    except ServerRefused as refused:
        if refused.code == 404:
            detail = f": {refused.detail}" if refused.detail else ""
            raise ProductError(f"{server} has no task {task}{detail}") from None
        if refused.code == 409 and refused.detail:
            raise ProductError(refused.detail) from None
        raise ProductError(f"{server} did not {command} {task}: {refused}") from None
