"""The server of label students: one process, on loopback, for all of a machine.

    python -m store.process.leash distill.label.server

It takes its port from the operating system and prints it. Then it reads commands from standard
input, a JSON object a line, and prints a line for each: `{"load": ID, "folder": PATH}` is answered
by `{"id": ID, "error": ""}` or the error, `{"unload": ID}` likewise. So only the process that has
started it chooses what is loaded, and nothing that comes by HTTP becomes a path.

    POST /students/ID/v1/chat/completions    the student wire: store.chat.student_wire
    GET  /students/ID/health                 200 when it is loaded, else 404
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from distill.label.files import load
from distill.label.model import MIN_LOGPROB, LabelModel
from store.chat.student_wire import UNFAMILIAR
from store.errors import StudentError
from store.jsontext import JsonObject

HOST = "127.0.0.1"
PREFIX = "/students/"
COMPLETIONS = "/v1/chat/completions"
MAX_BODY = 64 * 2**20
BYTES_PER_TOKEN = 4  # about what the tokenizers of large models make of English

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("understudy.label")


class LabelStudents:
    """The loaded students, as an ASGI application."""

    def __init__(self) -> None:
        self._models: dict[str, LabelModel] = {}

    def command(self, line: bytes) -> JsonObject:
        """Carries out a command; the result names the student, and the error if there is one."""
        try:
            command = orjson.loads(line)
            if "unload" in command:
                self._models.pop(command["unload"], None)
                return {"id": command["unload"], "error": ""}
            student_id, folder = str(command["load"]), Path(command["folder"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return {"id": "", "error": "not a command"}
        try:
            self._models[student_id] = load(folder)
        except StudentError as error:
            return {"id": student_id, "error": str(error)}
        return {"id": student_id, "error": ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        student_id, _, path = str(scope["path"]).removeprefix(PREFIX).partition("/")
        model = self._models.get(student_id)
        if model is None:
            await _reply(send, 404, b'{"error":{"message":"no such student"}}')
        elif path == "health":
            await _reply(send, 200, b'{"status":"ok"}')
        elif f"/{path}" == COMPLETIONS and scope["method"] == "POST":
            await _reply(send, *completion(model, await _body(receive)))
        else:
            await _reply(send, 404, b'{"error":{"message":"no such path"}}')


def completion(model: LabelModel, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a chat completion request.

    One token for each field of the answer, with its log-probability and that of its rival. Tokens
    are counted as four bytes each: a limit that the answer exceeds so ends it by `length`.
    """
    try:
        request = orjson.loads(body)
        messages = [
            {"role": str(m["role"]), "content": str(m["content"])} for m in request["messages"]
        ]
        limit, stops = int(request.get("max_tokens") or 0), request.get("stop") or []
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return 400, b'{"error":{"message":"not a chat completion request"}}'
    answer = model.answer(messages)
    text, reason = answer.text, "stop"
    for stop in (stops,) if isinstance(stops, str) else stops:
        text = text.partition(stop)[0] if isinstance(stop, str) and stop else text
    tokens = _tokens(text)
    if not answer.familiar:
        reason = UNFAMILIAR
    elif 0 < limit < tokens:
        reason = "length"
    prompt = sum(_tokens(m["content"]) for m in messages)
    logprobs = [
        {
            "token": "",
            "logprob": choice.logprob,
            "top_logprobs": [
                {"token": "", "logprob": choice.logprob},
                {"token": "", "logprob": max(choice.rival, MIN_LOGPROB)},
            ],
        }
        for choice in answer.choices
    ]
    return 200, orjson.dumps(
        {
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": {"content": logprobs},
                    "finish_reason": reason,
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": tokens,
                "total_tokens": prompt + tokens,
            },
        }
    )


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False) and size <= MAX_BODY
    return b"".join(parts)


async def _reply(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve() -> None:
    """Serves until standard input ends."""
    students = LabelStudents()
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen(1024)
    server = uvicorn.Server(
        uvicorn.Config(
            students,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=3600,
        )
    )
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    # `_serve`, because `serve` would take the signals for itself
    serving = asyncio.create_task(server._serve(sockets=[listener]))
    _print({"port": listener.getsockname()[1]})
    while line := await commands.readline():
        _print(await asyncio.to_thread(students.command, line))  # a large one takes a while
    server.should_exit = True
    await serving


def _print(result: JsonObject) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve())
