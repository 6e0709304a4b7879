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
    """The document, for anybody: it says what the software does, not what it is used for."""

    def __init__(self) -> None:
        self._written: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._written is None:
            self._written = await asyncio.to_thread(_read)
        await respond(send, 200, [JSON], self._written)


def _read() -> bytes:
    return orjson.dumps(yaml.safe_load(_FILE.read_bytes()))
