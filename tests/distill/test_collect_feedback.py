"""Feedback on its way from the journal into the store: beside traces, once, whatever is damaged."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.collect import Collected, collect
from distill.monitor.feedback import feedback_comparisons
from proxy.feedback import parse_feedback
from store.database.database import Database
from store.database.traces import task_counts
from store.ids import new_id
from store.records import Feedback, Trace
from store.settings.config import StoreSettings
from tests.helpers.killed import kill_9_again_and_again
from tests.helpers.samples import a_feedback, a_trace, write_segment

TRACE = new_id()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "understudy.duckdb"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    """What a table of a closed database holds."""
    with duckdb.connect(str(file), read_only=True) as plain:
        found = plain.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def kept(file: Path) -> list[Feedback]:
    """All feedback in a closed database, oldest first."""
    found = [
        Feedback(**{**r, "feedback_id": str(r["feedback_id"]), "trace_id": str(r["trace_id"])})
        for r in rows(file, "feedback")
    ]
    return sorted(found, key=lambda f: (f.feedback_at, f.feedback_id))


def collected(file: Path, journal: Path) -> Collected:
    with Database(file, StoreSettings()) as db:
        return collect(db, journal, {})


def segment(folder: Path, *lines: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{new_id()}-0.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def line(feedback: Feedback, **changes: Any) -> bytes:
    return json.dumps({**asdict(feedback), **changes}).encode()


@pytest.mark.slow
def test_both_kinds_of_one_segment_are_counted_apart(file: Path, journal: Path) -> None:
    trace = a_trace()
    write_segment(journal, a_feedback(TRACE), trace, a_feedback(trace.trace_id), a_trace())
    write_segment(journal, a_feedback(TRACE))
    assert collected(file, journal) == Collected(2, 2, 0, 3)
    assert list(journal.iterdir()) == []
    counts = [(r["traces"], r["feedback"], r["damaged"]) for r in rows(file, "segments")]
    assert sorted(counts) == [(0, 1, 0), (2, 2, 0)]
    assert len(rows(file, "traces")) == 2
    assert len(kept(file)) == 3


texts = st.text(min_size=1, max_size=40).filter(str.strip) | st.just("null")
bodies = st.builds(
    lambda says, correction: {"trace_id": TRACE, **says, **correction},
    st.fixed_dictionaries({"score": st.floats(0, 1) | st.integers(0, 1)})
    | st.fixed_dictionaries({"label": st.sampled_from(["good", "bad", "up", "down"])}),
    st.fixed_dictionaries({}, optional={"correction": texts}),
) | st.builds(lambda text: {"trace_id": TRACE, "correction": text}, texts)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database all examples fill: making one takes longer than anything else."""
    return tmp_path_factory.mktemp("rounds")


@settings(max_examples=40, deadline=None)
@given(st.lists(bodies, min_size=1, max_size=5), st.floats(0, 4e9))
@pytest.mark.slow
def test_whatever_the_proxy_takes_reads_back_as_it_was_written(
    shared: Path, given_bodies: list[dict[str, Any]], at: float
) -> None:
    given_feedback = [
        parse_feedback(json.dumps(body).encode(), at=at + i, key_hash="0123456789abcdef")
        for i, body in enumerate(given_bodies)
    ]
    write_segment(shared / "journal", *given_feedback)
    file, ids = shared / "understudy.duckdb", {f.feedback_id for f in given_feedback}
    before = len(kept(file)) if file.exists() else 0
    assert collected(file, shared / "journal") == Collected(1, 0, 0, len(given_feedback))
    found = kept(file)
    assert len(found) == before + len(given_feedback)
    assert sorted(
        (f for f in found if f.feedback_id in ids), key=lambda f: f.feedback_id
    ) == sorted(given_feedback, key=lambda f: f.feedback_id)


@pytest.mark.slow
def test_feedback_that_is_twice_in_the_journal_counts_once(file: Path, journal: Path) -> None:
    once, again = a_feedback(TRACE), a_feedback(TRACE, score=1.0)
    write_segment(journal, once, again, once)
    write_segment(journal, again)
    with Database(file, StoreSettings()) as db:
        assert collect(db, journal, {}) == Collected(2, 0, 0, 4)
        write_segment(journal, once, again)
        collect(db, journal, {})
    assert kept(file) == [once, again]


@pytest.mark.slow
def test_a_segment_that_was_collected_before_is_only_deleted(file: Path, journal: Path) -> None:
    write_segment(journal, a_feedback(TRACE), a_trace())
    (path,) = journal.glob("*.jsonl")
    copy = shutil.copy(path, journal.parent / "copy")
    collected(file, journal)
    shutil.copy(copy, path)
    assert collected(file, journal) == Collected(0, 0, 0)
    assert list(journal.iterdir()) == []
    assert len(kept(file)) == 1


GOOD = a_feedback(TRACE, correction="shipping")
DAMAGED: dict[str, bytes] = {
    "torn": line(GOOD)[:-10],
    "id_is_no_uuid": line(GOOD, feedback_id="../../etc/passwd"),
    "id_is_a_list": line(GOOD, feedback_id=[1]),
    "id_is_empty": line(GOOD, feedback_id=""),
    "no_trace": line(GOOD, trace_id=None),
    "trace_is_no_uuid": line(GOOD, trace_id="chatcmpl-9"),
    "no_time": line(GOOD, feedback_at=None),
    "time_is_text": line(GOOD, feedback_at="yesterday"),
    "time_is_infinite": line(GOOD, feedback_at="inf"),
    "score_too_high": line(GOOD, score=1.5),
    "score_is_text": line(GOOD, score="bad"),
    "score_is_no_number": line(GOOD, score="nan"),
    "says_nothing": line(GOOD, score=None, correction=None),
    "a_trace_with_a_feedback_id": json.dumps(
        {**msgspec.structs.asdict(a_trace()), "feedback_id": "no uuid"}
    ).encode(),
    "two_on_a_line": line(GOOD) + line(GOOD),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.slow
def test_damaged_feedback_is_set_aside_and_nothing_else_is(
    file: Path, journal: Path, damage: bytes, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    trace = a_trace(trace_id=TRACE)
    whole = a_feedback(TRACE)
    lines = [json.dumps(msgspec.structs.asdict(trace)).encode(), line(whole)]
    lines.insert(place, damage)
    path = segment(journal, *lines)
    assert collected(file, journal) == Collected(1, 1, 1, 1)
    assert (journal / "damaged" / path.name).read_bytes() == damage + b"\n"
    assert kept(file) == [whole]
    assert "1 damaged lines were moved" in caplog.text
    assert "shipping" not in caplog.text


def test_a_newer_and_a_terser_writer_are_understood(file: Path, journal: Path) -> None:
    newer, terse = a_feedback(TRACE), {"feedback_id": new_id(), "trace_id": TRACE}
    segment(
        journal,
        line(newer, colour={"deep": [1]}),
        json.dumps({**terse, "feedback_at": 5.5, "correction": "x"}).encode(),
        json.dumps(
            {**msgspec.structs.asdict(a_trace()), "feedback_id": None}
        ).encode(),  # a trace all the same
    )
    assert collected(file, journal) == Collected(1, 1, 0, 2)
    assert kept(file) == [Feedback(**terse, feedback_at=5.5, correction="x"), newer]


@pytest.mark.slow
def test_kill_9_of_the_collector_loses_nothing_and_doubles_nothing(
    file: Path, journal: Path
) -> None:
    """Eight collectors are killed one after the other while traces and feedback keep coming."""
    traces, feedback, student = [], [], new_id()

    def records(chance: random.Random) -> list[Trace | Feedback]:
        found = [a_trace(served_by="student", student_id=student) for _ in range(5)]
        said = [a_feedback(trace.trace_id) for trace in found]
        traces.extend(trace.trace_id for trace in found)
        feedback.extend(f.feedback_id for f in said)
        return chance.sample([*found, *said], k=10)  # some before their traces

    arguments = [str(file), str(journal)]
    kill_9_again_and_again(
        "tests.helpers.collector", arguments, journal, records, kills=8, max_rounds=3, seed=5
    )
    with Database(file, StoreSettings()) as db:
        before = task_counts(db)
        collect(db, journal, {})
        feedback_comparisons(db)
    assert before["triage"] > 0
    assert sorted(str(r["trace_id"]) for r in rows(file, "traces")) == sorted(traces)
    assert sorted(str(r["feedback_id"]) for r in rows(file, "feedback")) == sorted(feedback)
    assert sorted(str(r["trace_id"]) for r in rows(file, "comparisons")) == sorted(traces)
    assert rows(file, "feedback_news") == []
