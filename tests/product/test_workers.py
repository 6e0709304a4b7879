"""Several workers on one port: the spread of connections, and killed workers."""

from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.load import Load, stored
from tests.helpers.served import Served
from tests.helpers.serving import settings, wait_until
from tests.helpers.teacher_server import LoopbackServer

pytestmark = pytest.mark.slow


def config(teacher: LoopbackServer, **server: Any) -> dict[str, Any]:
    raw = settings(teacher.base_url, Path("unused"))
    return {"model_list": raw["model_list"], "server": {"port": 0, "workers": 2, **server}}


@pytest.fixture
def served(tmp_path: Path, teacher: LoopbackServer) -> Iterator[Served]:
    with Served(tmp_path, config(teacher)) as server:
        wait_until(lambda: health(server)["status"] == "ok", within_s=60)
        yield server


def health(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/health", timeout=30).json()
    return found


def workers(served: Served) -> list[psutil.Process]:
    """The processes of the workers, in their order."""
    found = [c for c in served.process.children() if "proxy.worker" in c.cmdline()]
    return sorted(found, key=lambda c: json.loads(c.environ()["UNDERSTUDY_RUNTIME"])["worker"])


def replaced(served: Served, victim: psutil.Process) -> bool:
    now = [worker.pid for worker in workers(served)]
    return len(now) == 2 and victim.pid not in now


def connect(served: Served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 30)


def who_answers(connection: socket.socket) -> int:
    """The worker at the other end of a connection."""
    connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    got = b""
    while b"}]}" not in got:
        got += connection.recv(65536)
    return int(json.loads(got.partition(b"\r\n\r\n")[2])["worker"])


def test_connections_go_to_the_least_busy_worker(served: Served) -> None:
    """In a burst, and then one by one: no worker takes all connections, unless it is alone.

    A stop ends them all.
    """
    with ThreadPoolExecutor(64) as pool:
        burst = list(pool.map(lambda _: connect(served), range(64)))
    wait_until(lambda: sum(w["connections"] for w in health(served)["workers"]) >= 64)
    counts = Counter(map(who_answers, burst))
    assert counts.total() == 64
    assert min(counts[0], counts[1]) >= 16, counts

    # now the one that has fewer gets more of them
    single = [connect(served) for _ in range(32)]
    counts += Counter(map(who_answers, single))
    assert min(counts[0], counts[1]) >= 32, counts

    for connection in (*burst, *single):
        connection.close()
    wait_until(lambda: sum(w["connections"] for w in health(served)["workers"]) <= 1)

    # one that is stuck is passed over
    stuck = workers(served)[0]
    stuck.suspend()
    try:
        wait_until(lambda: not health(served)["workers"][0]["alive"])
        assert health(served)["status"] == "degraded"
        connections = [connect(served) for _ in range(40)]
        assert set(map(who_answers, connections)) == {1}
        for connection in connections:
            connection.close()
    finally:
        stuck.resume()
    wait_until(lambda: health(served)["status"] == "ok")

    with served.client() as client:
        client.models.list()
        assert served.stop() == []
    assert served.process.returncode == 0


def test_a_killed_worker_costs_no_answer_and_no_trace(served: Served) -> None:
    first = workers(served)
    with Load(served, threads=4, retries=3, streams=False) as load:
        for number in (0, 1):
            load.wait_for(50)
            victim = workers(served)[number]
            victim.send_signal(signal.SIGKILL)
            load.wait_for(100)
            # "ok" alone is not enough: it is also reported in the first moment after the kill
            wait_until(lambda: replaced(served, victim), within_s=60)  # noqa: B023
            wait_until(lambda: health(served)["status"] == "ok", within_s=60)

    assert load.errors == []
    again = workers(served)
    assert len(again) == 2
    assert not {w.pid for w in again} & {w.pid for w in first}
    assert "proxy 0 ended (killed by SIGKILL)" in served.output
    assert served.stop() == []
    traces = Counter(stored(served))
    assert max(traces.values()) == 1
    assert set(load.answers) <= traces.keys()
    assert len(set(load.answers)) == len(load.answers)


def test_each_worker_reports_the_journals_of_all(served: Served) -> None:
    """Any worker reports a journal that cannot be written."""
    journal = served.data_dir / "journal"
    journal.write_text("a file in the way")  # the folder comes with the first trace
    with served.client() as client:
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hello"}]
        )

    def broken() -> list[bool]:
        return [not w["journal_ok"] for w in health(served)["workers"]]

    wait_until(lambda: any(broken()))  # told once a second
    connections = [connect(served) for _ in range(8)]
    assert set(map(who_answers, connections)) == {0, 1}
    for connection in connections:
        connection.close()
    for _ in range(8):
        found = health(served)
        assert found["status"] == "degraded"
        assert sum(broken()) == 1
    journal.unlink()
    wait_until(lambda: health(served)["status"] == "ok")
    wait_until(lambda: httpx.get(f"{served.url}/distill/status").status_code == 200, within_s=60)
    assert served.stop() == []
    assert len(stored(served)) == 1


def test_the_status_says_which_routes_the_workers_have(served: Served) -> None:
    routes = served.data_dir / "routes.json"

    def proxies() -> Any:
        status = httpx.get(f"{served.url}/distill/status", timeout=30)
        return status.json()["proxies"] if status.status_code == 200 else None

    wait_until(lambda: proxies() == {"workers": 2, "current": 2}, within_s=60)
    published = routes.read_bytes()
    routes.write_text("{}")
    wait_until(lambda: routes.read_bytes() not in (b"{}", b""))
    assert json.loads(routes.read_bytes())["routes"] == json.loads(published)["routes"]
    wait_until(lambda: proxies() == {"workers": 2, "current": 2})
    assert health(served)["routes"]["error"] is None
