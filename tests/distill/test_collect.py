"""Journal → store: every trace once, with its values and its cost, whatever is killed when."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distill.collect import Collected, collect
from store.database.database import Database
from store.database.traces import task_counts, teacher_answers
from store.files.journal import JournalWriter
from store.ids import new_id
from store.records import Trace
from store.settings.config import JournalSettings, StoreSettings
from store.settings.teachers import Price
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_trace, write_segment

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def segment(folder: Path, *lines: bytes) -> Path:
    """Makes a sealed segment of raw lines; the last one has no end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{new_id()}-0.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def line(trace: Trace, **changes: Any) -> bytes:
    return json.dumps({**msgspec.structs.asdict(trace), **changes}).encode()


def read(db: Database, trace_id: str) -> dict[str, Any]:
    (row,) = db.query("exchange_by_id", trace_id=trace_id)
    return row


def ids(db: Database) -> list[str]:
    rows = [r for task in task_counts(db) for r in teacher_answers(db, task, 10**9)]
    return [row.trace_id for row in rows]


# ---- a trace reads back as it was written ------------------------------------------------------

any_text = st.text(max_size=60) | st.sampled_from(
    ["\0", "👩‍🚀", "\ud83d", "null", '"', "\\ud800", "é"]
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**62)
traces = st.builds(
    Trace,
    trace_id=st.builds(new_id),
    start_time=numbers,
    end_time=numbers,
    task=st.none() | any_text,
    operation_name=any_text,
    served_by=st.sampled_from(["teacher", "student", None]),
    route=st.sampled_from(["teacher", "student", "fallback"]),
    reason=any_text,
    outcome=any_text,
    status_code=st.integers(0, 999),
    error_type=st.none() | any_text,
    stream=st.booleans(),
    provider_name=st.none() | any_text,
    request_model=st.none() | any_text,
    response_model=st.none() | any_text,
    response_id=st.none() | any_text,
    student_id=st.none() | st.builds(new_id),
    finish_reasons=st.lists(any_text, max_size=3),
    duration_ms=numbers,
    time_to_first_chunk_ms=st.none() | numbers,
    student_ms=st.none() | numbers,
    input_tokens=st.none() | counts,
    output_tokens=st.none() | counts,
    cached_tokens=st.none() | counts,
    reasoning_tokens=st.none() | counts,
    request_params=any_text,
    tool_definitions=st.none() | any_text,
    input_messages=any_text,
    output_messages=st.none() | any_text,
    input_hash=any_text,
    fingerprint=any_text,
    confidence=st.none() | numbers,
    content_bytes=counts,
    api_key_hash=st.none() | any_text,
    end_user=st.none() | any_text,
    source=st.sampled_from(["proxy", "litellm"]),
    api=st.sampled_from(["chat_completions", "responses", "embeddings"]),
    content=st.sampled_from(["full", "redacted", "none"]),
    schema_version=st.integers(1, 99),
)


def as_kept(value: Any) -> Any:
    """What the journal makes of a value: half of a surrogate pair becomes U+FFFD."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    return [as_kept(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Path]]:
    folder = tmp_path_factory.mktemp("round")
    with Database(folder / "understudy.duckdb", StoreSettings()) as opened:
        yield opened, folder / "journal"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(traces, min_size=1, max_size=4))
@example([a_trace(trace_id=new_id(), input_messages="long " * 400_000)])
@example([a_trace(trace_id=new_id(), input_messages='[{"content":"\\ud83d \\u0000"}]')])
@pytest.mark.slow
def test_a_trace_reads_back_as_it_was_written(
    shared: tuple[Database, Path], written: list[Trace]
) -> None:
    db, journal = shared
    write_segment(journal, *written)
    assert collect(db, journal, {}) == Collected(1, len(written), 0)
    for trace in written:
        row = read(db, trace.trace_id)
        cost = row.pop("cost_usd")
        assert row.pop("imported_at") is None
        kept = {name: as_kept(value) for name, value in msgspec.structs.asdict(trace).items()}
        assert kept.pop("cost_usd") is None
        assert row == kept
        assert cost == (0 if trace.served_by == "student" else None)


def test_a_collected_segment_is_gone_and_the_next_round_finds_nothing(
    db: Database, journal: Path
) -> None:
    write_segment(journal, a_trace(), a_trace())
    write_segment(journal, a_trace())
    assert collect(db, journal, {}) == Collected(2, 3, 0)
    assert list(journal.iterdir()) == []
    assert collect(db, journal, {}) == Collected(0, 0, 0)
    assert task_counts(db) == {"triage": 3}


def test_a_missing_journal_counts_as_empty(db: Database, journal: Path) -> None:
    assert collect(db, journal, {}) == Collected(0, 0, 0)


def test_an_unsealed_segment_is_not_collected(db: Database, journal: Path) -> None:
    writer = JournalWriter(journal, JournalSettings())
    writer.append(a_trace())
    assert collect(db, journal, {}) == Collected(0, 0, 0)
    writer.close()
    assert collect(db, journal, {}) == Collected(1, 1, 0)


def test_a_segment_that_was_collected_before_is_only_deleted(db: Database, journal: Path) -> None:
    """So it is after a kill between the commit and the deletion."""
    write_segment(journal, a_trace())
    (path,) = journal.glob("*.jsonl")
    copy = shutil.copy(path, journal.parent / "copy")
    collect(db, journal, {})
    shutil.copy(copy, path)
    write_segment(journal, a_trace())
    assert collect(db, journal, {}) == Collected(1, 1, 0)
    assert list(journal.iterdir()) == []
    assert task_counts(db) == {"triage": 2}


@pytest.mark.slow
def test_many_small_segments_and_a_folder_with_wildcards(db: Database, tmp_path: Path) -> None:
    journal = tmp_path / "it's [a-z]*?{1}"
    written = [a_trace() for _ in range(300)]
    for trace in written:
        write_segment(journal, trace)
    (tmp_path / "it's a").mkdir()  # what the wildcards would match
    segment(tmp_path / "it's a", line(a_trace()))
    assert collect(db, journal, {}) == Collected(300, 300, 0)
    assert sorted(ids(db)) == sorted(t.trace_id for t in written)


# ---- damaged lines -----------------------------------------------------------------------------

GOOD = line(a_trace())
DAMAGED: dict[str, bytes] = {
    "torn": GOOD[:-20],
    "not_json": b"hello",
    "not_utf8": b'{"trace_id": "\xff"}',
    "zeros": b"\0" * 4096,
    "a_list": b"[1, 2]",
    "a_number": b"42",
    "null": b"null",
    "another_object": b'{"level": "info"}',
    "two_on_a_line": GOOD + GOOD,
    "half_a_surrogate_pair": GOOD.replace(b"triage", b"\\ud83d"),
    "id_is_no_uuid": line(a_trace(trace_id="../../etc/passwd")),
    "id_is_a_list": line(a_trace(), trace_id=[1]),
    "no_start": line(a_trace(), start_time=None),
    "start_is_text": line(a_trace(), start_time="yesterday"),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("place", ["first", "middle", "last", "alone"])
@pytest.mark.slow
def test_a_damaged_line_is_set_aside_and_holds_up_nothing(
    db: Database, journal: Path, damage: bytes, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = [] if place == "alone" else [a_trace(), a_trace()]
    lines = [line(t) for t in good]
    lines.insert({"first": 0, "middle": 1, "last": 2, "alone": 0}[place], damage)
    path = segment(journal, *lines)
    whole = a_trace()
    write_segment(journal, whole)
    assert collect(db, journal, {}) == Collected(2, len(good) + 1, 1)
    assert sorted(ids(db)) == sorted(t.trace_id for t in [*good, whole])
    assert (journal / "damaged" / path.name).read_bytes() == damage + b"\n"
    assert list(journal.glob("*.jsonl")) == []
    assert "1 damaged lines were moved" in caplog.text


def test_empty_lines_and_empty_segments_are_no_damage(db: Database, journal: Path) -> None:
    segment(journal, b"", line(a_trace()), b"", b"  ", line(a_trace()), b"")
    segment(journal, b"")
    segment(journal, b"\n\n")
    assert collect(db, journal, {}) == Collected(3, 2, 0)
    assert collect(db, journal, {}) == Collected(0, 0, 0)
    assert not (journal / "damaged").exists()


def test_a_file_that_is_no_journal_at_all_is_set_aside_whole(db: Database, journal: Path) -> None:
    path = segment(journal, b"[", b'{"pretty":', b'  "printed": true}', b"]", b"")
    write_segment(journal, a_trace())
    assert collect(db, journal, {}) == Collected(2, 1, 4)
    aside = (journal / "damaged" / path.name).read_bytes()
    assert aside == b'[\n{"pretty":\n  "printed": true}\n]\n'


def test_a_newer_or_an_older_writer_is_understood(db: Database, journal: Path) -> None:
    newer = a_trace()
    older = {"trace_id": new_id(), "start_time": 5.5, "task": "triage", "input_tokens": "many"}
    segment(
        journal,
        line(newer, colour={"deep": [1]}, finish_reasons="stop", stream="perhaps"),
        json.dumps(older).encode(),
    )
    assert collect(db, journal, {}) == Collected(1, 2, 0)
    assert read(db, newer.trace_id)["finish_reasons"] == []
    row = read(db, older["trace_id"])  # type: ignore[arg-type]
    defaults = msgspec.structs.asdict(a_trace(trace_id=older["trace_id"], start_time=5.5))
    names = ("operation_name", "stream", "request_params", "content_bytes", "schema_version")
    for name in (*names, "api", "content"):
        assert row[name] == defaults[name]
    assert (row["end_time"], row["finish_reasons"], row["input_tokens"]) == (5.5, [], None)


# ---- cost --------------------------------------------------------------------------------------

PRICES = {
    "gpt-4o": Price(2.5e-6, 1e-5),
    "openai/*": Price(1e-6, 2e-6),
    "*": Price(1e-3, 0.0),
}


@pytest.mark.parametrize(
    ("changes", "prices", "cost"),
    [
        ({}, PRICES, "0.00035"),  # 100 tokens in, 10 out
        ({"request_model": "openai/o9"}, PRICES, "0.00012"),
        ({"request_model": "claude"}, PRICES, "0.1"),
        ({"request_model": "claude"}, {"gpt-4o": Price(1, 1)}, None),
        ({"request_model": None}, PRICES, None),
        ({"input_tokens": None}, PRICES, None),
        ({"output_tokens": None}, PRICES, None),
        ({"served_by": "student", "route": "student"}, PRICES, "0"),
        ({"served_by": "student", "route": "student", "request_model": "x"}, {}, "0"),
        ({"route": "fallback", "student_id": new_id()}, PRICES, "0.00035"),
        ({"served_by": None, "input_tokens": None, "output_tokens": None}, PRICES, None),
        ({"input_tokens": 2**62}, {"gpt-4o": Price(1, 1)}, None),  # more than the column holds
        ({}, {"gpt-4o": Price(0, 0)}, "0"),
        ({}, {}, None),
    ],
)
@pytest.mark.slow
def test_cost_is_tokens_times_price(
    db: Database, journal: Path, changes: dict[str, Any], prices: dict[str, Price], cost: str | None
) -> None:
    trace = a_trace(**changes)
    write_segment(journal, trace)
    collect(db, journal, prices)
    assert read(db, trace.trace_id)["cost_usd"] == (None if cost is None else Decimal(cost))


# ---- a trace twice -----------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_trace_in_two_segments_is_one_trace(db: Database, journal: Path, rounds: int) -> None:
    """As in a copy of a segment, in the same round of collecting or in a later one."""
    traces = [a_trace() for _ in range(3)]
    write_segment(journal, *traces)
    if rounds == 2:
        assert collect(db, journal, {}) == Collected(1, 3, 0)
    fresh = a_trace()
    write_segment(journal, *traces, fresh, fresh)
    write_segment(journal, traces[0])
    expected = Collected(2, 1, 0) if rounds == 2 else Collected(3, 4, 0)
    got = collect(db, journal, {})
    assert got == expected
    assert sorted(ids(db)) == sorted(t.trace_id for t in [*traces, fresh])
