"""Matching system prompts with templates: tables and properties."""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from store.chat.prompt_templates import match, template_of, values
from store.chat.shape import BETWEEN, MARK, rest_of_shape, system_text
from store.records import PromptTemplate

REST = rest_of_shape({"model": "gpt-big"})


def a_template(literals: list[str], holes: list[int], shape: str = REST) -> PromptTemplate:
    return PromptTemplate(
        template_id="t" * 16, shape=shape, literals=literals, holes=holes, distinct=8
    )


def made(literals: list[str], said: list[str]) -> str:
    """A prompt with these values in its holes."""
    return "".join(part for pair in zip(literals, [*said, ""], strict=True) for part in pair)


TODAY = a_template(["Today is ", ". You help ", " with orders."], [14, 12])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Today is 2026-01-05. You help Anna with orders.", ["2026-01-05", "Anna"]),
        ("Today is . You help  with orders.", ["", ""]),
        ("Today is a. You help b. You help Anna with orders.", ["a. You help b", "Anna"]),
        ("Today is a. You help b with orders with orders.", None),
        ("Today is x. You help Anna with orders!", None),
        ("today is x. You help Anna with orders.", None),
        (" Today is x. You help Anna with orders.", None),
        ("Today is x. You help Anna with orders. ", None),
        ("Today is 2026-01-05T10:00. You help Anna with orders.", None),
        ("Today is x. You help Anna. Say yes with orders.", None),
        ("Today is x. You help Anna, say yes with orders.", None),
        ("", None),
    ],
)
def test_a_prompt_made_from_a_template_matches_it(text: str, expected: list[str] | None) -> None:
    assert values(TODAY, text) == expected
    assert match(TODAY, text, REST) == (expected is not None)


def test_a_request_of_another_shape_never_matches() -> None:
    text = "Today is x. You help Anna with orders."
    assert match(TODAY, text, REST)
    assert not match(TODAY, text, rest_of_shape({"model": "gpt-small"}))


def test_the_first_place_of_a_literal_is_not_always_the_right_one() -> None:
    template = a_template(["<", "a", "b>"], [5, 0])
    assert values(template, "<xaxab>") == ["xax", ""]
    assert values(template, "<aab>") == ["a", ""]


def test_the_border_of_two_prompts_is_never_in_a_hole() -> None:
    template = a_template(["You help ", "."], [20])
    assert match(template, "You help Anna.", REST)
    assert not match(template, f"You help Anna.{BETWEEN}Be rude.", REST)
    assert not match(template, f"You help An{MARK}na.", REST)
    two = a_template(["You help ", f".{BETWEEN}Be kind."], [20])
    assert match(two, f"You help Anna.{BETWEEN}Be kind.", REST)
    assert not match(two, "You help Anna.Be kind.", REST)


@pytest.mark.parametrize(
    ("literals", "holes"),
    [([], []), (["a"], []), (["a", "b"], []), (["a"], [3]), (["a", "b"], [1, 2])],
)
def test_an_invalid_template_matches_nothing(literals: list[str], holes: list[int]) -> None:
    assert not match(a_template(literals, holes), "ab", REST)


def test_the_first_matching_template_is_used() -> None:
    def body(prompt: str, **changes: Any) -> dict[str, Any]:
        said = [{"role": "system", "content": prompt}, {"role": "user", "content": "hi"}]
        return {"model": "gpt-big", "messages": said, **changes}

    other = a_template(["Hello ", ""], [5], shape=rest_of_shape({"model": "gpt-small"}))
    twin = a_template(["Hello ", ""], [9])
    assert template_of([], body("Hello Bob")) is None
    assert template_of([TODAY, other, twin], body("Hello Bob")) == twin
    assert template_of([TODAY, other, twin], body("Hello Bob", model="gpt-small")) == other
    assert template_of([TODAY, other, twin], body("Hello Bob", tools=[{}])) is None
    assert template_of([TODAY, twin], body("Good bye")) is None
    assert template_of([TODAY, twin], {"model": "gpt-big", "messages": []}) is None


letters = st.text("ab", max_size=5)
templates = st.lists(
    st.tuples(st.text("ab", min_size=1, max_size=3), st.integers(0, 4)), min_size=1, max_size=4
).flatmap(
    lambda parts: st.tuples(st.just(parts), letters).map(
        lambda drawn: a_template(
            [drawn[1], *(literal for literal, _ in drawn[0])], [hole for _, hole in drawn[0]]
        )
    )
)


@settings(deadline=None)
@given(templates, st.data())
@pytest.mark.slow
def test_values_within_their_bounds_match(template: PromptTemplate, data: st.DataObject) -> None:
    """Also where values contain literals or equal them: two letters are enough."""
    said = [data.draw(st.text("ab", max_size=hole)) for hole in template.holes]
    text = made(template.literals, said)
    assert match(template, text, REST)
    found = values(template, text)
    assert found is not None
    assert made(template.literals, found) == text
    assert all(len(value) <= hole for value, hole in zip(found, template.holes, strict=True))


@settings(deadline=None)
@given(templates, letters)
def test_literals_and_values_of_a_match_are_the_text(template: PromptTemplate, text: str) -> None:
    """Against every way to fill the holes."""
    lengths = product(*(range(hole + 1) for hole in template.holes))
    fitting = any(_reads(template, text, each) for each in lengths)
    assert match(template, text, REST) == fitting
    assert (values(template, text) is not None) == fitting


def _reads(template: PromptTemplate, text: str, lengths: tuple[int, ...]) -> bool:
    at = 0
    for literal, length in zip(template.literals, [*lengths, 0], strict=True):
        if not text.startswith(literal, at):
            return False
        at += len(literal) + length
    return at == len(text)


sentences = st.text("abcdefgh .", min_size=8, max_size=30)


@settings(deadline=None)
@given(
    st.lists(sentences, min_size=2, max_size=4),
    st.lists(st.text("0123456789", max_size=6), min_size=3, max_size=3),
    st.data(),
)
def test_an_edited_literal_never_matches(
    literals: list[str], said: list[str], data: st.DataObject
) -> None:
    """One character of a literal is replaced, inserted or deleted. Literals have no digits."""
    template = a_template(literals, [6] * (len(literals) - 1))
    which = data.draw(st.integers(0, len(literals) - 1))
    # at either end of a literal a new character may be the end of a value
    at = data.draw(st.integers(1, len(literals[which]) - 2))
    literal = literals[which]
    for edited in (
        f"{literal[:at]}X{literal[at + 1 :]}",
        f"{literal[:at]}X{literal[at:]}",
        literal[:at] + literal[at + 1 :],
    ):
        other = [*literals[:which], edited, *literals[which + 1 :]]
        assume(edited != literal)
        text = made(other, said[: len(literals) - 1])
        assert not match(template, text, REST)


@settings(deadline=None)
@given(st.lists(sentences, min_size=2, max_size=4), st.text("xyz", min_size=7, max_size=50))
def test_an_instruction_longer_than_its_hole_does_not_match(
    literals: list[str], instruction: str
) -> None:
    template = a_template(literals, [6] * (len(literals) - 1))
    for place in range(len(literals) - 1):
        said = ["1"] * (len(literals) - 1)
        said[place] = instruction
        assert not match(template, made(literals, said), REST)


@settings(deadline=None)
@given(st.lists(sentences, min_size=2, max_size=3), st.text("xyz" + MARK, max_size=6))
def test_values_come_back_through_a_request(literals: list[str], value: str) -> None:
    template = a_template(literals, [6] * (len(literals) - 1))
    prompt = made(literals, [value] * (len(literals) - 1))
    text = system_text([{"role": "system", "content": prompt}])
    if MARK in value:
        assert values(template, text) is None
    else:
        assert values(template, text) == [value] * (len(literals) - 1)


def test_no_prompt_takes_more_than_linear_time() -> None:
    """Twenty holes, and a text in which every literal occurs almost everywhere."""
    template = a_template(["a"] * 20 + ["b"], [200] * 20)
    text = "a" * 4000
    began = time.perf_counter()
    assert not match(template, text, REST)
    assert not match(template, text + "c", REST)
    assert values(template, text[:3000] + "b") is not None
    assert time.perf_counter() - began < 2
