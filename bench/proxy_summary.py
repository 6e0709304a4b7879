"""The result of bench/proxy.py: each gateway's figures, as medians over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from bench.measure import Cell, Measured, StreamCell
from bench.metering import Cpu, Memory
from bench.upstream import CHUNKS, PACED, SHORT, UNPACED
from store.jsontext import JsonObject

Result = JsonObject

STREAMS = {"short": SHORT, "paced": PACED, "unpaced": UNPACED}


def summary(
    name: str, rounds: Sequence[Measured], direct: Sequence[Measured], failed: Sequence[str]
) -> Result:
    """One gateway's figures; null where there are none. `direct`: the upstream itself.

    CPU in microseconds a request or a chunk. `others`: its processes that do not answer clients,
    such as the control plane, until all answered requests are in the store.
    """
    return {
        "name": name,
        "rounds": len(rounds),
        "failed": list(failed),
        "start_s": _median((one.start_s for one in rounds), 3),
        "memory": {
            "at_start": _memory([one.memory_at_start for one in rounds]),
            "after": _memory([one.memory_after for one in rounds]),
            "others_at_start": _memory([one.others_at_start for one in rounds]),
            "others_after": _memory([one.others_after for one in rounds]),
        },
        "cells": [
            _cell_summary(
                [one.cells[n] for one in rounds],
                [one.cells[n] for one in direct],
            )
            for n in range(len(rounds[0].cells) if rounds else 0)
        ],
        "streams": {
            name: _stream_summary(
                [cell for one in rounds for cell in one.streams if cell.kind == kind],
                [cell for one in direct for cell in one.streams if cell.kind == kind],
                0 if kind == SHORT else CHUNKS,
            )
            for name, kind in STREAMS.items()
            if rounds and rounds[0].streams
        },
        "logged": _logged(rounds),
    }


def _cell_summary(cells: Sequence[Cell], direct: Sequence[Cell]) -> Result:
    loads = [cell.load for cell in cells]
    p50 = _median((load.p50_ms for load in loads), 3)
    directly = _median((cell.load.p50_ms for cell in direct), 3)
    return {
        "connections": loads[0].connections,
        "seconds": _median((load.seconds for load in loads), 1),
        "requests": sum(load.requests for load in loads),
        "not_2xx": sum(load.not_2xx for load in loads),
        "broken": sum(load.broken for load in loads),
        "rps": _median((load.requests / load.seconds for load in loads), 1),
        "p50_ms": p50,
        "p99_ms": _median((load.p99_ms for load in loads), 3),
        "p50_added_ms": _difference(p50, directly),
        **_cpu(cells, lambda cell: cell.load.requests),
    }


def _stream_summary(
    cells: Sequence[StreamCell], direct: Sequence[StreamCell], chunks: int
) -> Result:
    """`chunks`: of a stream, that its CPU is divided by; 0: not reported."""
    loads = [cell.load for cell in cells]
    first = _median((load.first_p50_ms for load in loads), 3)
    directly = _median((cell.load.first_p50_ms for cell in direct), 3)
    return {
        "connections": loads[0].connections,
        "streams": sum(load.streams for load in loads),
        "broken": sum(load.broken for load in loads),
        "events": sum(load.events for load in loads),
        "first_p50_ms": first,
        "first_p99_ms": _median((load.first_p99_ms for load in loads), 3),
        "first_added_ms": _difference(first, directly),
        "chunks_a_second": _median((load.events / load.seconds for load in loads), 0),
        **(_cpu(cells, lambda cell: cell.load.streams * chunks) if chunks else {}),
    }


def _cpu(cells: Sequence[Any], count: Callable[[Any], int]) -> Result:
    """Microseconds of CPU per counted request or chunk of a cell."""

    def each(of: Callable[[Any], Cpu | None], part: Callable[[Cpu], float]) -> float | None:
        found = ((of(cell), count(cell)) for cell in cells)
        return _median((part(cpu) / n * 1e6 for cpu, n in found if cpu is not None and n), 1)

    answering, others = (lambda c: c.used.answering), (lambda c: c.used.others)
    return {
        "cpu_us": each(answering, lambda cpu: cpu.total),
        "cpu_user_us": each(answering, lambda cpu: cpu.user),
        "cpu_system_us": each(answering, lambda cpu: cpu.system),
        "others_cpu_us": each(others, lambda cpu: cpu.total),
        "sum_cpu_us": each(
            lambda c: c.used.answering and c.used.answering + (c.used.others or Cpu()),
            lambda cpu: cpu.total,
        ),
    }


def _logged(rounds: Sequence[Measured]) -> Result | None:
    found = [one.logged for one in rounds if one.logged is not None]
    if not found:
        return None
    counts = [asdict(logged) for logged in found]
    return {
        **{name: sum(count[name] for count in counts) for name in counts[0]},
        "whole": all(logged.whole for logged in found),
        "settled": all(one.settled for one in rounds),
    }


def _memory(memories: Sequence[Memory | None]) -> Result | None:
    known = [memory for memory in memories if memory is not None]
    if not known:
        return None
    return {
        "rss_mb": _median((memory.rss_mb for memory in known), 1),
        "pss_mb": _median((m.pss_mb for m in known if m.pss_mb is not None), 1),
        "processes": known[-1].processes,
    }


def _median(values: Iterable[float], digits: int) -> float | None:
    numbers = list(values)
    return round(statistics.median(numbers), digits) if numbers else None


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one - other, 3)
