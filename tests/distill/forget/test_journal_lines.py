"""Files beside the journal, as forgetting and age reach them: also what is no readable file."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

import msgspec

from distill.forget.journal_lines import clear_lines, delete_older
from store.database.forgetting import DIGEST_CHARS, SubjectMatcher
from store.jsontext import to_json
from store.records import Trace
from tests.helpers.samples import a_feedback, a_trace


def line(trace: Trace) -> bytes:
    return to_json(msgspec.structs.asdict(trace)) + b"\n"


def odd_entries(folder: Path) -> None:
    (folder / "directory").mkdir()
    (folder / "directory" / "file").write_text("x")
    (folder / "link").symlink_to("/nowhere/at/all")
    os.mkfifo(folder / "pipe")


def test_odd_entries_neither_block_a_forgetting_nor_survive_it(tmp_path: Path) -> None:
    theirs, other = a_trace(), a_trace()
    digest = sha256(f"salt:trace:{theirs.trace_id}".encode()).hexdigest()[:DIGEST_CHARS]
    odd_entries(tmp_path)
    (tmp_path / "both.jsonl").write_bytes(line(theirs) + line(other) + b"torn")
    (tmp_path / "others.jsonl").write_bytes(line(other))
    (tmp_path / "theirs.jsonl").write_bytes(line(theirs))
    clear_lines(tmp_path, SubjectMatcher("salt", frozenset([digest]), {}))
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == {"both.jsonl": line(other), "others.jsonl": line(other)}


def test_feedback_of_a_forgotten_user_goes_with_its_trace_in_another_file(tmp_path: Path) -> None:
    theirs, other = a_trace(end_user="ann"), a_trace(end_user="bob")
    for name, record in {
        "1": a_feedback(theirs.trace_id, correction="of ann"),
        "2": theirs,
        "3": other,
        "4": a_feedback(other.trace_id, correction="of bob"),
    }.items():
        (tmp_path / name).write_bytes(to_json(record) + b"\n")
    digest = sha256(b"salt:user:ann").hexdigest()[:DIGEST_CHARS]
    matcher = SubjectMatcher("salt", frozenset(), {("user", digest): time.time() + 60})
    clear_lines(tmp_path, matcher)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_forgetting_does_not_make_a_file_younger(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_bytes(line(a_trace()) + b"torn")
    os.utime(path, (1000.0, 1000.0))
    clear_lines(tmp_path, SubjectMatcher("salt", frozenset(), {}))
    delete_older(tmp_path, before=2000.0)
    assert list(tmp_path.iterdir()) == []


def test_odd_entries_are_deleted_for_age(tmp_path: Path) -> None:
    odd_entries(tmp_path)
    (tmp_path / "file").write_text("x")
    delete_older(tmp_path, before=time.time() - 60)
    assert len(list(tmp_path.iterdir())) == 4
    delete_older(tmp_path, before=time.time() + 60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_or_no_folder_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        clear_lines(folder, SubjectMatcher("salt", frozenset(), {}))
        delete_older(folder, before=0.0)
