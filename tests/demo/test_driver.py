"""Starting, watching and stopping a product, and sending it traffic through the OpenAI SDK.

These tests start a small server with the same interface; the slow tests of the backtest and the
journey start the real product.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from demo.drive.driver import Product, SentRequest, send, standing
from store.errors import ConfigError, ProductError

MINIMAL = {"model_list": [{"model_name": "m", "litellm_params": {"model": "openai/m"}}]}

STAND_IN = """
import asyncio, json, os, subprocess, sys
from pathlib import Path
import yaml
from aiohttp import web

config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
data = Path(config["data_dir"])
data.mkdir(parents=True)
print("the first line", flush=True)
if "broken" in sys.argv:
    sys.exit("the last line")
if "deaf" in sys.argv:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
asked = {"status": 0, "now": 0, "most": 0}

async def health(request):
    return web.json_response({"status": "ok"})

async def status(request):
    asked["status"] += 1
    if asked["status"] == 1:
        return web.json_response({"error": {}}, status=503)
    if request.match_info["task"] == "unknown":
        return web.json_response({"detail": "no"}, status=404)
    return web.json_response({"task": request.match_info["task"], "traces": asked["status"],
                              "stage": None, "last_run": None})

async def chat(request):
    body = await request.json()
    text = body["messages"][-1]["content"]
    asked["now"] += 1
    asked["most"] = max(asked["most"], asked["now"])
    await asyncio.sleep(0.02 if text != "0" else 0.2)
    asked["now"] -= 1
    headers = {"x-understudy-route": "student", "x-understudy-reason": "certified",
               "x-understudy-trace": "trace " + text, "x-understudy-most": str(asked["most"]),
               "x-understudy-task": request.headers.get("x-understudy-task", "")}
    if text == "fail":
        return web.json_response({"error": {"message": "the secret", "type": "t"}}, status=404,
                                 headers=headers)
    if text == "hang up":
        request.transport.close()
    content = None if text == "nothing" else f"{asked['most']} {text}"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant",
              "content": content}}
    return web.json_response({"id": "1", "object": "chat.completion", "created": 1, "model": "m",
                              "choices": [choice]}, headers=headers)

async def main():
    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/distill/status/{task}", status)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    if "mute" not in sys.argv:
        lock = json.dumps({"pid": os.getpid(), "url": f"http://127.0.0.1:{port}"})
        (data / "serve.lock").write_text(lock)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    file = tmp_path / "stand_in.py"
    file.write_text(STAND_IN)
    return file


def product(stand_in: Path, *how: str, **settings: Any) -> Product:
    command: Sequence[str] = [sys.executable, str(stand_in), *how]
    return Product(stand_in.parent / "product", MINIMAL, command=command, **settings)


@pytest.fixture
async def client(stand_in: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with product(stand_in) as running, running.client(timeout_s=10) as found:
        yield found


def has_printed(running: Product) -> None:
    """Returns when the process is up far enough to have printed something."""
    while not (running.log_file.exists() and running.log_file.read_text()):
        time.sleep(0.02)


async def ask(client: openai.AsyncOpenAI, *texts: str, **how: Any) -> list[SentRequest]:
    requests = [[{"role": "user", "content": text}] for text in texts]
    return await send(client, requests, **{"task": "t", "model": "m", **how})


# ---- the product -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_product_starts_answers_and_stops(stand_in: Path) -> None:
    async with product(stand_in) as running:
        process = psutil.Process(running.pid)
        assert process.is_running()
        assert running.base_url.startswith("http://127.0.0.1:")
        assert await running.status("t") is None  # 503: the control plane is still starting
        status = await running.status("t")
        assert status is not None
        assert status["task"] == "t"
        assert await running.status("unknown") is None
        written = (running.folder / "config.yaml").read_text()
        assert "port: 0" in written
        assert str(running.folder / "data") in written
    assert not process.is_running()


@pytest.mark.slow
async def test_wait_passes_on_every_status_until_the_condition_holds(stand_in: Path) -> None:
    seen: list[int] = []
    async with product(stand_in) as running:
        status = await running.wait(
            "t",
            lambda s: s["traces"] >= 4,
            timeout_s=30,
            every_s=0.01,
            watch=lambda s: seen.append(s["traces"]),
        )
        assert status["traces"] == 4
        assert seen == [2, 3, 4]
        with pytest.raises(ProductError, match=r"task t: .* traces, no run yet"):
            await running.wait("t", lambda s: False, timeout_s=0.05, every_s=0.01)
        with pytest.raises(ProductError, match="never given"):
            await running.wait("unknown", lambda s: True, timeout_s=0.05, every_s=0.01)


@pytest.mark.slow
async def test_a_product_that_ends_at_once_is_an_error_with_its_last_lines(stand_in: Path) -> None:
    with pytest.raises(ProductError, match=r"exit code 1[^$]*the first line\n  the last line"):
        async with product(stand_in, "broken"):
            pass


@pytest.mark.slow
async def test_a_product_that_never_answers_is_stopped_again(stand_in: Path) -> None:
    running = product(stand_in, "mute", start_timeout_s=0.5)
    with pytest.raises(ProductError, match="did not answer /health"):
        await running.__aenter__()
    assert not psutil.pid_exists(running.pid)


@pytest.mark.slow
async def test_a_product_that_does_not_stop_is_killed_with_its_children(stand_in: Path) -> None:
    async with product(stand_in, "deaf", stop_timeout_s=0.5) as running:
        children = psutil.Process(running.pid).children()
        assert len(children) == 1
    assert not psutil.pid_exists(running.pid)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.slow
async def test_a_product_that_dies_during_a_wait_is_an_error(stand_in: Path) -> None:
    async with product(stand_in) as running:
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(ProductError, match="exit code -9"):
            await running.wait("t", lambda s: False, timeout_s=30, every_s=0.01)


def test_a_config_that_cannot_be_used_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_setting"):
        Product(tmp_path, {**MINIMAL, "no_such_setting": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_product_that_was_not_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="not started"):
        _ = Product(tmp_path, MINIMAL).pid


def test_the_state_of_a_task_is_described() -> None:
    stage = {"stage": "train", "done": 3.0, "total": 9.5}
    last = {"state": "rejected", "reason": "too few"}
    assert standing({"stage": stage, "last_run": last}) == "stage train, 3 of 9.5"
    assert standing({"stage": None, "last_run": last}) == "last run rejected: too few"


# ---- the clients -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_answers_come_in_the_order_of_the_requests(client: openai.AsyncOpenAI) -> None:
    heard: list[str | None] = []
    found = await ask(
        client, *map(str, range(12)), concurrency=4, done=lambda e: heard.append(e.trace)
    )
    assert [e.trace for e in found] == [f"trace {i}" for i in range(12)]
    assert sorted(map(str, heard)) == sorted(f"trace {i}" for i in range(12))
    assert heard[0] != "trace 0"  # the slowest one comes last: the others did not wait for it
    assert {(e.task, e.route, e.reason, e.error) for e in found} == {
        ("t", "student", "certified", None)
    }
    assert all(e.answer and e.answer.endswith(f" {i}") for i, e in enumerate(found))
    assert all(e.latency_ms > 0 for e in found)
    most_at_once = max(int(str(e.answer).split()[0]) for e in found)
    assert most_at_once <= 4


@pytest.mark.slow
async def test_requests_without_a_task_are_untagged(client: openai.AsyncOpenAI) -> None:
    (found,) = await ask(client, "x", task=None)
    assert found.task == ""


@pytest.mark.slow
async def test_errors_are_reported_by_type_and_status_alone(client: openai.AsyncOpenAI) -> None:
    found = await ask(client, "fail", "hang up", "nothing", "fine")
    assert [e.error for e in found] == [
        "NotFoundError 404",
        "APIConnectionError",
        "no text in the answer",
        None,
    ]
    assert [e.answer is None for e in found] == [True, True, True, False]
    assert found[0].route == "student"
    assert found[1].route is None
    assert "secret" not in repr(found)


@pytest.mark.slow
async def test_sending_no_requests_returns_nothing(client: openai.AsyncOpenAI) -> None:
    assert await ask(client) == []


@pytest.mark.slow
async def test_a_cancelled_start_leaves_nothing_behind(stand_in: Path) -> None:
    running = product(stand_in, "mute")
    starting = asyncio.create_task(running.__aenter__())
    await asyncio.to_thread(has_printed, running)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not psutil.pid_exists(running.pid)
