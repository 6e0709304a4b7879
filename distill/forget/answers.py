"""Labels and keys that only forgotten answers had are removed from routes and certificates.

A route lists the forms of the teacher's answers, and a certificate names the labels that it tested
(store.chat.labels). When the last answer with a label is forgotten, so is the label: the student
may not give it any more, and the teacher answers instead. What gate.protect names stays, as it
stands in the config.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from distill.pipeline.promotion import save_route, saved_route
from store.chat.labels import labels_of
from store.chat.normal_form import normal_text, object_keys
from store.database.database import Database
from store.database.forgetting import staged_targets
from store.database.promotions import promotions_of_run, update_promotion
from store.database.runs import events_of_run, update_run_event
from store.errors import RunError
from store.jsontext import JsonObject
from store.records import Certificate, Forms, OutputKind, Route

FORGOTTEN_NAME = "(forgotten)"  # replaces a label's name in a certificate
KINDS: tuple[OutputKind, ...] = get_args(OutputKind)


@dataclass(frozen=True, slots=True)
class RetractedAnswers:
    """Labels, and sorted keys of JSON objects, that no remaining answer of a run has."""

    labels: frozenset[str]  # whole answers in their normal form
    names: frozenset[str]  # labels of any kind, as a certificate names them
    keys: frozenset[tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.labels or self.names or self.keys)

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
        return replace(
            certificate,
            slices=[
                replace(one, name=FORGOTTEN_NAME) if self._names(one.kind, one.name) else one
                for one in certificate.slices
            ],
            recalls=[
                replace(one, name=FORGOTTEN_NAME)
                if one.name in self.names and not one.protected
                else one
                for one in certificate.recalls
            ],
            unproven_labels=self._renamed(
                certificate.unproven_labels, {r.name for r in certificate.recalls if r.protected}
            ),
        )

    def removed_from_detail(self, detail: JsonObject) -> JsonObject:
        """The detail of a run's event, its certificate without these labels' names."""
        certificate = detail.get("certificate")
        if not isinstance(certificate, dict):
            return detail
        slices = [
            {**one, "name": FORGOTTEN_NAME}
            if self._names(one.get("kind"), one.get("name"))
            else one
            for one in certificate.get("slices") or []
        ]
        recalls = certificate.get("recalls") or []
        protected = {one.get("name") for one in recalls if one.get("protected")}
        cleared = {
            "slices": slices,
            "recalls": [
                {**one, "name": FORGOTTEN_NAME}
                if one.get("name") in self.names and not one.get("protected")
                else one
                for one in recalls
            ],
            "unproven_labels": self._renamed(certificate.get("unproven_labels") or [], protected),
        }
        return {**detail, "certificate": {**certificate, **cleared}}

    def _names(self, kind: str | None, name: str | None) -> bool:
        return kind != "fingerprint" and name in self.names

    def _renamed(self, names: Sequence[str], protected: Collection[str]) -> list[str]:
        forgotten = self.names.difference(protected)
        return [FORGOTTEN_NAME if name in forgotten else name for name in names]


def retracted_answers(deleted: Sequence[str], remaining: Sequence[str]) -> RetractedAnswers:
    """What only the deleted answers of a run had."""
    return RetractedAnswers(
        labels=frozenset(map(normal_text, deleted)) - frozenset(map(normal_text, remaining)),
        names=_names(deleted) - _names(remaining),
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


def _names(answers: Sequence[str]) -> frozenset[str]:
    """The labels of these answers, of whatever kind the task's answers are."""
    return frozenset[str]().union(*(labels_of(a, kind) for a in answers for kind in KINDS))


def _key_sets(answers: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(keys for keys in map(object_keys, answers) if keys is not None)
