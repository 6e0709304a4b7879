"""The terms of service that a run's student is evaluated with, and served by if it is promoted."""

from __future__ import annotations

from distill.dataset.rows import Selection
from distill.evaluate.scoring import Scorer
from distill.run.run import Run, student_tokens
from store.records import Forms, TermsOfService


def terms_of_service(
    run: Run, selection: Selection, scorer: Scorer, forms: Forms
) -> TermsOfService:
    """The run's terms, without the cutoff and the confidence, which its evaluation decides.

    The token limit rests on all rows, `forms` only on rows that nothing is certified on.
    """
    return TermsOfService(
        output=scorer.output,
        forms=forms,
        max_tokens=student_tokens(selection.rows),
        timeout_s=run.settings.student.request_timeout_s,
    )
