"""Checks that every answered request is in the store exactly once, by count and by id."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb

SETTLE_S = 120.0
_COUNTS = """
    SELECT count(*), count(DISTINCT trace_id),
        count(*) FILTER (WHERE outcome = 'complete' AND status_code BETWEEN 200 AND 299)
    FROM traces
"""
_FOUND = """
    SELECT count(*), coalesce(sum(times), 0) FROM (
        SELECT trace_id, count(*) AS times FROM traces
        WHERE trace_id::VARCHAR IN (SELECT unnest($ids)) GROUP BY trace_id
    )
"""


@dataclass(frozen=True, slots=True)
class Logged:
    """The requests of one gateway in the store."""

    answered: int  # 2xx answers that clients got
    rows: int  # in the store
    complete: int  # of them, whole 2xx answers
    twice: int  # rows whose id is there already
    cut_off: int  # requests in flight when a load ended, at most: their answers were not read
    noted: int  # answers whose ids a client has noted
    noted_found: int  # of those, how many are in the store exactly once

    @property
    def whole(self) -> bool:
        """Whether no answered request is missing, and none is there twice."""
        surplus = self.complete - self.answered
        return 0 <= surplus <= self.cut_off and self.twice == 0 and self.noted == self.noted_found


def settle(data_dir: Path, within_s: float = SETTLE_S) -> bool:
    """Waits until the control plane has collected the whole journal; False: not in time."""
    deadline = time.monotonic() + within_s
    while _waiting(data_dir / "journal"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _waiting(journal: Path) -> bool:
    for segment in journal.glob("*"):
        try:
            if segment.is_file() and segment.stat().st_size:
                return True
        except FileNotFoundError:  # collected between the two
            continue
    return False


def look_up(data_dir: Path, *, answered: int, cut_off: int, ids: Iterable[str]) -> Logged:
    """Reads the store of a product that has stopped. `ids`: of traces that clients noted."""
    [database] = data_dir.glob("*.duckdb")
    noted = list(ids)
    with duckdb.connect(str(database), read_only=True) as connection:
        counted = connection.execute(_COUNTS).fetchone()
        counts = connection.execute(_FOUND, {"ids": noted}).fetchone()
    assert counted is not None
    assert counts is not None
    rows, distinct, complete = counted
    once = counts[0] if counts[0] == counts[1] else 2 * counts[0] - counts[1]
    return Logged(
        answered=answered,
        rows=rows,
        complete=complete,
        twice=rows - distinct,
        cut_off=cut_off,
        noted=len(noted),
        noted_found=once,
    )
