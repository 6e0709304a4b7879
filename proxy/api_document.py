"""`GET /openapi.json`: what the data plane serves, as OpenAPI 3.1. See proxy/openapi.yaml."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import yaml

from proxy.http.asgi import JSON, Receive, Scope, Send, respond

PATH = "/openapi.json"
_FILE = Path(__file__).with_name("openapi.yaml")


class ApiDocument:
    """Serves the document without a key: it describes the software, not its use."""

    def __init__(self) -> None:
        self._content: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._content is None:
            self._content = await asyncio.to_thread(_read)
        await respond(send, 200, [JSON], self._content)


def _read() -> bytes:
    return orjson.dumps(yaml.safe_load(_FILE.read_bytes()))
