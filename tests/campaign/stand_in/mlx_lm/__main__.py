"""`python -m mlx_lm server …`: answers on the student's wire, as well or as badly as a file says.

The file that UNDERSTUDY_CAMPAIGN_STUDENT names has the name of a way to answer; it is read at each
request. `campaign.student` describes what the ways lead to.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

SURE, UNSURE = -0.01, -5.0
SLOW_S = 4.0  # longer than the campaign's `student.request_timeout_s`


class Student(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    origin: ClassVar[str] = ""

    def do_GET(self) -> None:
        self._send(200, b'{"status": "ok"}')

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        messages = json.loads(self.rfile.read(length))["messages"]
        text = messages[-1]["content"]
        self._answer(_way(), completion(text))

    def _answer(self, way: str, good: dict[str, Any]) -> None:
        whole = json.dumps(good).encode()
        if way == "slow":
            time.sleep(SLOW_S)
            self._send(200, whole)
        elif way == "error":
            self._send(500, b'{"error": "out of memory"}')
        elif way == "no JSON":
            self._send(200, b"<html>not a completion</html>")
        elif way == "other JSON":
            self._send(200, b'{"choices": [{"message": {"content": {"a": [1]}}}], "usage": 1e300}')
        elif way == "no text":
            good["choices"][0]["message"]["content"] = ""
            self._send(200, json.dumps(good).encode())
        elif way == "cut off":
            good["choices"][0]["finish_reason"] = "length"
            self._send(200, json.dumps(good).encode())
        elif way == "no log-probabilities":
            good["choices"][0]["logprobs"] = None
            self._send(200, json.dumps(good).encode())
        elif way == "half an answer":
            self._send(200, whole[: len(whole) // 2], stated=len(whole))
            self.close_connection = True
        elif way == "dies":
            self._send(200, whole[: len(whole) // 2], stated=len(whole))
            self.wfile.flush()
            os._exit(1)
        else:
            self._send(200, whole)

    def _send(self, status: int, body: bytes, *, stated: int | None = None) -> None:
        self.send_response(status)
        if self.headers.get("origin") == self.origin:
            self.send_header("Access-Control-Allow-Origin", self.origin)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body) if stated is None else stated))
        self.end_headers()
        self.wfile.write(body)


def completion(text: str) -> dict[str, Any]:
    """The right answer to a request of a campaign: see tests.campaign.wire."""
    number = text.rsplit(maxsplit=1)[-1]
    logprob = UNSURE if number.endswith("7") else SURE
    tokens = [{"token": "t", "logprob": logprob, "top_logprobs": []}]
    return {
        "id": "chatcmpl-student",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "student",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": f"answer {number}"},
                "logprobs": {"content": tokens},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
    }


def _way() -> str:
    try:
        return Path(os.environ["UNDERSTUDY_CAMPAIGN_STUDENT"]).read_text(encoding="utf-8")
    except (KeyError, OSError):
        return ""


class Server(ThreadingHTTPServer):
    """With the backlog that a burst of requests needs."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--allowed-origins")
    known, _ = parser.parse_known_args(sys.argv[1:])
    Student.origin = known.allowed_origins
    Server((known.host, known.port), Student).serve_forever()


if __name__ == "__main__":
    main()
