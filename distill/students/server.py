"""One student: a `mlx_lm.server` process on loopback, from its start to its stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Self

import aiohttp

from distill.train import blas
from distill.train.rendering import TEMPLATE_ARGUMENTS
from store.chat.student_wire import read_student_answer, student_body
from store.errors import StudentError
from store.files.atomic import make_folder, make_room, read_regular
from store.process import leash
from store.settings.tasks import StudentSettings

HOST = "127.0.0.1"
MAX_PORT_ATTEMPTS = 5
POLL_S = 0.1
HEALTH_TIMEOUT_S = 5.0
STOP_GRACE_S = 5.0
MAX_LOG_BYTES = 1_000_000  # a longer log is deleted at the next start
PORT_IN_USE = "Address already in use"

# Requests decoded in one batch: more would slow each one beyond its time limit. The prompt cache
# keeps common prefixes of prompts, above all the task's system prompt.
DECODE_CONCURRENCY = "16"
PROMPT_CONCURRENCY = "8"
PROMPT_CACHE_SIZE = "8"
PROMPT_CACHE_BYTES = "512MB"


class StudentServer:
    """Serves one base with one adapter. As a context manager it is started and stopped."""

    def __init__(
        self,
        base: str,
        adapter: Path,
        settings: StudentSettings,
        log_dir: Path,
        name: str = "student",
        *,
        find_port: Callable[[], int] | None = None,
    ) -> None:
        """`base`: a folder or a hub name. Its log is `log_dir/name.log`."""
        self._find_port = find_port or free_port
        self._local = Path(base).is_dir()  # then the hub is not contacted
        self._base = str(Path(base).resolve()) if self._local else base
        self._adapter = adapter.resolve()
        self._settings = settings
        self._log = log_dir / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        # only our own server repeats it, see _health: the port may be in use by another one
        self._origin = f"http://{secrets.token_hex(8)}.invalid"

    @property
    def base_url(self) -> str:
        """http://127.0.0.1:PORT, without /v1. Raises StudentError before the start."""
        if not self._port:
            raise StudentError("the student server is not started")
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server and waits for its first answer.

        Raises StudentError when there is none within `student.start_timeout_s`.
        """
        await asyncio.to_thread(blas.warn_if_slow)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                for _ in range(MAX_PORT_ATTEMPTS):
                    await self._spawn(self._find_port())
                    if await self._comes_up():
                        await self._warm_up()
                        return
        except TimeoutError:
            await self.stop()
            raise StudentError(
                f"the student server was not ready within student.start_timeout_s "
                f"({self._settings.start_timeout_s:g} s); see {self._log.name}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        raise StudentError(
            f"no free port for the student server after {MAX_PORT_ATTEMPTS} attempts"
        )

    async def stop(self) -> None:
        """Stops the server: SIGTERM, then SIGKILL if it has not ended within STOP_GRACE_S."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def healthy(self) -> bool:
        """Whether the process runs and reports that it can generate."""
        return self.pid is not None and await self._health() == 200

    # ---- starting ------------------------------------------------------------------------------

    async def _spawn(self, port: int) -> None:
        await asyncio.to_thread(_open_log, self._log)
        offline = {"HF_HUB_OFFLINE": "1"} if self._local else {}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *leash.command(
                    "distill.train.mlx_launch", "mlx_lm", "server", *self._arguments(port)
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **offline, "PYTHONUNBUFFERED": "1"},
            )
        self._port = port

    def _arguments(self, port: int) -> list[str]:
        options = {
            "--model": self._base,
            "--adapter-path": str(self._adapter),
            "--host": HOST,
            "--port": str(port),
            "--allowed-origins": self._origin,  # by default any web page may read the answers
            "--log-level": "WARNING",
            "--chat-template-args": json.dumps(TEMPLATE_ARGUMENTS),
            "--decode-concurrency": DECODE_CONCURRENCY,
            "--prompt-concurrency": PROMPT_CONCURRENCY,
            "--prompt-cache-size": PROMPT_CACHE_SIZE,
            "--prompt-cache-bytes": PROMPT_CACHE_BYTES,
        }
        return [part for option in options.items() for part in option]

    async def _comes_up(self) -> bool:
        """Waits for the server. Returns False when its port is in use by another process.

        Raises StudentError when the server cannot load the student, or ends for another reason.
        """
        assert self._process is not None
        while (status := await self._health()) is None:
            if self._process.returncode is not None:
                break
            await asyncio.sleep(POLL_S)
        if status == 200:
            return True
        last_line = await asyncio.to_thread(_last_line, self._log)
        if PORT_IN_USE in last_line:
            return False
        raise StudentError(f"the student server did not start; its log ends with: {last_line}")

    async def _health(self) -> int | None:
        """The status of /health: 200, or 503 when it cannot generate. None: not our server.

        mlx_lm.server repeats the origin of a request only if it allows that origin.
        """
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(HEALTH_TIMEOUT_S)) as session,
                session.get(f"{self.base_url}/health", headers={"origin": self._origin}) as answer,
            ):
                ours = answer.headers.get("Access-Control-Allow-Origin") == self._origin
                return answer.status if ours else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _warm_up(self) -> None:
        """Requests one token: it comes once the base is loaded, so that no client has to wait."""
        body = student_body([{"role": "user", "content": "1"}], max_tokens=1)
        headers = {"content-type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session,
                session.post(
                    f"{self.base_url}/v1/chat/completions", data=body, headers=headers
                ) as answer,
            ):
                read_student_answer(await answer.read())
        except (aiohttp.ClientError, ValueError) as error:
            last_line = await asyncio.to_thread(_last_line, self._log)
            raise StudentError(
                f"the student server gave no first answer ({type(error).__name__}); "
                f"its log ends with: {last_line}"
            ) from None


def free_port() -> int:
    """A port on loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _open_log(log: Path) -> None:
    make_folder(log.parent)
    make_room(log)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.unlink()


def _last_line(log: Path) -> str:
    try:
        content = read_regular(log, 64 * MAX_LOG_BYTES)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    lines = content.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "nothing"
