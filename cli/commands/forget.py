"""`understudy forget`: asks back, then has a running server forget, or does it itself."""

from __future__ import annotations

import json
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    KeyOption,
    ReasonOption,
    ServerOption,
    faults,
)


def forget(
    *,
    trace: Annotated[
        list[str] | None, typer.Option(help="A trace's id. May be given several times.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="All requests with this `user`.")] = None,
    task: Annotated[str | None, typer.Option(help="All requests of this task.")] = None,
    before: Annotated[
        str | None,
        typer.Option(help="Of the user or the task only what was asked before, like 2026-01-31."),
    ] = None,
    demote: Annotated[
        bool,
        typer.Option("--demote", help="Take their tasks from the students that learned from it."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask back.")] = False,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    server: ServerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget traces for good, with everything that was made from them, and mark who learned it."""
    with faults():
        order = order_of(trace or [], user, task, before, reason=reason, demote=demote)
        ask = _asker(config, server, key)
        if not dry_run and not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("there is no terminal to ask back on: say --yes")
            would = ask({**order, "dry_run": True})
            typer.echo(str(would.get("done")), err=True)
            typer.confirm("This cannot be taken back. Forget it?", abort=True, err=True)
        found = ask({**order, "dry_run": dry_run})
        typer.echo(
            json.dumps(found, indent=2, ensure_ascii=False) if as_json else str(found.get("done"))
        )


def order_of(
    traces: list[str],
    user: str | None,
    task: str | None,
    before: str | None,
    *,
    reason: str,
    demote: bool,
) -> dict[str, Any]:
    """The options as `POST /distill/forget` takes them. Raises BadParameter."""
    if not traces and user is None and task is None:
        raise typer.BadParameter("say what to forget: --trace, --user or --task")
    if before is not None and user is None and task is None:
        raise typer.BadParameter("--before goes with --user or --task")
    order: dict[str, Any] = {"traces": traces, "reason": reason, "demote": demote}
    for one in traces:
        try:
            uuid.UUID(one)
        except ValueError:
            raise typer.BadParameter("--trace takes a trace's id, which is a UUID") from None
    if user is not None:
        order["user"] = user
    if task is not None:
        order["task"] = task
    if before is not None:
        try:
            order["before"] = datetime.fromisoformat(before).timestamp()  # naive: the local clock
        except (ValueError, OverflowError):
            raise typer.BadParameter(
                "--before takes a date or a time like 2026-01-31T12:00"
            ) from None
    return order


def _asker(config: Path, server: str | None, key: str | None) -> Any:
    """Who carries an order out: a running server, else this process."""
    from cli.commands.forgetting import forget_by_server, forget_here, serves_here  # noqa: PLC0415
    from cli.status.client import server_of  # noqa: PLC0415
    from store.settings.config import load_config  # noqa: PLC0415

    if server is None:
        if config != DEFAULT_CONFIG or config.exists():
            found = load_config(config)
            if not serves_here(found):
                return lambda order: forget_here(found, order)
        server, key = server_of(config, key)
    url = server
    return lambda order: forget_by_server(url, order, key=key)
