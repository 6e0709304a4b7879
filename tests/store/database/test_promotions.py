"""The history of routes: the last promotion of a task holds."""

from __future__ import annotations

from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions, promotions_of_task
from store.jsontext import to_json_line
from tests.helpers.samples import (
    a_promotion,
)


def test_the_latest_promotion_is_the_one_with_the_latest_time(db: Database) -> None:
    assert latest_promotions(db) == {}
    early = a_promotion(at=1.0)
    late = a_promotion(at=2.0, state="paused", target="teacher", certificate=None, route=None)
    other = a_promotion(at=1.5, task="orders", run_id=None)
    for promotion in (late, early, other):
        append_promotion(db, promotion)
    assert latest_promotions(db) == {"orders": other, "triage": late}
    assert promotions_of_task(db, "triage") == [late, early]
    assert promotions_of_task(db, "triage", limit=1) == [late]


def test_a_promotion_of_a_newer_version_can_be_read(db: Database) -> None:
    promotion = a_promotion(route=None)
    row = to_json_line(promotion).replace(b'"method"', b'"colour":"blue","method"')
    db.execute("insert_promotions", rows=f"[{row.decode()}]")
    assert latest_promotions(db) == {"triage": promotion}
