"""The data plane's counts, and the page that Prometheus reads."""

import asyncio
import os
from collections import Counter

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.observe.metrics import DURATION_S, MAX_TASKS, OTHER_TASKS, Metrics
from proxy.observe.metrics_page import MetricsPage, families
from store.files.journal import JournalWriter
from store.settings.config import JournalSettings
from store.settings.limits import ServerLimits
from tests.helpers.raw_http import Raw
from tests.helpers.samples import a_trace
from tests.helpers.serving import ProxyThread, settings
from tests.helpers.teacher_server import LoopbackServer, completion, error

ALONE = {"in_flight": 0, "backlog": 0, "lost": 0}


def shown(*workers):
    """Every sample of these workers' metrics: (name, labels) → value."""
    snapshots = {n: {**ALONE, **metrics.snapshot()} for n, metrics in enumerate(workers)}
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(snapshots)
        for sample in family.samples
    }


def total(samples, name, **labels):
    """The sum over all samples of a name that have these labels."""
    return sum(
        value
        for (found, of), value in samples.items()
        if found == name and labels.items() <= dict(of).items()
    )


def test_a_trace_is_counted_with_its_time_and_its_tokens():
    metrics = Metrics()
    metrics.count(
        a_trace(task="triage", duration_ms=30.0, input_tokens=9, output_tokens=2, cached_tokens=4)
    )
    samples = shown(metrics)
    assert total(samples, "understudy_requests_total", task="triage") == 1
    assert total(samples, "understudy_tokens_total", type="input") == 9
    assert total(samples, "understudy_tokens_total", type="output") == 2
    assert total(samples, "understudy_tokens_total", type="cached") == 4
    name = "understudy_request_duration_seconds"
    assert total(samples, f"{name}_count") == 1
    assert total(samples, f"{name}_sum") == pytest.approx(0.03)
    assert total(samples, f"{name}_bucket", le="0.02") == 0
    assert total(samples, f"{name}_bucket", le="0.04") == 1


@given(
    durations=st.lists(st.floats(0, 200_000), max_size=50),
    tasks=st.lists(st.sampled_from([None, "a", "b"]), min_size=50, max_size=50),
)
@pytest.mark.slow
def test_every_trace_is_in_every_count_once(durations, tasks):
    metrics = Metrics()
    for duration, task in zip(durations, tasks, strict=False):
        metrics.count(a_trace(task=task, duration_ms=duration))
    samples = shown(metrics)
    by_task = Counter((task or "") for task in tasks[: len(durations)])
    for task, count in by_task.items():
        assert total(samples, "understudy_requests_total", task=task) == count
        name = "understudy_request_duration_seconds"
        assert total(samples, f"{name}_bucket", task=task, le="+Inf") == count
        for bound in DURATION_S:
            below = sum(
                d / 1000 <= bound
                for d, t in zip(durations, tasks, strict=False)
                if (t or "") == task
            )
            assert total(samples, f"{name}_bucket", task=task, le=str(bound)) == below


@pytest.mark.slow
def test_clients_that_invent_tags_do_not_fill_the_memory():
    metrics = Metrics()
    for number in range(MAX_TASKS + 50):
        metrics.count(a_trace(task=f"task-{number}"))
    metrics.count(a_trace(task="task-0"))
    samples = shown(metrics)
    assert len(metrics.usage) == MAX_TASKS + 1
    assert total(samples, "understudy_requests_total", task=OTHER_TASKS) == 50
    assert total(samples, "understudy_requests_total", task="task-0") == 2


def test_metrics_name_their_worker():
    one, two = Metrics(), Metrics()
    one.count(a_trace(task="a"))
    two.count(a_trace(task="a"))
    two.refused(429)
    samples = shown(one, two)
    assert total(samples, "understudy_requests_total", task="a") == 2
    assert total(samples, "understudy_requests_total", task="a", worker="1") == 1
    assert total(samples, "understudy_refused_total", status="429", worker="1") == 1


def worker_of_two(folder, number, clock):
    """One of two workers: its metrics and its page. `clock`: a list with the time."""
    metrics = Metrics()
    page = MetricsPage(
        metrics,
        keys=Keys([]),
        limits=Limits(ServerLimits(), [], folder),
        journal=JournalWriter(folder / "journal", JournalSettings(), number),
        folder=folder / "metrics",
        worker=number,
        workers=2,
        clock=lambda: clock[0],
    )
    return metrics, page


def test_each_worker_shows_what_the_others_left_and_a_successor_takes_over(tmp_path):
    clock = [1_800_000_000.0]

    def worker(number):
        return worker_of_two(tmp_path, number, clock)

    (one, here), (two, there) = worker(0), worker(1)
    one.count(a_trace(task="a"))
    two.count(a_trace(task="a"))
    there.tick()
    assert total(shown_by(here), "understudy_requests_total", task="a") == 2
    clock[0] += 2
    _, successor = worker(1)  # of a config that was read again
    successor.tick()
    clock[0] += 2
    there.tick()  # drains still
    assert total(shown_by(here), "understudy_requests_total", worker="1") == 0
    clock[0] += 120
    assert ("understudy_requests_in_flight", (("worker", "1"),)) not in shown_by(here)


@pytest.mark.parametrize("put", [b"{}", b"[1]", b'{"at": "x"}', b"\xff", os.mkfifo, os.mkdir])
def test_what_is_no_worker_s_counts_is_passed_over_and_written_again(put, tmp_path):
    """A pipe in their place would be waited for, by all requests of the worker."""
    clock = [1_800_000_000.0]
    (one, here), (two, there) = (worker_of_two(tmp_path, number, clock) for number in (0, 1))
    for metrics in (one, two):
        metrics.count(a_trace(task="a"))
    file = tmp_path / "metrics" / "worker-1.json"
    file.parent.mkdir()
    put(file) if callable(put) else file.write_bytes(put)
    assert total(shown_by(here), "understudy_requests_total") == 1
    there.tick()
    assert total(shown_by(here), "understudy_requests_total") == 2


def test_counts_of_a_clock_that_was_ahead_do_not_hold_a_worker_s_own_back(tmp_path):
    clock = [1_800_086_400.0]
    worker_of_two(tmp_path, 1, clock)[1].tick()
    clock[0] -= 86_400
    (_, here), (two, there) = (worker_of_two(tmp_path, number, clock) for number in (0, 1))
    two.count(a_trace(task="a"))
    there.tick()
    assert total(shown_by(here), "understudy_requests_total", worker="1") == 1


def shown_by(page):
    """Every sample that a worker's page shows."""
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(page({"headers": []}, None, send))
    return samples_of(sent[-1]["body"].decode())


# ---- through the proxy -------------------------------------------------------------------------


def ask(proxy, text="hello", **headers):
    return httpx.post(
        f"{proxy.base_url}/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": text}]},
        headers=headers,
        timeout=30,
    )


def page(proxy, **headers):
    answer = httpx.get(f"{proxy.url}/metrics", headers=headers)
    assert answer.status_code == 200
    return answer


def samples_of(text, parse=text_string_to_metric_families):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


@pytest.mark.slow
def test_prometheus_reads_the_page_in_both_of_its_formats(tmp_path):
    with (
        LoopbackServer() as teacher,
        ProxyThread(settings(teacher.base_url, tmp_path)) as proxy,
    ):
        teacher.script(completion("canary-4711"), error(500, "no"))
        ask(proxy, **{"X-Understudy-Task": "triage"})
        ask(proxy)
        httpx.post(f"{proxy.base_url}/chat/completions", content=b"no json")
        httpx.get(f"{proxy.url}/nowhere")
        with Raw(proxy.port) as raw:
            raw.send(b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000)
            assert raw.read_all().startswith(b"HTTP/1.1 431 ")
        plain = page(proxy)
        found = samples_of(plain.text)
        name = "understudy_requests_total"
        assert total(found, name, task="triage", outcome="complete") == 1
        assert total(found, name, task="", outcome="error") == 1
        assert total(found, "understudy_refused_total", status="400") == 1
        assert total(found, "understudy_refused_total", status="404") == 1
        assert total(found, "understudy_refused_total", status="431") == 1
        assert total(found, "understudy_requests_in_flight") == 0
        opened = page(proxy, Accept="application/openmetrics-text; version=1.0.0")
        assert opened.headers["content-type"].startswith("application/openmetrics-text")
        assert total(samples_of(opened.text, open_metrics), name) == 2
        assert "hello" not in plain.text and "canary" not in plain.text


def test_the_page_asks_for_a_key_where_the_proxy_does(tmp_path):
    keyed = {"keys": [{"key": "sk-one", "name": "one"}]}
    with (
        LoopbackServer() as teacher,
        ProxyThread(settings(teacher.base_url, tmp_path, server=keyed)) as proxy,
    ):
        assert httpx.get(f"{proxy.url}/metrics").status_code == 401
        page(proxy, Authorization="Bearer sk-one")
