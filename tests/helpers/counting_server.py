"""A server for chat completions that counts how many it has to work on at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def counting(
    answer: Callable[[dict[str, Any]], dict[str, Any]],
) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """A server's URL, and how many requests it had to work on at a time, at most."""
    under_way = most = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return web.json_response(answer(await request.json()))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", lambda: most
    finally:
        await runner.cleanup()


def student_says(text: str) -> dict[str, Any]:
    """An answer in mlx_lm.server's shape."""
    choice = {
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": [{"id": 1, "logprob": -0.1}]},
    }
    return {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
