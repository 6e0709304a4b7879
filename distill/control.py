"""The control plane's process: `python -m distill.control`, started by `understudy serve`.

Owns the database file, collects the journal, starts due runs, supervises the students, publishes
the routes, and answers the status API. When it dies, the proxy goes on with the teacher. While the
database cannot be opened it only says why: see distill.opening.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from distill.api import build_api, build_api_without_store
from distill.collect import Collected
from distill.composition import build_services
from distill.forget.retention import Retention
from distill.kinds.registry import student_servers
from distill.monitor.monitor import LiveMonitor
from distill.monitor.sampling import Sampler, load_key
from distill.monitor.student import MonitorParts
from distill.opening import give_routes_to_teacher, is_damage, open_when_possible
from distill.pipeline.runner import Runner
from distill.pipeline.training import trained_student
from distill.presence import Heart, StatusServer
from distill.publish import routes_now
from distill.refill import refill_what_is_lost
from distill.run.progress import Board
from distill.run.run import Parts
from distill.run.teachers import Teachers
from distill.scheduler import PeriodicJob, schedule
from distill.status.reporter import Reporter
from distill.status.status import StoreHealth
from distill.students.students import Students, StudentSpec
from distill.threads import Threads
from store.database.actions import paused_tasks
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.database.store import Store
from store.distribution import installed_version
from store.errors import ConfigError, RunError, StoreError, UnderstudyError
from store.files.accepted import read_accepted
from store.files.journal import count_set_aside
from store.logs import configure_logging
from store.process.control_page import ControlPage
from store.process.runtime import Runtime
from store.records import (
    Promotion,
    Route,
)
from store.settings.config import Config
from store.settings.teachers import Price, TeacherPool, prices, teacher_pool

log = logging.getLogger("understudy.control")

CHECKPOINT_SECONDS = 300
TIDY_SECONDS = 86_400
MAX_SHOWN_ENTRIES = 20  # of the journal, in the status
FIRST_TIDY_S = 10  # after the start, which has more urgent things to do
KEY_FILE = "draws.key"


class ControlPlane:
    """The parts of the control plane, and the jobs that the scheduler calls."""

    def __init__(
        self, config: Config, runtime: Runtime, db: Database, page: ControlPage | None = None
    ) -> None:
        self.config = config
        self.store = Store(db)
        self._pool: TeacherPool = teacher_pool(
            config, litellm_url=runtime.litellm_url, litellm_key=runtime.litellm_key
        )
        self.health = StoreHealth(ok=True, error=None, collected=0, damaged=0)
        self.board = Board()
        self.students = Students(
            server=student_servers(config.data_dir / "logs"), on_change=self.publish
        )
        teachers = Teachers(self._pool)
        parts = Parts(
            store=self.store,
            clock=time.time,
            teacher=teachers.for_run,
            placeholders=config.privacy.placeholders,
        )
        self.threads = Threads()  # to be the loop's, see run_control_plane
        self.runner = Runner(
            config,
            parts,
            self.board,
            on_end=self.follow_promotions,
            settled=self.threads.settled,
        )
        self.services = build_services(
            config,
            self.store,
            clock=time.time,
            collect=self.tick,
            follow=self.follow_promotions,
            runner=self.runner,
        )
        self.retention = Retention(
            self.store,
            config,
            clock=time.time,
            sweep=self.services.forgetter.sweep,
        )
        self.monitor = LiveMonitor(
            MonitorParts(
                store=self.store,
                clock=time.time,
                sampler=Sampler(load_key(config.data_dir / KEY_FILE)),
                settings=config.task,
                ready=self.students.ready,
                teacher=teachers.for_audits,
                follow=self.follow_promotions,
            )
        )
        self._page = page
        self._ticking = asyncio.Lock()
        self._routing = asyncio.Lock()  # older routes never come after newer ones
        self._collecting = True  # whether the last round went well
        self._published = False  # whether the last routes were written
        self._last_error = ""  # of the last tick, so that it is logged once
        self._routes_error = ""  # the same, of the routes file

    async def tick(self) -> None:
        """Collects, judges the new evidence, and retries what a full disk prevented."""
        async with self._ticking:
            await self._tick()

    async def _tick(self) -> None:
        await self._restore_routes()
        got = await self.collect()
        if got is None:
            self.monitor.reload()
            return
        try:
            await self.monitor.tick(got.requests)
            if not self._published:
                await self.publish()
        except UnderstudyError as error:
            if str(error) != self._last_error:
                log.error("no live evidence is judged: %s", error)
            self._last_error = str(error)
        else:
            self._last_error = ""

    async def _restore_routes(self) -> None:
        """Writes the routes file again if it is not as it was published. Needs no database."""
        async with self._routing:
            try:
                await asyncio.to_thread(self.services.publisher.restore)
            except StoreError as error:
                if str(error) != self._routes_error:
                    log.error("%s", error)
                self._routes_error = str(error)
            else:
                self._routes_error = ""

    async def start(self) -> None:
        """What precedes the periodic jobs. Goes on where a part of the database is damaged."""
        await self._recover()
        await self.collect()
        try:
            await self.follow_promotions()
        except StoreError as error:
            log.error("no student is served: %s", error)
            self._published = False

    async def stop(self) -> None:
        """Ends everything that was begun."""
        await self.collect()  # first: what follows may take longer than a stop may
        await self.monitor.stop()
        await self.runner.stop()
        await self.students.stop()

    async def _recover(self) -> None:
        """Collects again what the database has lost since it was collected."""
        try:
            await self.store.run(refill_what_is_lost, self.services.kept, prices(self.config))
        except (UnderstudyError, OSError) as error:
            log.error("the journal's copies cannot be collected again: %s", error)

    async def collect(self) -> Collected | None:
        """Collects what the proxies have sealed since the last time. None when that failed."""
        try:
            got = await self.services.collector.collect()
        except (UnderstudyError, OSError) as error:
            if self._collecting:
                log.error("traces stay in the journal: %s", error)
            self._collecting = False
            self.health = replace(self.health, ok=False, error=str(error))
            self._show_health()
            await asyncio.to_thread(self.services.kept.prune)  # room, where the disk is full
            return None
        if not self._collecting:
            log.info("the store takes traces again")
        self._collecting = True
        for entry in got.skipped:
            if entry not in self.health.skipped:
                log.error("journal: cannot be collected: %s", entry)
        if got.not_kept and not self.health.not_kept:
            log.error("the journal's copies cannot be written: %s", got.not_kept)
        damage = self.store.db.damage
        self.health = StoreHealth(
            ok=damage is None,
            error=None if damage is None else str(damage),
            collected=self.health.collected + got.traces,
            damaged=self.health.damaged + got.damaged,
            set_aside=await asyncio.to_thread(count_set_aside, self.config.journal_dir),
            skipped=list(got.skipped[:MAX_SHOWN_ENTRIES]),
            not_kept=got.not_kept or (None if got.segments else self.health.not_kept),
            forgotten=self.health.forgotten + got.forgotten,
        )
        self._show_health()
        return got

    def _show_health(self) -> None:
        """Tells `serve` and the proxies how collecting goes."""
        if self._page is not None:
            health = self.health
            self._page.say(health.error or "")
            self._page.collected(
                ok=self._collecting, set_aside=health.set_aside, skipped=len(health.skipped)
            )

    async def tidy(self) -> None:
        """Finishes forgettings that were interrupted, and deletes what is too old."""
        try:
            await self.services.forgetter.resume()
        except (UnderstudyError, OSError) as error:
            log.error("a forgetting is not finished yet: %s", error)
        await self.retention.check()
        await asyncio.to_thread(self.services.kept.prune)

    async def follow_promotions(self) -> None:
        """Has exactly the promoted students served, and publishes the routes."""
        async with self._routing:
            promotions, paused = await self.store.run(_read_promotions)
            wanted = {}
            for task, promotion in promotions.items():
                stopped = task in paused or self.config.task(task).paused
                if promotion.target == "student" and promotion.run_id and not stopped:
                    spec = await self._student(promotion.run_id, task)
                    if spec is not None:
                        wanted[task] = spec
            self.students.want(wanted)
            await self._publish(promotions, paused)

    async def publish(self) -> None:
        """Publishes the routes that follow from the promotions and the students that answer now."""
        async with self._routing:
            await self._publish(*await self.store.run(_read_promotions))

    async def _publish(self, promotions: Mapping[str, Promotion], paused: AbstractSet[str]) -> None:
        routes = routes_now(promotions, self.students.ready(), self.config, paused)
        self._published = False
        if await asyncio.to_thread(self.services.publisher.publish, routes):
            summary = ", ".join(f"{t} → {r.target} ({_state(r)})" for t, r in routes.items())
            log.info("routes published: %s", summary or "none")
        self._published = True

    def distilling_prices(self) -> dict[str, Price]:
        """Prices by the names under which runs call the teachers: those of their endpoints."""
        names = {d.upstream_model: d.model_name for d in self._pool.deployments}
        known = prices(self.config)
        return known | {u: known[n] for u, n in names.items() if n in known}

    async def _student(self, run_id: str, task: str) -> StudentSpec | None:
        """The student of a run, from the run's history. None when it cannot be served."""
        detail = await self.store.stage_detail(run_id, "trained")
        try:
            trained = trained_student(self.config.runs_dir / run_id, detail)
        except RunError as error:
            log.error("task %s: run %s: %s; the teacher answers", task, run_id, error)
            return None
        return trained.spec(run_id, self.config.task(task).student)


def _read_promotions(db: Database) -> tuple[dict[str, Promotion], set[str]]:
    """The last promotion of each task, and the tasks that are paused by hand."""
    return latest_promotions(db), paused_tasks(db)


def _state(route: Route) -> str:
    """A route's step or reason, for the log."""
    if route.target == "teacher":
        return route.reason
    return f"{route.step}, share {route.share:g}"


async def run_control_plane(config: Config, runtime: Runtime) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    page = None if runtime.control_fd is None else ControlPage(runtime.control_fd)
    heart = Heart(page)
    beating = asyncio.create_task(heart.beat())
    server = StatusServer(runtime.control_port)
    try:
        opened = await open_when_possible(
            config,
            stop,
            heart,
            lambda error: _wait_without_store(config, runtime, page, server, error),
        )
        if opened is not None:
            releases, db = opened
            with releases:
                heart.query_s = lambda: db.oldest_operation_s
                await _run(config, runtime, db, page=page, server=server, stop=stop)
    finally:
        await server.stop()
        beating.cancel()


def _wait_without_store(
    config: Config,
    runtime: Runtime,
    page: ControlPage | None,
    server: StatusServer,
    error: StoreError,
) -> None:
    """Says why there is no store, to whoever asks."""
    if page is not None:
        page.collected(ok=False, set_aside=count_set_aside(config.journal_dir), skipped=0)
        page.say(str(error))
    server.show(
        build_api_without_store(
            token=runtime.control_token,
            fault=str(error),
            clock=time.time,
            version=installed_version(),
        )
    )
    if is_damage(error):
        give_routes_to_teacher(config.routes_file, at=time.time())


async def _run(
    config: Config,
    runtime: Runtime,
    db: Database,
    *,
    page: ControlPage | None,
    server: StatusServer,
    stop: asyncio.Event,
) -> None:
    plane = ControlPlane(config, runtime, db, page)
    reporter = Reporter(
        plane.store,
        due=plane.runner.decisions.get,
        board=plane.board,
        route=plane.services.publisher.route,
        prices=plane.distilling_prices(),
        settings=config.task,
        live=plane.monitor.state,
        proxies=lambda: plane.services.publisher.proxies,
    )
    asyncio.get_running_loop().set_default_executor(plane.threads)
    api = build_api(
        token=runtime.control_token,
        status=lambda: reporter.status(plane.health, plane.students.states()),
        task_status=reporter.task,
        report_routes=plane.services.publisher.report,
        commands=plane.services.commands,
        forgetter=plane.services.forgetter,
        clock=time.time,
        version=installed_version(),
    )
    await plane.start()
    scheduler = schedule(periodic_jobs(plane))
    try:
        server.show(api)
        await server.until_stopped(stop)
    finally:
        scheduler.shutdown()
        await plane.stop()


def periodic_jobs(plane: ControlPlane) -> list[PeriodicJob]:
    """Collecting and judging, due runs, the students' health, checkpoints, deleting for age.

    The students are checked at once: those of an earlier start come back without waiting.
    """

    every = plane.config.scheduler
    return [
        PeriodicJob(plane.tick, every.ingest_seconds),
        PeriodicJob(plane.runner.check, every.due_seconds),
        PeriodicJob(plane.students.check, every.health_seconds, first_after_s=0),
        PeriodicJob(plane.store.checkpoint, CHECKPOINT_SECONDS),
        PeriodicJob(plane.tidy, TIDY_SECONDS, first_after_s=FIRST_TIDY_S),
    ]


def main() -> int:
    """Returns the exit code: 0 after a stop, 1 when the store or the config cannot be used."""
    runtime = Runtime.current()
    try:
        config = read_accepted(Path(runtime.config_path))
        configure_logging(config.server.log_level)
        asyncio.run(run_control_plane(config, runtime))
    except (UnderstudyError, ConfigError) as error:
        log.error("the control plane cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
