"""What happens when there are more connections than descriptors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.http.accept import connections_within
from tests.helpers.paths import ROOT
from tests.helpers.raw_http import Lone, echo, post
from tests.helpers.serving import wait_until


def test_connections_beyond_the_limit_are_refused_at_once_and_others_served() -> None:
    with Lone(echo) as server:
        assert server.worker._acceptor is not None
        server.worker._acceptor._max_connections = 2
        with server.connect() as first, server.connect() as second:
            wait_until(lambda: len(server.connections) == 2)
            with server.connect() as third:
                third.send(post())
                answer = third.read_all()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"connection: close" in answer and b"too_many_connections" in answer
            for client in (first, second):
                client.send(post("/x", b"y"))
                assert client.read_answer()[0] == 200
        wait_until(lambda: not server.connections)
        with server.connect() as later:
            later.send(post())
            assert later.read_answer()[0] == 200


@pytest.mark.parametrize(
    ("descriptors", "in_flight", "connections"),
    [(1024, 1000, 448), (1024, 100, 860), (65536, 1000, 64472), (100, 1000, 1)],
)
def test_descriptors_are_kept_for_upstreams_and_the_journal(
    descriptors: int, in_flight: int, connections: int
) -> None:
    assert connections_within(descriptors, in_flight) == connections


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; from proxy.http.accept import raise_descriptor_limit as up;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, 512));"
        "print(up(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["512", "512", "512"]
