"""Records for tests: one of each, with what a test wants changed, and a journal of traces."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from store.files.journal import JournalWriter
from store.ids import new_id
from store.records import (
    Action,
    Certificate,
    Comparison,
    Evaluation,
    Example,
    Feedback,
    Promotion,
    Route,
    RunEvent,
    RunState,
    TeacherCall,
    TermsOfService,
    Trace,
)
from store.settings.config import JournalSettings


def a_trace(**changes: Any) -> Trace:
    now = time.time()
    values: dict[str, Any] = {
        "trace_id": new_id(),
        "start_time": now,
        "end_time": now + 0.25,
        "task": "triage",
        "served_by": "teacher",
        "route": "teacher",
        "reason": "no_student",
        "outcome": "complete",
        "status_code": 200,
        "request_model": "gpt-4o",
        "input_tokens": 100,
        "output_tokens": 10,
        "duration_ms": 250.0,
        "finish_reasons": ["stop"],
        "input_messages": '[{"role":"user","content":"My parcel is late"}]',
        "output_messages": '[{"role":"assistant","content":"shipping"}]',
    }
    return Trace(**{**values, **changes})


def an_example(run_id: str, **changes: Any) -> Example:
    values: dict[str, Any] = {
        "example_id": new_id(),
        "task": "triage",
        "run_id": run_id,
        "origin": "synthetic",
        "split": "train",
        "status": "kept",
        "reason": "passes",
        "input_messages": '[{"role":"user","content":"Wo ist mein Paket? 📦"}]',
        "target": "shipping",
        "input_hash": "0" * 32,
        "parent_ids": [new_id(), new_id()],
        "generator_model": "gpt-4o",
        "created_at": time.time(),
    }
    return Example(**{**values, **changes})


def a_teacher_call(run_id: str, **changes: Any) -> TeacherCall:
    values: dict[str, Any] = {
        "call_id": new_id(),
        "run_id": run_id,
        "task": "triage",
        "purpose": "answers",
        "model": "gpt-4o",
        "input_tokens": 200,
        "output_tokens": 20,
        "at": time.time(),
        "duration_ms": 321.5,
    }
    return TeacherCall(**{**values, **changes})


def an_evaluation(run_id: str, **changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "run_id": run_id,
        "input_hash": new_id(),
        "split": "heldout",
        "scorer": "exact",
        "score": 1.0,
        "agrees": True,
        "teacher_output": "shipping",
        "student_output": "shipping",
        "confidence": -0.125,
        "latency_ms": 12.5,
    }
    return Evaluation(**{**values, **changes})


def a_run_event(run_id: str, seq: int = 0, **changes: Any) -> RunEvent:
    values: dict[str, Any] = {
        "run_id": run_id,
        "seq": seq,
        "task": "triage",
        "state": RunState.COLLECTED,
        "at": time.time(),
        "seconds": 1.5,
        "detail": {"rows": {"train": 100}, "note": "größer"},
    }
    return RunEvent(**{**values, **changes})


def a_certificate(**changes: Any) -> Certificate:
    values: dict[str, Any] = {
        "certificate_id": new_id(),
        "task": "triage",
        "run_id": new_id(),
        "method": "clopper-pearson",
        "scorer": "exact",
        "threshold": 0.95,
        "confidence_level": 0.95,
        "n": 120,
        "agreed": 119,
        "score": 119 / 120,
        "lower_bound": 0.961,
        "cutoff": -0.25,
        "coverage": 0.8,
        "heldout": 150,
        "agreement_all": 0.97,
        "min_coverage": 0.5,
        "fingerprints": ["0123456789abcdef"],
        "passed": True,
        "reason": "lower bound 0.961 ≥ 0.95",
        "at": time.time(),
    }
    return Certificate(**{**values, **changes})


def a_comparison(**changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "trace_id": new_id(),
        "task": "triage",
        "student_id": new_id(),
        "kind": "shadow",
        "scorer": "exact",
        "score": 1.0,
        "agrees": True,
        "servable": True,
        "fault": None,
        "confidence": 0.97,
        "teacher_output": "shipping",
        "student_output": "shipping",
        "at": time.time(),
    }
    return Comparison(**{**values, **changes})


def an_action(**changes: Any) -> Action:
    values: dict[str, Any] = {
        "action_id": new_id(),
        "task": "triage",
        "command": "pause",
        "actor": "tester",
        "reason": "a new prompt is coming",
        "at": time.time(),
    }
    return Action(**{**values, **changes})


def a_route(**changes: Any) -> Route:
    values: dict[str, Any] = {
        "task": "triage",
        "target": "student",
        "reason": "certified",
        "student_id": new_id(),
        "base_url": "http://127.0.0.1:4242",
        "fingerprints": ["0123456789abcdef"],
        "cutoff": -0.25,
        "output": "label",
        "max_input_chars": 500,
        "at": time.time(),
    }
    return route_with({**values, **changes})


def route_with(values: dict[str, Any]) -> Route:
    """A route of these values; those of its terms of service may stand among them."""
    names = {field.name for field in fields(TermsOfService)}
    terms = {name: value for name, value in values.items() if name in names}
    rest = {name: value for name, value in values.items() if name not in names}
    return Route(**{"terms": TermsOfService(**terms), **rest})


def a_promotion(**changes: Any) -> Promotion:
    values: dict[str, Any] = {
        "promotion_id": new_id(),
        "task": "triage",
        "target": "student",
        "state": "live",
        "reason": "lower bound 0.961 ≥ 0.95",
        "actor": "gate",
        "at": time.time(),
        "run_id": new_id(),
        "certificate": a_certificate(),
        "route": a_route(),
    }
    return Promotion(**{**values, **changes})


def a_feedback(trace_id: str, **changes: Any) -> Feedback:
    values: dict[str, Any] = {
        "feedback_id": new_id(),
        "trace_id": trace_id,
        "feedback_at": time.time(),
        "score": 0.0,
    }
    return Feedback(**{**values, **changes})


def write_segment(folder: Path, *records: Trace | Feedback) -> None:
    """Puts traces and feedback into the journal, as one sealed segment."""
    writer = JournalWriter(folder, JournalSettings())
    for record in records:
        writer.append(record)
    writer.close()
