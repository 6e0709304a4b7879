"""The ceiling: the teacher's self-consistency, its agreement with itself when asked again.

The teacher's answers are samples, so a student can hardly agree with them more than the teacher
itself does. This is not a strict limit: where answers are compared for equality, a student that
always gives the likeliest one can reach the square root of the share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from math import ceil

from distill.dataset.rows import Row
from distill.evaluate.scoring import Scorer, run_scoring
from distill.run.budget import Till, paid_client
from distill.run.progress import Progress
from distill.run.run import Parts, Run, some_rows
from distill.teacher.client import TeacherClient
from store.errors import TeacherError, TeacherMalformed, TeacherRefused
from store.files.line_log import LineLog
from store.jsontext import JsonObject
from store.records import Ceiling

STAGE = "noise"
MIN_ROWS = 20  # that are asked again, if there are so many
MAX_ROWS = 200
CONFIDENCE = 0.95  # of the interval

log = logging.getLogger("understudy.runs")


async def noise_stage(
    run: Run, parts: Parts, heldout: Sequence[Row], scorer: Scorer, progress: Progress
) -> Ceiling | None:
    """The teacher's agreement with itself on a sample of the held-out rows.

    None when evaluate.teacher_recheck is 0, or when the teacher or the token budget does not allow
    it: no run fails because of it. Paid answers are in the run's folder, where a resumed run
    continues.
    """
    rows = rows_again(heldout, run.settings.evaluate.teacher_recheck)
    if not rows:
        return None
    try:
        return await measure_ceiling(run, parts, rows, scorer, progress)
    except TeacherError as error:
        log.warning("task %s: the teacher's agreement with itself is unknown: %s", run.task, error)
        return None


def rows_again(rows: Sequence[Row], share: float) -> list[Row]:
    """This share of the rows, sampled by hash: MIN_ROWS to MAX_ROWS of them; share 0: none."""
    if not share:
        return []
    return some_rows(list(rows), min(MAX_ROWS, max(MIN_ROWS, ceil(share * len(rows)))))


async def measure_ceiling(
    run: Run, parts: Parts, rows: Sequence[Row], scorer: Scorer, progress: Progress
) -> Ceiling:
    """Asks the teacher for these rows again and scores its second answers against its first.

    Rows that it refuses with an error this time do not count. A second answer without text
    disagrees. Raises TeacherError when the teacher cannot be asked for MIN_ROWS of the rows (or for
    all, if there are fewer), or when a paid scorer cannot be asked.
    """
    second = await _asked_again(run, parts, rows, progress)
    pairs = [(row, second[_key(row)]) for row in rows if _key(row) in second]

    async with run_scoring(run, parts, rows, scorer) as score:

        async def agrees(row: Row, text: str | None) -> bool:
            return text is not None and scorer.agrees(await score(row.target, text, row.messages))

        agreed = sum(await asyncio.gather(*(agrees(row, text) for row, text in pairs)))
    return ceiling_of(agreed, len(pairs))


def ceiling_of(agreed: int, n: int) -> Ceiling:
    """The share of n ≥ 1 rows that agreed, with its Clopper-Pearson interval (two-sided, exact)."""
    from scipy.stats import binomtest  # noqa: PLC0415 - slow to import

    interval = binomtest(agreed, n).proportion_ci(CONFIDENCE, method="exact")
    return Ceiling(
        n=n, agreed=agreed, share=agreed / n, low=float(interval.low), high=float(interval.high)
    )


async def _asked_again(
    run: Run, parts: Parts, rows: Sequence[Row], progress: Progress
) -> dict[tuple[str, str], str | None]:
    """The teacher's second answers by `_key`, those of an earlier start of the run included."""
    answers = LineLog(run.folder / "noise.jsonl")
    keys = dict.fromkeys(map(_key, rows))
    before = await asyncio.to_thread(answers.load)
    known = {(line["input_hash"], line.get("fingerprint")): line for line in before}
    lines = {
        key: line
        for key in keys
        # without a fingerprint: of before an input could be asked under two prompts
        if (line := known.get(key) or known.get((key[0], None))) is not None
    }
    till = Till(run.settings.amplify.concurrency)
    progress(STAGE, len(lines), len(rows), "")

    async def ask(client: TeacherClient, row: Row) -> None:
        line = {
            "input_hash": row.input_hash,
            "fingerprint": row.fingerprint,
            **await _second(client, row),
        }
        answers.append(line)
        lines[_key(row)] = line
        progress(STAGE, len(lines), len(rows), "")

    open_rows = [row for row in rows if _key(row) not in lines]
    try:
        for model in sorted({row.model for row in open_rows}):
            async with paid_client(run, parts, model) as client:
                calls = [partial(ask, client, r) for r in open_rows if r.model == model]
                await asyncio.gather(*map(till.pay, calls))
    except TeacherError as error:
        if sum(not line["fault"] for line in lines.values()) < min(MIN_ROWS, len(rows)):
            raise
        log.warning("task %s: not all rows were asked of the teacher again: %s", run.task, error)
    second = {key: line["text"] for key, line in lines.items() if not line["fault"]}
    if not second:
        raise TeacherError("the teacher refused every row that it was asked again")
    return second


def _key(row: Row) -> tuple[str, str]:
    """What tells a row from the others: its input, and the prompt that it is asked under."""
    return row.input_hash, row.fingerprint


async def _second(client: TeacherClient, row: Row) -> JsonObject:
    """The teacher's answer now, and the fault for which it does not count, if any."""
    try:
        answer = await client.answer(row.messages, row.params, "noise")
    except TeacherRefused:
        return {"text": None, "fault": "refused"}
    except TeacherMalformed:
        return {"text": None, "fault": "malformed"}
    return {"text": answer.text, "fault": ""}
