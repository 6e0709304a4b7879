"""Queries on the append-only history of each task's route."""

from __future__ import annotations

from pydantic import TypeAdapter

from store.database.database import Database, DatabaseRow
from store.database.rows import json_rows, record
from store.files.routes import ROUTE
from store.jsontext import to_json
from store.records import Certificate, Promotion

_CERTIFICATE = TypeAdapter(Certificate)


def append_promotion(db: Database, promotion: Promotion) -> None:
    """Appends to the history of a task's route."""
    db.execute("insert_promotions", rows=json_rows([promotion]))


def append_promotion_after(db: Database, promotion: Promotion, after: str) -> bool:
    """Appends a promotion if `after` is still the last one of its task. Returns whether it was."""
    with db.transaction():
        last = latest_promotions(db).get(promotion.task)
        if last is None or last.promotion_id != after:
            return False
        append_promotion(db, promotion)
        return True


def latest_promotions(db: Database) -> dict[str, Promotion]:
    """The last promotion of each task."""
    return {row["task"]: _promotion(row) for row in db.query("latest_promotions")}


def promotions_of_task(db: Database, task: str, limit: int = 20) -> list[Promotion]:
    """The history of a task's route, newest first."""
    return [_promotion(row) for row in db.query("promotions_of_task", task=task, limit=limit)]


def promotions_of_run(db: Database, run_id: str) -> list[Promotion]:
    """The promotions of a run's student."""
    return [_promotion(row) for row in db.query("promotions_of_run", run_id=run_id)]


def promotions_with_inputs(db: Database) -> list[Promotion]:
    """The promotions whose route lists inputs that the teacher answers."""
    return [_promotion(row) for row in db.query("promotions_with_inputs")]


def update_promotion(db: Database, promotion: Promotion) -> None:
    """Replaces the route and the certificate of a promotion."""
    certificate, route = promotion.certificate, promotion.route
    db.execute(
        "update_promotion",
        promotion_id=promotion.promotion_id,
        certificate=to_json(certificate).decode() if certificate is not None else None,
        route=to_json(route).decode() if route is not None else None,
    )


def _promotion(row: DatabaseRow) -> Promotion:
    certificate, route = row["certificate"], row["route"]
    return record(
        Promotion,
        {
            **row,
            "certificate": _CERTIFICATE.validate_json(certificate) if certificate else None,
            "route": ROUTE.validate_json(route) if route else None,
        },
    )
