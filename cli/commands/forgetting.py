"""Has something forgotten: by the server that runs, or in this process when none does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cli.serve.data_folder import hold_data_dir, is_held
from cli.status.client import Refusal, ask
from store.errors import ConfigError, ProductError
from store.settings.config import Config

SERVER_TIMEOUT_S = 240.0  # it waits for journals and, for a minute, for the database file


def serves_here(config: Config) -> bool:
    """Whether a server holds the data folder of this config."""
    return is_held(config.data_dir)


def forget_by_server(server: str, order: dict[str, Any], *, key: str | None) -> Any:
    """What the server has done, as parsed JSON. Raises ProductError."""
    try:
        return ask(server, "/distill/forget", key=key, body=order, timeout_s=SERVER_TIMEOUT_S)
    except Refusal as refusal:
        raise ProductError(f"{server} did not forget: {refusal}") from None


def forget_here(config: Config, order: dict[str, Any]) -> Any:
    """The same without a server, whose place this takes meanwhile: it holds the data folder.

    Raises ProductError, ConfigError and StoreError.
    """
    from pydantic import ValidationError  # noqa: PLC0415  (the control plane's; not for a server)

    from distill.forget.api import ForgetOrder  # noqa: PLC0415

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
    from distill.collect import collect  # noqa: PLC0415
    from distill.commands import Commands  # noqa: PLC0415
    from distill.forget.api import forget_by  # noqa: PLC0415
    from distill.forget.forgetting import Forgetter  # noqa: PLC0415
    from distill.publish import Publisher, routes_now  # noqa: PLC0415
    from store.database.database import Database  # noqa: PLC0415
    from store.database.store import Store  # noqa: PLC0415
    from store.settings.teachers import prices  # noqa: PLC0415

    known = prices(config)
    with Database(config.database_file, config.store) as db:
        store = Store(db)

        async def take() -> None:
            await store.run(collect, config.journal_dir, known)

        async def publish() -> None:
            routes = routes_now(
                await store.latest_promotions(), {}, config, await store.paused_tasks()
            )
            Publisher(config.routes_file, time.time).publish(routes)

        forgetter = Forgetter(
            store,
            config,
            clock=time.time,
            collect=take,
            follow=publish,
            demote=Commands(store, config, clock=time.time, follow=publish).demote_forgetful,
        )
        if not order.dry_run:
            await forgetter.resume()
        found = await forget_by(forgetter, order, actor="local", clock=time.time)
        return found.model_dump()
