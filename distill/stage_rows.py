"""The first stage: which real rows a run learns from and is judged by."""

from __future__ import annotations

import asyncio

from distill.dataset import Row, choose_rows, read_rows, write_rows
from distill.gate import rows_needed
from distill.progress import Progress
from distill.run import SPLITS, Parts, Run
from distill.runlog import StageResult
from store import records
from store.models import Split
from store.task_settings import TaskSettings

MOST_TRACES = 20_000  # the newest traces that one run looks at


async def collect_rows(run: Run, parts: Parts, progress: Progress) -> StageResult[list[Row]]:
    """Chooses the real rows and splits them by the hash of their input, before anything else."""
    file = run.folder / "rows.jsonl"
    if file.exists():
        return StageResult(await asyncio.to_thread(read_rows, file), {})
    progress("collect", 0, 1, "choosing traces")
    traces = await asyncio.to_thread(records.traces_of_task, parts.db, run.task, MOST_TRACES)
    selection = choose_rows(traces, run.settings.split)
    await asyncio.to_thread(write_rows, file, selection.rows)
    counts = {name: sum(r.split == name for r in selection.rows) for name in SPLITS}
    used_until = max((float(t["start_time"]) for t in traces), default=run.started_at)
    progress("collect", 1, 1, f"{len(selection.rows)} rows")
    return StageResult(
        selection.rows,
        {
            "traces": len(traces),
            "rows": counts,
            "left_out": selection.left_out,
            "used_until": used_until,
        },
    )


def shortage(split: dict[Split, list[Row]], settings: TaskSettings) -> str:
    """Why these rows cannot lead to a certificate, found out before anything is paid for."""
    needed = rows_needed(settings.gate)
    if len(split["heldout"]) < needed:
        return (
            f"{len(split['heldout'])} held-out rows, but a threshold of "
            f"{settings.gate.threshold:g} at confidence {settings.gate.confidence:g} needs "
            f"{needed} even without a disagreement"
        )
    if not split["train"] or not split["calibration"]:
        return "no rows in the train or the calibration split"
    return ""
