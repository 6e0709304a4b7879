"""Compares the student's answers to frequent inputs with all that the teacher has answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.dataset.frequent import FrequentInput, TeacherAnswer
from distill.dataset.rows import Selection
from distill.evaluate.evaluations import Evaluations
from distill.evaluate.scorers.spec import Scoring
from distill.evaluate.scoring import Scorer
from distill.gate.frequent import InputCheck
from store.chat.normal_form import normal_answer
from store.chat.shape import Messages
from store.records import Evaluation

MAX_DISTINCT = 5  # answers of the teacher to one input that are compared; others disagree


async def check_inputs(
    selection: Selection, evaluations: Sequence[Evaluation], scorer: Scorer, score: Scoring
) -> list[InputCheck]:
    """One check for each frequent input of the selection.

    `evaluations`: of their rows. Raises TeacherError when the scorer is a paid one and the teacher
    cannot be asked.
    """
    answered = {(e.fingerprint, e.input_hash): e for e in Evaluations(evaluations).frequent}
    messages = {(r.fingerprint, r.input_hash): r.messages for r in selection.checked}
    checks = []
    for one in selection.frequent:
        key = one.fingerprint, one.input_hash
        evaluation = answered.get(key)
        if evaluation is None:
            checks.append(
                InputCheck(
                    fingerprint=one.fingerprint,
                    input_hash=one.input_hash,
                    requests=one.requests,
                )
            )
            continue
        agrees = await _agreements(one, evaluation, messages[key], scorer, score)
        checks.append(_check(one, evaluation, agrees))
    return checks


async def _agreements(
    one: FrequentInput,
    evaluation: Evaluation,
    messages: Messages,
    scorer: Scorer,
    score: Scoring,
) -> dict[str, bool]:
    """Whether the student's answer agrees with the teacher's answers of each normal form.

    At most MAX_DISTINCT are compared, those of its target first and then the newest.
    """
    agrees = {normal_answer(evaluation.teacher_output): evaluation.agrees}
    output = evaluation.student_output
    for answer in one.answers:
        form = normal_answer(answer.text)
        if form not in agrees and len(agrees) < MAX_DISTINCT:
            usable = output is not None and evaluation.fault is None
            agrees[form] = usable and scorer.agrees(
                await score(answer.text, output or "", messages)
            )
    return agrees


def _check(one: FrequentInput, evaluation: Evaluation, agrees: Mapping[str, bool]) -> InputCheck:
    def agreed(answers: Sequence[TeacherAnswer]) -> int:
        return sum(agrees.get(normal_answer(answer.text), False) for answer in answers)

    return InputCheck(
        fingerprint=one.fingerprint,
        input_hash=one.input_hash,
        requests=one.requests,
        evaluation=evaluation,
        chosen=len(one.choosing),
        chosen_agreed=agreed(one.choosing),
        judged=len(one.judging),
        judged_agreed=agreed(one.judging),
    )
