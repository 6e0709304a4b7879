"""The first stage: choosing and splitting the run's real rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from distill.dataset import traffic as shapes
from distill.dataset.frequent import MIN_REQUESTS, MIN_SHARE, read_frequent, write_frequent
from distill.dataset.rows import Selection, choose_rows, count_groups, read_rows, write_rows
from distill.dataset.templates import summary
from distill.dataset.traffic import (
    MAX_SHAPES,
    NEWEST,
    REMEMBERED,
    Traffic,
    seen_shape,
)
from distill.gate.gate import groups_needed
from distill.run.history import StageResult
from distill.run.progress import Progress
from distill.run.run import Parts, Run, some_groups
from store.database.database import Database
from store.database.promotions import promotions_of_task
from store.database.runs import used_inputs
from store.database.traces import (
    audited_exchanges,
    corrected_exchanges,
    recent_inputs,
    teacher_answers,
    teacher_answers_to,
    traffic_by_fingerprint,
)
from store.files.atomic import write_atomically
from store.jsontext import JsonObject
from store.records import (
    LoggedExchange,
    Promotion,
    PromptTemplate,
)
from store.settings.tasks import TaskSettings

MAX_TRACES = 20_000  # the newest traces that one run looks at
MAX_PROMOTIONS = 500  # of a task, searched for the last demotion on risk

ROWS = "rows.jsonl"
FREQUENT = "frequent.jsonl"  # inputs that are checked by themselves, with the teacher's answers
MANIFEST = "rows.json"  # written last; if it is missing, the rows are chosen again


async def collect_rows(run: Run, parts: Parts, progress: Progress) -> StageResult[Selection]:
    """Chooses the real rows and splits them by group, before all else."""
    earlier = await asyncio.to_thread(_read, run.folder)
    if earlier is not None:
        return earlier
    progress("collect", 0, 1, "choosing traces")
    result = await parts.store.run(_choose, run)
    await asyncio.to_thread(save_selection, run.folder, result.value, result.detail)
    progress("collect", 1, 1, f"{len(result.value.rows)} rows")
    return result


def save_selection(folder: Path, selection: Selection, detail: JsonObject) -> None:
    """Writes the selection into the run's folder, where a resumed run finds it."""
    write_rows(folder / ROWS, selection.rows)
    write_frequent(folder / FREQUENT, selection.frequent)
    manifest = {
        "left_out": selection.left_out,
        "templates": [asdict(template) for template in selection.templates],
        "snapshots": selection.snapshots,
        "heldout_since": selection.heldout_since,
        "mixed_in_time": selection.mixed_in_time,
        "requests": selection.requests,
        "detail": detail,
    }
    write_atomically(folder / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why rows cannot lead to a certificate."""

    reason: str
    # what they have, as a run's history keeps it for `due`; none where more traces would not help
    supply: JsonObject | None = None


def shortage(selection: Selection, settings: TaskSettings, attempt: int = 1) -> Shortage | None:
    """Why these rows cannot lead to a certificate; None when they can. Costs nothing to know.

    `attempt`: which attempt this is of the task under these fingerprints (1-based).
    """
    groups, most = selection.groups, settings.evaluate.max_rows
    needed = groups_needed(settings.gate, attempt, calibration=groups["calibration"])
    judged = some_groups(selection.heldout, most)
    heldout = count_groups(judged)
    if heldout < needed:
        nth = f" in attempt {attempt}" if attempt > 1 else ""
        of_rows = f" ({len(judged)} rows)" if len(judged) != heldout else ""
        reason = (
            f"{heldout} held-out groups{of_rows}{_beside(selection)}, but a threshold of "
            f"{settings.gate.threshold:g} at confidence {settings.gate.confidence:g} needs "
            f"{needed}{nth} even without a disagreement"
        )
        if groups["heldout"] >= needed:
            return Shortage(f"{reason}; evaluate.max_rows is {most}, which is too few for more")
        supply = {"heldout": heldout, "calibration": groups["calibration"], "attempt": attempt}
        return Shortage(reason, supply)
    if not groups["train"] or not groups["calibration"]:
        return Shortage("no rows in the train or the calibration split")
    return None


def _beside(selection: Selection) -> str:
    """The frequent inputs, which are no groups."""
    if not selection.frequent or not selection.requests:
        return ""
    requests = sum(one.requests for one in selection.frequent)
    share = min(requests / selection.requests, 1)
    return f" beside frequent inputs that are {share:.0%} of the requests"


def suspect_since(promotions: Sequence[Promotion]) -> float | None:
    """The time since which the task may have drifted from its older traces, or None.

    `promotions`: of the task, newest first. The time is that of the last demotion on risk, until a
    later student has reached all of the traffic.
    """
    for promotion in promotions:
        if promotion.suspect_since is not None:
            return promotion.suspect_since
        if promotion.target == "student" and promotion.state == "live":
            return None
    return None


def recent_traffic(db: Database, task: str) -> Traffic:
    """The recent traffic of a task, answered by teacher or student."""
    rows = traffic_by_fingerprint(db, task, requests=REMEMBERED, newest=NEWEST, shapes=MAX_SHAPES)
    return Traffic(seen_shape(row) for row in rows)


def _choose(db: Database, run: Run) -> StageResult[Selection]:
    traffic = recent_traffic(db, run.task)
    answers = newest_answers(db, run.task, traffic)
    promotions = promotions_of_task(db, run.task, MAX_PROMOTIONS)
    since = suspect_since(promotions)
    serving = next((p.run_id for p in promotions[:1] if p.target == "student"), None)
    selection = choose_rows(
        [
            *answers,
            *audited_exchanges(db, run.task, MAX_TRACES),
            *corrected_exchanges(db, run.task, MAX_TRACES),
        ],
        run.settings.split,
        traffic=traffic,
        recent=recent_inputs(
            db, run.task, requests=REMEMBERED, share=MIN_SHARE, least=MIN_REQUESTS
        ),
        suspect_since=since,
        used=used_inputs(db, run.task, serving),
        now=run.started_at,
    )
    detail = {
        "traces": len(answers),
        "rows": selection.sizes,
        "groups": selection.groups,
        "frequent": _frequent(selection),
        "corrections": sum(r.origin == "correction" for r in selection.rows),
        "left_out": selection.left_out,
        "templates": [summary(template) for template in selection.templates],
        "snapshots": selection.snapshots,
        "suspect_since": since,
        "heldout_since": selection.heldout_since,
        "mixed_in_time": selection.mixed_in_time,
        "used_until": max((a.asked_at for a in answers), default=run.started_at),
    }
    return StageResult(selection, detail)


def _frequent(selection: Selection) -> JsonObject:
    """How much of the traffic the inputs are that are checked by themselves."""
    requests = sum(one.requests for one in selection.frequent)
    return {
        "inputs": len(selection.frequent),
        "share": requests / selection.requests if selection.requests else 0.0,
    }


def newest_answers(
    db: Database, task: str, traffic: Traffic, most: int = MAX_TRACES
) -> list[LoggedExchange]:
    """The teacher's newest answers, and those to the shapes that count where others push them out.

    At most `most` of either.
    """
    answers = teacher_answers(db, task, most)
    if len(answers) < most:
        return answers
    counting = traffic.fingerprints()
    counts = Counter(counting.get(answer.fingerprint) for answer in answers)
    few = sorted(f for f, name in counting.items() if counts[name] < shapes.MIN_SHARE * most)
    more = teacher_answers_to(db, task, few, most) if few else []
    known = {answer.trace_id for answer in answers}
    return [*answers, *(answer for answer in more if answer.trace_id not in known)]


def requests_of_run(folder: Path) -> int:
    """The task's recent requests when a run chose its rows; 0: not known."""
    try:
        return int(orjson.loads((folder / MANIFEST).read_bytes()).get("requests", 0))
    except FileNotFoundError:
        return 0


def _read(folder: Path) -> StageResult[Selection] | None:
    """The selection of an earlier start of the run; None when it did not finish."""
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    templates = [PromptTemplate(**template) for template in manifest["templates"]]
    selection = Selection(
        read_rows(folder / ROWS),
        manifest["left_out"],
        templates,
        manifest.get("snapshots", {}),
        manifest.get("heldout_since"),
        manifest.get("mixed_in_time", False),
        read_frequent(folder / FREQUENT),
        manifest.get("requests", 0),
    )
    return StageResult(selection, manifest["detail"])
