"""The terms of service that a run's student is evaluated with, and served by if it is promoted."""

from __future__ import annotations

from distill.dataset.rows import Selection
from distill.evaluate.scoring import Scorer
from distill.run.run import Parts, Run, student_tokens
from store.chat.style import style_of
from store.database.traces import teacher_answers
from store.records import Forms, MessageStyle, TermsOfService

MAX_MESSAGES = 2_000  # of the teacher, whose style is looked at


def terms_of_service(
    run: Run,
    selection: Selection,
    scorer: Scorer,
    forms: Forms,
    style: MessageStyle | None = None,
) -> TermsOfService:
    """The run's terms, without the cutoff and the confidence, which its evaluation decides.

    The token limit rests on all rows, `forms` only on rows that nothing is certified on.
    """
    return TermsOfService(
        output=scorer.output,
        forms=forms,
        max_tokens=student_tokens(selection.rows),
        timeout_s=run.settings.student.request_timeout_s,
        style=style or MessageStyle(),
    )


async def teacher_style(run: Run, parts: Parts) -> MessageStyle:
    """How the teacher writes the messages of the run's task: by the newest ones."""
    answers = await parts.store.run(teacher_answers, run.task, MAX_MESSAGES)
    return style_of(message for answer in answers for message in answer.choices)
