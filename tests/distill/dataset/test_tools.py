"""Answers with tool calls: their rows, forms and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.dataset.answers import answers_of, describe
from distill.dataset.exchange import target_in_correction
from distill.dataset.rows import Selection, choose_rows, read_rows, write_rows
from distill.evaluate.scorers.registry import score
from distill.evaluate.scoring import Scorer, choose_scorer
from distill.gate.slices import slices_of
from distill.monitor.feedback import complains
from store.chat.normal_form import normal_answer
from store.chat.shape import fingerprint
from store.chat.tools import read_tool_answer
from store.records import Forms, LoggedExchange
from store.settings.tasks import EvaluateSettings, SplitSettings
from tests.helpers.demo_rows import a_row, an_exchange
from tests.helpers.gate_samples import GATE
from tests.helpers.gate_samples import rows as evaluated
from tests.helpers.tool_answers import (
    LEARNED,
    OTHER,
    WORDS,
    as_json,
    call,
    calling,
    output_messages,
)
from tests.helpers.tool_task import CANCEL, TASK, TOOLS

AUTO = EvaluateSettings()


def a_trace(text: str = "cancel it", **changes: Any) -> LoggedExchange:
    """A logged request with tools, in answer to which the teacher cancels order A-1."""
    params = {"model": "gpt-big", **changes.pop("params", {})}
    values = {
        "tool_definitions": as_json(TOOLS),
        "request_params": as_json(params),
        "output_messages": output_messages(call("cancel", '{"order_id":"A-1"}')),
        "finish_reasons": ["tool_calls"],
        **changes,
    }
    trace = an_exchange(text, **values)
    body = {**params, "tools": TOOLS, "messages": trace.request.messages}
    return replace(trace, fingerprint=changes.get("fingerprint", fingerprint(body)))


def chosen(*traces: LoggedExchange) -> Selection:
    return choose_rows(traces, SplitSettings())


# ---- rows ----------------------------------------------------------------------------------------


def test_a_call_becomes_a_row_that_can_be_asked_again() -> None:
    params = {
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "user": "u",
    }
    [row] = chosen(a_trace(params=params)).rows
    assert row.target == LEARNED
    assert row.params == {
        "temperature": 0,
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (LEARNED, {"finish_reasons": ["stop"]}),  # as when it is told which function to call
        (WORDS, {"output_messages": '[{"content":"Which order?"}]', "finish_reasons": ["stop"]}),
        (
            f"[{LEARNED}, {OTHER}]",
            {
                "output_messages": output_messages(
                    call("cancel", '{"order_id": "A-1"}'),
                    call("cancel", '{"order_id": "A-2"}'),
                    content="Both of them.",
                )
            },
        ),
    ],
)
def test_the_target_is_the_call_or_the_words(target: str, changes: dict[str, Any]) -> None:
    assert [row.target for row in chosen(a_trace(**changes)).rows] == [target]


OLD = {"functions": [CANCEL["function"]]}


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("tools", {"output_messages": output_messages(call("cancel", '{"order_id":'))}),
        (
            "tools",
            {"output_messages": output_messages({"type": "custom", "custom": {"name": "x"}})},
        ),
        ("tools", {"tool_definitions": None}),  # a call out of nowhere
        ("tools", {"tool_definitions": as_json([{"type": "custom", "custom": {"name": "x"}}])}),
        ("tools", {"params": {"stop": ["."]}}),
        ("tools", {"params": {"tool_choice": {"type": "allowed_tools"}}}),
        ("tools", {"params": OLD, "tool_definitions": as_json(OLD["functions"])}),
        ("old_fingerprint", {"params": {"tool_choice": "none"}, "fingerprint": "0" * 16}),
        ("not_finished", {"finish_reasons": ["length"]}),
        ("not_finished", {"output_messages": '[{"content":"a"}]'}),  # words that end in calls
        ("no_answer", {"output_messages": '[{"content":null}]', "finish_reasons": ["stop"]}),
        (
            "not_text",
            {"input_messages": as_json([{"role": "user", "content": "a"}, {"role": "tool"}])},
        ),
        (
            "not_text",
            {
                "input_messages": as_json(
                    [
                        {"role": "assistant", "content": "a", "tool_calls": [call("cancel", "{}")]},
                        {"role": "user", "content": "a"},
                    ]
                )
            },
        ),
    ],
)
def test_exchanges_with_tools_that_cannot_be_learnt_are_left_out(
    reason: str, changes: dict[str, Any]
) -> None:
    result = chosen(a_trace(**changes))
    assert (result.rows, result.left_out) == ([], {reason: 1})


def test_rows_share_one_copy_of_their_tools(tmp_path: Path) -> None:
    """Thousands of rows with some kilobytes of tools each."""
    result = chosen(*(a_trace(f"cancel order {n}") for n in range(4))).rows
    assert len({id(row.params["tools"]) for row in result}) == 1
    write_rows(tmp_path / "rows.jsonl", result)
    again = read_rows(tmp_path / "rows.jsonl")
    assert again == result
    assert len({id(row.params["tools"]) for row in again}) == 1


def test_calls_in_another_order_are_the_same_answer() -> None:
    assert normal_answer(f"[{LEARNED}, {OTHER}]") == normal_answer(f"[{OTHER},{LEARNED}]")
    assert normal_answer("[1, 2]") != normal_answer("[2, 1]")


@pytest.mark.parametrize(
    ("correction", "target"),
    [
        (OTHER, OTHER),
        (as_json([call("cancel", '{"order_id":"A-2"}')]), OTHER),
        (as_json({"tool_calls": [call("cancel", '{"order_id":"A-2"}')]}), OTHER),
        (WORDS, WORDS),
        ("Which order?", WORDS),
        ('{"order": "A-2"}', '{"content": "{\\"order\\": \\"A-2\\"}"}'),
    ],
)
def test_a_correction_becomes_a_target(correction: str, target: str) -> None:
    assert target_in_correction(correction, {"tools": TOOLS}) == target
    assert target_in_correction(correction, {}) == correction
    exchange = replace(a_trace(), kind="correction", replacement=correction, answered_at=2.0)
    [row] = chosen(exchange).rows
    assert (row.target, row.origin) == (target, "correction")


def test_a_correction_to_other_calls_is_a_complaint() -> None:
    assert not complains(None, LEARNED, LEARNED)
    assert not complains(None, as_json([call("cancel", '{"order_id":"A-1"}')]), LEARNED)
    assert complains(None, OTHER, LEARNED)
    assert complains(None, "Which order?", LEARNED)
    assert not complains(None, "Which order?", WORDS)


# ---- scores --------------------------------------------------------------------------------------


def test_a_task_with_tools_is_scored_by_field() -> None:
    targets = [LEARNED, LEARNED, WORDS]
    result = choose_scorer(describe(targets, tools=targets), AUTO)
    assert result == Scorer("json", 1.0, "tools", "2 of 3 answers call tools")
    judge = EvaluateSettings(scorer="judge")
    assert choose_scorer(describe([LEARNED], tools=[LEARNED]), judge).output == "tools"
    assert choose_scorer(describe([LEARNED]), AUTO).output == "json"  # somebody's own JSON


A, B = ("f", {"x": 1, "y": [1, 2]}), ("g", {})


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (calling(A), calling(A), 1.0),
        (calling(A), calling(("f", {"y": [1, 2], "x": 1.0})), 1.0),
        (calling(A), calling(("f", {"x": 2, "y": [1, 2]})), 3 / 4),
        (calling(A), calling(("f", {"x": 1})), 2 / 4),
        (calling(A), calling(("f", {"x": 1, "y": [1, 2], "z": 0})), 4 / 5),
        (calling(A), calling(("g", A[1])), 0.0),  # another function
        (calling(B), calling(B), 1.0),
        (calling(A, B), calling(B, A), 1.0),  # as a set
        (calling(A, B), calling(A), 4 / 6),
        (calling(A), calling(A, A), 4 / 8),
        (calling(A, ("f", {"x": 2})), calling(("f", {"x": 2}), A), 1.0),
        (calling(("f", {"x": 1}), ("f", {"x": 2})), calling(("f", {"x": 2}), ("f", {})), 3 / 5),
        (calling(("f", {"id": 2**70})), calling(("f", {"id": 2**70 + 1})), 1 / 2),
        (WORDS, WORDS, 1.0),
        (WORDS, '{"content":"Which order? "}', 1.0),
        (WORDS, '{"content":"Which one?"}', 0.0),
        (WORDS, LEARNED, 0.0),
        (LEARNED, WORDS, 0.0),
        (LEARNED, "no JSON", 0.0),
    ],
)  # fmt: skip
def test_calls_are_compared_by_function_and_argument(
    teacher: str, student: str, expected: float
) -> None:
    assert score("json", teacher, student, tools=True) == pytest.approx(expected)
    # other scorers want calls to match in all
    whole = float(expected == 1)
    assert score("exact", teacher, student, tools=True) == whole
    if read_tool_answer(teacher) != read_tool_answer(WORDS):
        assert score("text", teacher, student, tools=True) == whole


def test_forms_and_slices_are_by_function() -> None:
    plain = a_row(TASK.name, "a text")
    rows = [
        a_row(TASK.name, "a text", target=target, params={"tools": TOOLS})
        for target in (LEARNED, OTHER, WORDS, calling(A, B))
    ]
    assert answers_of([*rows, plain]).forms() == Forms(calls=["", "cancel", "f", "g"])
    served = [
        *evaluated(30, 30, label=LEARNED),
        *evaluated(20, 30, label=calling(B, A)),
        *evaluated(30, 30, label=WORDS),
    ]
    result = {(s.kind, s.name): (s.n, s.below) for s in slices_of(served, "tools", GATE)}
    assert result == {
        ("fingerprint", "f"): (90, False),
        ("call", "cancel"): (30, False),
        ("call", "f"): (30, True),
        ("call", "g"): (30, True),
        ("call", "none"): (30, False),
    }
