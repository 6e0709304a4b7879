"""The tables that bench/proxy.py prints, and its profile as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bench.proxy_summary import Result


def show(result: Result, *, markdown: bool = False) -> None:
    """Prints the tables."""
    console = Console(width=None if Console().is_terminal and not markdown else 160)
    whole = [g for g in result["gateways"] if g["rounds"]]
    connections = result["method"]["connections"]
    for table in (
        _cpu_table(whole, connections),
        _latency_table(whole, connections),
        _stream_table(whole),
        _memory_table(whole),
        _log_table(whole),
    ):
        if markdown:
            table.box = box.MARKDOWN
        if table.row_count:
            console.print(table, end="\n")
    for gateway in result["gateways"]:
        for reason in gateway["failed"]:
            console.print(f"{gateway['name']}: {reason}", markup=False)
    method, machine = result["method"], result["machine"]
    console.print(
        f"Medians of {method['rounds']} rounds, {method['seconds']} s a cell or more; "
        f"{machine['cores']} cores ({machine['system']}), load average before, and after each "
        f"round: {', '.join(map(str, machine['load_before_and_after_each_round']))}",
        markup=False,
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    return table


def _cpu_table(gateways: Sequence[Result], connections: Sequence[int]) -> Table:
    columns = [
        f"{what}, {n}" for n in connections for what in ("answering", "control plane", "sum")
    ]
    return _table(
        "CPU µs a request, by connections",
        ["gateway", *columns],
        (
            [
                gateway["name"],
                *(
                    cell[name]
                    for cell in gateway["cells"]
                    for name in ("cpu_us", "others_cpu_us", "sum_cpu_us")
                ),
            ]
            for gateway in gateways
            if any(cell["cpu_us"] is not None for cell in gateway["cells"])
        ),
    )


def _latency_table(gateways: Sequence[Result], connections: Sequence[int]) -> Table:
    columns = [f"{what}, {n}" for n in connections for what in ("per s", "p50", "p99")]
    first = connections[0] if connections else ""
    return _table(
        "Requests/s and latency in ms, by connections; answers not 2xx, broken connections",
        ["gateway", *columns, f"p50 added, {first}", "not 2xx", "broken"],
        (
            [
                gateway["name"],
                *(
                    round(cell[name], 2) if name != "rps" else round(cell[name])
                    for cell in gateway["cells"]
                    for name in ("rps", "p50_ms", "p99_ms")
                ),
                gateway["cells"][0]["p50_added_ms"],
                sum(cell["not_2xx"] for cell in gateway["cells"]),
                sum(cell["broken"] for cell in gateway["cells"]),
            ]
            for gateway in gateways
            if gateway["cells"]
        ),
    )


def _stream_table(gateways: Sequence[Result]) -> Table:
    return _table(
        "Streams: ms to the first event at 1 connection; CPU µs a chunk at 16",
        [
            *("gateway", "first p50", "p99", "added", "CPU, paced", "control plane"),
            *("CPU, unpaced", "control plane", "chunks/s", "streams", "broken"),
        ],
        (
            [
                gateway["name"],
                *(gateway["streams"]["short"][name] for name in ("first_p50_ms", "first_p99_ms")),
                gateway["streams"]["short"]["first_added_ms"],
                *(
                    gateway["streams"][kind][name]
                    for kind in ("paced", "unpaced")
                    for name in ("cpu_us", "others_cpu_us")
                ),
                gateway["streams"]["unpaced"]["chunks_a_second"],
                sum(kind["streams"] for kind in gateway["streams"].values()),
                sum(kind["broken"] for kind in gateway["streams"].values()),
            ]
            for gateway in gateways
            if gateway["streams"]
        ),
    )


def _memory_table(gateways: Sequence[Result]) -> Table:
    def both(memory: Result | None) -> str | None:
        if memory is None:
            return None
        pss = "" if memory["pss_mb"] is None else f" / {memory['pss_mb']:.0f}"
        several = f" ({memory['processes']})" if memory["processes"] > 1 else ""
        return f"{memory['rss_mb']:.0f}{pss}{several}"

    names = ("at_start", "after", "others_at_start", "others_after")
    return _table(
        "Memory in MB, RSS / PSS (processes, where several); seconds to the first answer",
        ["gateway", "at start", "after", "control plane at start", "after", "first answer"],
        (
            [
                gateway["name"],
                *(both(gateway["memory"][name]) for name in names),
                gateway["start_s"] and round(gateway["start_s"], 2),
            ]
            for gateway in gateways
            if gateway["memory"]["at_start"]
        ),
    )


def _log_table(gateways: Sequence[Result]) -> Table:
    return _table(
        "In the store: every answered request once",
        [
            *("gateway", "answered", "rows", "whole 2xx", "cut off at most", "twice"),
            *("noted ids", "found once", "nothing is missing"),
        ],
        (
            [
                gateway["name"],
                *(gateway["logged"][n] for n in ("answered", "rows", "complete", "cut_off")),
                *(gateway["logged"][n] for n in ("twice", "noted", "noted_found")),
                "yes" if gateway["logged"]["whole"] else "NO",
            ]
            for gateway in gateways
            if gateway["logged"]
        ),
    )


def profile_text(result: Result) -> str:
    """A profile as text: see bench/profiling.py."""
    whole = result["cpu_us"]
    lines = [
        f"{whole:.0f} µs of CPU a request, {result['cpu_system_us']:.0f} of them in the kernel, at "
        f"{result['connections']} connections; {result['samples']} samples. µs and share:",
    ]
    for title, name in (
        ("where the time is spent", "by_group"),
        ("by function, without what it calls", "by_function"),
        ("by function of ours, with what it calls", "inclusive"),
    ):
        lines += ["", title]
        lines += [f"{us:8.1f} {us / whole:7.1%}  {label}" for label, us in result[name].items()]
    return "\n".join(lines)
