"""From promotions and running students to `routes.json`: what the proxy does with each task now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from distill.status.status import ProxyRoutes
from distill.students.students import ReadyStudent
from store.errors import StoreError
from store.files.routes import NO_ROUTES, publish_routes, published_digest, read_routes
from store.records import (
    Promotion,
    Reason,
    Route,
)
from store.settings.config import Config

MAX_VERSIONS = 16

log = logging.getLogger("understudy.publish")


def routes_now(
    promotions: Mapping[str, Promotion],
    ready: Mapping[str, ReadyStudent],
    config: Config,
    paused: AbstractSet[str] = frozenset(),
) -> dict[str, Route]:
    """Each task's route, of those that have or had a student.

    `ready`: the students that answer now, by task. A promoted task without one is answered by the
    teacher meanwhile, with that reason. A student in shadow has a share of 0.
    `paused`: the tasks that are paused by hand.
    """
    routes = {}
    for task, promotion in promotions.items():
        route = _certified(promotion)
        if route is None:
            continue
        student = ready.get(task)
        if task in paused or config.task(task).paused:
            route = replace(route, target="teacher", reason=Reason.PAUSED)
        elif route.target == "student" and (
            student is None or student.student_id != route.student_id
        ):
            route = replace(route, target="teacher", reason=Reason.STUDENT_STARTING)
        elif route.target == "student" and student is not None:
            route = replace(route, base_url=student.base_url)
        routes[task] = route
    return routes


def _certified(promotion: Promotion) -> Route | None:
    """The route of a promotion, as if its student were up."""
    if promotion.target == "student":
        return promotion.route
    return Route(
        task=promotion.task, target="teacher", reason=Reason.DEMOTED, share=0.0, at=promotion.at
    )


class Publisher:
    """Writes `routes.json` whenever the routes have changed, or the file is not as it was written.

    It also knows which routes the proxies have: they report the digests of what they read.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._published: dict[str, Route] | None = None
        self._digest = NO_ROUTES
        # by digest, newest last: what proxies may have that did not read the last version yet
        self._versions: dict[int, dict[str, Route]] = {NO_ROUTES: {}}
        self._held: list[int] = []  # as the proxies reported last

    @property
    def routes(self) -> dict[str, Route]:
        """The routes that were published last."""
        return self._published or {}

    def route(self, task: str) -> Route | None:
        """The route of a task as the proxies have it, as far as they reported; else as published.

        Where they differ, that of the most.
        """
        known = [digest for digest in self._held if digest in self._versions]
        if not known:
            return self.routes.get(task)
        return self._versions[max(known, key=known.count)].get(task)

    def report(self, digests: Sequence[int]) -> None:
        """The proxies' workers say which versions of the file they have."""
        self._held = list(digests)

    @property
    def proxies(self) -> ProxyRoutes | None:
        """What the proxies reported last; None before."""
        if not self._held:
            return None
        return ProxyRoutes(workers=len(self._held), current=self._held.count(self._digest))

    def publish(self, routes: dict[str, Route]) -> bool:
        """Publishes the routes when they differ from the last ones, or from what the file says.

        Returns whether they differ from the last ones. Raises StoreError.
        """
        if routes == self._published:
            self.restore()
            return False
        self._write(routes)
        return True

    def restore(self) -> None:
        """Writes the last routes again if the file was deleted, damaged or edited.

        Raises StoreError.
        """
        if self._published is not None and published_digest(self._path) != self._digest:
            log.warning("%s is not as it was published, and is written again", self._path.name)
            self._write(self._published)

    def _write(self, routes: dict[str, Route]) -> None:
        if self._published is None:
            self._remember(published_digest(self._path), _read_or_none(self._path))
        digest = publish_routes(self._path, routes, at=self._clock())
        self._published, self._digest = dict(routes), digest
        self._remember(digest, self._published)

    def _remember(self, digest: int | None, routes: dict[str, Route] | None) -> None:
        if digest is not None and routes is not None:
            self._versions.pop(digest, None)
            self._versions[digest] = routes
        while len(self._versions) > MAX_VERSIONS:
            oldest = next(known for known in self._versions if known != NO_ROUTES)
            del self._versions[oldest]


def _read_or_none(path: Path) -> dict[str, Route] | None:
    try:
        return read_routes(path)
    except StoreError:
        return None
