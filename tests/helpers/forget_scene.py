"""A data folder with texts of one user in every place that keeps texts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import orjson

from distill.collect import collect
from distill.composition import build_services
from distill.dataset.rows import Row, write_rows
from distill.forget.forgetting import Forgetter
from distill.pipeline.promotion import save_route
from distill.pipeline.runner import Runner
from store.chat.shape import input_hash
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event, replace_evaluations, replace_examples, save_policy
from store.database.store import Store
from store.files.journal import DAMAGED_FOLDER
from store.files.line_log import LineLog
from store.files.responses import keep_response
from store.ids import new_id
from store.jsontext import to_json
from store.records import (
    Example,
    Forms,
    Recall,
    RunState,
    Slice,
    Trace,
)
from store.settings.config import Config
from tests.helpers.samples import (
    a_certificate,
    a_comparison,
    a_feedback,
    a_promotion,
    a_route,
    a_run_event,
    a_trace,
    an_evaluation,
    an_example,
    write_segment,
)

CANARY = "CANARYBIRD"  # in the texts of the forgotten user only
OTHER = "ROBINREDBREAST"  # in the texts of others
USER = f"{CANARY}@example.org"
TASK = "triage"


def trace_of(text: str, number: int, *, user: str, answer: str, at: float, **changes: Any) -> Trace:
    """A trace of a user, with this text in its request."""
    messages = [{"role": "user", "content": f"{text} asks for number {number}"}]
    values: dict[str, Any] = {
        "start_time": at,
        "end_time": at + 0.5,
        "end_user": user,
        "request_params": to_json({"user": user}).decode(),
        "input_messages": to_json(messages).decode(),
        "output_messages": to_json([{"role": "assistant", "content": answer}]).decode(),
        "input_hash": input_hash(messages),
    }
    return a_trace(**{**values, **changes})


@dataclass
class FilledFolder:
    """The content of a data folder."""

    theirs: list[Trace]  # the user's
    others: list[Trace]
    run_id: str  # learned from both, and its student is live
    clean: str  # another run, of others' traces alone
    cut_short: str  # a run that failed before it wrote its examples
    unfinished: str


def a_row(trace: Trace, split: str = "train") -> Row:
    """A trace as a row of a run."""
    return Row(
        trace_id=trace.trace_id,
        input_hash=trace.input_hash,
        split=split,  # type: ignore[arg-type]
        fingerprint="f",
        model="gpt-4o",
        messages=orjson.loads(trace.input_messages),
        params={},
        target=orjson.loads(str(trace.output_messages))[0]["content"],
    )


def fill_folder(config: Config, *, at: float | None = None) -> FilledFolder:
    """Fills a data folder. To be called while nobody has the database open."""
    at = time.time() - 1000 if at is None else at
    theirs = [trace_of(CANARY, n, user=USER, answer=f"{CANARY} label", at=at + n) for n in range(6)]
    others = [trace_of(OTHER, n, user="bob", answer=f"{OTHER} label", at=at + n) for n in range(12)]
    found = FilledFolder(theirs, others, *(new_id() for _ in range(4)))
    with Database(config.database_file, config.store) as db:
        kept = build_services(config, Store(db), clock=time.time).kept
        write_segment(config.journal_dir, *theirs, *others)
        collect(db, config.journal_dir, {}, kept)
        write_segment(
            config.journal_dir,
            a_feedback(theirs[0].trace_id, correction=f"{CANARY} correction"),
            a_feedback(others[0].trace_id, correction=f"{OTHER} correction"),
        )
        collect(db, config.journal_dir, {}, kept)
        _a_run(db, config, found.run_id, [*theirs, *others], at=at, promoted=True)
        _a_run(db, config, found.clean, others, at=at, promoted=False)
        write_rows(config.runs_dir / found.cut_short / "rows.jsonl", [a_row(t) for t in theirs])
        append_run_event(
            db, a_run_event(found.cut_short, task=TASK, state=RunState.FAILED, at=at + 50)
        )
        write_rows(
            config.runs_dir / found.unfinished / "rows.jsonl", [a_row(t) for t in theirs[:1]]
        )
        append_run_event(db, a_run_event(found.unfinished, task="other", at=at + 60))
        for trace, name in ((theirs[1], CANARY), (others[1], OTHER)):
            compared = a_comparison(
                trace_id=trace.trace_id,
                student_id=found.run_id,
                teacher_output=f"{name} said",
                student_output=f"{name} answered",
            )
            write_comparisons(db, [compared])
    _damage(config, theirs[2], others[2])
    kept = config.database_file.with_name("understudy-damaged-20260131T120000.duckdb")
    kept.write_text(CANARY)  # as a repair leaves it
    for trace, name in ((theirs[3], CANARY), (others[3], OTHER)):
        body = to_json({"output": f"{name} response"})
        keep_response(config.responses_dir, trace.trace_id, body, [{"text": name}], None)
    return found


def _a_run(
    db: Database, config: Config, run_id: str, traces: list[Trace], *, at: float, promoted: bool
) -> None:
    folder = config.runs_dir / run_id
    splits = ("train", "train", "calibration", "heldout")
    rows = [a_row(trace, splits[n % 4]) for n, trace in enumerate(traces)]
    real = [
        an_example(
            run_id,
            origin="trace",
            split=row.split,
            source_trace_id=row.trace_id,
            parent_ids=[],
            input_messages=row.messages_json,
            input_hash=row.input_hash,
            target=row.target,
        )
        for row in rows
    ]
    made = _synthetic(run_id, rows)
    replace_examples(db, run_id, [*real, *made])
    policy = {"description": " ".join(row.target for row in rows[:2])}
    save_policy(db, run_id, TASK, policy, [row.trace_id for row in rows[:2]])
    evaluations = [
        an_evaluation(
            run_id,
            input_hash=row.input_hash,
            split=row.split,
            teacher_output=row.target,
            student_output=row.target,
        )
        for row in rows
        if row.split != "train"
    ]
    replace_evaluations(db, run_id, evaluations)
    labels = sorted({row.target for row in rows})
    route = a_route(
        task=TASK, student_id=run_id, output="label", forms=Forms(labels=labels), at=at + 40
    )
    slices = [
        Slice(kind="label", name=x, n=20, agreed=20, p_value=0.5, below=False) for x in labels
    ]
    recalls = [Recall(name=x, n=20, agreed=20, low=0.8) for x in labels]
    certificate = a_certificate(
        task=TASK,
        run_id=run_id,
        slices=slices,
        recalls=[*recalls, Recall(name="yes", n=0, agreed=0, low=0.0, protected=True)],
        unproven_labels=[*labels, "yes"],
        at=at + 40,
    )
    for seq, (state, detail) in enumerate(
        {
            RunState.COLLECTED: {"used_until": at + 20},
            RunState.TRAINED: {
                "adapter": "train-real/adapter",
                "chosen": "real+synthetic",
                "base": "nowhere",
            },
            RunState.PROMOTED: {"certificate": asdict(certificate), "used_until": at + 20},
        }.items()
    ):
        event = a_run_event(run_id, seq, task=TASK, state=state, at=at + 30 + seq, detail=detail)
        append_run_event(db, event)
    if promoted:
        promotion = a_promotion(
            task=TASK, run_id=run_id, route=route, certificate=certificate, at=at + 40
        )
        append_promotion(db, promotion)
    _files(folder, rows, [e.target for e in made], orjson.dumps(policy))
    save_route(folder, route)


def _synthetic(run_id: str, rows: list[Row]) -> list[Example]:
    """Some derived from rows, and one derived from each of these."""
    first = [an_example(run_id, target=row.target, parent_ids=[row.trace_id]) for row in rows[::5]]
    return [*first, *(replace(e, example_id=new_id(), parent_ids=[e.example_id]) for e in first)]


def _files(folder: Path, rows: list[Row], answers: list[str], policy: bytes) -> None:
    """The files that the stages of a run write."""
    write_rows(folder / "rows.jsonl", rows)
    (folder / "rows.json").write_text("{}")
    (folder / "policy.json").write_bytes(policy)
    for name in ("amplify/inputs.jsonl", "amplify/answers.jsonl", "noise.jsonl", "judged.jsonl"):
        for answer in answers:
            LineLog(folder / name).append({"text": answer})
    for name in ("train-real/data/train.jsonl", "train-real/data/valid.jsonl", "evaluations.jsonl"):
        for row in rows:
            LineLog(folder / name).append({"target": row.target})
    (folder / "calls.jsonl").write_text("{}\n")
    (folder / "evaluate").mkdir()
    (folder / "evaluate" / "student.log").write_text("up")
    (folder / "train-real" / "adapter").mkdir()
    (folder / "train-real" / "adapter" / "adapters.safetensors").write_bytes(b"weights")
    (folder / "train-real" / "config.yaml").write_text("seed: 0\n")
    (folder / ".rows.jsonl.77.part").write_text(rows[0].target)


def _damage(config: Config, theirs: Trace, other: Trace) -> None:
    """Damaged lines of the journal: one of each, and one that cannot be parsed."""
    folder = config.journal_dir / DAMAGED_FOLDER
    folder.mkdir(parents=True)
    lines = [to_json({**msgspec.structs.asdict(t), "trace_id": "torn"}) for t in (theirs, other)]
    lines.append(to_json(msgspec.structs.asdict(theirs))[:400])
    (folder / "019-0.jsonl").write_bytes(b"\n".join([*lines, b""]))
    (folder / ".019-0.jsonl.9.part").write_bytes(lines[0])


async def nothing() -> None:
    """No routes to publish."""


def a_forgetter(
    db: Database,
    config: Config,
    *,
    clock: Callable[[], float] = time.time,
    follow: Callable[[], Awaitable[None]] = nothing,
    runner: Runner | None = None,
) -> Forgetter:
    """As `understudy forget` makes it without a server, if `runner` is None."""
    return build_services(config, Store(db), clock=clock, follow=follow, runner=runner).forgetter


def places_of(word: str, data_dir: Path) -> list[str]:
    """Every file that has the word in its bytes or its name, and every table with it in a value.

    The tables are looked at too because their texts are compressed in the file. Nobody may have the
    database open.
    """
    files = [path for path in sorted(data_dir.rglob("*")) if path.is_file()]
    found = [
        str(path.relative_to(data_dir))
        for path in files
        if word.encode() in path.read_bytes() or word in path.name
    ]
    database = data_dir / "understudy.duckdb"
    if database.exists():
        found += [f"table {name}" for name in _tables_with(word, database)]
    return found


def _tables_with(word: str, database: Path) -> list[str]:
    with duckdb.connect(":memory:") as plain:
        plain.execute(f"ATTACH '{database}' AS store (READ_ONLY)")
        plain.execute("USE store")
        tables = [name for (name,) in plain.execute("SHOW TABLES").fetchall()]
        return [
            name
            for name in tables
            if plain.execute(
                f"SELECT count(*) FROM {name} AS one WHERE contains(one::VARCHAR, ?)",
                [word],
            ).fetchone()
            != (0,)
        ]
