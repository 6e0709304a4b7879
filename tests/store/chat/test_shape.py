"""Fingerprints of requests, and hashes of their inputs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.chat.shape import (
    BETWEEN,
    MARK,
    fingerprint,
    input_chars,
    input_hash,
    normalised_input,
    rest_of_shape,
    system_text,
    text_of,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words})
systems = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer"]), "content": words}
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
bodies = st.fixed_dictionaries(
    {"model": words, "messages": st.lists(systems | turns, max_size=4)},
    optional={"tools": st.lists(json_values, max_size=2), "response_format": json_values},
)


def body(**changes: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "Hello"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
        "response_format": {"type": "json_object"},
        **changes,
    }


# ---- fingerprint -------------------------------------------------------------------------------


@settings(deadline=None)
@given(bodies, st.lists(turns, max_size=3))
@pytest.mark.slow
def test_the_fingerprint_does_not_depend_on_the_user_messages(
    request: dict[str, Any], said: list[dict[str, str]]
) -> None:
    others = [m for m in request["messages"] if m["role"] in ("system", "developer")]
    again = {**request, "messages": [*others, *said], "temperature": 0.3, "user": "u1"}
    assert fingerprint(again) == fingerprint(request)


@settings(deadline=None)
@given(bodies)
def test_the_fingerprint_does_not_depend_on_the_order_of_keys(request: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(v) for v in value] if isinstance(value, list) else value

    found = fingerprint(request)
    assert fingerprint(turned(request)) == found
    assert fingerprint(orjson.loads(orjson.dumps(request))) == found
    assert len(found) == 16 and int(found, 16) >= 0


def test_the_fingerprint_changes_with_each_part_of_the_shape() -> None:
    changed = [
        body(model="gpt-4o-mini"),
        body(tools=None),
        body(response_format={"type": "text"}),
        body(messages=[{"role": "system", "content": "Answer in two words."}]),
        body(messages=[{"role": "developer", "content": "answer in one word."}]),
        body(messages=[{"role": "user", "content": "Hello"}]),
        body(messages=[*body()["messages"], {"role": "system", "content": "Answer in one word."}]),
    ]
    assert len({fingerprint(b) for b in [body(), *changed]}) == len(changed) + 1


def test_a_system_prompt_in_parts_is_its_text() -> None:
    parts = [{"type": "text", "text": "Answer in one word."}]
    assert fingerprint(body(messages=[{"role": "developer", "content": parts}])) == fingerprint(
        body(messages=[{"role": "system", "content": "Answer in one word."}])
    )


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["model", "tools", "response_format"]), json_values))
@pytest.mark.slow
def test_the_fingerprint_takes_any_json(request: dict[str, Any]) -> None:
    assert fingerprint(request) == fingerprint({**request, "messages": []})


def test_the_fingerprint_is_pinned() -> None:
    """A change of the formula would end every certificate."""
    assert fingerprint(body()) == "6aa8aa72731c3dc1"
    assert fingerprint({"messages": []}) == "6002ee72ce108573"


# ---- system prompts that vary ------------------------------------------------------------------


@settings(deadline=None)
@given(bodies, st.lists(systems, max_size=2))
@pytest.mark.slow
def test_the_rest_of_a_shape_does_not_depend_on_system_prompts(
    request: dict[str, Any], prompts: list[dict[str, str]]
) -> None:
    again = {**request, "messages": [*prompts, *request["messages"]]}
    assert rest_of_shape(again) == rest_of_shape(request)
    assert rest_of_shape({**request, "tools": [{"type": "new"}]}) != rest_of_shape(request)
    assert rest_of_shape({**request, "model": "another"}) != rest_of_shape(request)
    assert len(rest_of_shape(request)) == 16


marked = st.text("ab\x02" + MARK, max_size=6)


def prompts_of(texts: list[str]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": text} for text in texts]


@settings(deadline=None)
@given(st.lists(marked, max_size=3), st.lists(marked, max_size=3))
def test_two_lists_of_system_prompts_have_two_texts(one: list[str], other: list[str]) -> None:
    # no prompt at all and one without a word are no different to a template: both match none
    if one != other and {tuple(one), tuple(other)} != {(), ("",)}:
        assert system_text(prompts_of(one)) != system_text(prompts_of(other))


def test_the_system_text_has_all_system_messages() -> None:
    said = {"role": "user", "content": "Hello"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [prompts_of(["one"])[0], said, {"role": "developer", "content": parts}]
    assert system_text(turns) == f"one{BETWEEN}a\nb"


# ---- input hash --------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(turns, max_size=4), st.lists(systems, max_size=2))
def test_the_input_has_all_other_messages(
    said: list[dict[str, str]], prompts: list[dict[str, str]]
) -> None:
    assert input_hash([*prompts, *said]) == input_hash(said)
    assert len(input_hash(said)) == 32


@settings(deadline=None)
@given(st.lists(st.text("abc XYZ.,", max_size=12), min_size=1, max_size=5))
def test_case_and_white_space_do_not_make_another_input(pieces: list[str]) -> None:
    plain = [{"role": "user", "content": " ".join(pieces)}]
    spaced = [{"role": "user", "content": "\n " + " \t\n ".join(pieces).upper() + "  "}]
    assert input_hash(plain) == input_hash(spaced)


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(st.characters(max_codepoint=127)), st.text(" \t\n\x1fAbC")))
def test_any_white_space_is_one_space(text: str) -> None:
    said = [{"role": "user", "content": text}]
    assert normalised_input(said) == f"user: {' '.join(text.split()).lower()}"


@settings(deadline=None)
@given(st.lists(turns, max_size=3), st.lists(turns, max_size=3))
def test_conversations_that_read_differently_have_different_hashes(
    one: list[dict[str, str]], other: list[dict[str, str]]
) -> None:
    def reads(messages: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
        return [(m["role"], m["content"].lower().split()) for m in messages]

    if reads(one) != reads(other):
        assert normalised_input(one) != normalised_input(other)
        assert input_hash(one) != input_hash(other)


def test_no_text_can_pass_for_two_turns() -> None:
    one = [{"role": "user", "content": "a\nuser: b"}]
    two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert input_hash(one) != input_hash(two)


@settings(deadline=None)
@given(st.lists(json_values, max_size=4))
@pytest.mark.slow
def test_any_json_has_an_input_hash(messages: list[Any]) -> None:
    assert len(input_hash(messages)) == 32
    assert input_chars(messages) >= 0


@settings(deadline=None)
@given(
    st.lists(turns, max_size=3),
    st.lists(words, min_size=1, max_size=3),
    st.lists(words, min_size=1, max_size=3),
)
def test_values_of_a_template_are_input_too(
    said: list[dict[str, str]], one: list[str], other: list[str]
) -> None:
    def reads(values: list[str]) -> list[list[str]]:
        return [value.lower().split() for value in values]

    assert input_hash(said, one) != input_hash(said)
    assert input_hash(said, [f" {value}\t" for value in one]) == input_hash(said, one)
    if reads(one) != reads(other):
        assert input_hash(said, one) != input_hash(said, other)


def test_a_lone_surrogate_can_be_hashed() -> None:
    assert len(input_hash([{"role": "user", "content": "\ud83d"}])) == 32


# ---- text --------------------------------------------------------------------------------------


def test_text_is_a_string_or_the_text_parts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    assert text_of("plain") == "plain"
    assert text_of([{"type": "text", "text": "a"}, image, {"type": "text", "text": "b"}]) == "a\nb"
    for nothing in (None, 5, {}, [], [image], ["a"], [{"text": 5}]):
        assert text_of(nothing) == ""


def test_the_length_counts_every_message() -> None:
    messages = [{"role": "system", "content": "four"}, {"role": "user", "content": "größer"}]
    assert input_chars(messages) == 10
