"""Whether one more request may come in: limits of a key, and of all clients together.

What is over a limit is refused at once with 429 and `Retry-After`, before its body is read. The
clients of OpenAI wait and ask again by themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy.access.keys import Client, hash_of
from proxy.access.rates import Rate, shared_cells
from proxy.http.errors import too_many
from store.settings.config import ApiKey
from store.settings.limits import RateLimits, ServerLimits

_MB = 1024 * 1024
_BUSY_S = 1.0  # after which to come again when there are too many at a time
_ALL = "all"


class _Party:
    """A key, or all clients together: its limits and what it uses now."""

    __slots__ = ("in_flight", "most", "requests", "scope", "tokens")

    def __init__(self, scope: str, limits: RateLimits, cells: list[str]) -> None:
        self.scope = scope
        self.most = math.inf if limits.in_flight is None else limits.in_flight
        self.in_flight = 0
        self.requests = self._rate("requests", limits.requests_per_minute, cells)
        self.tokens = self._rate("tokens", limits.tokens_per_minute, cells)

    def _rate(self, unit: str, per_minute: int | None, cells: list[str]) -> Rate | None:
        if per_minute is None:
            return None
        cells.append(f"{self.scope} {unit}")
        return Rate(len(cells) - 1, per_minute)


class Ticket:
    """One request that was let in. To be handed back when it is over."""

    __slots__ = ("_limits", "_parties", "_size")

    def __init__(self, limits: Limits, parties: tuple[_Party, ...], size: int) -> None:
        self._limits, self._parties, self._size = limits, parties, size

    def release(self, tokens: int = 0) -> None:
        """The request is over. `tokens`: what it took, in and out."""
        self._limits._leave(self._parties, self._size, tokens)


class Limits:
    """Counts the requests of one worker, and with the other workers their rates."""

    def __init__(
        self,
        settings: ServerLimits,
        keys: Sequence[ApiKey],
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: shared by all workers."""
        cells: list[str] = []
        self._all = _Party(_ALL, settings, cells)
        self._parties = {
            hash_of(key): (self._all, _Party(key.name, key.limits, cells)) for key in keys
        }
        self._most_bytes = settings.in_flight_mb * _MB
        self._bytes = 0
        self._cells = shared_cells(folder, cells) if cells else []
        self._clock = clock

    @property
    def in_flight(self) -> int:
        """Requests under way in this worker."""
        return self._all.in_flight

    def admit(self, client: Client, size: int) -> Ticket:
        """Lets a request in whose body will take `size` bytes of memory. Raises ApiError 429."""
        parties = self._parties.get(client.key_hash or "", (self._all,))
        for party in parties:
            if party.in_flight >= party.most:
                raise too_many("requests at a time", party.scope, _BUSY_S)
        # one that is alone may be of any size that a body may have
        if self._bytes and self._bytes + size > self._most_bytes:
            raise too_many("megabytes of requests at a time", _ALL, _BUSY_S)
        if self._cells:
            self._take_rates(parties)
        for party in parties:
            party.in_flight += 1
        self._bytes += size
        return Ticket(self, parties, size)

    def _take_rates(self, parties: tuple[_Party, ...]) -> None:
        """Counts a request, unless one of its rates refuses it. Raises ApiError 429."""
        now = self._clock()
        for party in parties:
            if party.requests is not None:
                _wait(party.requests.wait_s(self._cells, now), "requests", party)
            if party.tokens is not None:  # what it will take is not known: is the last one paid?
                _wait(party.tokens.wait_s(self._cells, now, 0.0), "tokens", party)
        for party in parties:
            if party.requests is not None:
                party.requests.take(self._cells, now)

    def _leave(self, parties: tuple[_Party, ...], size: int, tokens: int) -> None:
        self._bytes -= size
        for party in parties:
            party.in_flight -= 1
            if party.tokens is not None and tokens:
                party.tokens.take(self._cells, self._clock(), tokens)


def _wait(seconds: float, unit: str, party: _Party) -> None:
    if seconds > 0:
        raise too_many(f"{unit} per minute", party.scope, seconds)
