"""Amplification that is killed, runs out of tokens, or has finished already."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from demo.teacher.teacher import start_teacher
from distill.dataset.rows import write_rows
from store.files.atomic import read_lines
from store.records import TeacherCall
from tests.helpers.amplifying import amplified, kept
from tests.helpers.demo_rows import JSON, rows_of
from tests.helpers.paths import ROOT

# ---- kills and resuming -------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_finished_amplification_is_not_paid_again(tmp_path: Path) -> None:
    rows = rows_of(JSON, 40)
    async with await start_teacher() as teacher:
        first = await amplified(tmp_path, teacher.base_url, rows)
        paid = dict(teacher.counts)
        assert await amplified(tmp_path, teacher.base_url, rows) == first
        assert teacher.counts == paid
        more = await amplified(tmp_path, teacher.base_url, rows, target=60)
        assert len(kept(more)) == 60
        assert teacher.counts[f"answers/{JSON}"] == 60


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another process cannot set an event
        await asyncio.sleep(0.01)


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.helpers.demo_rows import RUN, a_client, a_policy, hashes
from distill.amplify.amplify import amplify
from distill.dataset.answers import answers_of
from distill.dataset.rows import read_rows
from store.settings.tasks import (AmplifySettings)

async def main(folder, url):
    rows = read_rows(folder / "rows.jsonl")
    async with a_client(url) as client:
        await amplify(
            folder / "amplify", run_id=RUN, task="a-task", policy=a_policy(),
            answers=answers_of(rows), rows=rows,
            forbidden=hashes(rows), client=client,
            settings=AmplifySettings(target=40, batch=8, context=4), progress=lambda *_: None,
        )

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.slow
async def test_kill_minus_nine_at_any_point_pays_for_nothing_twice(tmp_path: Path) -> None:
    """Killed after some answers several times, then run to its end.

    The teacher delays its next replies while the process is killed, so the replies so far are
    exactly those that were paid for.
    """
    rows = rows_of(JSON, 40)
    write_rows(tmp_path / "rows.jsonl", rows)
    inputs_file, answers_file = (
        tmp_path / "amplify" / name for name in ("inputs.jsonl", "answers.jsonl")
    )
    teacher = await start_teacher()

    def replies() -> int:
        return sum(teacher.counts.values())

    def bought() -> int:
        return len(read_lines(inputs_file)) + len(read_lines(answers_file))

    for kill_at in (1, 9, 30):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED, str(tmp_path), teacher.base_url),
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}"},
            stderr=subprocess.DEVNULL,
        )
        await until(lambda least=kill_at: replies() >= least)
        teacher.latency_s = 3600
        await until(lambda: bought() == replies())
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        teacher.latency_s = 0
        assert not (tmp_path / "amplify" / "manifest.json").exists()

    result = await amplified(tmp_path / "amplify", teacher.base_url, rows)
    await teacher.stop()
    assert len(kept(result)) == 40
    answered = [line["example_id"] for line in read_lines(answers_file)]
    assert len(answered) == len(set(answered)) == teacher.counts[f"answers/{JSON}"] == 40
    assert len(read_lines(inputs_file)) == teacher.counts["inputs"]
    assert teacher.counts.keys() == {"inputs", f"answers/{JSON}"}


@pytest.mark.slow
async def test_a_torn_last_line_is_dropped_on_resuming(tmp_path: Path) -> None:
    rows = rows_of(JSON, 40)
    async with await start_teacher() as teacher:
        await amplified(tmp_path, teacher.base_url, rows, target=20)
        (tmp_path / "manifest.json").unlink()
        for name in ("inputs.jsonl", "answers.jsonl"):
            file = tmp_path / name
            file.write_bytes(file.read_bytes()[:-30])
        result = await amplified(tmp_path, teacher.base_url, rows, target=25)
    assert len(kept(result)) == 25
    for name in ("inputs.jsonl", "answers.jsonl"):
        for line in (tmp_path / name).read_bytes().splitlines():
            orjson.loads(line)


# ---- the budget ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_spent_budget_stops_amplification_and_a_larger_one_resumes_it(
    tmp_path: Path,
) -> None:
    rows = rows_of(JSON, 40)
    calls: list[TeacherCall] = []
    async with await start_teacher() as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows, budget=6000, calls=calls)
        spent = sum(c.input_tokens + c.output_tokens for c in calls)
        assert 3000 < spent <= 6000
        assert 0 < len(kept(result)) < 40
        assert result.stopped.startswith("token budget: ")
        assert "amplify.token_budget" in result.stopped

        more = await amplified(
            tmp_path, teacher.base_url, rows, budget=100_000, calls=calls, token_budget=100_000
        )
    assert len(kept(more)) == 40
    assert {e.example_id for e in kept(result)} <= {e.example_id for e in kept(more)}
    assert teacher.counts[f"answers/{JSON}"] == 40


async def test_budget_0_makes_no_call(tmp_path: Path) -> None:
    async with await start_teacher() as teacher:
        result = await amplified(tmp_path, teacher.base_url, rows_of(JSON, 10), budget=0)
        assert teacher.counts == {}
    assert result.examples == []
    assert result.stopped.startswith("token budget: 0 of 0 tokens")
