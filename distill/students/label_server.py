"""The process of all label students: started with the first, stopped after the last."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import orjson

from distill.label.server import HOST, PREFIX
from distill.students.students import StudentSpec
from store.errors import StudentError
from store.jsontext import to_json_line
from store.process import leash

HEALTH_TIMEOUT_S = 5.0
STOP_GRACE_S = 5.0
COMMAND_TIMEOUT_S = 5.0
LOG = "label-students.log"
MAX_LOG_BYTES = 1_000_000  # a longer log is deleted at the next start
# the arithmetic of one request is too small for threads
_ONE_THREAD: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class LabelProcess:
    """One `distill.label.server`, for the students that are loaded into it."""

    def __init__(self, log_dir: Path) -> None:
        self._log = log_dir / LOG
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._loaded: set[str] = set()
        self._talking = asyncio.Lock()  # one command at a time, and starts among them

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    def has(self, student_id: str) -> bool:
        """Whether it runs with this student loaded."""
        return self.pid is not None and student_id in self._loaded

    async def load(self, student_id: str, folder: Path) -> str:
        """Loads a student, into a new process when none runs. Raises StudentError.

        Returns the student's address, http://127.0.0.1:PORT/students/ID.
        """
        # a caller that is cancelled does not leave the answer of its command to the next one
        return await asyncio.shield(asyncio.create_task(self._load(student_id, folder)))

    async def unload(self, student_id: str) -> None:
        """Unloads a student; the process of the last one is stopped."""
        await asyncio.shield(asyncio.create_task(self._unload(student_id)))

    def kill(self) -> None:
        """Ends a process that does not answer; whoever waits for an answer gets a StudentError."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _load(self, student_id: str, folder: Path) -> str:
        async with self._talking:
            if self.pid is None:
                await self._start()
            error = await self._ask({"load": student_id, "folder": str(folder)})
            if error:
                await self._stop_if_empty()
                raise StudentError(error)
            self._loaded.add(student_id)
            return f"http://{HOST}:{self._port}{PREFIX}{student_id}"

    async def _unload(self, student_id: str) -> None:
        async with self._talking:
            self._loaded.discard(student_id)
            if self.pid is not None and self._loaded:
                try:
                    async with asyncio.timeout(COMMAND_TIMEOUT_S):
                        await self._ask({"unload": student_id})
                except TimeoutError:  # it hangs, for all students
                    await self._stop()
                except StudentError:
                    pass  # it has died, and serves nothing
            await self._stop_if_empty()

    async def _start(self) -> None:
        self._loaded.clear()
        await asyncio.to_thread(_open_log, self._log)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *leash.command("distill.label.server"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **_ONE_THREAD},
            )
        try:
            self._port = int(str((await self._answer())["port"]))
        except BaseException:
            await self._stop()
            raise

    async def _ask(self, command: Mapping[str, str]) -> str:
        """Gives a command; returns its error, empty when there is none. Raises StudentError."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(to_json_line(command))
            await self._process.stdin.drain()
        except OSError as error:
            raise StudentError(f"the server of label students is gone ({error})") from None
        return str((await self._answer())["error"])

    async def _answer(self) -> dict[str, object]:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        try:
            answer: dict[str, object] = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise StudentError(
                f"the server of label students ended; see {self._log.name}"
            ) from None
        return answer

    async def _stop_if_empty(self) -> None:
        if not self._loaded:
            await self._stop()

    async def _stop(self) -> None:
        process, self._process, self._port = self._process, None, 0
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


class LabelServer:
    """One student in the process of all: a StudentProcess."""

    def __init__(self, spec: StudentSpec, process: LabelProcess) -> None:
        self._spec, self._process = spec, process
        self._url = ""

    @property
    def base_url(self) -> str:
        """http://127.0.0.1:PORT/students/ID, without /v1. Raises StudentError before the start."""
        if not self._url:
            raise StudentError("the student is not loaded")
        return self._url

    @property
    def pid(self) -> int | None:
        """The process of all label students, while it runs and has this one."""
        return self._process.pid if self._process.has(self._spec.student_id) else None

    async def start(self) -> None:
        """Loads the student. Raises StudentError when it is damaged or takes too long."""
        limit = self._spec.settings.start_timeout_s
        try:
            async with asyncio.timeout(limit):
                folder = self._spec.adapter.resolve()
                self._url = await self._process.load(self._spec.student_id, folder)
        except TimeoutError:
            self._process.kill()
            raise StudentError(
                f"the student was not loaded within student.start_timeout_s ({limit:g} s)"
            ) from None

    async def stop(self) -> None:
        """Unloads the student."""
        await self._process.unload(self._spec.student_id)

    async def healthy(self) -> bool:
        """Whether the process runs and has the student."""
        try:
            url = f"{self.base_url}/health"
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(HEALTH_TIMEOUT_S)) as session,
                session.get(url) as answer,
            ):
                return answer.status == 200
        except (StudentError, aiohttp.ClientError, TimeoutError):
            return False


def _open_log(log: Path) -> None:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.unlink()
