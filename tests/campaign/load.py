"""The clients of a campaign: requests at a steady rate, plain and streamed, tagged and untagged."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiohttp
import openai

from tests.campaign import wire
from tests.campaign.oracle import Attempt, Verdict, Window, judge
from tests.campaign.teacher import Teacher

TASKS = ("alpha", "beta", "untaught")  # the first two have a student
_TIMEOUT_S = 60.0
_AGAIN_S = (0.3, 2.0)  # until a client asks again: at first, and at most; it doubles
_GIVES_UP_AFTER_S = 60.0
_SDK_SHARE = 0.1
_FEEDBACK_SHARE = 0.05  # of the answers
_AT_A_TIME = 150


class Load:
    """Asks `per_second` requests a second, whatever happens to those before."""

    def __init__(
        self,
        url: str,
        teacher: Teacher,
        windows: Sequence[Window],
        seed: str,
        *,
        per_second: float,
        wrong: Callable[[str], None],
    ) -> None:
        """`wrong` is called with a line for each attempt that the oracle does not accept."""
        self.attempts: list[Attempt] = []  # those that are over
        self.verdicts: Counter[str] = Counter()
        self.feedback: list[str] = []  # the ids of what was accepted
        self.skipped = 0  # not asked, because too many were waiting
        self._url = url
        self._teacher = teacher
        self._windows = windows
        self._draw = random.Random(f"{seed} load")
        self._per_second = per_second
        self._wrong = wrong
        self._asking: set[asyncio.Task[None]] = set()
        self._count = 0
        self._runs: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # idle connections are closed after 5 s, as by OpenAI's own clients
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._sdk = openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key="none", max_retries=0, timeout=_TIMEOUT_S
        )
        self._runs = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Asks nothing new, and waits for what is under way."""
        if self._runs is not None:
            self._runs.cancel()
            with suppress(asyncio.CancelledError):
                await self._runs
        await asyncio.gather(*self._asking)
        await self._http.close()
        await self._sdk.close()

    @property
    def numbers(self) -> int:
        """How many attempts have begun."""
        return self._count

    async def _run(self) -> None:
        at = time.monotonic()
        while True:
            at = max(at + self._draw.expovariate(self._per_second), time.monotonic() - 1)
            await asyncio.sleep(at - time.monotonic())
            if len(self._asking) >= _AT_A_TIME:
                self.skipped += 1
                continue
            task = asyncio.create_task(
                self._until_answered(
                    self._draw.choice((*TASKS, None)),
                    stream=self._draw.random() < 0.5,
                    sdk=self._draw.random() < _SDK_SHARE,
                )
            )
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _until_answered(self, task: str | None, *, stream: bool, sdk: bool) -> None:
        """One question of a client, asked again where a fault of the campaign explains why."""
        deadline = time.monotonic() + _GIVES_UP_AFTER_S
        pause_s, longest_s = _AGAIN_S
        while True:
            verdict = await self.ask(task, stream=stream, sdk=sdk)
            if not verdict.again:
                if verdict.kind in ("teacher", "student") and self._draw.random() < _FEEDBACK_SHARE:
                    await self._speak_of(self.attempts[-1])
                return
            if time.monotonic() > deadline:
                self._wrong(f"a client of task {task} got no answer within {_GIVES_UP_AFTER_S} s")
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def ask(self, task: str | None, *, stream: bool, sdk: bool = False) -> Verdict:
        """One attempt, judged."""
        self._count += 1
        # the numbers end evenly in each digit: the student is unsure of those that end with 7
        number = f"{self._count:06d}"
        attempt = Attempt(number, task, stream, time.monotonic(), "sdk" if sdk else "raw")
        await (self._ask_by_sdk(attempt) if sdk else self._ask_raw(attempt))
        attempt.ended = time.monotonic()
        await asyncio.sleep(0)  # the teacher's task has to note that it is done
        verdict = judge(attempt, self._teacher.sent.get(number, ()), self._windows)
        self.attempts.append(attempt)
        kind = f"excused: {verdict.why}" if verdict.kind == "excused" else verdict.kind
        self.verdicts[kind] += 1
        if verdict.kind == "wrong":
            self._wrong(
                f"request {number} (task {task}, {'streamed' if stream else 'plain'}, "
                f"{attempt.client}, {attempt.ended - attempt.began:.2f} s, "
                f"trace {attempt.trace}): {verdict.why}"
            )
        attempt.body = b""  # judged
        self._teacher.sent.pop(number, None)
        return verdict

    async def _speak_of(self, attempt: Attempt) -> None:
        """Feedback on an answer. If the server says that it has it, it has to be in the store."""
        try:
            async with self._http.post(
                f"{self._url}/v1/feedback", json={"trace_id": attempt.trace, "score": 1}
            ) as answer:
                if answer.status == 200:
                    self.feedback.append((await answer.json())["id"])
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # its answer counts, and there is none

    async def _ask_raw(self, attempt: Attempt) -> None:
        body = {"model": wire.MODEL, "messages": wire.messages(attempt.number)}
        if attempt.stream:
            body["stream"] = True
        try:
            async with self._http.post(
                f"{self._url}/v1/chat/completions", json=body, headers=_headers(attempt)
            ) as answer:
                attempt.status = answer.status
                attempt.headers = {name.lower(): value for name, value in answer.headers.items()}
                async for piece in answer.content.iter_any():
                    attempt.body += piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            attempt.broke = repr(error)

    async def _ask_by_sdk(self, attempt: Attempt) -> None:
        try:
            async with self._sdk.chat.completions.with_streaming_response.create(
                model=wire.MODEL,
                messages=wire.messages(attempt.number),  # type: ignore[arg-type]
                stream=attempt.stream,
                extra_headers=_headers(attempt),
            ) as answer:
                attempt.status, attempt.headers = answer.status_code, dict(answer.headers)
                async for piece in answer.iter_bytes():
                    attempt.body += piece
        except openai.APIStatusError as error:
            attempt.status, attempt.headers = error.status_code, dict(error.response.headers)
            attempt.body = error.response.content
        except (openai.APIError, OSError) as error:
            attempt.broke = f"{error!r} {error.__cause__!r}"
        except Exception as error:  # httpx's, which the SDK lets through while it reads
            attempt.broke = repr(error)


def _headers(attempt: Attempt) -> dict[str, str]:
    headers = {wire.ATTEMPT: attempt.number}
    if attempt.task is not None:
        headers["X-Understudy-Task"] = attempt.task
    return headers
