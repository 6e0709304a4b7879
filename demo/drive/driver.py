"""Runs the real product as a user would, and sends it traffic as a client would.

`Product` is one `understudy serve` in a folder of its own; `send` asks it through the OpenAI SDK.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import openai
import yaml
from openai.types.chat import ChatCompletion

from cli.serve.data_folder import running_server
from distill.train import blas
from store.chat.shape import Messages
from store.errors import ProductError
from store.jsontext import JsonMapping, JsonObject
from store.process import leash
from store.settings.config import Config, parse_config
from store.settings.teachers import Price

LOG_TAIL_LINES = 12

Status = JsonObject


class Product:
    """`understudy serve` on a free port, with a generated config, in a folder of its own.

    An async context manager: entering starts it and waits until it answers /health; leaving stops
    it and its children, and so does any end of this process. `config`
    has the settings of `config.yaml`; `server.port` and `data_dir` are filled in here.
    """

    def __init__(
        self,
        folder: Path,
        config: JsonMapping,
        *,
        command: Sequence[str] | None = None,  # None: understudy serve
        start_timeout_s: float = 60,
        stop_timeout_s: float = 35,  # `serve` gives its children 30
    ) -> None:
        self.folder = folder
        self._command = command or leash.command("cli", "serve")
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._raw = {
            **config,
            "data_dir": str(folder / "data"),
            "server": {**config.get("server", {}), "port": 0},
        }
        self.config: Config = parse_config(self._raw, where="the generated config")
        self._base_url = ""
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """Where clients send their requests, without /v1."""
        return self._base_url

    @property
    def log_file(self) -> Path:
        """The output of the product's processes."""
        return self.folder / "serve.log"

    @property
    def pid(self) -> int:
        """The process id of `understudy serve`. Raises ProductError when it was not started."""
        if self._process is None:
            raise ProductError("understudy serve was not started")
        return self._process.pid

    async def __aenter__(self) -> Self:
        file = self.folder / "config.yaml"
        await asyncio.to_thread(_write_config, file, self._raw)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        try:
            with self.log_file.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    "--config",
                    str(file),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={blas.VARIABLE: blas.WHEEL, **os.environ},  # a fast matrix product
                    start_new_session=True,  # a Ctrl-C is ours to pass on, once
                )
            await self._until_healthy()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ends the product: by SIGTERM, and by SIGKILL after a timeout."""
        if self._http is not None:
            await self._http.close()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def status(self, task: str) -> Status | None:
        """The answer to GET /distill/status/{task}; None while there is none.

        There is none while the control plane starts, and before the task's first trace is stored.
        """
        self._check_alive()
        answer = await self._get(f"/distill/status/{task}")
        return answer if isinstance(answer, dict) else None

    async def wait(
        self,
        task: str,
        until: Callable[[Status], bool],
        *,
        timeout_s: float,
        every_s: float = 0.5,
        watch: Callable[[Status], None] = lambda status: None,
    ) -> Status:
        """Polls the task's status until the condition holds, and passes each status to `watch`.

        Raises ProductError after `timeout_s`, with the last known status.
        """
        deadline = time.monotonic() + timeout_s
        last: Status | None = None
        while True:
            status = await self.status(task)
            if status is not None:
                last = status
                watch(status)
                if until(status):
                    return status
            if time.monotonic() >= deadline:
                raise ProductError(
                    f"task {task}: not there after {timeout_s:.0f} s; {standing(last)}"
                )
            await asyncio.sleep(every_s)

    def client(self, *, timeout_s: float = 120) -> openai.AsyncOpenAI:
        """An OpenAI client whose base URL points here. It never retries, so every error is seen."""
        return openai.AsyncOpenAI(
            base_url=f"{self.base_url}/v1", api_key="none", max_retries=0, timeout=timeout_s
        )

    async def _until_healthy(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not await self._answers():
            self._check_alive()
            if time.monotonic() >= deadline:
                raise ProductError(
                    f"understudy serve did not answer /health within {self._start_timeout_s:.0f} s"
                    f"; its last lines:\n{self._log_tail()}"
                )
            await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        """Whether it has written its note and answers /health."""
        running = running_server(self.config.data_dir)
        if running is None or running.pid != self.pid:
            return False
        self._base_url = running.url
        return await self._get("/health") is not None

    async def _get(self, path: str) -> Any:
        assert self._http is not None
        try:
            async with self._http.get(self.base_url + path) as response:
                return await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    def _check_alive(self) -> None:
        if self._process is None:
            raise ProductError("understudy serve was not started")
        if self._process.returncode is not None:
            raise ProductError(
                f"understudy serve ended with exit code {self._process.returncode}; "
                f"its last lines:\n{self._log_tail()}"
            )

    def _log_tail(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])


def loopback_teacher(model: str, base_url: str, price: Price) -> JsonObject:
    """The entry of `model_list` for a teacher on loopback, at a given price."""
    return {
        "model_name": model,
        "litellm_params": {
            "model": f"openai/{model}",
            "api_base": base_url,
            "api_key": "none",
            "input_cost_per_token": price.input,
            "output_cost_per_token": price.output,
        },
    }


def standing(status: Status | None) -> str:
    """The state of a task, in half a sentence."""
    if status is None:
        return "its status was never given"
    stage = status.get("stage")
    if stage:
        return f"stage {stage['stage']}, {stage['done']:g} of {stage['total']:g}"
    last = status.get("last_run")
    if last:
        return f"last run {last['state']}: {last['reason']}"
    return f"{status.get('traces', 0)} traces, no run yet"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request of a client and its result."""

    answer: str | None  # None: an error
    route: str | None  # x-understudy-route, -reason, -trace and -task of the answer
    reason: str | None
    trace: str | None
    task: str | None
    latency_ms: float
    error: str | None = None  # the SDK's exception and the status, never the message


async def send(
    client: openai.AsyncOpenAI,
    requests: Iterable[Messages],
    *,
    task: str | None,
    model: str,
    concurrency: int = 8,
    done: Callable[[SentRequest], None] = lambda result: None,
) -> list[SentRequest]:
    """Sends all requests, at most `concurrency` at a time, tagged with the task by header.

    Returns one result a request, in order. `done` is called with each at once.
    """
    waiting = list(enumerate(requests))
    results: list[SentRequest | None] = [None] * len(waiting)
    queue = iter(waiting)
    headers = {} if task is None else {"X-Understudy-Task": task}

    async def worker() -> None:
        for number, messages in queue:
            results[number] = result = await _ask(client, messages, model, headers)
            done(result)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(waiting))):
            group.create_task(worker())
    return [result for result in results if result is not None]


async def _ask(
    client: openai.AsyncOpenAI, messages: Messages, model: str, headers: dict[str, str]
) -> SentRequest:
    began = time.perf_counter()
    received: Mapping[str, str] = {}
    answer, error = None, None
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]
            extra_headers=headers,
        )
        received = raw.headers
        completion: ChatCompletion = raw.parse()
        answer = completion.choices[0].message.content
    except openai.APIStatusError as failed:
        received = failed.response.headers
        error = f"{type(failed).__name__} {failed.status_code}"
    except openai.APIError as failed:
        error = type(failed).__name__
    return SentRequest(
        answer=answer,
        route=received.get("x-understudy-route"),
        reason=received.get("x-understudy-reason"),
        trace=received.get("x-understudy-trace"),
        task=received.get("x-understudy-task"),
        latency_ms=(time.perf_counter() - began) * 1000,
        error=error if error or answer is not None else "no text in the answer",
    )


def _write_config(file: Path, raw: JsonMapping) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(dict(raw), sort_keys=False), encoding="utf-8")
