"""Every answered request is in the journal: at once, and whatever is killed when."""

import json
import os
import socket
import threading
import time
from signal import SIGKILL

import httpx
import pytest

from store.files.journal import sealed_segments
from tests.helpers.serving import ProxyProcess, settings
from tests.helpers.teacher_server import echo, events, stream

LENGTH = b"content-length: "


@pytest.fixture
def process(teacher, tmp_path):
    with ProxyProcess(settings(teacher.base_url, tmp_path / "data"), tmp_path) as running:
        yield running


def request(text, *, streamed):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "stream": streamed}
    raw = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(raw)
    return head + raw


def whole(got):
    """Whether these bytes end a plain answer, or show the end of a stream."""
    head, found, body = got.partition(b"\r\n\r\n")
    if not found:
        return False
    if LENGTH in head:
        length = int(head.split(LENGTH)[1].split(b"\r\n")[0])
        return len(body) >= length
    return b"[DONE]" in body or body.endswith(b"0\r\n\r\n")


def exchange(connection, text, *, streamed):
    """The id of the trace of an answer that came whole, None when the connection ended before."""
    got = b""
    try:
        connection.sendall(request(text, streamed=streamed))
        while not whole(got):
            more = connection.recv(1024)
            if not more:
                return None
            got += more
    except OSError:
        return None
    return got.split(b"x-understudy-trace: ")[1].split(b"\r\n")[0].decode()


def connect(process):
    return socket.create_connection(("127.0.0.1", process.port), timeout=30)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.slow
def test_the_trace_is_there_when_the_last_byte_is(streamed, process):
    for n in range(60):
        with connect(process) as connection:
            trace_id = exchange(connection, f"number {n}", streamed=streamed)
            assert trace_id is not None
            assert trace_id in process.journal()


@pytest.mark.slow
def test_the_trace_is_there_when_a_stream_without_done_ends(process, teacher):
    reply = stream("no end mark")
    teacher.answer = lambda received: events(*reply.chunks[:-1])
    for n in range(20):
        with connect(process) as connection:
            trace_id = exchange(connection, f"number {n}", streamed=True)
            assert trace_id is not None
            assert trace_id in process.journal()


@pytest.mark.parametrize("after_s", [0.3, 0.8])
@pytest.mark.slow
def test_kill_9_under_load_loses_no_answered_request(after_s, process, teacher):
    teacher.answer = lambda received: echo(received).paced(0.002)
    got_whole = []
    stop = threading.Event()

    def load(number):
        while not stop.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", process.port), timeout=10)
            except OSError:
                return
            with connection:
                trace_id = exchange(connection, f"from {number}", streamed=number % 2 == 0)
                if trace_id is not None:
                    got_whole.append(trace_id)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    while len(got_whole) < 20:
        time.sleep(0.01)
    time.sleep(after_s)
    os.kill(process.process.pid, SIGKILL)
    process.process.wait(10)
    stop.set()
    process.stop_listening()  # connections in its backlog are dropped
    for thread in threads:
        thread.join(30)
    segments = sealed_segments(process.config.journal_dir)
    lines = b"".join(path.read_bytes() for path in segments).splitlines()
    journalled = [json.loads(line)["trace_id"] for line in lines]
    assert len(got_whole) >= 20
    assert set(got_whole) <= set(journalled)
    assert len(journalled) == len(set(journalled))


@pytest.mark.slow
def test_a_journal_that_cannot_be_written_stops_nobody(start_proxy, tmp_path):
    (tmp_path / "data").mkdir()
    blocked = tmp_path / "data" / "journal"
    blocked.write_text("in the way")
    proxy = start_proxy()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(3):
        assert httpx.post(f"{proxy.base_url}/chat/completions", json=body).status_code == 200
    health = httpx.get(f"{proxy.url}/health").json()
    assert health["status"] == "degraded"
    assert health["journal"]["backlog"] == 3
    assert health["journal"]["error"] == "journal: the journal cannot be written: File exists"
    blocked.unlink()
    assert len(proxy.wait_for_traces(3)) == 3
    assert httpx.get(f"{proxy.url}/health").json()["status"] == "ok"
