"""Which exchanges become rows, and the reasons why others do not."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.dataset.rows import Selection, choose_rows, read_rows, write_rows
from store.chat.normal_form import normal_answer
from store.records import LoggedExchange
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

SHARES = SplitSettings()


def chosen(*traces: LoggedExchange) -> Selection:
    return choose_rows(traces, SHARES)


def as_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def user(content: Any) -> str:
    return as_json([{"role": "user", "content": content}])


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WORDS = {"role": "assistant", "content": "delivery"}


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("not_from_teacher", {"served_by": "student"}),
        ("not_from_teacher", {"served_by": None}),
        ("incomplete", {"outcome": "client_gone"}),
        ("incomplete", {"outcome": "teacher_broke"}),
        ("incomplete", {"status_code": 500, "outcome": "error"}),
        ("tools", {"tool_definitions": '[{"type": "function"}]'}),
        ("tools", {"output_messages": as_json([{**WORDS, "tool_calls": [CALL]}])}),
        ("tools", {"output_messages": as_json([{**WORDS, "function_call": {"name": "f"}}])}),
        ("not_text", {"input_messages": user([{"type": "text", "text": "this?"}, IMAGE])}),
        ("not_text", {"input_messages": user(None)}),
        ("not_text", {"input_messages": "[]"}),
        ("not_text", {"input_messages": '["hello"]'}),
        ("not_text", {"input_messages": as_json([{"role": "tool", "content": "42"}])}),
        ("not_text", {"input_messages": as_json([WORDS])}),  # nothing that the user says last
        ("several_choices", {"output_messages": as_json([WORDS, WORDS])}),
        ("not_finished", {"finish_reasons": ["length"]}),
        ("not_finished", {"finish_reasons": ["content_filter"]}),
        ("not_finished", {"finish_reasons": []}),
        ("no_answer", {"output_messages": None}),
        ("no_answer", {"output_messages": as_json([{"role": "assistant", "content": None}])}),
        ("no_answer", {"output_messages": as_json([{"role": "assistant", "content": " \n"}])}),
    ],
)
def test_an_unlearnable_exchange_is_left_out_with_its_reason(
    reason: str, changes: dict[str, Any]
) -> None:
    selection = chosen(an_exchange(**changes))
    assert selection.rows == []
    assert selection.left_out == {reason: 1}


def test_a_row_has_the_parameters_to_ask_again() -> None:
    params = {
        "model": "gpt-big",
        "temperature": 0,
        "max_tokens": 50,
        "response_format": {"type": "json_object"},
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"task": "triage"},
        "user": "somebody",
        "n": 1,
        "logprobs": True,
        "top_p": None,
    }
    trace = an_exchange("Where is it?", "delivery", request_params=as_json(params))
    [row] = chosen(trace).rows
    assert row.messages[-1] == {"role": "user", "content": "Where is it?"}
    assert orjson.loads(row.messages_json) == row.messages
    assert row.params == {
        "temperature": 0,
        "max_tokens": 50,
        "response_format": {"type": "json_object"},
    }
    assert (row.trace_id, row.model, row.target) == (trace.trace_id, "gpt-big", "delivery")
    assert (row.input_hash, row.fingerprint) == (trace.input_hash, trace.fingerprint)


def test_text_parts_and_earlier_turns_are_learnt() -> None:
    messages = [
        {"role": "developer", "content": "Sort it."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "where is my parcel"}]},
    ]
    [row] = chosen(an_exchange(input_messages=as_json(messages))).rows
    assert row.messages == messages


def test_the_majority_of_contradicting_answers_counts() -> None:
    selection = chosen(
        an_exchange(answer="billing", at=9),
        an_exchange(answer="delivery", at=1),
        an_exchange(answer="delivery", at=2),
    )
    assert [row.target for row in selection.rows] == ["delivery"]
    assert selection.left_out == {"contradicted": 1, "duplicate": 1}


def test_of_two_equally_common_answers_the_newer_counts() -> None:
    for newest in ("billing", "delivery"):
        oldest = {"billing": "delivery", "delivery": "billing"}[newest]
        selection = chosen(an_exchange(answer=newest, at=2), an_exchange(answer=oldest, at=1))
        assert [row.target for row in selection.rows] == [newest]
        assert selection.left_out == {"contradicted": 1}


def test_json_with_another_layout_is_the_same_answer() -> None:
    selection = chosen(
        an_exchange(answer='{"a": 1, "b": 2}', at=1),
        an_exchange(answer='{"b":2,"a":1}', at=2),
        an_exchange(answer='{"a": 2, "b": 1}', at=3),
    )
    assert normal_answer(selection.rows[0].target) == '{"a":1,"b":2}'
    assert selection.left_out == {"contradicted": 1, "duplicate": 1}


def test_fingerprints_with_a_tenth_of_the_traces_count() -> None:
    def some(count: int, system: str) -> list[LoggedExchange]:
        return [an_exchange(f"{system} {i}", system=system) for i in range(count)]

    selection = chosen(*some(16, "old"), *some(3, "new"), *some(1, "tried once"))
    assert Counter(row.messages[0]["content"] for row in selection.rows) == {"old": 16, "new": 3}
    assert selection.left_out == {"rare_fingerprint": 1}


def test_the_commonest_fingerprint_counts_however_rare_it_is() -> None:
    traces = [an_exchange(f"{i}", system=f"prompt {i % 15}") for i in range(16)]
    selection = chosen(*traces)
    assert {row.messages[0]["content"] for row in selection.rows} == {"prompt 0"}
    assert selection.left_out == {"rare_fingerprint": 14}


def test_rows_are_in_the_order_of_their_traces() -> None:
    traces = [an_exchange(f"text {i}", at=float(i)) for i in range(30)]
    shuffled = random.Random(1).sample(traces, len(traces))
    assert [row.trace_id for row in chosen(*shuffled).rows] == [t.trace_id for t in traces]


def test_rows_read_back_as_they_were_written(tmp_path: Path) -> None:
    rows = chosen(
        *(an_exchange(f"text {i} 📦", request_params='{"temperature": 0.5}') for i in range(5))
    ).rows
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


@given(
    st.lists(
        st.builds(
            an_exchange,
            st.sampled_from(["a", "b", "B ", "c"]),
            st.sampled_from(["x", "y"]),
            at=st.floats(0, 100),
            served_by=st.sampled_from(["teacher", "student"]),
            system=st.sampled_from(["s", "t"]),
        ),
        max_size=30,
    )
)
@pytest.mark.slow
def test_every_trace_is_a_row_or_counted_and_no_input_comes_twice(
    traces: list[LoggedExchange],
) -> None:
    selection = chosen(*traces)
    assert len(selection.rows) + sum(selection.left_out.values()) == len(traces)
    assert len({(row.fingerprint, row.input_hash) for row in selection.rows}) == len(selection.rows)
    by_id = {t.trace_id: t for t in traces}
    assert all(by_id[row.trace_id].served_by == "teacher" for row in selection.rows)
    assert all(count > 0 for count in selection.left_out.values())
