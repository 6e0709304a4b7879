"""The running product of an episode: its processes, its files, and what the faults may do to them.

<folder>/disk/data      the data folder, on a small disk of its own where one may be mounted
<folder>/disk/tmp       TMPDIR of the server
<folder>/home           its home and working directory, which have to stay empty
<folder>/config.yaml    its config
<folder>/output         what it printed
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

from cli.serve.data_folder import ServeNote, running_server
from store.process import leash
from store.settings.config import Config, parse_config
from tests.campaign import wire
from tests.campaign.load import Load
from tests.campaign.oracle import Cause, Window
from tests.campaign.students import seed_students
from tests.campaign.teacher import Teacher
from tests.helpers.paths import ROOT

MARK = "UNDERSTUDY_CAMPAIGN"  # in the environment of every process of the server
STAND_IN = Path(__file__).parent / "stand_in"
DESCRIPTORS = 512  # of each process of the server
START_S = 60.0
STOP_S = 40.0
WORKERS = 2
STUDENT_TIMEOUT_S = 2.0


class Scene:
    """One server with its teacher, its students and its clients."""

    def __init__(self, folder: Path, seed: str, *, per_second: float) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.small_disk = os.path.ismount(self.disk)  # or a part of the machine's own
        self.data_dir = self.disk / "data"
        self.config_file = folder / "config.yaml"
        self.seed = seed
        self.mark = f"{seed} {os.getpid()}"
        self.wrong: list[str] = []  # everything that must not be
        self.windows: list[Window] = []
        self.notes: Counter[str] = Counter()
        self.teacher = Teacher(seed)
        self.port = _free_port(random.Random(seed))
        self.url = f"http://127.0.0.1:{self.port}"
        self.load = Load(
            self.url, self.teacher, self.windows, seed, per_second=per_second, wrong=self.report
        )
        self.process: psutil.Process | None = None
        self._popen: list[subprocess.Popen[bytes]] = []
        self._clock_file, self._student_file = folder / "clock", folder / "student"
        self._began = time.monotonic()
        self.log_level = "warning"

    async def __aenter__(self) -> Scene:
        for place in (self.disk / "tmp", self.folder / "home"):
            place.mkdir(parents=True, exist_ok=True)
        self._clock_file.write_bytes(bytes(8))
        with self._clock_file.open("r+b") as opened:
            self._clock = memoryview(mmap.mmap(opened.fileno(), 8)).cast("d")
        self._student_file.write_text("", encoding="utf-8")
        await self.teacher.start()
        self.write_config()
        await asyncio.to_thread(seed_students, self.config())
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        await self.start()
        await self.load.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.load.stop()
        await self.stop()
        await self._http.close()
        await self.teacher.stop()
        for process in marked(self.mark):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def report(self, what: str) -> None:
        """Notes something that must not be."""
        self.wrong.append(what)
        self.say(f"{self.since():7.2f} s: WRONG: {what}")

    def since(self, at: float | None = None) -> float:
        """Seconds from the episode's start to a time of `time.monotonic`, by default to now."""
        return (time.monotonic() if at is None else at) - self._began

    def say(self, line: str) -> None:
        """A line in the episode's own log, `<folder>/events`."""
        with (self.folder / "events").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    # ---- the config

    def raw_config(self) -> dict[str, Any]:
        """The settings, with times as short as a campaign needs them."""
        params = {
            "model": f"openai/{wire.MODEL}",
            "api_base": self.teacher.base_url,
            "api_key": "sk-teacher",
        }
        return {
            "model_list": [{"model_name": wire.MODEL, "litellm_params": params}],
            "data_dir": str(self.data_dir),
            "server": {
                "port": self.port,
                "workers": WORKERS,
                "head_timeout_s": 3,
                "log_level": self.log_level,
            },
            "teacher": {"connect_timeout_s": 5, "read_timeout_s": 20},
            "journal": {"segment_seconds": 0.5},
            "store": {"memory_limit": "256MB"},
            "scheduler": {"ingest_seconds": 0.3, "health_seconds": 0.5},
            "task_defaults": {
                "min_traces": 1_000_000,
                "student": {"request_timeout_s": STUDENT_TIMEOUT_S},
                "audit": {"first_share": 0.05, "last_share": 0.05, "fault_rate": 0.45},
            },
        }

    def config(self) -> Config:
        return parse_config(self.raw_config())

    def write_config(self, text: str | None = None) -> None:
        """Writes the config file; `text`: something else than the settings."""
        self.config_file.write_text(
            yaml.safe_dump(self.raw_config()) if text is None else text, encoding="utf-8"
        )

    # ---- the server

    async def start(self) -> None:
        """Starts the server, as often as a service manager would, and waits until it answers."""
        deadline = time.monotonic() + START_S
        while True:
            popen = self._spawn()
            while popen.poll() is None:
                if self.note() is not None and await self.health() is not None:
                    self._ended("down")
                    return
                if time.monotonic() > deadline:
                    raise AssertionError(f"the server did not start; see {self.folder}/output")
                await asyncio.sleep(0.05)
            self.notes["starts again, as the port or the folder was still held"] += 1
            if time.monotonic() > deadline:
                raise AssertionError(f"the server does not start; see {self.folder}/output")
            await asyncio.sleep(0.3)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """A process of the server, which ends with this one."""
        command = leash.command("cli", "serve", "--config", str(self.config_file))
        with (self.folder / "output").open("ab") as output:
            popen = subprocess.Popen(
                ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder / "home",
                env=self._environment(),
                start_new_session=True,
            )
        self._popen.append(popen)
        self.process = psutil.Process(popen.pid)
        return popen

    def _environment(self) -> dict[str, str]:
        paths = [str(STAND_IN), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        return {
            **os.environ,
            MARK: self.mark,
            "UNDERSTUDY_CAMPAIGN_CLOCK": str(self._clock_file),
            "UNDERSTUDY_CAMPAIGN_STUDENT": str(self._student_file),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TMPDIR": str(self.disk / "tmp"),
            "HOME": str(self.folder / "home"),
        }

    def note(self) -> ServeNote | None:
        """The note of the server that was started last."""
        note = running_server(self.data_dir)
        return note if note and self.process and note.pid == self.process.pid else None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stops the server, which has to end all its processes."""
        family = self.family()
        with suppress(psutil.NoSuchProcess):
            if self.process is not None:
                self.process.send_signal(number)
        left = await asyncio.to_thread(lambda: psutil.wait_procs(family, timeout=STOP_S)[1])
        self.reap()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                self.report(f"{process.cmdline()} outlived the server's stop")
                process.kill()
        self.process = None

    def reap(self) -> None:
        """Takes note of ended servers, which would stay as zombies of ours."""
        self._popen = [popen for popen in self._popen if popen.poll() is None]

    # ---- what is going on

    @contextmanager
    def lasting(self, *causes: Cause) -> Iterator[None]:
        """While it lasts, these explain errors of clients."""
        windows = [Window(cause, time.monotonic()) for cause in causes]
        self.windows.extend(windows)
        try:
            yield
        finally:
            for window in windows:
                window.ended = time.monotonic()

    def begin(self, cause: Cause) -> None:
        """From now on, until it is ended."""
        self.windows.append(Window(cause, time.monotonic()))

    def _ended(self, cause: Cause) -> None:
        for window in self.windows:
            if window.cause == cause and window.ended is None:
                window.ended = time.monotonic()

    def family(self) -> list[psutil.Process]:
        """The server's processes that live now, itself first."""
        if self.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def processes(self, module: str) -> list[psutil.Process]:
        """Those that run this module."""
        found = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if module in process.cmdline():
                    found.append(process)
        return found

    async def health(self) -> dict[str, Any] | None:
        """What /health says; None without an answer."""
        return await self._get("/health")

    async def status(self) -> dict[str, Any] | None:
        """What /distill/status says; None without an answer."""
        return await self._get("/distill/status")

    async def task_status(self, task: str) -> dict[str, Any] | None:
        """What /distill/status says of a task; None without an answer."""
        return await self._get(f"/distill/status/{task}")

    async def _get(self, path: str) -> dict[str, Any] | None:
        try:
            async with self._http.get(self.url + path) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def command(self, task: str, command: str, **order: Any) -> int:
        """Gives a command by hand over HTTP; its status, 0 without an answer."""
        try:
            async with self._http.post(
                f"{self.url}/distill/tasks/{task}/{command}", json=order
            ) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    # ---- what a fault may set

    def shift_clock(self, seconds: float) -> None:
        """Sets the wall clock of all processes of the server so far from the real one."""
        self._clock[0] = seconds

    def student_way(self, way: str) -> None:
        """How the students answer from now on; empty: well."""
        self._student_file.write_text(way, encoding="utf-8")


def marked(mark: str) -> list[psutil.Process]:
    """All processes of this machine that belong to the server of this episode."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def limit(process: psutil.Process, which: int, soft: int) -> int:
    """Sets a soft limit of a running process; the one before. Only on Linux it has an effect."""
    if not hasattr(process, "rlimit"):
        return soft
    before, hard = process.rlimit(which)
    process.rlimit(which, (soft, hard))
    return int(before)


LIMITS = {"file size": resource.RLIMIT_FSIZE, "descriptors": resource.RLIMIT_NOFILE}


def _free_port(draw: random.Random) -> int:
    """A port below those of outgoing connections, so that nobody gets it while it is free."""
    while True:
        port = draw.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
