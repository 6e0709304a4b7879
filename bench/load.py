"""The load: the clients' requests, and wrk that sends them (https://github.com/wg/wrk)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.upstream import PACED
from store.jsontext import JsonObject

TASK = "parcel-triage"
KEY = "sk-bench-0123456789abcdef"
PATH = "/v1/chat/completions"
TIMEOUT_S = 60
_SCRIPT = Path(__file__).with_name("wrk.lua")
# as the OpenAI client for Python sends them
HEADERS = {
    "accept": "application/json",
    "content-type": "application/json",
    "user-agent": "OpenAI/Python 1.60.0",
    "authorization": f"Bearer {KEY}",
}
_SYSTEM = (
    "You sort e-mails of customers of a parcel service. Reply with one word: delay, damage, "
    "address, pickup, invoice or other. Take the reason for which the customer writes, not every "
    "word that occurs. A parcel that has not come is a delay, also when the customer fears that it "
    "is lost. Broken goods are damage, and so is a wet or an opened parcel. Anything about money "
    "is an invoice. When two fit, take the one that comes first in this list."
)
_USER = (
    "Good morning, my parcel 00340434161094042557 was to come on Tuesday between ten and twelve. "
    "I stayed at home for it and nobody rang. The tracking page says since then that it is on its "
    "way to me, with no day. It holds a present for Saturday, so could you please tell me where "
    "it is, and whether I can fetch it myself from the depot? Thank you, and kind regards."
)


class MissingTool(Exception):
    """A program that has to be installed first; the message says how."""


@dataclass(frozen=True, slots=True)
class Load:
    """wrk's results of one cell."""

    connections: int
    seconds: float
    requests: int  # answers that came
    not_2xx: int  # of them; wrk counts statuses from 400
    broken: int  # connections that could not be made or broke, and answers that took too long
    p50_ms: float
    p99_ms: float

    @property
    def good(self) -> int:
        return self.requests - self.not_2xx


def chat_body(model: str = PACED, *, stream: bool = False) -> bytes:
    """A chat completion of about 1 KB, with a system prompt."""
    body: JsonObject = {
        "model": model,
        "messages": [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": _USER},
        ],
        "temperature": 0,
        "max_tokens": 16,
    }
    return orjson.dumps({**body, "stream": True} if stream else body)


def find_wrk() -> str:
    """The path of wrk. Raises MissingTool."""
    program = shutil.which("wrk")
    if program is None:
        raise MissingTool(
            "wrk, the load generator, is not installed: "
            "`apt-get install wrk` (Debian, Ubuntu) or `brew install wrk` (macOS)"
        )
    return program


def load(
    url: str,
    *,
    connections: int,
    seconds: int,
    bodies: Sequence[bytes] = (),
    headers: Mapping[str, str] = HEADERS,
    ledger: Path | None = None,
) -> Load:
    """Sends requests over a number of connections for some seconds, sequentially on each.

    `url`: without /v1. `bodies`: sent in turn; none: the usual one. `ledger`: a file for a line an
    answer with its status, its trace's id and its route. Raises MissingTool without wrk, and
    RuntimeError when it fails, for example without a server.
    """
    with tempfile.TemporaryDirectory(prefix="understudy-wrk-") as name:
        folder = Path(name)
        lines = b"\n".join(bodies or [chat_body()])
        (folder / "bodies").write_bytes(lines + b"\n")
        (folder / "headers").write_text("".join(f"{n}: {v}\n" for n, v in headers.items()))
        command = [
            find_wrk(),
            *("--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{TIMEOUT_S}s"),
            *("--script", str(_SCRIPT), url + PATH),
            *("--", str(folder / "bodies"), str(folder / "headers")),
            *([str(ledger)] if ledger else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode != 0 or not last.startswith("{"):
        output = (done.stderr or done.stdout).strip()[-300:]
        raise RuntimeError(f"wrk failed with exit status {done.returncode}: {output}")
    return Load(connections=connections, **orjson.loads(last))
