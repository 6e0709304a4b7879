"""The supervisor of students: who is started, restarted, waited for and stopped, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.students.students import Students, StudentSpec
from store.errors import StudentError

Ready = dict[str, tuple[str, str]]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptedServer:
    """A server that starts, fails and dies as a test wants it."""

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


class Stage:
    """Students with scripted servers and a clock, and what they told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.servers: dict[str, ScriptedServer] = {}
        self.told: list[Ready] = []
        self.students = Students(
            log_dir=Path("unused"), on_change=self._hear, clock=self.clock, server=self._serve
        )

    def want(self, **student_ids: str) -> None:
        self.students.want(
            {task: StudentSpec(sid, "base", Path(sid)) for task, sid in student_ids.items()}
        )

    async def check(self, *, after: float = 0) -> None:
        """Checks, and lets what was started come up."""
        self.clock.now += after
        await self.students.check()
        for _ in range(9):
            await asyncio.sleep(0)

    async def _hear(self) -> None:
        self.told.append(self.students.ready())

    def _serve(self, spec: StudentSpec) -> ScriptedServer:
        return self.servers.setdefault(spec.student_id, ScriptedServer(spec.student_id))


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_what_is_wanted_is_started_and_told(stage: Stage) -> None:
    stage.want(triage="s1", orders="s2")
    assert stage.students.ready() == {}
    await stage.check()
    assert stage.students.ready() == {
        "triage": ("s1", "http://s1:1"),
        "orders": ("s2", "http://s2:1"),
    }
    assert stage.told[-1] == stage.students.ready()
    assert stage.students.states() == {"triage": "ready", "orders": "ready"}
    told = len(stage.told)
    for _ in range(5):
        await stage.check(after=2)
    assert len(stage.told) == told  # nothing new, nothing told
    assert [s.starts for s in stage.servers.values()] == [1, 1]


async def test_a_check_does_not_wait_for_a_start(stage: Stage) -> None:
    slow = stage.servers["s1"] = ScriptedServer("s1")
    slow.gate.clear()
    stage.want(triage="s1", orders="s2")
    await stage.check()
    await stage.check()
    assert stage.students.states() == {"triage": "starting", "orders": "ready"}
    assert slow.starts == 1
    slow.gate.set()
    await stage.check()
    assert "triage" in stage.students.ready()


async def test_a_dead_student_is_restarted_after_a_pause_that_doubles(stage: Stage) -> None:
    stage.want(triage="s1")
    await stage.check()
    server = stage.servers["s1"]
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        server.running = False
        await stage.check()
        assert stage.students.ready() == {}
        assert stage.told[-1] == {}
        assert stage.students.states()["triage"] == "down: its process ended"
        starts = server.starts
        await stage.check(after=pause - 0.1)
        assert server.starts == starts
        await stage.check(after=0.1)
        assert server.starts == starts + 1
        assert stage.told[-1] == {"triage": ("s1", f"http://s1:{starts + 1}")}


async def test_a_student_that_proved_itself_is_restarted_soon(stage: Stage) -> None:
    stage.want(triage="s1")
    await stage.check()
    server = stage.servers["s1"]
    for _ in range(4):
        server.running = False
        await stage.check()
        await stage.check(after=8)
    await stage.check(after=60)
    server.running = False
    await stage.check()
    starts = server.starts
    await stage.check(after=1)
    assert server.starts == starts + 1


async def test_a_start_that_fails_is_tried_again_for_ever(stage: Stage) -> None:
    server = stage.servers["s1"] = ScriptedServer("s1")
    server.refuse = True
    stage.want(triage="s1")
    for _ in range(2000):
        await stage.students.check()
        await asyncio.sleep(0)
        stage.clock.now += 60
    assert 1900 <= server.starts <= 2000
    assert stage.students.states()["triage"] == "down: the base cannot be loaded"
    server.refuse = False
    await stage.check(after=60)
    assert "triage" in stage.students.ready()


async def test_a_student_that_hangs_is_given_some_checks(stage: Stage) -> None:
    stage.want(triage="s1")
    await stage.check()
    server = stage.servers["s1"]
    for misses in range(5):  # now and then one
        server.answering = bool(misses % 2)
        await stage.check()
    server.answering = True
    await stage.check()
    assert (server.stops, "triage" in stage.students.ready()) == (0, True)
    server.answering = False
    for _ in range(3):
        await stage.check()
    assert (server.stops, stage.students.ready()) == (1, {})
    assert "3 health checks" in stage.students.states()["triage"]


async def test_another_student_for_a_task(stage: Stage) -> None:
    """The old one is not routed to any more, but lives until proxies know."""
    stage.want(triage="s1")
    await stage.check()
    stage.want(triage="s2")
    assert stage.students.ready() == {}
    await stage.check()
    assert stage.students.ready() == {"triage": ("s2", "http://s2:1")}
    assert stage.servers["s1"].running
    await stage.check()
    assert not stage.servers["s1"].running
    assert stage.servers["s1"].stops == 1


async def test_wanting_the_same_again_changes_nothing(stage: Stage) -> None:
    stage.want(triage="s1")
    await stage.check()
    stage.want(triage="s1")
    await stage.check()
    assert (stage.servers["s1"].starts, stage.servers["s1"].stops) == (1, 0)


async def test_a_student_that_leaves_while_it_starts_is_stopped(stage: Stage) -> None:
    server = stage.servers["s1"] = ScriptedServer("s1")
    server.gate.clear()
    stage.want(triage="s1")
    await stage.check()
    stage.want()
    await stage.check()
    await stage.check()
    server.gate.set()
    await stage.check()
    assert not server.running
    assert stage.students.states() == {}


@pytest.mark.parametrize("when", ["starting", "ready", "leaving"])
async def test_stop_stops_all(stage: Stage, when: str) -> None:
    server = stage.servers["s1"] = ScriptedServer("s1")
    if when == "starting":
        server.gate.clear()
    stage.want(triage="s1")
    await stage.check()
    if when == "leaving":
        stage.want()
    await stage.students.stop()
    server.gate.set()
    await stage.check()
    assert not server.running
    assert server.stops >= 1
    assert stage.students.ready() == {}


async def test_what_could_not_be_told_is_told_again() -> None:
    """A route that could not be published must not be forgotten."""
    heard = 0

    async def hear() -> None:
        nonlocal heard
        heard += 1
        if heard == 1:
            raise OSError("disk full")

    make: Callable[[StudentSpec], ScriptedServer] = lambda spec: ScriptedServer(spec.student_id)  # noqa: E731
    students = Students(log_dir=Path("unused"), on_change=hear, server=make)
    students.want({"triage": StudentSpec("s1", "base", Path("s1"))})
    await students.check()
    for _ in range(9):
        await asyncio.sleep(0)
    await students.check()
    assert heard == 2
    await students.check()
    assert heard == 2
    await students.stop()
