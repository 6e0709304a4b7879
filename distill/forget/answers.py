"""Labels and keys that only forgotten answers had are removed from routes and certificates.

A route lists the forms of the teacher's answers, and a certificate names the labels that it tested
as slices. When the last answer with a label is forgotten, so is the label: the student may not give
it any more, and the teacher answers instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from distill.pipeline.promotion import save_route, saved_route
from store.chat.normal_form import normal_text, object_keys
from store.database.database import Database
from store.database.forgetting import staged_targets
from store.database.promotions import promotions_of_run, update_promotion
from store.database.runs import events_of_run, update_run_event
from store.errors import RunError
from store.jsontext import JsonObject
from store.records import Certificate, Forms, Route

FORGOTTEN_NAME = "(forgotten)"  # replaces a label's name in a certificate


@dataclass(frozen=True, slots=True)
class RetractedAnswers:
    """Labels, and sorted keys of JSON objects, that no remaining answer of a run has."""

    labels: frozenset[str]
    keys: frozenset[tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.labels or self.keys)

    def removed_from_forms(self, forms: Forms) -> Forms:
        """The forms without these. Where none is left, none is accepted: an empty list would accept
        any.
        """
        labels = [label for label in forms.labels if label not in self.labels]
        keys = [names for names in forms.keys if tuple(names) not in self.keys]
        return replace(
            forms,
            labels=labels or ([""] if forms.labels else []),
            keys=keys or ([[""]] if forms.keys else []),
        )

    def removed_from_route(self, route: Route) -> Route:
        """The route without these in its forms."""
        terms = route.terms
        if terms.forms is None:
            return route
        return replace(route, terms=replace(terms, forms=self.removed_from_forms(terms.forms)))

    def removed_from_certificate(self, certificate: Certificate) -> Certificate:
        """The certificate without these labels' names; its numbers stay."""
        slices = [
            replace(one, name=FORGOTTEN_NAME)
            if one.kind == "label" and one.name in self.labels
            else one
            for one in certificate.slices
        ]
        return replace(certificate, slices=slices)

    def removed_from_detail(self, detail: JsonObject) -> JsonObject:
        """The detail of a run's event, its certificate without these labels' names."""
        certificate = detail.get("certificate")
        if not isinstance(certificate, dict):
            return detail
        slices = [
            {**one, "name": FORGOTTEN_NAME}
            if one.get("kind") == "label" and one.get("name") in self.labels
            else one
            for one in certificate.get("slices") or []
        ]
        return {**detail, "certificate": {**certificate, "slices": slices}}


def retracted_answers(deleted: Sequence[str], remaining: Sequence[str]) -> RetractedAnswers:
    """What only the deleted answers of a run had."""
    return RetractedAnswers(
        labels=frozenset(map(normal_text, deleted)) - frozenset(map(normal_text, remaining)),
        keys=_key_sets(deleted) - _key_sets(remaining) - {()},
    )


def retract_answers(db: Database) -> dict[str, RetractedAnswers]:
    """Clears the promotions and events of the runs with real rows that are staged for deletion.

    Returns what was retracted by run. To be called in the transaction of `stage_deletions`, before
    the rows are deleted.
    """
    by_run = {}
    for targets in staged_targets(db):
        retracted = retracted_answers(targets.deleted, targets.remaining)
        if retracted:
            _clear_promotions(db, targets.run_id, retracted)
            _clear_events(db, targets.run_id, retracted)
            by_run[targets.run_id] = retracted
    return by_run


def clear_kept_route(folder: Path, retracted: RetractedAnswers) -> None:
    """Clears the route that a run left in its folder in the same way."""
    with suppress(RunError):  # a route that cannot be read is never promoted by
        route = saved_route(folder)
        if route is not None:
            cleared = retracted.removed_from_route(route)
            if cleared != route:
                save_route(folder, cleared)


def _clear_promotions(db: Database, run_id: str, retracted: RetractedAnswers) -> None:
    for promotion in promotions_of_run(db, run_id):
        route, certificate = promotion.route, promotion.certificate
        if route is not None:
            route = retracted.removed_from_route(route)
        if certificate is not None:
            certificate = retracted.removed_from_certificate(certificate)
        update_promotion(db, replace(promotion, route=route, certificate=certificate))


def _clear_events(db: Database, run_id: str, retracted: RetractedAnswers) -> None:
    for event in events_of_run(db, run_id):
        if "certificate" in event.detail:
            update_run_event(db, replace(event, detail=retracted.removed_from_detail(event.detail)))


def _key_sets(answers: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(keys for keys in map(object_keys, answers) if keys is not None)
