"""Redaction: every text, nothing but texts, JSON stays JSON, and never by halves."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import ConfigError, RedactionError
from store.privacy.redaction import Redaction, redaction_of
from store.privacy.regex import rules_of
from store.privacy.rules import READY
from store.privacy.settings import PrivacySettings
from store.settings.config import parse_config
from tests.store.privacy.test_redaction_rules import FOUND

CANARY = "canary-7f3a"
SECRET = {"name": "secret", "pattern": "canary-[0-9a-f]{4}"}


def redaction(*rules: str | dict[str, str]) -> Redaction:
    found = redaction_of(PrivacySettings.model_validate({"redact": list(rules) or [SECRET]}))
    assert found is not None
    return found


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **more}


WHERE: dict[str, dict[str, Any]] = {
    "a message": chat(messages=[{"role": "user", "content": f"say {CANARY}."}]),
    "a system prompt": chat(messages=[{"role": "system", "content": CANARY}]),
    "a text part": chat(
        messages=[{"role": "user", "content": [{"type": "text", "text": f"a {CANARY} b"}]}]
    ),
    "a speaker's name": chat(messages=[{"role": "user", "name": CANARY, "content": "x"}]),
    "an image's address": chat(
        messages=[
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": f"https://x/{CANARY}"}}],
            }
        ]
    ),
    "arguments": chat(
        messages=[
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": json.dumps({"a": [CANARY, 1]})},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({CANARY: True})},
        ]
    ),
    "a definition": chat(
        tools=[{"type": "function", "function": {"name": "f", "description": f"for {CANARY}"}}]
    ),
    "a schema": chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"enum": [CANARY, "b"]}},
        }
    ),
    "metadata": chat(metadata={"team": CANARY}),
    "a key of metadata": chat(metadata={CANARY: "x"}),
    "the user": chat(user=CANARY),
    "a stop": chat(stop=[CANARY]),
    "a field of the future": chat(context={"deep": [{"er": f"<{CANARY}>"}]}),
    "a key of the future": chat(context={f"a {CANARY}": 1}),
    "a role that is none": chat(messages=[{"role": f"a {CANARY}", "content": "x"}]),
    "JSON in JSON": chat(
        messages=[{"role": "user", "content": json.dumps({"a": json.dumps({"b": CANARY})})}]
    ),
    "escaped": chat(
        messages=[{"role": "user", "content": '{"a": "' + CANARY.replace("c", "\\u0063") + '"}'}]
    ),
}


@pytest.mark.parametrize("where", WHERE)
def test_every_text_of_a_request_is_searched(where: str) -> None:
    request = WHERE[where]
    before = orjson.dumps(request)

    redacted = redaction().view(request)

    assert orjson.dumps(request) == before  # the client's own is not changed
    assert redacted is not request
    written = orjson.dumps(redacted).decode()
    assert CANARY not in written
    assert CANARY not in json.dumps(json.loads(written)).replace("\\\\u0063", "c")
    assert "<SECRET>" in written


def test_names_of_the_api_are_not_searched() -> None:
    words = {"name": "words", "pattern": "[a-z_0-9]+", "replace": "<W>"}
    request = chat(
        messages=[
            {"role": "user", "content": "some words", "name": "ada"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":"b"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "x"},
        ],
        temperature=0.5,
        stream=True,
    )
    redacted = redaction(words).view(request)
    assert redacted["model"] == "gpt-4o"
    assert redacted["temperature"] == 0.5
    assert redacted["stream"] is True
    user, assistant, tool = redacted["messages"]
    assert user == {"role": "user", "content": "<W> <W>", "name": "<W>"}
    [call] = assistant["tool_calls"]
    assert (call["id"], call["type"], call["function"]["name"]) == ("call_1", "function", "f")
    assert json.loads(call["function"]["arguments"]) == {"<W>": "<W>"}
    assert tool == {"role": "tool", "tool_call_id": "call_1", "content": "<W>"}


def test_a_request_without_matches_is_returned_as_the_same_object() -> None:
    request = chat(tools=[{"type": "function", "function": {"name": "f"}}], metadata={"a": "b"})
    assert redaction().view(request) is request
    assert redaction().messages(request["messages"]) is request["messages"]
    text = '{ "a":  1.0 }'
    assert redaction().text(text) is text


def test_pictures_are_not_searched() -> None:
    picture = f"data:image/png;base64,{CANARY}"
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}
    assert redaction().messages([message]) == [message]
    assert redaction().text(f"{picture} {CANARY}").endswith("<SECRET>")


JSON_TEXTS = [
    (f'{{"a": "{CANARY}"}}', '{"a": "<SECRET>"}'),
    (f'{{\n  "a": "x {CANARY} y",\n  "b": 1.50\n}}', '{\n  "a": "x <SECRET> y",\n  "b": 1.50\n}'),
    (f'["{CANARY}", "{CANARY}"]', '["<SECRET>", "<SECRET>"]'),
    (f'{{"{CANARY}": 1, "canary-0000": 2}}', '{"<SECRET>":1,"<SECRET>_2":2}'),
    (f'{{"a": "{CANARY}"', '{"a": "<SECRET>"'),  # none
    ('{"a": "\\u0063anary-7f3a"}', '{"a":"<SECRET>"}'),
    (f'{{"a": "{CANARY}", "a": "b"}}', '{"a": "<SECRET>", "a": "b"}'),
]


@pytest.mark.parametrize(("text", "redacted"), JSON_TEXTS)
def test_json_in_a_text_stays_json(text: str, redacted: str) -> None:
    assert redaction().text(text) == redacted


def test_numbers_in_json_are_searched_and_become_texts() -> None:
    found = redaction("credit_card").text('{"card": 4111111111111111, "n": 12, "ok": true}')
    assert json.loads(found) == {"card": "<CREDIT_CARD>", "n": 12, "ok": True}
    long = {"name": "long", "pattern": r"\d{30}"}
    assert json.loads(redaction(long).text('{"n": 123456789012345678901234567890}')) == {
        "n": "<LONG>"
    }


def test_a_match_across_a_json_key_and_its_value_is_found() -> None:
    rule = {"name": "password", "pattern": r'"password":\s*"[^"]*"'}
    text = '{"user":"ada","password":"hunter2"}'
    found = redaction(rule).text(text)
    assert "hunter2" not in found
    assert json.loads(found) == "<PASSWORD>"  # nothing else of it would be JSON


def test_an_anchored_rule_is_applied_to_each_text_in_json() -> None:
    rule = {"name": "staff", "pattern": "^emp-[0-9]+$"}
    assert redaction(rule).text('{"by":"emp-12","for":"emp-12 and others"}') == (
        '{"by":"<STAFF>","for":"emp-12 and others"}'
    )


def test_overlapping_matches_become_one_placeholder() -> None:
    first = {"name": "first", "pattern": "abcd"}
    second = {"name": "second", "pattern": "cdefgh"}
    for rules in ([first, second], [second, first]):
        assert redaction(*rules).text("xabcdefghx") == "x<SECOND>x"
    assert redaction("phone", "iban").text("DE89 3704 0044 0532 0130 00") == "<IBAN>"


def test_a_match_that_arises_from_a_replacement_is_found() -> None:
    inner = {"name": "inner", "pattern": "b", "replace": "---"}
    outer = {"name": "outer", "pattern": "a---c", "replace": "<OUTER>"}
    assert redaction(inner, outer).text("abc") == "<OUTER>"


PIECES = [
    *[f" {text} " for texts in FOUND.values() for text in texts],
    *("hello ", "{", "}", '"', "\\", ":", "[", "]", ",", "é", "是", "\n", "7", "-", ".", " "),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    everything = redaction(*READY)
    once = everything.text(text)
    assert everything.text(once) is once


def values(*keys: str) -> st.SearchStrategy[Any]:
    """Any JSON, with texts that hold something secret, and these keys."""
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.one_of(st.text(max_size=8), *map(st.just, keys)), inner, max_size=4),
        ),
        max_leaves=12,
    )


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from([CANARY, f"a {CANARY}", f'{{"x":"{CANARY}"}}', f'"{CANARY}"']),
)
VALUES = values(CANARY, f"a {CANARY}")


@given(VALUES.filter(lambda value: isinstance(value, dict | list)))
@pytest.mark.slow
def test_any_json_stays_json_without_its_secrets(value: Any) -> None:
    text = json.dumps(value)
    for written in (text, json.dumps(value, indent=2), orjson.dumps(value).decode()):
        found = redaction().text(written)
        assert CANARY not in json.dumps(json.loads(found))
        assert redaction().text(found) is found
        if CANARY not in text:
            assert found is written


@given(values(f"a {CANARY}"), VALUES)  # keys in a message that look like names are the API's
@pytest.mark.slow
def test_nothing_secret_is_left_in_any_request(messages: Any, more: Any) -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": messages}], "more": more}
    redacted = redaction().view(request)
    assert CANARY not in orjson.dumps(redacted).decode()
    assert redaction().view(redacted) is redacted


@pytest.mark.parametrize(
    "text",
    ["1 " * 50_000, "4111" * 30_000, "1234 " * 30_000, "a@" * 60_000, "a@b." * 30_000,
     "+1" * 60_000, "0171-" * 30_000, "DE89" * 30_000, "1." * 60_000, "2001:" * 30_000,
     "-----BEGIN PRIVATE KEY-----" * 5_000, "eyJ" * 40_000, "sk-" * 40_000, "[" * 100_000,
     "{" * 100_000, "\\" * 100_000, '"' * 100_000, "123-45-" * 20_000],
    ids=lambda text: text[:12],
)  # fmt: skip
@pytest.mark.slow
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    everything = redaction(*READY)
    began = time.process_time()
    everything.text(text)
    assert time.process_time() - began < 5  # for some 100 KB; measured: 1.5 s at most


def test_a_redaction_error_quotes_nothing() -> None:
    with pytest.raises(RedactionError) as caught:
        redaction().text(f"{CANARY} \ud800")
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    deep: Any = CANARY
    for _ in range(2_000):
        deep = [deep]
    with pytest.raises(RedactionError):
        redaction().messages([deep])


def test_a_slow_redaction_is_given_up_after_its_time() -> None:
    """Each `a` is a search for `b` to the end of the text: quadratic in all."""
    [rule] = rules_of(
        PrivacySettings.model_validate(
            {"redact": [{"name": "far", "pattern": "a.{0,9}?(?s:.*b)|a", "replace": "<F>"}]}
        ).redact
    )
    with pytest.raises(TimeoutError):
        list(rule.spans(b"a" * 20_000, until=time.monotonic()))


REFUSED = [
    ([{"name": "x"}], "it needs a pattern; without one there are api_key, credit_card"),
    ([{"name": "x", "pattern": "("}], "no regular expression of RE2"),
    ([{"name": "x", "pattern": "(?<=a)b"}], "no regular expression of RE2"),
    ([{"name": "x", "pattern": "a*"}], "also finds the empty text"),
    ([{"name": "x", "pattern": "[A-Z]+"}], "it finds the placeholder <X>"),
    ([{"name": "x", "pattern": "EMAIL"}, "email"], "it finds the placeholder <EMAIL>"),
    (["email", "email"], "two rules have the same name"),
    ([{"name": "x", "pattern": "a", "replace": ""}], "redact.0.replace"),
    ([{"name": "x", "pattern": "a", "replace": '"a"'}], "redact.0.replace"),
    ([{"name": "No Name", "pattern": "a"}], "redact.0.name"),
    ("email", "redact"),
]


@pytest.mark.parametrize(("rules", "said"), REFUSED)
def test_rules_that_cannot_be_used_are_refused_at_the_start(rules: Any, said: str) -> None:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/m"}}
    with pytest.raises(ConfigError) as caught:
        parse_config({"model_list": [entry], "privacy": {"redact": rules}})
    assert said in str(caught.value)


def test_a_ready_made_rule_with_another_placeholder() -> None:
    assert redaction({"name": "email", "replace": "[mail]"}).text("a@b.org") == "[mail]"


def test_without_rules_there_is_no_redaction() -> None:
    assert redaction_of(PrivacySettings()) is None
