"""Labels and keys that only forgotten answers had: out of routes and certificates.

A route lists the forms of the teacher's answers, and a certificate names the labels that it looked
at by themselves. Where the last answer with a label is forgotten, so is the label: the student may
not say it any more, and the teacher answers instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from distill.pipeline.promotion import keep_route, kept_route
from store.chat.normal_form import normal_text, object_keys
from store.database.database import Database
from store.database.runs import events_of_run
from store.errors import RunError
from store.files.routes import ROUTE
from store.jsontext import to_json
from store.records import (
    Forms,
    Route,
)

NAMELESS = "(forgotten)"  # what a certificate says instead of a label


@dataclass(frozen=True, slots=True)
class Unsaid:
    """The labels, and the sorted keys of JSON objects, that nobody has said any more."""

    labels: frozenset[str]
    keys: frozenset[tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.labels or self.keys)

    def taken_from(self, forms: Forms) -> Forms:
        """The forms without these. Where none is left, none will do: an empty list asks nothing."""
        labels = [label for label in forms.labels if label not in self.labels]
        keys = [found for found in forms.keys if tuple(found) not in self.keys]
        return replace(
            forms,
            labels=labels or ([""] if forms.labels else []),
            keys=keys or ([[""]] if forms.keys else []),
        )

    def taken_from_route(self, route: Route) -> Route:
        """The route without these in its forms."""
        terms = route.terms
        if terms.forms is None:
            return route
        return replace(route, terms=replace(terms, forms=self.taken_from(terms.forms)))

    def taken_from_certificate(self, certificate: Any) -> Any:
        """The certificate as JSON has it, with its numbers, and without these labels' names."""
        if not isinstance(certificate, dict):
            return certificate
        slices = [
            {**one, "name": NAMELESS}
            if one.get("kind") == "label" and one.get("name") in self.labels
            else one
            for one in certificate.get("slices") or []
        ]
        return {**certificate, "slices": slices}


def unsaid(gone: Sequence[str], left: Sequence[str]) -> Unsaid:
    """What these answers said that are forgotten, and none of those that are left."""
    return Unsaid(
        labels=frozenset(map(normal_text, gone)) - frozenset(map(normal_text, left)),
        keys=_key_sets(gone) - _key_sets(left) - {()},
    )


def clear_forms(db: Database) -> dict[str, Unsaid]:
    """Clears the promotions and events of the runs whose real rows are staged to go.

    Returns what is unsaid by run. Call it in the transaction of `stage_deletions`, before the rows
    are deleted.
    """
    found = {}
    for run_id in [row["run_id"] for row in db.query("runs_of_going")]:
        targets = db.query("going_targets", run_id=run_id)
        words = unsaid(
            [row["target"] for row in targets if row["goes"]],
            [row["target"] for row in targets if not row["goes"]],
        )
        if words:
            _clear_promotions(db, run_id, words)
            _clear_events(db, run_id, words)
            found[run_id] = words
    return found


def clear_kept_route(folder: Path, words: Unsaid) -> None:
    """Does the same to the route that a run left in its folder."""
    with suppress(RunError):  # it cannot be read, and so nobody is promoted by it
        route = kept_route(folder)
        if route is not None:
            cleared = words.taken_from_route(route)
            if cleared != route:
                keep_route(folder, cleared)


def _clear_promotions(db: Database, run_id: str, words: Unsaid) -> None:
    for row in db.query("promotions_of_run", run_id=run_id):
        route = ROUTE.validate_json(row["route"]) if row["route"] else None
        if route is not None:
            route = words.taken_from_route(route)
        certificate = orjson.loads(row["certificate"]) if row["certificate"] else None
        cleared = words.taken_from_certificate(certificate)
        db.execute(
            "update_promotion",
            promotion_id=row["promotion_id"],
            route=to_json(route).decode() if route is not None else None,
            certificate=to_json(cleared).decode() if cleared is not None else None,
        )


def _clear_events(db: Database, run_id: str, words: Unsaid) -> None:
    for event in events_of_run(db, run_id):
        if "certificate" in event.detail:
            certificate = words.taken_from_certificate(event.detail["certificate"])
            detail = to_json({**event.detail, "certificate": certificate}).decode()
            db.execute("update_run_event", run_id=run_id, seq=event.seq, detail=detail)


def _key_sets(answers: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(keys for keys in map(object_keys, answers) if keys is not None)
