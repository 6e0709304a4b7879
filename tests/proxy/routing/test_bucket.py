"""Prompts that vary and the student's share, in the routing of a request."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.routing.bucket import rollout_bucket
from proxy.routing.decision import decide
from store.chat.shape import BETWEEN, MARK, fingerprint, rest_of_shape
from store.files.routes import publish_routes, read_routes
from store.records import (
    PromptTemplate,
    Reason,
    Route,
)

STUDENT = "018f0000-0000-7000-8000-000000000001"
OTHER = "018f0000-0000-7000-8000-000000000002"


def a_body(*turns: str, system: str = "Be kind.", **changes: Any) -> dict[str, Any]:
    """A conversation: the user and the assistant in turn."""
    said = [
        {"role": ("user", "assistant")[place % 2], "content": text}
        for place, text in enumerate(turns)
    ]
    return {"model": "m", "messages": [{"role": "system", "content": system}, *said], **changes}


def template(*literals: str, holes: list[int]) -> PromptTemplate:
    return PromptTemplate(
        template_id="t" * 16,
        shape=rest_of_shape(a_body()),
        literals=list(literals),
        holes=holes,
        distinct=9,
    )


ROUTE = Route(
    task="t",
    target="student",
    reason="certified",
    student_id=STUDENT,
    base_url="http://127.0.0.1:1",
    fingerprints=[fingerprint(a_body())],
    templates=[template("Today is ", ". Be kind.", holes=[14])],
    max_input_chars=1000,
)


def decision(body: dict[str, Any], **changes: Any) -> Any:
    found = decide("t", fingerprint(body), body, {"t": replace(ROUTE, **changes)})
    assert (found.student is not None) == (found.reason == Reason.CERTIFIED)
    return found


# ---- prompts that vary -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (a_body("hi"), Reason.CERTIFIED),
        (a_body("hi", system="Today is 2026-01-05. Be kind."), Reason.CERTIFIED),
        (a_body("hi", system="Today is 2026-01-06. Be kind."), Reason.CERTIFIED),
        (a_body("hi", system="Today is 2026-01-06. Be rude."), Reason.OTHER_FINGERPRINT),
        (a_body("hi", system="Today is Friday, be rude now. Be kind."), Reason.OTHER_FINGERPRINT),
        (a_body("hi", system="Today is x. Be kind.", model="n"), Reason.OTHER_FINGERPRINT),
        (a_body("hi", system="Today is x. Be kind.", tools=[{}]), Reason.OTHER_FINGERPRINT),
        (a_body("hi", system="Today is x. Be kind.", n=2), Reason.SEVERAL_CHOICES),
        (a_body("h" * 999, system="Today is x. Be kind."), Reason.INPUT_TOO_LONG),
    ],
)
def test_a_prompt_that_varies_is_certified_by_its_template(
    body: dict[str, Any], expected: Reason
) -> None:
    assert decision(body).reason == expected
    if expected == Reason.CERTIFIED and body["messages"][0]["content"] != "Be kind.":
        assert decision(body, templates=[]).reason == Reason.OTHER_FINGERPRINT


def test_two_system_prompts_are_not_one() -> None:
    two = a_body("hi", system="Today is x")
    two["messages"].insert(1, {"role": "system", "content": "y. Be kind."})
    assert decision(two).reason == Reason.OTHER_FINGERPRINT


def test_a_template_is_published_as_it_is(tmp_path: Path) -> None:
    two = template(f"Be kind.{BETWEEN}Today is ", f".{MARK} ü", holes=[14])
    route = replace(ROUTE, templates=[*ROUTE.templates, two])
    publish_routes(tmp_path / "routes.json", {"t": route}, at=0.0)
    assert read_routes(tmp_path / "routes.json") == {"t": route}


# ---- the share ---------------------------------------------------------------------------------


def test_the_share_is_checked_last() -> None:
    long = a_body("h" * 2000)
    for share, expected in ((0.0, Reason.SHADOW), (1e-9, Reason.NOT_IN_SHARE)):
        assert decision(a_body("hi"), share=share).reason == expected
        assert decision(a_body("hi", n=2), share=share).reason == Reason.SEVERAL_CHOICES
        assert decision(long, share=share).reason == Reason.INPUT_TOO_LONG
        edited = a_body("hi", system="Be rude.")
        assert decision(edited, share=share).reason == Reason.OTHER_FINGERPRINT


@pytest.mark.slow
def test_a_share_takes_that_many_conversations() -> None:
    count = 4000
    for share in (0.05, 0.25, 0.9):
        inside = sum(
            decision(a_body(f"request {n}"), share=share).student is not None for n in range(count)
        )
        # five standard deviations: one false alarm in millions of draws
        assert abs(inside - share * count) < 5 * sqrt(share * (1 - share) * count)


texts = st.text(max_size=8)
turns = st.lists(texts, min_size=1, max_size=5)
users = st.none() | texts


@settings(deadline=None)
@given(turns, users)
def test_turns_and_retries_of_a_conversation_land_on_one_side(
    said: list[str], user: str | None
) -> None:
    first = a_body(said[0], user=user)
    place = rollout_bucket(STUDENT, first)
    assert 0 <= place < 1
    assert rollout_bucket(STUDENT, a_body(*said, user=user, stream=True, temperature=0.5)) == place
    # also when its system prompt tells the time
    assert rollout_bucket(STUDENT, a_body(*said, user=user, system="It is 10:32.")) == place
    in_parts = [{"type": "text", "text": said[0]}]
    parts = {**first, "messages": [{"role": "user", "content": in_parts}]}
    assert rollout_bucket(STUDENT, parts) == place


@settings(deadline=None)
@given(turns, users, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_takes_all_of_a_smaller_one(
    said: list[str], user: str | None, one: float, other: float
) -> None:
    body = a_body(*said, user=user)
    small, large = sorted((one, other))
    if decision(body, share=small).student is not None:
        assert decision(body, share=large).student is not None
    assert decision(body, share=0.0).reason == Reason.SHADOW
    assert decision(body, share=1.0).reason == Reason.CERTIFIED


def test_other_conversations_users_and_students_have_other_buckets() -> None:
    opened = {"model": "m", "messages": [{"role": "assistant", "content": "Welcome"}]}
    opened["messages"] += a_body("hi")["messages"]
    places = [
        rollout_bucket(STUDENT, a_body("hi")),
        rollout_bucket(STUDENT, a_body("hello")),
        rollout_bucket(STUDENT, a_body("hi", user="u1")),
        rollout_bucket(STUDENT, a_body("hi", user="u2")),
        rollout_bucket(STUDENT, opened),
        rollout_bucket(OTHER, a_body("hi")),
    ]
    assert len(set(places)) == len(places)


def test_any_messages_have_a_bucket() -> None:
    for messages in ([], [{"role": "system", "content": None}], [{"role": "assistant"}]):
        assert 0 <= rollout_bucket(STUDENT, {"messages": messages, "user": {"a": [1]}}) < 1
    assert 0 <= rollout_bucket("é" * 200, a_body("hi")) < 1
