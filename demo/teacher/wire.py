"""An OpenAI-compatible chat completions server around one function that knows the answers.

Real HTTP on loopback, for the demo, the backtest and the tests: plain and streamed answers, tool
calls, `/v1/models`, and errors in OpenAI's shape. Replies are counted by kind (`GET /counts`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson
from aiohttp import web

from store.chat.shape import text_of
from store.jsontext import JsonObject

CHARS_A_TOKEN = 4
TOKENS_A_MESSAGE = 4  # what a chat template puts around a message


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer."""

    kind: str  # counted under this name
    text: str  # the answer, or the tool's arguments as JSON
    tool: str | None = None  # call this tool instead of answering with text


class Refusal(Exception):
    """An error answer in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {"message": message, "type": kind, "param": param, "code": code},
        }


# a checked chat completion request → what to answer; raises Refusal for an error answer
Answerer = Callable[[JsonObject], Reply]


class TeacherServer:
    """The server. Use it as an async context manager, or call `start` and `stop`.

    `counts` has one entry a kind of reply, and `errors/STATUS` for error answers.
    """

    def __init__(
        self, answerer: Answerer, *, models: Sequence[str], latency_s: float = 0.0
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.latency_s = latency_s  # waited before every answer
        self._answerer = answerer
        self._models = list(models)
        self._started_at = int(time.time())
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._answered = 0

    @property
    def base_url(self) -> str:
        """What an OpenAI client's `base_url` is set to."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def start(self, port: int = 0) -> None:
        """Listens on loopback; 0 takes any free port."""
        app = web.Application(middlewares=[self._errors], client_max_size=64 * 2**20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/counts", self._counts)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{model}", self._one_model)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        if self._runner is None:
            await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # ---- endpoints ------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _counts(self, _: web.Request) -> web.Response:
        return web.json_response(dict(self.counts))

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._card(m) for m in self._models]})

    async def _one_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name not in self._models:
            raise _no_such_model(name)
        return web.json_response(self._card(name))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = checked(await request.read())
        if body["model"] not in self._models:
            raise _no_such_model(body["model"])
        reply = self._answerer(body)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        self.counts[reply.kind] += 1
        self._answered += 1
        completion = StandInCompletion(body, reply, f"chatcmpl-{self._answered}", int(time.time()))
        if not body.get("stream"):
            return web.Response(
                body=orjson.dumps(completion.whole()), content_type="application/json"
            )
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        async for event in completion.events():
            await response.write(event)
        await response.write_eof()
        return response

    def _card(self, name: str) -> JsonObject:
        return {"id": name, "object": "model", "created": self._started_at, "owned_by": "demo"}

    @web.middleware
    async def _errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        except Refusal as refusal:
            error = refusal
        except web.HTTPException as failed:
            error = Refusal(
                failed.status, f"{failed.reason}: {request.method} {request.path}", code=None
            )
        self.counts[f"errors/{error.status}"] += 1
        return web.json_response(error.body, status=error.status)


# ---- one answer ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StandInCompletion:
    """A reply in OpenAI's wire format."""

    body: JsonObject  # the request
    reply: Reply
    completion_id: str
    created: int

    @property
    def text(self) -> str:
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return self.reply.text[: limit * CHARS_A_TOKEN] if limit else self.reply.text

    @property
    def finish_reason(self) -> str:
        if self.text != self.reply.text:
            return "length"
        return "tool_calls" if self.reply.tool else "stop"

    @property
    def choices(self) -> int:
        return self.body.get("n") or 1

    def usage(self) -> dict[str, int]:
        """Tokens, counted as a quarter of the characters, and four more for each message."""
        prompt_tokens = request_tokens(self.body)
        answered = self.choices * text_tokens(self.text)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answered,
            "total_tokens": prompt_tokens + answered,
        }

    def whole(self) -> JsonObject:
        """The answer to a request without `stream`."""
        message: JsonObject = {"role": "assistant", "content": self.text, "refusal": None}
        if self.reply.tool:
            message |= {"content": None, "tool_calls": [self._tool_call(self.text)]}
        choices = [
            {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": self.finish_reason,
            }
            for index in range(self.choices)
        ]
        return self._envelope("chat.completion", choices) | {"usage": self.usage()}

    async def events(self) -> AsyncIterator[bytes]:
        """The server-sent events that answer a request with `stream`."""
        with_usage = bool((self.body.get("stream_options") or {}).get("include_usage"))
        no_usage = {"usage": None} if with_usage else {}

        def event(index: int, delta: JsonObject, finish_reason: str | None = None) -> bytes:
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": None,
                "finish_reason": finish_reason,
            }
            return _sse(self._envelope("chat.completion.chunk", [choice]) | no_usage)

        for index in range(self.choices):
            if self.reply.tool:
                opening = {"index": 0, **self._tool_call("")}
                yield event(index, {"role": "assistant", "content": None, "tool_calls": [opening]})
            else:
                yield event(index, {"role": "assistant", "content": "", "refusal": None})
            for piece in pieces(self.text):
                if self.reply.tool:
                    call = {"index": 0, "function": {"arguments": piece}}
                    yield event(index, {"tool_calls": [call]})
                else:
                    yield event(index, {"content": piece})
            yield event(index, {}, self.finish_reason)
        if with_usage:
            yield _sse(self._envelope("chat.completion.chunk", []) | {"usage": self.usage()})
        yield b"data: [DONE]\n\n"

    def _envelope(self, kind: str, choices: list[JsonObject]) -> JsonObject:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.body["model"],
            "system_fingerprint": "fp_demo",
            "choices": choices,
        }

    def _tool_call(self, arguments: str) -> JsonObject:
        function = {"name": self.reply.tool, "arguments": arguments}
        return {"id": f"call_{self.completion_id}", "type": "function", "function": function}


def pieces(text: str) -> list[str]:
    """The text cut before each space, as the tokens of a real model would come."""
    words = text.split(" ")
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)]


def text_tokens(text: str) -> int:
    """A quarter of the characters, rounded up."""
    return math.ceil(len(text) / CHARS_A_TOKEN)


def request_tokens(body: JsonObject) -> int:
    """Tokens of the messages and of the tools' and response format's JSON."""
    tokens = sum(
        TOKENS_A_MESSAGE + text_tokens(text_of(m.get("content"))) for m in body["messages"]
    )
    for name in ("tools", "response_format"):
        if body.get(name):
            tokens += text_tokens(orjson.dumps(body[name]).decode())
    return tokens


# ---- one request --------------------------------------------------------------------------------


def checked(raw: bytes) -> JsonObject:
    """The request's body. Raises Refusal where the OpenAI API would refuse it too."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Refusal(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body of your request is not a JSON object.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise Refusal(400, "you must provide a model parameter")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(
            400, "Invalid 'messages': expected an array with a message.", param="messages"
        )
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refusal(
                400, f"Invalid 'messages[{number}]': no role.", param=f"messages[{number}].role"
            )
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise Refusal(400, f"Invalid '{name}': expected a positive integer.", param=name)
    if body.get("metadata") and not body.get("store"):
        raise Refusal(
            400,
            "The 'metadata' parameter is only allowed when 'store' is enabled.",
            param="metadata",
        )
    return body


def _no_such_model(name: str) -> Refusal:
    return Refusal(404, f"The model '{name}' does not exist.", code="model_not_found")


def _sse(payload: JsonObject) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"
