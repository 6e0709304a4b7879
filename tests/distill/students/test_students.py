"""The supervisor of students: when each one is started, restarted and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.students.students import ReadyStudent, Students, StudentSpec
from store.errors import StudentError

Ready = dict[str, ReadyStudent]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptedServer:
    """A server that starts, fails and dies as a test scripts it."""

    def __init__(self, student_id: str) -> None:
        self.student_id = student_id
        self.starts = self.stops = 0
        self.running = False
        self.answering = True
        self.refuse = False
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def base_url(self) -> str:
        return f"http://{self.student_id}:{self.starts}"

    @property
    def pid(self) -> int | None:
        return 7 if self.running else None

    async def start(self) -> None:
        self.starts += 1
        await self.gate.wait()
        if self.refuse:
            raise StudentError("the base cannot be loaded")
        self.running = True

    async def stop(self) -> None:
        self.stops += 1
        self.running = False

    async def healthy(self) -> bool:
        return self.running and self.answering


class SupervisorScene:
    """Students with scripted servers and a clock, and the changes that they reported."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.servers: dict[str, ScriptedServer] = {}
        self.reports: list[Ready] = []
        self.students = Students(on_change=self._report, clock=self.clock, server=self._serve)

    def want(self, **student_ids: str) -> None:
        self.students.want(
            {task: StudentSpec(sid, "base", Path(sid)) for task, sid in student_ids.items()}
        )

    async def check(self, *, after: float = 0) -> None:
        """Checks, and gives the event loop time for the starts."""
        self.clock.now += after
        await self.students.check()
        for _ in range(9):
            await asyncio.sleep(0)

    async def _report(self) -> None:
        self.reports.append(self.students.ready())

    def _serve(self, spec: StudentSpec) -> ScriptedServer:
        return self.servers.setdefault(spec.student_id, ScriptedServer(spec.student_id))


@pytest.fixture
def scene() -> SupervisorScene:
    return SupervisorScene()


async def test_wanted_students_are_started_and_reported_once(scene: SupervisorScene) -> None:
    scene.want(triage="s1", orders="s2")
    assert scene.students.ready() == {}
    await scene.check()
    assert scene.students.ready() == {
        "triage": ReadyStudent("s1", "http://s1:1"),
        "orders": ReadyStudent("s2", "http://s2:1"),
    }
    assert scene.reports[-1] == scene.students.ready()
    assert scene.students.states() == {"triage": "ready", "orders": "ready"}
    reported = len(scene.reports)
    for _ in range(5):
        await scene.check(after=2)
    assert len(scene.reports) == reported
    assert [s.starts for s in scene.servers.values()] == [1, 1]


async def test_a_check_does_not_wait_for_a_slow_start(scene: SupervisorScene) -> None:
    slow = scene.servers["s1"] = ScriptedServer("s1")
    slow.gate.clear()
    scene.want(triage="s1", orders="s2")
    await scene.check()
    await scene.check()
    assert scene.students.states() == {"triage": "starting", "orders": "ready"}
    assert slow.starts == 1
    slow.gate.set()
    await scene.check()
    assert "triage" in scene.students.ready()


async def test_a_dead_student_is_restarted_with_doubling_delays(scene: SupervisorScene) -> None:
    scene.want(triage="s1")
    await scene.check()
    server = scene.servers["s1"]
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        server.running = False
        await scene.check()
        assert scene.students.ready() == {}
        assert scene.reports[-1] == {}
        assert scene.students.states()["triage"] == "down: its process ended"
        starts = server.starts
        await scene.check(after=pause - 0.1)
        assert server.starts == starts
        await scene.check(after=0.1)
        assert server.starts == starts + 1
        assert scene.reports[-1] == {"triage": ReadyStudent("s1", f"http://s1:{starts + 1}")}


async def test_the_back_off_of_a_student_that_was_stable_starts_anew(
    scene: SupervisorScene,
) -> None:
    scene.want(triage="s1")
    await scene.check()
    server = scene.servers["s1"]
    for _ in range(4):
        server.running = False
        await scene.check()
        await scene.check(after=8)
    await scene.check(after=60)
    server.running = False
    await scene.check()
    starts = server.starts
    await scene.check(after=1)
    assert server.starts == starts + 1


@pytest.mark.slow
async def test_a_failing_start_is_retried_without_limit(scene: SupervisorScene) -> None:
    server = scene.servers["s1"] = ScriptedServer("s1")
    server.refuse = True
    scene.want(triage="s1")
    for _ in range(2000):
        await scene.students.check()
        await asyncio.sleep(0)
        scene.clock.now += 60
    assert 1900 <= server.starts <= 2000
    assert scene.students.states()["triage"] == "down: the base cannot be loaded"
    server.refuse = False
    await scene.check(after=60)
    assert "triage" in scene.students.ready()


async def test_a_hanging_student_is_stopped_only_after_three_missed_checks(
    scene: SupervisorScene,
) -> None:
    scene.want(triage="s1")
    await scene.check()
    server = scene.servers["s1"]
    for misses in range(5):  # now and then one
        server.answering = bool(misses % 2)
        await scene.check()
    server.answering = True
    await scene.check()
    assert (server.stops, "triage" in scene.students.ready()) == (0, True)
    server.answering = False
    for _ in range(3):
        await scene.check()
    assert (server.stops, scene.students.ready()) == (1, {})
    assert "3 health checks" in scene.students.states()["triage"]


async def test_a_replaced_student_is_stopped_only_after_proxies_have_read_the_routes(
    scene: SupervisorScene,
) -> None:
    """It leaves `ready` at once and keeps running for one more check."""
    scene.want(triage="s1")
    await scene.check()
    scene.want(triage="s2")
    assert scene.students.ready() == {}
    await scene.check()
    assert scene.students.ready() == {"triage": ReadyStudent("s2", "http://s2:1")}
    assert scene.servers["s1"].running
    await scene.check()
    assert not scene.servers["s1"].running
    assert scene.servers["s1"].stops == 1


async def test_wanting_the_same_student_again_restarts_nothing(scene: SupervisorScene) -> None:
    scene.want(triage="s1")
    await scene.check()
    scene.want(triage="s1")
    await scene.check()
    assert (scene.servers["s1"].starts, scene.servers["s1"].stops) == (1, 0)


async def test_a_student_unwanted_during_its_start_is_stopped(scene: SupervisorScene) -> None:
    server = scene.servers["s1"] = ScriptedServer("s1")
    server.gate.clear()
    scene.want(triage="s1")
    await scene.check()
    scene.want()
    await scene.check()
    await scene.check()
    server.gate.set()
    await scene.check()
    assert not server.running
    assert scene.students.states() == {}


@pytest.mark.parametrize("when", ["starting", "ready", "unwanted"])
async def test_stop_stops_students_in_every_state(scene: SupervisorScene, when: str) -> None:
    server = scene.servers["s1"] = ScriptedServer("s1")
    if when == "starting":
        server.gate.clear()
    scene.want(triage="s1")
    await scene.check()
    if when == "unwanted":
        scene.want()
    await scene.students.stop()
    server.gate.set()
    await scene.check()
    assert not server.running
    assert server.stops >= 1
    assert scene.students.ready() == {}


async def test_a_change_that_could_not_be_published_is_reported_again() -> None:
    """Else its route would be missing until the next change."""
    published = 0

    async def publish() -> None:
        nonlocal published
        published += 1
        if published == 1:
            raise OSError("disk full")

    make: Callable[[StudentSpec], ScriptedServer] = lambda spec: ScriptedServer(spec.student_id)  # noqa: E731
    students = Students(on_change=publish, server=make)
    students.want({"triage": StudentSpec("s1", "base", Path("s1"))})
    await students.check()
    for _ in range(9):
        await asyncio.sleep(0)
    await students.check()
    assert published == 2
    await students.check()
    assert published == 2
    await students.stop()
