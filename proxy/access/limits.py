"""Rate limits: of each key, and of all clients together.

A request over a limit is refused with 429 and `Retry-After` before its body is read. OpenAI's
clients wait and retry by themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxy.access.keys import Client, hash_of
from proxy.access.rates import Rate, shared_cells
from proxy.http.errors import too_many
from store.settings.config import ApiKey
from store.settings.limits import RateLimits, ServerLimits

_MB = 1024 * 1024
_BUSY_S = 1.0  # `Retry-After` when too many requests are in flight
_ALL = "all"
_LAST_USE = "monotonic time of the last request"  # the cell after those of the rates


class _Party:
    """A key, or all clients together: its limits and its present use."""

    __slots__ = (
        "bytes",
        "in_flight",
        "max_bytes",
        "max_in_flight",
        "requests",
        "scope",
        "tokens",
    )

    def __init__(
        self, scope: str, limits: RateLimits, cells: list[str], default_mb: float = math.inf
    ) -> None:
        """`default_mb`: the limit of megabytes where `limits` has none."""
        in_flight_mb = default_mb if limits.in_flight_mb is None else limits.in_flight_mb
        self.max_bytes = in_flight_mb * _MB
        self.bytes = 0
        self.scope = scope
        self.max_in_flight = math.inf if limits.in_flight is None else limits.in_flight
        self.in_flight = 0
        self.requests = self._rate("requests", limits.requests_per_minute, cells)
        self.tokens = self._rate("tokens", limits.tokens_per_minute, cells)

    def _rate(self, unit: str, per_minute: int | None, cells: list[str]) -> Rate | None:
        if per_minute is None:
            return None
        cells.append(f"{self.scope} {unit}")
        return Rate(len(cells) - 1, per_minute)


class Ticket:
    """An admitted request; to be released when it has ended."""

    __slots__ = ("_limits", "_parties", "_size")

    def __init__(self, limits: Limits, parties: tuple[_Party, ...]) -> None:
        self._limits, self._parties, self._size = limits, parties, 0

    def arrived(self, size: int) -> None:
        """So many more bytes of its body are in memory. Raises ApiError 429."""
        for party in self._parties:
            # a request that is alone may be as large as a body may be
            if party.bytes > self._size and party.bytes + size > party.max_bytes:
                raise too_many("megabytes of requests at a time", party.scope, _BUSY_S)
        self._size += size
        for party in self._parties:
            party.bytes += size

    def forget(self) -> None:
        """Its body is no longer in memory."""
        for party in self._parties:
            party.bytes -= self._size
        self._size = 0

    def release(self, tokens: int = 0) -> None:
        """The request has ended. `tokens`: its input and output together."""
        self.forget()
        self._limits._leave(self._parties, tokens)


class Limits:
    """Counts the requests of one worker; rates are counted with the other workers."""

    def __init__(
        self,
        settings: ServerLimits,
        keys: Sequence[ApiKey],
        folder: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder`: shared by all workers. `clock`: the same in all of them, and never set."""
        cells: list[str] = []
        self._all = _Party(_ALL, settings, cells)
        # one of several keys leaves the others half, unless its own limit says otherwise
        share_mb = settings.in_flight_mb / 2 if len(keys) > 1 else math.inf
        self._parties = {
            hash_of(key): (self._all, _Party(key.name, key.limits, cells, share_mb)) for key in keys
        }
        self._clock = clock
        self._cells = shared_cells(folder, [*cells, _LAST_USE]) if cells else []
        if cells and self._cells[-1] > clock():  # of before the machine was started
            for index in range(len(cells) + 1):
                self._cells[index] = 0.0

    @property
    def in_flight(self) -> int:
        """Requests under way in this worker."""
        return self._all.in_flight

    def admit(self, client: Client) -> Ticket:
        """Admits a request; its body counts as it arrives. Raises ApiError 429."""
        parties = self._parties.get(client.key_hash or "", (self._all,))
        for party in parties:
            if party.in_flight >= party.max_in_flight:
                raise too_many("requests at a time", party.scope, _BUSY_S)
        if self._cells:
            self._take_rates(parties)
        for party in parties:
            party.in_flight += 1
        return Ticket(self, parties)

    @contextmanager
    def upload(self, client: Client) -> Iterator[Callable[[int], None]]:
        """Counts the megabytes of a request that no rate and no number of requests limits.

        Gives what is told of each part that arrives, and may raise ApiError 429.
        """
        upload = Ticket(self, self._parties.get(client.key_hash or "", (self._all,)))
        try:
            yield upload.arrived
        finally:
            upload.forget()

    def _take_rates(self, parties: tuple[_Party, ...]) -> None:
        """Counts a request, unless one of its rates refuses it. Raises ApiError 429."""
        now = self._cells[-1] = self._clock()
        for party in parties:
            if party.requests is not None:
                _wait(party.requests.wait_s(self._cells, now), "requests", party)
            if party.tokens is not None:  # its cost is unknown yet: only the former ones count
                _wait(party.tokens.wait_s(self._cells, now, 0.0), "tokens", party)
        for party in parties:
            if party.requests is not None:
                party.requests.take(self._cells, now)

    def _leave(self, parties: tuple[_Party, ...], tokens: int) -> None:
        for party in parties:
            party.in_flight -= 1
            if party.tokens is not None and tokens:
                party.tokens.take(self._cells, self._clock(), tokens)


def _wait(seconds: float, unit: str, party: _Party) -> None:
    if seconds > 0:
        raise too_many(f"{unit} per minute", party.scope, seconds)
