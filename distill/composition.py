"""What acts on a store by order, put together: with a control plane around it, or without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distill.collect import Collector
from distill.commands import Commands
from distill.forget.forgetting import Forgetter
from distill.pipeline.runner import Runner
from distill.publish import Publisher, routes_now
from store.database.store import Store
from store.files.kept import KeptSegments
from store.settings.config import Config
from store.settings.teachers import prices


@dataclass(frozen=True, slots=True)
class Services:
    """Copies, collecting, publishing, commands by hand, and forgetting, on one store."""

    kept: KeptSegments
    collector: Collector
    publisher: Publisher
    commands: Commands
    forgetter: Forgetter


def build_services(
    config: Config,
    store: Store,
    *,
    clock: Callable[[], float],
    collect: Callable[[], Awaitable[object]] | None = None,
    follow: Callable[[], Awaitable[None]] | None = None,
    runner: Runner | None = None,
) -> Services:
    """The services of a store. `collect`, `follow` and `runner` are the control plane's: how it
    collects the journal and looks at what came in, how it makes students and routes what the store
    says, and who starts runs. Without a control plane no student is up, and no run is started.
    """
    kept = KeptSegments(
        config.journal_dir, days=config.journal_keep_days, megabytes=config.journal.keep_mb
    )
    collector = Collector(store, config.journal_dir, prices(config), kept)
    publisher = Publisher(config.routes_file, clock)

    async def publish_without_students() -> None:
        promotions, paused = await store.latest_promotions(), await store.paused_tasks()
        publisher.publish(routes_now(promotions, {}, config, paused))

    follow = follow or publish_without_students
    commands = Commands(store, config, clock=clock, follow=follow)
    forgetter = Forgetter(
        store,
        config,
        kept=kept,
        clock=clock,
        collect=collect or collector.collect,
        follow=follow,
        demote=commands.demote_affected,
        runner=runner,
    )
    return Services(kept, collector, publisher, commands, forgetter)
