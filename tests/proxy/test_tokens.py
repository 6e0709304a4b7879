"""The tokens of an exchange: as the answer says, else estimated."""

from __future__ import annotations

import pytest

from proxy.surfaces.completion import Completion
from proxy.tokens import SpentTokens, tokens_of

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
ANSWER = {"role": "assistant", "content": "Paris is the capital of France."}
ASKED = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}


def test_what_the_answer_says_counts() -> None:
    found = tokens_of(Completion(messages=[ANSWER], usage=USAGE), ASKED)
    assert found == SpentTokens(7, 3) and found.total == 10


def test_an_uncounted_answer_is_about_as_many_tokens_as_a_tokenizer_makes_of_it() -> None:
    # o200k_base: 14 with the message around it, and 7
    found = tokens_of(Completion(messages=[ANSWER]), ASKED)
    assert found.estimated
    assert found.input == pytest.approx(14, abs=3) and found.output == pytest.approx(7, abs=2)


def test_a_count_that_is_there_is_kept_beside_one_that_is_estimated() -> None:
    found = tokens_of(Completion(messages=[ANSWER], usage={"prompt_tokens": 900}), ASKED)
    assert (found.input, found.estimated) == (900, True)


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 8}])
def test_no_answer_no_estimate(usage: dict[str, int]) -> None:
    found = tokens_of(Completion(usage=dict(usage)), ASKED)
    assert found == SpentTokens(usage.get("prompt_tokens"), None)


def test_calls_and_tools_count_too() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 400}}
    tool = {"type": "function", "function": {"name": "f", "description": "y" * 4000}}
    found = tokens_of(
        Completion(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}]),
        {**ASKED, "tools": [tool]},
    )
    assert 1000 < (found.input or 0) < 1100 and 100 < (found.output or 0) < 120


def test_an_image_is_no_megabyte_of_text() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    part = {"type": "image_url", "image_url": {"url": url}}
    asked = {"messages": [{"role": "user", "content": [part]}]}
    assert (tokens_of(Completion(messages=[ANSWER]), asked).input or 0) < 2_000


@pytest.mark.parametrize("odd", [[None], ["text"], [7], [{"content": {"a": ["b", None, 1.5]}}]])
def test_odd_messages_are_estimated_too(odd: list[object]) -> None:
    assert tokens_of(Completion(messages=[ANSWER]), {"messages": odd}).estimated
