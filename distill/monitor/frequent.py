"""Inputs that came up since a promotion, come often, and are answered otherwise by the student.

The certificate has checked what was frequent before. What becomes frequent afterwards is one group
in the live evidence, however often it is asked. So it is looked at by itself, and joins the inputs
that the teacher answers (Route.teacher_inputs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distill.dataset.exchange import shape_body
from distill.dataset.frequent import MIN_REQUESTS, MIN_SHARE
from distill.dataset.traffic import NEWEST
from store.chat.prompt_templates import hash_of_input, template_of
from store.database.comparisons import ComparedOften, inputs_that_differ
from store.database.database import Database
from store.database.promotions import update_promotion
from store.records import Promotion, Route

MIN_DIFFERENCES = 2  # one may be a whim of the teacher's
MAX_INPUTS = 200  # in a route: of those that are a hundredth of the traffic there are 100 at a time


def with_inputs_that_differ(
    db: Database, promotion: Promotion, *, since: float, threshold: float
) -> Promotion:
    """The promotion with a route that lists such inputs; stored, where that is something new.

    `since`: comparisons made after it count.
    """
    if promotion.route is None:
        return promotion
    found = inputs_that_differ(
        db,
        promotion.task,
        str(promotion.run_id),
        since=since,
        requests=NEWEST,
        share=MIN_SHARE,
        least=MIN_REQUESTS,
    )
    route = listing(promotion.route, found, threshold)
    if route == promotion.route:
        return promotion
    listed = replace(promotion, route=route)
    update_promotion(db, listed)
    return listed


def listing(route: Route, found: Sequence[ComparedOften], threshold: float) -> Route:
    """The route that also lists these, where they differ twice and agree less than the threshold.

    Those that were listed first stay, at most MAX_INPUTS.
    """
    hashes = dict.fromkeys(route.teacher_inputs)
    for one in found:
        differed = one.compared - one.agreed
        if differed >= MIN_DIFFERENCES and one.agreed < threshold * one.compared:
            known = one.fingerprint in route.fingerprints
            template = None if known else template_of(route.templates, shape_body(one.request))
            hashes[hash_of_input(template, one.request.messages)] = None
    return replace(route, teacher_inputs=list(hashes)[:MAX_INPUTS])
