"""The cost of a gateway in front of a model: Understudy and its peers, side by side.

    .venv/bin/python -m bench.proxy [--json] [--seconds 2] [--rounds 3] [--connections 1,16,64]
                                    [--only understudy,nginx] [--workers 1,2] [--no-streams]
                                    [--peer NAME=URL[,pid=PID]] [--checkout FOLDER]
    .venv/bin/python -m bench.proxy --show FILE [--markdown]
    .venv/bin/python -m bench.proxy --profile [--seconds 20]

In each round every gateway is started, measured in front of the same upstream (bench/upstream.py),
and stopped, one after the other; the results are medians over the rounds. The load comes from
wrk. The figure to compare is CPU time a request: requests/s and latency depend on the machine's
other work. A peer that runs already needs the upstream at a known place: --upstream-port.
--show prints what an earlier run with --json wrote into a file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import psutil

from bench.gateways import Gateway, gateways, peer
from bench.load import MissingTool, find_wrk
from bench.measure import Measured, MeasurementPlan, measure
from bench.paths import ROOT
from bench.profiling import profile
from bench.proxy_summary import summary
from bench.proxy_tables import profile_text, show
from bench.upstream import CHUNKS, PACE_MS, running_upstream
from store.jsontext import JsonObject

DIRECT = "direct"


def compare(
    chosen: Sequence[Gateway],
    plan: MeasurementPlan,
    rounds: int,
    *,
    upstream_port: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> JsonObject:
    """Measures them in a number of rounds; see bench/proxy_summary.py for what is in the result.

    `say` is called with each step. A gateway that fails is reported as failed; the others go on.
    """
    results: dict[str, list[Measured]] = {gateway.name: [] for gateway in chosen}
    failed: dict[str, list[str]] = {gateway.name: [] for gateway in chosen}
    loads = [round(os.getloadavg()[0], 2)]
    began = time.perf_counter()
    with running_upstream(upstream_port, CHUNKS, PACE_MS) as upstream:
        for number in range(rounds):
            for gateway in chosen:
                say(f"round {number + 1} of {rounds}: {gateway.name}")
                if gateway.missing is not None:
                    failed[gateway.name] = [f"not installed: {gateway.missing}"]
                    continue
                try:
                    results[gateway.name].append(measure(gateway, upstream, plan))
                except (RuntimeError, ValueError, OSError, psutil.Error, duckdb.Error) as error:
                    failed[gateway.name].append(f"{type(error).__name__}: {error}")
            loads.append(round(os.getloadavg()[0], 2))
    return {
        "method": {
            "seconds": plan.seconds,
            "rounds": rounds,
            "connections": list(plan.connections),
            "chunks_a_stream": CHUNKS,
            "chunk_pace_ms": PACE_MS,
            "took_s": round(time.perf_counter() - began, 1),
        },
        "machine": {
            "cores": os.cpu_count(),
            "system": sys.platform,
            "load_before_and_after_each_round": loads,
        },
        "gateways": [
            summary(
                gateway.name, results[gateway.name], results.get(DIRECT, []), failed[gateway.name]
            )
            for gateway in chosen
        ],
    }


def chosen_of(known: Sequence[Gateway], only: Sequence[str]) -> list[Gateway]:
    """The gateways with these names or prefixes: `understudy` is all of ours.

    Raises ValueError for an unknown name.
    """
    for name in only:
        if not any(_is_meant(gateway, name) for gateway in known):
            names = ", ".join(gateway.name for gateway in known)
            raise ValueError(f"{name}: no gateway; there are {names}")
    return [g for g in known if not only or any(_is_meant(g, name) for name in only)]


def _is_meant(gateway: Gateway, name: str) -> bool:
    return gateway.name == name or gateway.name.startswith(f"{name}-")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", action="store_true", help="JSON instead of tables")
    add("--markdown", action="store_true", help="tables in Markdown")
    add("--show", type=Path, metavar="FILE", help="an earlier run's JSON as tables")
    add("--seconds", type=int, default=2, help="of each cell")
    add("--rounds", type=int, default=3)
    add("--connections", type=_numbers, default=[1, 16, 64], metavar="N,N…")
    add("--no-streams", action="store_true", help="whole answers alone")
    add("--only", type=lambda names: names.split(","), default=[], metavar="NAME,NAME…")
    add("--workers", type=_numbers, default=[1], metavar="N,N…", help="rows with server.workers")
    add("--peer", type=peer, action="append", default=[], metavar="NAME=URL[,pid=PID]")
    add("--upstream-port", type=int, default=0, help="where peers find the upstream; 0: any")
    add("--checkout", type=Path, default=ROOT, help="folder of the Understudy to measure")
    add("--profile", action="store_true", help="where the time of a tagged request goes: py-spy")
    return parser.parse_args()


def main() -> None:
    """Prints the tables, or the same as JSON."""
    arguments = _arguments()
    if arguments.show:
        try:
            show(json.loads(arguments.show.read_bytes()), markdown=arguments.markdown)
        except OSError as error:
            sys.exit(f"{arguments.show}: {error.strerror}")
        except (ValueError, KeyError, TypeError):
            sys.exit(f"{arguments.show} holds no whole result of --json")
        return
    try:
        find_wrk()
        known = gateways(arguments.workers, arguments.checkout.resolve(), arguments.peer)
        if arguments.profile:
            results = profile(arguments.checkout.resolve(), seconds=max(arguments.seconds, 5))
            print(json.dumps(results, indent=1) if arguments.json else profile_text(results))
            return
        chosen = chosen_of(known, arguments.only)
    except (MissingTool, ValueError) as error:
        sys.exit(str(error))
    result = compare(
        chosen,
        MeasurementPlan(arguments.connections, arguments.seconds, streams=not arguments.no_streams),
        arguments.rounds,
        upstream_port=arguments.upstream_port,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        show(result, markdown=arguments.markdown)


if __name__ == "__main__":
    main()
