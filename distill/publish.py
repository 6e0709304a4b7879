"""From promotions and running students to `routes.json`: what the proxy does with each task now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from distill.students.students import ReadyStudent
from store.files.routes import publish_routes
from store.records import (
    Promotion,
    Reason,
    Route,
)
from store.settings.config import Config


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
    """Writes `routes.json` whenever the routes have changed."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._published: dict[str, Route] | None = None

    @property
    def routes(self) -> dict[str, Route]:
        """The routes that were published last."""
        return self._published or {}

    def route(self, task: str) -> Route | None:
        """The route of a task as it was published last."""
        return self.routes.get(task)

    def publish(self, routes: dict[str, Route]) -> bool:
        """Publishes the routes when they differ from the last ones. Returns whether it wrote."""
        if routes == self._published:
            return False
        publish_routes(self._path, routes, at=self._clock())
        self._published = dict(routes)
        return True
