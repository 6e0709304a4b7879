"""Queries on the staged segments of the journal, while they are being collected."""

from __future__ import annotations

from store.database.database import Database
from store.database.rows import record
from store.database.traces import RequestOutcome


def staged_requests(db: Database) -> list[RequestOutcome]:
    """Of the segments that are being collected, oldest first: the requests that a student was asked
    for, and those that one in shadow or canary may be compared on.
    """
    return [record(RequestOutcome, row) for row in db.query("staged_requests")]
