"""`understudy forget`: asks for confirmation, then has a running server forget, or does it here.

Imports what it needs when it runs, as cli.main does.
"""
# ruff: noqa: PLC0415  (see above)

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from datetime import datetime
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
    faults,
    print_result,
)

if TYPE_CHECKING:
    from store.jsontext import JsonObject
    from store.settings.config import Config

SERVER_TIMEOUT_S = 240.0  # it waits for journals and, for a minute, for the database file


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
        carry_out = _forgetter(config, server, key)
        if not dry_run and not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("there is no terminal to ask back on: say --yes")
            preview = carry_out({**order, "dry_run": True})
            typer.echo(str(preview.get("done")), err=True)
            typer.confirm("This cannot be taken back. Forget it?", abort=True, err=True)
        print_result(carry_out({**order, "dry_run": dry_run}), as_json=as_json)


def order_of(
    traces: list[str],
    user: str | None,
    task: str | None,
    before: str | None,
    *,
    reason: str,
    demote: bool,
) -> JsonObject:
    """The options as `POST /distill/forget` takes them. Raises BadParameter."""
    if not traces and user is None and task is None:
        raise typer.BadParameter("say what to forget: --trace, --user or --task")
    if before is not None and user is None and task is None:
        raise typer.BadParameter("--before goes with --user or --task")
    order: JsonObject = {"traces": traces, "reason": reason, "demote": demote}
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


def _forgetter(config: Path, server: str | None, key: str | None) -> Callable[[JsonObject], Any]:
    """The function that carries out an order: in the running server, or else in this process."""
    from cli.serve.data_folder import is_held
    from cli.status.client import server_of
    from store.settings.config import load_config

    if server is None:
        if config != DEFAULT_CONFIG or config.exists():
            settings = load_config(config)
            if not is_held(settings.data_dir):
                return lambda order: forget_here(settings, order)
        server, key = server_of(config, key, needs="forget")
    url = server
    return lambda order: forget_by_server(url, order, key=key)


def forget_by_server(server: str, order: JsonObject, *, key: str | None) -> Any:
    """The server's answer as parsed JSON. Raises ProductError."""
    from cli.status.client import ServerRefused, ask
    from store.errors import ProductError

    try:
        return ask(server, "/distill/forget", key=key, body=order, timeout_s=SERVER_TIMEOUT_S)
    except ServerRefused as refused:
        raise ProductError(f"{server} did not forget: {refused}") from None


def forget_here(config: Config, order: JsonObject) -> Any:
    """The same without a server: it holds the data folder meanwhile, as a server would.

    Raises ProductError, ConfigError and StoreError.
    """
    import asyncio

    from pydantic import ValidationError

    from cli.serve.data_folder import hold_data_dir
    from distill.forget.api import ForgetOrder
    from store.errors import ConfigError, ProductError

    try:
        wanted = ForgetOrder.model_validate(order)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise ProductError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    if not config.data_dir.exists():
        raise ConfigError(f"data_dir {config.data_dir} is not there: nothing was ever kept")
    with hold_data_dir(config.data_dir):
        return asyncio.run(_forget(config, wanted))


async def _forget(config: Config, order: Any) -> Any:
    from distill.composition import build_services
    from distill.forget.api import forget_by
    from distill.ownership import owned
    from store.database.database import Database
    from store.database.store import Store

    with owned(config.data_dir), Database(config.database_file, config.store) as db:
        forgetter = build_services(config, Store(db), clock=time.time).forgetter
        if not order.dry_run:
            await forgetter.resume()
        report = await forget_by(forgetter, order, actor="local", clock=time.time)
        return report.model_dump()
