"""Real students: trained, served by the real `mlx_lm.server`, evaluated, killed, restarted."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from distill.dataset.answers import answers_of
from distill.evaluate.evaluate import evaluate
from distill.evaluate.evaluations import Evaluations
from distill.evaluate.scoring import choose_scorer
from distill.gate.cutoffs import choose_cutoffs
from distill.gate.gate import attempt_alpha, certify
from distill.kinds.registry import student_servers
from distill.students.server import StudentServer, free_port
from distill.students.students import Students, StudentSpec
from store.chat.student_wire import read_student_answer, student_body
from store.errors import StudentError
from store.records import TermsOfService
from store.settings.tasks import EvaluateSettings, GateSettings, StudentSettings
from tests.helpers.paths import ROOT
from tests.helpers.student_samples import BASE, rows, thinking_base

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("student_server")]

QUICK = StudentSettings(start_timeout_s=100)
SECRET = "zanzibar"


@pytest.fixture
def adapter(sample_adapter: Path) -> Path:
    """An adapter that has learnt the sample task."""
    return sample_adapter


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
        await asyncio.sleep(0.05)


def has_ended(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_a_trained_student_earns_a_certificate_through_its_own_server(
    adapter: Path, tmp_path: Path
) -> None:
    asked = [*rows(40, seed=3, split="calibration"), *rows(60, seed=4)]
    settings = EvaluateSettings(concurrency=4)
    scorer = choose_scorer(answers_of(asked), settings)
    async with StudentServer(BASE, adapter, QUICK, tmp_path) as server:
        pid = server.pid
        assert pid is not None
        assert await server.healthy()
        evaluations = await evaluate(
            server.base_url,
            asked,
            run_id="run",
            terms=TermsOfService(output=scorer.output, max_tokens=60, timeout_s=30),
            scorer=scorer,
            settings=settings,
            progress=lambda *_: None,
        )
        await malformed(server.base_url)
    assert has_ended(pid)
    assert SECRET not in (tmp_path / "student.log").read_text()

    assert [e.fault for e in evaluations] == [None] * len(asked)
    assert all(e.confidence is not None and e.confidence <= 0 for e in evaluations)
    assert sum(e.agrees for e in evaluations) >= 0.9 * len(evaluations)
    wrong = [e.confidence for e in evaluations if not e.agrees and e.confidence is not None]
    right = sorted(e.confidence for e in evaluations if e.agrees and e.confidence is not None)
    assert not wrong or max(wrong) < right[len(right) // 2]  # it knows when it is unsure

    gate = GateSettings(threshold=0.8, confidence=0.9)
    cutoffs = choose_cutoffs(
        Evaluations(evaluations).calibration,
        gate,
        heldout=60,
        alpha=attempt_alpha(gate, 1),
    )
    certificate = certify(
        Evaluations(evaluations).heldout,
        cutoffs,
        gate,
        attempt=1,
        output=scorer.output,
        task="sample",
        run_id="run",
        scorer=scorer.name,
        fingerprints=["f"],
        now=0.0,
    )
    assert certificate.passed, certificate.reason


async def malformed(base_url: str) -> None:
    """Sends bodies that mlx_lm.server would write into its log."""
    async with aiohttp.ClientSession(base_url) as session:
        for body in (f'{{"broken": "{SECRET}', f'["{SECRET}"]'):
            async with session.post("/v1/chat/completions", data=body.encode()) as answer:
                assert answer.status == 400


async def test_the_server_renders_a_prompt_exactly_as_training_did(
    adapter: Path, tmp_path: Path
) -> None:
    """Also with a base that thinks by default."""
    from mlx_lm.tokenizer_utils import load as load_tokenizer  # noqa: PLC0415 - slow to import

    from distill.train.rendering import Renderer  # noqa: PLC0415

    base = thinking_base(tmp_path)
    renderer = Renderer(load_tokenizer(base))
    row = rows(1, seed=5)[0]
    async with (
        StudentServer(str(base), adapter, QUICK, tmp_path) as server,
        aiohttp.ClientSession(server.base_url) as session,
        session.post(
            "/v1/chat/completions",
            data=student_body(row.messages, max_tokens=60),
            headers={"content-type": "application/json"},
        ) as answer,
    ):
        served = read_student_answer(await answer.read())
    assert served.input_tokens == len(renderer.prompt(row.messages))
    prompt = renderer.prompt(row.messages)
    assert served.signals is not None
    assert teacher_forced(base, adapter, prompt, served.output_tokens) == pytest.approx(
        (served.signals.lowest, served.signals.mean, served.signals.rivals), abs=1e-3
    )


def teacher_forced(
    base: Path, adapter: Path, prompt: list[int], count: int
) -> tuple[float, float, float]:
    """The signals of so many greedy tokens behind a prompt, without a server."""
    import mlx.core as mx  # noqa: PLC0415 - slow to import
    from mlx_lm import load  # noqa: PLC0415

    student, _ = load(str(base), adapter_path=str(adapter))
    tokens, chosen, rivals = list(prompt), [], []
    for _ in range(count):
        logits = student(mx.array([tokens]))[0, -1]
        rival, best = (int(place) for place in mx.argsort(logits)[-2:].tolist())  # type: ignore[union-attr]
        chosen.append((logits[best] - mx.logsumexp(logits)).item())
        rivals.append(math.exp((logits[rival] - mx.logsumexp(logits)).item()))
        tokens.append(best)
    return min(chosen), sum(chosen) / count, math.log(sum(rivals))


@contextlib.asynccontextmanager
async def impostor() -> AsyncIterator[int]:
    """Another server whose /health answers 200, as that of another student would."""
    app = web.Application()

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, headers={"Access-Control-Allow-Origin": "*"})

    app.router.add_get("/health", healthy)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def test_a_port_in_use_by_another_server_is_not_taken_for_ours(
    adapter: Path, tmp_path: Path
) -> None:
    async with impostor() as taken:
        ports = iter([taken, free_port()])
        server = StudentServer(BASE, adapter, QUICK, tmp_path, find_port=lambda: next(ports))
        async with server:
            assert server.base_url != f"http://127.0.0.1:{taken}"
            assert await server.healthy()
    assert server.pid is None
    assert not await server.healthy()


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ("broken", QUICK, "its log ends with"),
        (BASE, StudentSettings(start_timeout_s=0.3), r"student\.start_timeout_s \(0\.3 s\)"),
    ],
)
async def test_a_failed_start_raises_an_error_with_the_cause(
    adapter: Path, tmp_path: Path, base: str, settings: StudentSettings, message: str
) -> None:
    if base == "broken":
        base = str(tmp_path / "broken")
        await asyncio.to_thread((tmp_path / "broken").mkdir)
    server = StudentServer(base, adapter, settings, tmp_path / "logs")
    with pytest.raises(StudentError, match=message):
        await server.start()
    assert server.pid is None


async def test_a_killed_student_is_restarted_and_answers(adapter: Path, tmp_path: Path) -> None:
    heard = asyncio.Event()

    async def changed() -> None:
        heard.set()

    students = Students(server=student_servers(tmp_path), on_change=changed)
    students.want({"sample": StudentSpec("student-1", BASE, adapter, QUICK)})
    try:
        await until_ready(students)
        assert heard.is_set()
        assert students.ready()["sample"].student_id == "student-1"
        (process,) = [p for p in psutil.Process().children() if "mlx_lm" in p.cmdline()]
        process.kill()
        heard.clear()
        await until(lambda: has_ended(process.pid))
        while students.ready():
            await students.check()
        assert heard.is_set()
        await until_ready(students)
        assert await first_answer(students.ready()["sample"].base_url)
    finally:
        await students.stop()
    assert [p for p in psutil.Process().children() if "mlx_lm" in p.cmdline()] == []


async def until_ready(students: Students) -> None:
    while not students.ready():
        await students.check()
        await asyncio.sleep(0.1)


async def first_answer(base_url: str) -> str:
    body = student_body(rows(1, seed=6)[0].messages, max_tokens=60)
    headers = {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession(base_url) as session,
        session.post("/v1/chat/completions", data=body, headers=headers) as answer,
    ):
        return read_student_answer(await answer.read()).text


async def test_a_student_server_ends_when_its_parent_is_killed(
    adapter: Path, tmp_path: Path
) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.distill.students.test_server", str(adapter), str(tmp_path)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not has_ended(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: has_ended(pid))


async def serve_until_killed(adapter: Path, log_dir: Path) -> None:
    async with StudentServer(BASE, adapter, QUICK, log_dir) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":  # the parent that is killed
    asyncio.run(serve_until_killed(Path(sys.argv[1]), Path(sys.argv[2])))
