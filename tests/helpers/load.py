"""Steady load from the official OpenAI client, as a user's application makes it."""

from __future__ import annotations

import threading
from typing import Self

import duckdb
import openai
from openai.types.chat import ChatCompletion

from tests.helpers.served import Served
from tests.helpers.serving import wait_until


class Load:
    """Threads that ask one question after the other, every second one streamed if `streams`.

    They rest for `rest_s` in between, so that what is tested gets some of the CPU.

    Each question is answered once and by its own echo, or it is an error. `answers` has the trace
    of each. `retries` are the client's own, of connections that broke.
    """

    def __init__(
        self,
        served: Served,
        *,
        threads: int = 4,
        retries: int = 0,
        streams: bool = True,
        rest_s: float = 0.005,
    ) -> None:
        self._served = served
        self._stop = threading.Event()
        self._retries = retries
        self._streams = streams
        self._rest_s = rest_s
        self.answers: list[str] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def wait_for(self, more: int) -> None:
        """Until so many more questions are answered. Fails on an error."""
        so_far = len(self.answers)
        wait_until(lambda: self.errors or len(self.answers) >= so_far + more)
        assert self.errors == []

    def _ask(self, number: int) -> None:
        with self._served.client().with_options(max_retries=self._retries) as client:
            count = 0
            while not self._stop.wait(self._rest_s):
                count += 1
                question = f"question {number} {count}"
                try:
                    ask = streamed if self._streams and (number + count) % 2 else plain
                    trace, said = ask(client, question)
                except (openai.OpenAIError, AssertionError) as error:
                    self.errors.append(f"{question}: {error!r} {error.__cause__!r}")
                    continue
                if said != f"echo: {question}":
                    self.errors.append(f"{question}: {said}")
                self.answers.append(trace)


def stored(served: Served) -> list[str]:
    """The traces in the store of a server that has stopped."""
    with duckdb.connect(str(served.data_dir / "understudy.duckdb"), read_only=True) as db:
        return [str(row[0]) for row in db.execute("SELECT trace_id FROM traces").fetchall()]


def plain(client: openai.OpenAI, question: str) -> tuple[str, str]:
    """The answer's trace and text."""
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": question}]
    )
    answer = raw.parse()
    assert isinstance(answer, ChatCompletion), (raw.status_code, dict(raw.headers), raw.text)
    return raw.headers["x-understudy-trace"], answer.choices[0].message.content or ""


def streamed(client: openai.OpenAI, question: str) -> tuple[str, str]:
    """The same of a streamed answer, which must come to its end."""
    with client.chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": question}], stream=True
    ) as raw:
        text, finished = "", False
        for chunk in raw.parse():
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finished |= choice.finish_reason is not None
        assert finished
        return raw.headers["x-understudy-trace"], text
