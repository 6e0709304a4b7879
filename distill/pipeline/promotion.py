"""The route that a judged run's student would serve by, stored in the run's folder.

`route.json` is written for every judged run, passed or not: a student that the gate rejected can be
promoted by hand exactly as it was judged, with the same cutoff and the same limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from distill.dataset.rows import Selection
from distill.evaluate.scoring import Scorer
from distill.run.run import Run
from store.chat.shape import input_chars
from store.errors import RunError
from store.files.atomic import write_atomically
from store.files.routes import ROUTE
from store.ids import new_id
from store.jsontext import to_json
from store.records import (
    Certificate,
    Promotion,
    Reason,
    Route,
    TermsOfService,
)

FILE = "route.json"


def route_of(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    selection: Selection,
    scorer: Scorer,
    certificate: Certificate,
    terms: TermsOfService,
    teacher_inputs: Sequence[str] = (),
) -> Route:
    """The route of a run's student at its first step, shadow, in which it serves no answer.

    It covers what the certificate covers and nothing else: those fingerprints and templates,
    inputs no longer than the longest of the rows, answers that keep the terms. `teacher_inputs`:
    hashes of frequent inputs that the student is known to answer otherwise.
    """
    return Route(
        task=run.task,
        target="student",
        reason=Reason.CERTIFIED,
        step="shadow",
        share=0.0,
        student_id=run.run_id,
        fingerprints=certificate.fingerprints,
        templates=selection.templates,
        terms=terms,
        scorer=scorer.name,
        agree_at=scorer.agree_at,
        max_input_chars=max(input_chars(r.messages) for r in selection.rows),
        teacher_inputs=list(teacher_inputs),
        certificate_id=certificate.certificate_id,
        at=certificate.at,
    )


def first_promotion(certificate: Certificate, route: Route) -> Promotion:
    """The promotion after a passed gate: the student's first step."""
    return Promotion(
        promotion_id=new_id(),
        task=certificate.task,
        target="student",
        state=route.step,
        reason=certificate.reason,
        actor="gate",
        at=certificate.at,
        run_id=certificate.run_id,
        certificate=certificate,
        route=route,
    )


def save_route(folder: Path, route: Route) -> None:
    """Writes the route into the run's folder."""
    write_atomically(folder / FILE, to_json(route))


def saved_route(folder: Path) -> Route | None:
    """The route in a run's folder; None when the run was never judged.

    Raises RunError when the file is there and cannot be read.
    """
    try:
        return ROUTE.validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise RunError(
            f"run {folder.name}: {FILE} cannot be read ({type(error).__name__})"
        ) from None
