"""Hashes of inputs that only forgotten requests had are removed from routes.

A route lists the frequent inputs that the teacher answers, by their hashes, which somebody who
guesses the text could recognise. Where the last request with an input is forgotten, its hash goes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from distill.forget.run_files import run_folders
from distill.pipeline.promotion import save_route, saved_route
from store.database.database import Database
from store.database.forgetting import forgotten_inputs
from store.database.promotions import promotions_with_inputs, update_promotion
from store.errors import RunError
from store.records import Route


def retract_inputs(db: Database, runs_dir: Path) -> None:
    """Clears the routes of promotions and in the folders of runs. Idempotent.

    To be called in the transaction of `stage_deletions`, before the rows are deleted.
    """
    gone = forgotten_inputs(db)
    if not gone:
        return
    for promotion in promotions_with_inputs(db):
        if promotion.route is not None:
            cleared = _without(promotion.route, gone)
            if cleared != promotion.route:
                update_promotion(db, replace(promotion, route=cleared))
    for folder in run_folders(runs_dir).values():
        with suppress(RunError):  # a route that cannot be read is never promoted by
            route = saved_route(folder)
            if route is not None and (cleared := _without(route, gone)) != route:
                save_route(folder, cleared)


def _without(route: Route, gone: frozenset[str]) -> Route:
    return replace(route, teacher_inputs=[one for one in route.teacher_inputs if one not in gone])
