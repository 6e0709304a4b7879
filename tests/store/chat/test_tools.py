"""A student and tools: supported requests, training targets, and its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.chat.shape import fingerprint
from store.chat.tools import (
    ToolAnswer,
    ToolCall,
    allowed,
    beyond_students,
    finish_reason,
    parameters,
    read_tool_answer,
    rules,
    target_of,
)

MESSAGES = [{"role": "user", "content": "Two seats, please"}]


def tool(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    function = {"name": name} if parameters is None else {"name": name, "parameters": parameters}
    return {"type": "function", "function": function}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


BOOK = tool("book", {"type": "object", "properties": {"seats": {"type": "integer"}}})
REQUEST = {"model": "m", "messages": MESSAGES, "tools": [BOOK, tool("list")]}


# ---- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beyond", "changes"),
    [
        (False, {}),
        (False, {"tools": None}),
        (False, {"tools": []}),
        (False, {"tool_choice": None, "parallel_tool_calls": None}),
        (False, {"tool_choice": "auto", "parallel_tool_calls": True}),
        (False, {"tool_choice": "none"}),
        (False, {"tool_choice": "required", "parallel_tool_calls": False}),
        (False, {"tool_choice": named("list")}),
        (False, {"functions": [], "stop": []}),
        (True, {"tool_choice": named("other")}),
        (True, {"tool_choice": {**named("list"), "new": 1}}),
        (True, {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}),
        (True, {"tool_choice": "of the future"}),
        (True, {"tool_choice": 7}),
        (True, {"parallel_tool_calls": 1}),
        (True, {"parallel_tool_calls": "no"}),
        (True, {"tools": None, "tool_choice": "auto"}),
        (True, {"tools": [], "parallel_tool_calls": False}),
        (True, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
        (True, {"tools": [BOOK, BOOK]}),
        (True, {"tools": [{"type": "function"}]}),
        (True, {"tools": [tool("x", [])]}),  # type: ignore[arg-type]
        (True, {"tools": ["book"]}),
        (True, {"tools": "book"}),
        (True, {"functions": [{"name": "f"}]}),
        (True, {"function_call": "auto"}),
        (True, {"stop": "\n"}),
    ],
)
def test_unsupported_uses_of_tools_are_recognised(beyond: bool, changes: dict[str, Any]) -> None:
    assert beyond_students({**REQUEST, **changes}) is beyond


def test_default_tool_settings_do_not_change_the_fingerprint() -> None:
    plain = fingerprint(REQUEST)
    for same in ({"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"tool_choice": None}):
        assert fingerprint({**REQUEST, **same}) == plain
        assert rules({**REQUEST, **same}) == {}
    others = [
        {"tool_choice": "none"},
        {"tool_choice": "required"},
        {"tool_choice": named("book")},
        {"tool_choice": named("list")},
        {"parallel_tool_calls": False},
        {"parallel_tool_calls": False, "tool_choice": "required"},
    ]
    assert len({plain, *(fingerprint({**REQUEST, **other}) for other in others)}) == 7


def test_the_fingerprint_with_tools_is_pinned() -> None:
    """A change of the formula would end every certificate."""
    assert fingerprint(REQUEST) == "c00dae739af20fee"
    assert fingerprint({**REQUEST, "tool_choice": "required"}) == "90e8bb32dc7ce0a4"
    without = {"model": "m", "messages": MESSAGES}
    assert fingerprint({**without, "tool_choice": "none"}) == fingerprint(without)


# ---- what is learned -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "target"),
    [
        (
            {"content": None, "tool_calls": [call("book", '{"seats":2}')]},
            '{"name": "book", "arguments": {"seats": 2}}',
        ),
        (  # in the teacher's order; words beside calls are left out
            {"content": "One moment.", "tool_calls": [call("b", '{"z":1, "a":2}'), call("a", "")]},
            '[{"name": "b", "arguments": {"z": 1, "a": 2}}, {"name": "a", "arguments": {}}]',
        ),
        (
            {"tool_calls": [call("f", '{"id": 123456789012345678901234, "größe": 1.5}')]},
            '{"name": "f", "arguments": {"id": 123456789012345678901234, "größe": 1.5}}',
        ),
        ({"content": "For how many?"}, '{"content": "For how many?"}'),
        ({"content": '{"a": 1}'}, '{"content": "{\\"a\\": 1}"}'),
        ({"content": " "}, None),
        ({"content": None}, None),
        ({"content": None, "refusal": "No."}, None),
        ({"content": None, "tool_calls": []}, None),
        ({"tool_calls": [call("f", "{")]}, None),
        ({"tool_calls": [call("f", "[1]")]}, None),
        ({"tool_calls": [call("f", '{"a":1,"a":2}')]}, None),
        ({"tool_calls": [call("f", '{"a":NaN}')]}, None),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "x", "input": "y"}}]}, None),
        ({"tool_calls": [{"type": "function"}]}, None),
        ({"tool_calls": "call"}, None),
        ({"function_call": {"name": "f", "arguments": "{}"}}, None),
    ],
)
def test_the_training_target_of_an_answer_with_calls(
    message: dict[str, Any], target: str | None
) -> None:
    assert target_of({"role": "assistant", **message}) == target


# ---- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "book",
        "[]",
        "{}",
        '{"content": ""}',
        '{"content": " "}',
        '{"content": 5}',
        '{"content": "a", "name": "f", "arguments": {}}',
        '[{"content": "a"}]',
        '{"name": "f"}',
        '[{"name": "f", "arguments": {}}, {"content": "a"}]',
        '[[{"name": "f", "arguments": {}}]]',
        '{"name": "f", "arguments": "{}"}',
        '{"name": "f", "arguments": []}',
        '{"name": 1, "arguments": {}}',
        '{"name": "f", "arguments": {}, "id": "c"}',
        '{"name": "f", "arguments": {"a": 1, "a": 2}}',
        '{"name": "f", "arguments": {"a": NaN}}',
        '{"name": "f", "arguments": {"a": 1e999}}',
        '{"name": "f", "arguments": {"a": "\\ud800"}}',
        '{"name": "f", "arguments": {}} and more',
        '{"name": "f", "arguments": {}} {"name": "f", "arguments": {}}',
        '{"name": "f", "arguments": {}',
        '{"name": "f", "arguments": ' + '{"a":' * 2000 + "1" + "}" * 2001,
    ],
)
def test_an_answer_without_calls_or_words_has_no_target(text: str) -> None:
    assert read_tool_answer(text) is None


def test_calls_are_sent_as_openai_sends_them() -> None:
    said = read_tool_answer(
        ' [{"name": "b", "arguments": {"z": 1.50, "n": 123456789012345678901}},'
        '{"name": "a", "arguments": {}}]\n'
    )
    assert said == ToolAnswer(
        (ToolCall("b", '{"z":1.5,"n":123456789012345678901}'), ToolCall("a", "{}"))
    )
    assert said.names == ["a", "b"]
    assert said.calls[0].arguments == {"z": 1.5, "n": 123456789012345678901}
    assert read_tool_answer('{"content": " Which?\\n"}') == ToolAnswer(text=" Which?\n")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=6,
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(["book", "list"]), st.dictionaries(st.text("xyz"), ANY_JSON)),
        min_size=1,
        max_size=3,
    )
)
@pytest.mark.slow
def test_calls_survive_the_way_through_target_and_answer(
    made: list[tuple[str, dict[str, Any]]],
) -> None:
    target = target_of({"tool_calls": [call(name, json.dumps(a)) for name, a in made]})
    assert target is not None
    said = read_tool_answer(target)
    assert said is not None
    assert [(c.name, c.arguments) for c in said.calls] == made
    assert allowed(said, REQUEST)


WORDS = ToolAnswer(text="Which?")
ONE = ToolAnswer((ToolCall("book", "{}"),))
TWO = ToolAnswer((ToolCall("book", "{}"), ToolCall("list", "{}")))
UNKNOWN = ToolAnswer((ToolCall("book", "{}"), ToolCall("drop", "{}")))


@pytest.mark.parametrize(
    ("asked", "ok"),
    [
        ({}, [WORDS, ONE, TWO]),
        ({"tool_choice": "auto"}, [WORDS, ONE, TWO]),
        ({"tool_choice": "none"}, [WORDS]),
        ({"tool_choice": "required"}, [ONE, TWO]),
        ({"tool_choice": named("book")}, [ONE]),
        ({"tool_choice": named("list")}, []),
        ({"parallel_tool_calls": False}, [WORDS, ONE]),
        ({"parallel_tool_calls": False, "tool_choice": "required"}, [ONE]),
    ],
)
def test_calls_against_tool_choice_are_not_allowed(
    asked: dict[str, Any], ok: list[ToolAnswer]
) -> None:
    request = {**REQUEST, **asked}
    assert [said for said in (WORDS, ONE, TWO, UNKNOWN) if allowed(said, request)] == ok


def test_the_finish_reason_is_that_of_openai() -> None:
    assert finish_reason(WORDS, REQUEST) == "stop"
    assert finish_reason(ONE, REQUEST) == "tool_calls"
    assert finish_reason(ONE, {**REQUEST, "tool_choice": "required"}) == "tool_calls"
    # as OpenAI's does when it is told which function to call
    assert finish_reason(ONE, {**REQUEST, "tool_choice": named("book")}) == "stop"


def test_the_schema_of_arguments_is_that_of_the_function() -> None:
    assert parameters("book", REQUEST) == BOOK["function"]["parameters"]
    assert parameters("list", REQUEST) == {"maxProperties": 0}  # it takes none
    assert parameters("any", {"tools": [tool("any", {})]}) == {}
    assert parameters("unknown", REQUEST) == {"not": {}}
