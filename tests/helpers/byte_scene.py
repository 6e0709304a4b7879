"""A running proxy, and a client that sends it any bytes and waits until it is its turn again."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httptools
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings

from proxy.app import SURFACES
from proxy.http.kernel import has_unread
from proxy.http.protocol import Protocol
from tests.helpers.api_teacher import in_few_words
from tests.helpers.serving import ProxyThread, in_its_loop, settings
from tests.helpers.teacher_server import LoopbackServer

EXAMPLES = int(os.environ.get("UNDERSTUDY_FUZZ_EXAMPLES", "60"))
SEED = int(os.environ.get("UNDERSTUDY_FUZZ_SEED", "0"))
WITHIN_S = 60  # a hang guard: no answer takes a hundredth of it
TRACE = b"x-understudy-trace"
JSON = b"application/json"
ALIAS = "by another name"  # the teacher knows it as gpt-4o
GOOD = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
PATHS = [*(s.path for s in SURFACES), "/v1/feedback", "/v1/models/gpt-4o", "/health", "/metrics"]

HOW = hypothesis_settings(
    max_examples=EXAMPLES,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Answer:
    """What a client reads, as httptools hands it over."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


class Answers:
    """Several, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self.found: list[Answer] = []
        self.parser = httptools.HttpResponseParser(self)
        if raw:
            self.parser.feed_data(raw)

    def on_message_begin(self) -> None:
        self.found.append(Answer())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found[-1].on_header(name, value)

    def on_headers_complete(self) -> None:
        self.found[-1].status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.found[-1].on_body(data)

    def on_message_complete(self) -> None:
        self.found[-1].on_message_complete()


@dataclass
class Scene:
    """A proxy, and the traces that it has told of."""

    proxy: ProxyThread
    told: list[str] = field(default_factory=list)

    def say(self, *pieces: bytes) -> list[Answer]:
        """Sends the pieces; all that is answered until the proxy waits for more, or hangs up."""
        got = bytearray()
        with socket.create_connection(("127.0.0.1", self.proxy.port), WITHIN_S) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError):  # it has heard enough
                for piece in pieces:
                    client.sendall(piece)
            client.setblocking(False)
            deadline = time.monotonic() + WITHIN_S
            while not self._read(client, got):
                assert time.monotonic() < deadline, f"no end of the answer after {got[-200:]!r}"
                if self._waits_for(client):
                    self._read(client, got)
                    break
                select.select([client], [], [], 0.002)
        found = Answers(bytes(got)).found
        self.told += [a.headers[TRACE].decode() for a in found if TRACE in a.headers]
        return found

    def _read(self, client: socket.socket, got: bytearray) -> bool:
        """Takes what is there; whether that was the end."""
        try:
            while more := client.recv(1 << 16):
                got += more
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True

    def _waits_for(self, client: socket.socket) -> bool:
        """Whether the proxy has read all, has answered, and it is the client's turn."""
        name = client.getsockname()
        for connection in self.proxy.connections:
            if connection.client == name:
                return bool(in_its_loop(connection, lambda c=connection: its_turn(c)))
        return False  # not accepted yet, or just closed

    def is_well(self) -> None:
        """Somebody else is served."""
        [answer] = self.say(request(b"/v1/chat/completions", json.dumps(GOOD).encode()))
        assert (answer.status, answer.whole) == (200, True)


def its_turn(connection: Protocol) -> bool:
    """Whether nothing more comes from the proxy until the client says something."""
    unsent = connection.transport.get_write_buffer_size()
    return connection._waits_for_client() and not has_unread(connection.transport) and not unsent


def proper(answers: list[Answer]) -> None:
    """Nothing is our fault, and what is refused is refused in words."""
    for answer in answers:
        assert answer.status < 500, (answer.status, answer.body)
        if answer.status >= 400 and answer.body and answer.headers[b"content-type"] == JSON:
            assert json.loads(answer.body)["error"]["message"]


@contextmanager
def fuzzed(tmp_path: Path) -> Iterator[Scene]:
    """Leaves with a look into the journal: it has what was told, each once."""
    with LoopbackServer(in_few_words) as teacher:
        raw = settings(teacher.base_url, tmp_path, server={"body_limit_mb": 0.25})
        params = {"model": "openai/gpt-4o", "api_base": teacher.base_url, "api_key": "sk-x"}
        raw["model_list"].append({"model_name": ALIAS, "litellm_params": params})
        with ProxyThread(raw) as proxy:
            found = Scene(proxy)
            yield found
            found.is_well()
            traces = [t["trace_id"] for t in proxy.traces() if "outcome" in t]
            counted = Counter(traces)
            assert max(counted.values()) == 1
            assert set(found.told) <= set(counted)
            assert len(found.told) == len(set(found.told))


def request(path: bytes, body: bytes, *fields: bytes, method: bytes = b"POST") -> bytes:
    head = [
        method + b" " + path + b" HTTP/1.1",
        b"host: localhost",
        b"content-length: %d" % len(body),
    ]
    return b"\r\n".join([*head, *fields, b"", b""]) + body
