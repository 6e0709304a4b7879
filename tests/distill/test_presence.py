"""The server of the status API ends when it is told to, whatever its requests wait for."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from distill.presence import LAST_ANSWERS_S, StatusServer


@pytest.mark.slow
async def test_a_request_that_never_ends_does_not_keep_the_control_plane_from_stopping() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked = asyncio.Event()

    async def never(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    server = StatusServer(port)
    server.show(never)
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    writer.write(b"GET /distill/status HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await asked.wait()
    async with asyncio.timeout(LAST_ANSWERS_S + 20):
        await server.stop()
    writer.close()
