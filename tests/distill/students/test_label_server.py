"""The process of all label students, for real."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.evaluate.evaluate import ask_row, student_session
from distill.kinds.registry import student_servers
from distill.label.files import save
from distill.students.students import StudentSpec
from store.errors import StudentError
from store.records import Reason, TermsOfService
from store.settings.tasks import StudentSettings
from tests.helpers.label_samples import fitted, label_rows, label_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("label") / "adapter"
    save(path, fitted(label_samples(300, 1), label_samples(150, 2)))
    return path


def spec(student_id: str, folder: Path) -> StudentSpec:
    return StudentSpec(student_id, "", folder, StudentSettings(start_timeout_s=30), "label")


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - polls a process
        await asyncio.sleep(0.01)


async def test_students_of_one_machine_share_a_process(tmp_path: Path, folder: Path) -> None:
    make = student_servers(tmp_path)
    one, two = make(spec("one", folder)), make(spec("two", folder))
    await one.start()
    await two.start()
    assert one.pid == two.pid is not None
    assert one.base_url != two.base_url
    rows = label_rows(20, 3)
    async with student_session(two.base_url) as session:
        replies = [await ask_row(session, TermsOfService(output="label"), row) for row in rows]
    agreed = sum(
        r.answer is not None and r.answer.text == row.target
        for r, row in zip(replies, rows, strict=True)
    )
    assert agreed >= 18
    assert all(r.fault in (None, Reason.STUDENT_UNFAMILIAR) for r in replies)

    await one.stop()
    assert not await one.healthy()
    assert await two.healthy()
    await two.stop()
    assert two.pid is None


async def test_a_damaged_student_does_not_start_and_harms_no_other(
    tmp_path: Path, folder: Path
) -> None:
    make = student_servers(tmp_path)
    good, bad = make(spec("good", folder)), make(spec("bad", tmp_path / "nothing"))
    await good.start()
    with pytest.raises(StudentError, match="missing"):
        await bad.start()
    await bad.stop()
    assert await good.healthy()
    await good.stop()


async def test_students_come_back_after_their_process_was_killed(
    tmp_path: Path, folder: Path
) -> None:
    make = student_servers(tmp_path)
    one, two = make(spec("one", folder)), make(spec("two", folder))
    await one.start()
    await two.start()
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    await until(lambda: one.pid is None)
    assert not await one.healthy()
    await one.stop()
    await one.start()
    assert await one.healthy()
    assert two.pid is None  # nobody has loaded it again yet
    assert two.base_url
    await two.stop()
    await two.start()
    assert await two.healthy()
    await asyncio.gather(one.stop(), two.stop())


async def test_a_start_that_is_given_up_leaves_the_process_usable(
    tmp_path: Path, folder: Path
) -> None:
    make = student_servers(tmp_path)
    one, two = make(spec("one", folder)), make(spec("two", folder))
    starting = asyncio.create_task(one.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await two.start()
    await one.stop()
    assert await two.healthy()
    await two.stop()


async def test_a_process_that_hangs_is_replaced(tmp_path: Path, folder: Path) -> None:
    make = student_servers(tmp_path)
    one = make(spec("one", folder))
    await one.start()
    stuck = one.pid
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    hasty = StudentSpec("two", "", folder, StudentSettings(start_timeout_s=0.2), "label")
    with pytest.raises(StudentError, match="not loaded within"):
        await make(hasty).start()
    await until(lambda: one.pid != stuck)
    await one.stop()
    await one.start()
    assert await one.healthy()
    assert one.pid != stuck
    await one.stop()
