"""The effects of the limits for clients, and of where spans go. The table comes last."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.helpers.effects import Effect, Raw
from tests.helpers.effects_serving import WITH_A_KEY, ask, proxied
from tests.helpers.serving import ProxyThread, wait_until
from tests.helpers.teacher_server import LoopbackServer, completion
from tests.proxy.observe.test_telemetry import Collector


def statuses_in_a_row(raw: Raw) -> list[int]:
    with proxied(raw) as (proxy, _):
        return [ask(proxy).status_code for _ in range(3)]


def status_beside_another(raw: Raw) -> int:
    """Of a request of some 20 KB while one of the same size is under way."""
    with proxied(raw) as (proxy, teacher), ThreadPoolExecutor(1) as pool:
        teacher.script(completion("late").held(answered := threading.Event()))
        first = pool.submit(ask, proxy, "x" * 20_000)
        wait_until(lambda: teacher.requests)
        second = ask(proxy, "x" * 20_000).status_code
        answered.set()
        assert first.result().status_code == 200
        return second


def spans_at_the_collector(raw: Raw) -> int:
    with Collector() as collector, LoopbackServer() as teacher:
        raw["model_list"][0]["litellm_params"]["api_base"] = teacher.base_url
        if raw["telemetry"]["otlp_endpoint"] is not None:
            raw["telemetry"]["otlp_endpoint"] = collector.url
        with ProxyThread(raw) as proxy:
            assert httpx.get(f"{proxy.url}/health").status_code == 200
            ask(proxy)
        return len(collector.spans)


LIMITS: dict[str, Effect] = {
    "server.keys.limits": Effect(
        statuses_in_a_row,
        ({}, [200, 200, 200]),
        ({"requests_per_minute": 2}, [200, 200, 429]),
        WITH_A_KEY,
    ),
    "server.limits.requests_per_minute": Effect(
        statuses_in_a_row, (None, [200, 200, 200]), (1, [200, 429, 429])
    ),
    # an answer takes ten
    "server.limits.tokens_per_minute": Effect(
        statuses_in_a_row, (5, [200, 429, 429]), (15, [200, 200, 429])
    ),
    "server.limits.in_flight": Effect(status_beside_another, (1, 429), (2, 200)),
    "server.limits.in_flight_mb": Effect(status_beside_another, (0.03, 429), (0.1, 200)),
    "telemetry.otlp_endpoint": Effect(
        spans_at_the_collector, (None, 0), ("http://127.0.0.1:4318", 1)
    ),
}
