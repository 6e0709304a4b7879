"""Frequent inputs: those that are so much of the traffic that each is checked by itself.

What is promised speaks of requests, and a row counts once however often its input is asked. So an
input that is MIN_SHARE of the requests leaves the rows that stand for the others, and the student's
answer to it, which is always the same, is compared with those that the teacher has given to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from distill.dataset.traffic import Traffic
from store.chat.shape import input_hash
from store.database.traces import InputTraffic, RecentInputs
from store.files.atomic import read_lines, write_atomically
from store.records import LoggedExchange

MIN_SHARE = 0.01  # of the recent requests
MIN_REQUESTS = 4  # fewer are no sign that it will come again
MAX_ANSWERS = 500  # of the teacher to one input that are compared: the newest

Key = tuple[str, str]  # prompt (fingerprint or id of the template), input hash


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherAnswer:
    """One answer of the teacher to a frequent input."""

    trace_id: str
    text: str  # as a target: see distill.dataset.exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentInput:
    """An input that is at least MIN_SHARE of a task's recent requests."""

    fingerprint: str  # of its prompt, or the id of the prompt's template
    input_hash: str  # as the proxy computes it
    requests: int  # of the recent ones, whoever answered
    answers: list[TeacherAnswer] = field(default_factory=list)  # that count, newest first

    @property
    def choosing(self) -> list[TeacherAnswer]:
        """Every other answer, from the newest on: they say what the teacher's answer is."""
        return self.answers[::2]

    @property
    def judging(self) -> list[TeacherAnswer]:
        """The others: they say how often it is right, and nothing is chosen by them."""
        return self.answers[1::2]


def is_frequent(requests: int, total: int) -> bool:
    """Whether an input with so many of the requests is checked by itself."""
    return requests >= MIN_REQUESTS and requests >= MIN_SHARE * total


def counted(exchange: LoggedExchange) -> Key:
    """How the requests of an exchange's input are counted: its prompt and its hash as logged."""
    return exchange.fingerprint, exchange.input_hash or input_hash(exchange.request.messages)


class RequestCounts:
    """How often each input was asked recently."""

    def __init__(
        self, recent: RecentInputs | None, exchanges: Iterable[LoggedExchange], traffic: Traffic
    ) -> None:
        """`recent`: of the task's traffic, whoever answered; None: these exchanges are all."""
        self._traffic = traffic
        self._inputs: Sequence[InputTraffic] = recent.inputs if recent is not None else ()
        self._total = recent.total if recent is not None else 0
        self._counts: dict[Key, int] = {
            (one.fingerprint, one.input_hash): one.requests for one in self._inputs
        }
        if recent is None:
            for exchange in exchanges:
                key = counted(exchange)
                self._counts[key] = self._counts.get(key, 0) + 1
                self._total += 1

    def total(self, shapes: Collection[str]) -> int:
        """The recent requests of these shapes."""
        return max(self._total - self._traffic.requests_beyond(shapes), 0)

    def requests(self, keys: Iterable[Key]) -> int:
        """The recent requests that were counted so."""
        return sum(self._counts.get(key, 0) for key in set(keys))

    def unanswered(self, known: Collection[Key], shapes: Collection[str]) -> list[FrequentInput]:
        """Frequent inputs of these shapes of which no answer of the teacher counts.

        `known`: how the inputs with such an answer were counted.
        """
        total = self.total(shapes)
        found: dict[Key, FrequentInput] = {}
        for one in self._inputs:
            if (one.fingerprint, one.input_hash) in known:
                continue
            shape = self._traffic.shape_of(one.fingerprint, one.request)
            if shape.name in shapes and is_frequent(one.requests, total):
                of_input = one.input_hash
                if shape.values:
                    of_input = input_hash(one.request.messages, shape.values)
                found[shape.name, of_input] = FrequentInput(
                    fingerprint=shape.name, input_hash=of_input, requests=one.requests
                )
        return list(found.values())


def write_frequent(path: Path, inputs: Iterable[FrequentInput]) -> None:
    """Writes frequent inputs as JSON lines."""
    lines = (orjson.dumps(asdict(one), option=orjson.OPT_APPEND_NEWLINE) for one in inputs)
    write_atomically(path, b"".join(lines))


def read_frequent(path: Path) -> list[FrequentInput]:
    """The inputs of a file that `write_frequent` wrote; none where there is none."""
    if not path.exists():  # a run of before inputs were checked by themselves
        return []
    return [_input(line) for line in read_lines(path)]


def _input(line: Mapping[str, object]) -> FrequentInput:
    answers = line["answers"]
    given = [TeacherAnswer(**one) for one in answers] if isinstance(answers, list) else []
    return FrequentInput(
        fingerprint=str(line["fingerprint"]),
        input_hash=str(line["input_hash"]),
        requests=int(str(line["requests"])),
        answers=given,
    )
