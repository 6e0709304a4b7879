"""Ids, fields and state of a teacher's messages: what a later turn needs of a student's answer."""

import re
import uuid

import pytest

from store.chat.style import has_state, id_form, new_id, style_of
from store.records import MessageStyle

HEX24 = ["3f2a9c0b1d4e5f6071829304", "a0b1c2d3e4f5061728394a5b", "ffeeddccbbaa998877665544"]


@pytest.mark.parametrize(
    ("ids", "form"),
    [
        (["D681PevKs"], r"[a-zA-Z0-9]{9}"),
        (["D681PevKs", "a1B2c3D4e", "Zz9Yy8Xx7"], r"[a-zA-Z0-9]{9}"),
        (["call_abcdefghijklmnopqrstuvwx"], r"call_[a-z0-9]{24}"),
        (["call_aBc4efghijklmnopqrstuvwx", "call_Zbc4efghijklmnopqrstuvw1"], r"call_\w{24}"),
        (["toolu_01A09q90qw90lq917835lq9Z"], r"toolu_[a-zA-Z0-9]{24}"),
        ([f"chatcmpl-tool-{one}" for one in HEX24], r"chatcmpl-tool-[0-9a-f]{24}"),
        ([str(uuid.UUID(int=7**n)) for n in range(30, 45)], r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-\w{12}"),
        (["call_00_a8Bc", "call_01_x9Yz"], r"call_00_[a-zA-Z0-9]{4}"),
        (["functions.get_weather:0", "functions.get_weather:12"], r"functions\.get_weather:0"),
        (["function-call-1234567890123"], r"function-call-[0-9]{13}"),
    ],
)
def test_an_id_has_the_form_of_the_teachers_own(ids, form):
    template = id_form([(one, "get_weather") for one in ids])
    made = {new_id(template, name="get_weather", index=0) for _ in range(20)}
    assert all(re.fullmatch(form, one) for one in made), (template, made)
    own = form.replace(":0", r":\d+").replace("_00_", r"_\d\d_")
    assert all(re.fullmatch(own, one) for one in ids)


def test_the_calls_of_one_answer_have_different_ids():
    template = id_form([("functions.f:0", "f"), ("functions.g:1", "g")])
    assert [new_id(template, name="f", index=n) for n in (0, 1)] == [
        "functions.f:0",
        "functions.f:1",
    ]


@pytest.mark.parametrize("ids", [[], [""], ["{alnum:9}"], ["x" * 300], ["a\x00b"]])
def test_without_a_usable_id_there_is_no_form(ids):
    assert id_form([(one, "f") for one in ids]) == ""


def test_the_form_of_most_ids_counts():
    ids = [("call_1234567890", "f")] + [(f"D681Pev{n:02}", "f") for n in range(20, 40)]
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", new_id(id_form(ids), name="f", index=0))


def call(**more):
    return {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ({"content": None, "tool_calls": [call()], "refusal": None, "annotations": []}, False),
        ({"content": "words first", "tool_calls": [call(index=0)]}, False),
        ({"content": "", "tool_calls": [call()], "reasoning_content": None}, False),
        ({"tool_calls": [call()], "provider_specific_fields": {"refusal": None}}, False),
        ({"content": "no call", "reasoning_content": "so"}, False),
        ({"content": "", "tool_calls": [call()], "reasoning_content": "They want it."}, True),
        ({"tool_calls": [call(extra_content={"google": {"thought_signature": "c2ln"}})]}, True),
        ({"tool_calls": [call()], "reasoning_details": [{"type": "reasoning.encrypted"}]}, True),
        ({"tool_calls": [call()], "thinking_blocks": [{"signature": "s"}]}, True),
        ({"tool_calls": [call(), call(function={"name": "f", "thought_signature": "s"})]}, True),
    ],
)
def test_state_that_has_to_come_back_is_seen(message, state):
    assert has_state(message) is state
    assert style_of([message]).stateful_calls is state


def test_only_fields_that_the_teacher_sends_are_known():
    assert style_of([{"role": "assistant", "content": "x"}]) == MessageStyle()
    assert style_of([{"content": "x", "refusal": None}, {"annotations": []}]).fields == [
        "annotations",
        "refusal",
    ]


@pytest.mark.parametrize("message", [{"tool_calls": 7}, {"tool_calls": ["x", {"id": 7}]}, {}])
def test_odd_messages_have_no_style(message):
    assert style_of([message]) == MessageStyle()
