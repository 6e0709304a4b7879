"""One gateway in one round: its start, load and streams, memory, its stop, and its log."""

from __future__ import annotations

import http.client
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.gateways import OUTPUT, Gateway, Running
from bench.load import PATH, Load, chat_body, load
from bench.logged import Logged, look_up, settle
from bench.metering import Cpu, Memory, cpu_of, memory_of
from bench.streams import StreamLoad, stream_load
from bench.upstream import PACED, SHORT, UNPACED

START_S = 180.0
WARM_UP_S = 1
FIRST_LOOK_S = 5.0  # scheduler.due_seconds
REST_S = 60.0
LOOK_S = 0.3
CALM = 0.15  # share of a core that a gateway uses at most when it has nothing to do
LEDGER_S = 1
FOR_EACH_CUT_OFF = 20  # requests that are counted for one that is not, at least
MANY = 16  # connections of streams, and of what is not measured


@dataclass(frozen=True, slots=True)
class MeasurementPlan:
    """The cells that are measured for each gateway in each round."""

    connections: Sequence[int]
    seconds: int  # of each cell
    streams: bool = True


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU time during one cell."""

    answering: Cpu | None  # None: the gateway's processes are not known
    others: Cpu | None  # None: it has none. Until all answered requests are in the store


@dataclass(frozen=True, slots=True)
class Cell:
    """Whole answers at one number of connections."""

    load: Load
    used: CpuUse


@dataclass(frozen=True, slots=True)
class StreamCell:
    """Streamed answers of one kind: a model of the upstream's."""

    kind: str
    load: StreamLoad
    used: CpuUse


@dataclass(frozen=True, slots=True)
class Measured:
    """One gateway's results of one round."""

    start_s: float  # from the command to the first whole answer
    memory_at_start: Memory | None
    others_at_start: Memory | None
    memory_after: Memory | None
    others_after: Memory | None
    cells: list[Cell]
    streams: list[StreamCell]
    logged: Logged | None  # of a gateway that logs
    settled: bool  # its journal was collected in time after each cell


def measure(gateway: Gateway, upstream: str, plan: MeasurementPlan) -> Measured:
    """Raises RuntimeError, OSError or psutil.Error when it does not start, or breaks."""
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        folder, ledger = Path(name), Path(name) / "ledger"
        with gateway.start(upstream, folder) as running:
            meter = _Meter(running)
            start_s = until_answered(running, folder)
            meter.settle()  # until the control plane is there too
            at_start = meter.memory()
            warm = load(running.url, connections=MANY, seconds=WARM_UP_S, headers=running.headers)
            meter.settle()
            meter.calm_down()
            rate = warm.requests / warm.seconds
            cells = [
                _cell(running, meter, number, cell_seconds(plan.seconds, number, rate))
                for number in plan.connections
            ]
            streams = list(_streams(running, meter, plan)) if plan.streams else []
            after = meter.memory()
            loads = [warm, *(cell.load for cell in cells)]
            if running.data_dir is not None:
                loads.append(
                    load(
                        running.url,
                        connections=MANY,
                        seconds=LEDGER_S,
                        headers=running.headers,
                        ledger=ledger,
                    )
                )
                meter.settle()
        logged = None
        if running.data_dir is not None:
            whole = sum(one.load.streams for one in streams)
            logged = look_up(
                running.data_dir,
                answered=1 + whole + sum(one.good for one in loads),
                cut_off=sum(one.connections for one in loads),
                ids=_noted(ledger),
            )
    return Measured(
        start_s,
        *(at_start[0], at_start[1], after[0], after[1]),
        cells,
        streams,
        logged,
        meter.settled,
    )


def until_answered(running: Running, folder: Path) -> float:
    """Seconds from the command to the first whole answer. Raises RuntimeError without one."""
    at = urlsplit(running.url)
    deadline = running.began + START_S
    answer_text = "nothing"
    while time.perf_counter() < deadline:
        connection = http.client.HTTPConnection(at.netloc, timeout=START_S)
        try:
            connection.request("POST", at.path + PATH, chat_body(), dict(running.headers))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                return time.perf_counter() - running.began
            answer_text = f"status {answer.status}: {text[:200].decode('utf-8', 'replace')}"
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        if running.process is not None and running.process.poll() is not None:
            printed = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"it ended before its first answer: {printed.strip()[-300:]}")
        time.sleep(0.01)
    raise RuntimeError(f"no first answer within {START_S:.0f} s; it said {answer_text}")


class _Meter:
    """Reads the CPU time of a gateway's processes."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._first_look_at = 0.0
        self.settled = True
        self.used = CpuUse(None, None)

    def settle(self) -> None:
        """Waits until all answered requests are in the store."""
        if self._running.data_dir is not None:
            self.settled = settle(self._running.data_dir) and self.settled
            # the control plane is there now
            self._first_look_at = self._first_look_at or time.monotonic() + FIRST_LOOK_S

    def memory(self) -> tuple[Memory | None, Memory | None]:
        """Of the answering processes, and of the others."""
        return memory_of(self._running.answering()), memory_of(self._running.others())

    def calm_down(self) -> None:
        """Waits for the control plane's first check of due runs, which loads many modules."""
        if self._running.data_dir is not None:
            time.sleep(max(0.0, self._first_look_at - time.monotonic()))
        self.rest()

    def rest(self) -> None:
        """Waits until it is idle: a slow gateway still handles requests of closed connections."""
        deadline = time.monotonic() + REST_S
        while time.monotonic() < deadline:
            processes = [*self._running.answering(), *self._running.others()]
            before = cpu_of(processes)
            if not processes:
                return
            time.sleep(LOOK_S)
            if (cpu_of(processes) - before).total < LOOK_S * CALM:
                return

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Measures the CPU time within it; the result is in `used`."""
        self.rest()
        answering, others = self._running.answering(), self._running.others()
        before = cpu_of(answering), cpu_of(others)
        yield
        used = cpu_of(answering) - before[0]
        self.settle()
        self.used = CpuUse(
            used if answering else None, cpu_of(others) - before[1] if others else None
        )


def cell_seconds(at_least: int, connections: int, rate: float) -> int:
    """How long a cell takes: longer than planned for a slow gateway, up to ten times.

    Requests in flight when a cell ends have cost CPU time and are not counted, so they must be few
    compared with the counted ones. `rate`: requests/s, as the warm-up found it.
    """
    wanted = math.ceil(FOR_EACH_CUT_OFF * connections / max(rate, 1.0))
    return min(max(at_least, wanted), 10 * at_least)


def _cell(running: Running, meter: _Meter, connections: int, seconds: int) -> Cell:
    with meter.metered():
        result = load(
            running.url, connections=connections, seconds=seconds, headers=running.headers
        )
    return Cell(result, meter.used)


def _streams(running: Running, meter: _Meter, plan: MeasurementPlan) -> Iterator[StreamCell]:
    """First events at one connection; chunks that come one by one, and all at once, at many."""
    for kind, connections in ((SHORT, 1), (PACED, MANY), (UNPACED, MANY)):
        with meter.metered():
            result = stream_load(
                running.url,
                kind,
                connections=connections,
                seconds=plan.seconds,
                headers=running.headers,
            )
        yield StreamCell(kind, result, meter.used)


def _noted(ledger: Path) -> Iterator[str]:
    """The traces of the 2xx answers in a ledger of bench/wrk.lua."""
    for line in ledger.read_text(encoding="ascii").splitlines():
        status, trace, _ = line.split(" ")
        if status.startswith("2"):
            yield trace
