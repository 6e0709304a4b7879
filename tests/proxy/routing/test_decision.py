"""Where a request goes and why: tables, and what holds for any request."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.decision import HONOURED, IDLE, beyond_students, decide
from store.chat.shape import fingerprint, input_hash, rest_of_shape
from store.chat.student_wire import student_body
from store.records import PromptTemplate, Reason, Route, TermsOfService

USER = {"role": "user", "content": "hello"}
PLAIN = {"model": "gpt-4o", "messages": [{"role": "system", "content": "Be kind."}, USER]}
SHAPE = fingerprint(PLAIN)
ROUTE = Route(
    task="t",
    target="student",
    reason="certified",
    student_id="run-1",
    base_url="http://127.0.0.1:1",
    fingerprints=[SHAPE],
    max_input_chars=100,
)
ROUTES = {"t": ROUTE}


def reason(body, routes=ROUTES, task="t"):
    decision = decide(task, fingerprint(body), body, routes)
    assert (decision.student is not None) == (decision.reason == Reason.CERTIFIED)
    return decision.reason


def teacher_route(why):
    return {"t": Route(task="t", target="teacher", reason=why)}


@pytest.mark.parametrize(
    ("task", "routes", "expected"),
    [
        (None, ROUTES, Reason.UNTAGGED),
        ("t", {}, Reason.NO_STUDENT),
        ("other", ROUTES, Reason.NO_STUDENT),
        ("t", teacher_route("paused"), Reason.PAUSED),
        ("t", teacher_route("lower bound 0.93 < 0.95"), Reason.NO_STUDENT),
        ("t", ROUTES, Reason.CERTIFIED),
    ],
)
def test_the_tasks_route_decides(task, routes, expected):
    assert reason(PLAIN, routes, task) == expected


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"temperature": 0.7, "top_p": 1, "seed": 3, "user": "u1"},
        {"max_tokens": 5, "max_completion_tokens": None},
        {"stop": "\n"},
        {"stop": ["a", "b"]},
        {"n": 1, "logprobs": False, "tools": [], "store": False, "modalities": ["text"]},
        {"n": None, "tools": None, "tool_choice": None, "functions": None, "new_field": None},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}},
        {"metadata": {"task": "t"}},
    ],
)
def test_requests_that_a_student_can_answer(extra):
    assert reason({**PLAIN, **extra}) == Reason.CERTIFIED


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"n": 2}, Reason.SEVERAL_CHOICES),
        ({"logprobs": True}, Reason.LOGPROBS),
        ({"top_logprobs": 2}, Reason.LOGPROBS),
        ({"tool_choice": "none"}, Reason.TOOLS),
        ({"parallel_tool_calls": True}, Reason.TOOLS),
        ({"function_call": "auto"}, Reason.TOOLS),
        ({"modalities": ["text", "audio"]}, Reason.NOT_TEXT),
        ({"audio": {"voice": "alloy"}}, Reason.NOT_TEXT),
        ({"store": True}, Reason.UNKNOWN_FIELD),
        ({"presence_penalty": 0.1}, Reason.UNKNOWN_FIELD),
        ({"logit_bias": {"5": 1}}, Reason.UNKNOWN_FIELD),
        ({"reasoning_effort": "high"}, Reason.UNKNOWN_FIELD),
        ({"prediction": {"type": "content"}}, Reason.UNKNOWN_FIELD),
        ({"web_search_options": {}}, Reason.UNKNOWN_FIELD),
        ({"adapters": "/etc/passwd"}, Reason.UNKNOWN_FIELD),
        ({"draft_model": "x"}, Reason.UNKNOWN_FIELD),
        ({"chat_template_kwargs": {}}, Reason.UNKNOWN_FIELD),
        ({"role_mapping": {}}, Reason.UNKNOWN_FIELD),
        ({"stream_options": {"new": 1}}, Reason.UNKNOWN_FIELD),
        ({"stop": [1]}, Reason.UNKNOWN_FIELD),
        ({"response_format": {"type": "json_object"}}, Reason.OTHER_FINGERPRINT),
        ({"tools": [{"type": "function"}]}, Reason.OTHER_FINGERPRINT),
        ({"model": "gpt-4o-mini"}, Reason.OTHER_FINGERPRINT),
    ],
)
def test_requests_that_go_to_the_teacher(extra, expected):
    assert reason({**PLAIN, **extra}) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "assistant", "content": "ok"}, None),
        ({"role": "developer", "content": "ok"}, None),
        ({"role": "assistant", "content": "ok", "refusal": None, "annotations": []}, None),
        ({"role": "assistant", "content": "ok", "annotations": [{}]}, Reason.UNKNOWN_FIELD),
        ({"role": "assistant", "content": "ok", "refusal": None, "tool_calls": None}, None),
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, None),
        ({"role": "tool", "content": "ok", "tool_call_id": "c"}, Reason.TOOLS),
        ({"role": "function", "content": "ok", "name": "f"}, Reason.TOOLS),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, Reason.TOOLS),
        ({"role": "critic", "content": "ok"}, Reason.UNKNOWN_FIELD),
        ({"role": "user", "content": "ok", "name": "bob"}, Reason.UNKNOWN_FIELD),
        ({"role": "user", "content": None}, Reason.NOT_TEXT),
        ({"role": "user"}, Reason.NOT_TEXT),
        ({"role": "user", "content": []}, Reason.NOT_TEXT),
        ({"role": "user", "content": ["a"]}, Reason.NOT_TEXT),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, Reason.NOT_TEXT),
        ({"role": "user", "content": [{"type": "input_audio"}]}, Reason.NOT_TEXT),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, Reason.UNKNOWN_FIELD),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]},
            Reason.UNKNOWN_FIELD,
        ),
    ],
)
def test_messages_that_go_to_the_teacher(message, expected):
    assert beyond_students({"model": "m", "messages": [USER, message]}) == expected


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WITH_TOOLS = {**PLAIN, "tools": [FUNCTION]}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, Reason.CERTIFIED),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, Reason.CERTIFIED),
        ({"tool_choice": "required"}, Reason.OTHER_FINGERPRINT),
        ({"tool_choice": "none"}, Reason.OTHER_FINGERPRINT),
        ({"parallel_tool_calls": False}, Reason.OTHER_FINGERPRINT),
        ({"tools": [FUNCTION, {**FUNCTION, "function": {"name": "g"}}]}, Reason.OTHER_FINGERPRINT),
        ({"stop": ["."]}, Reason.TOOLS),
        ({"function_call": "auto"}, Reason.TOOLS),
        ({"messages": [*PLAIN["messages"], {"role": "tool", "content": "1"}]}, Reason.TOOLS),
        ({"logprobs": True}, Reason.LOGPROBS),
    ],
)
def test_with_tools(extra, expected):
    route = replace(
        ROUTE, terms=TermsOfService(output="tools"), fingerprints=[fingerprint(WITH_TOOLS)]
    )
    assert reason({**WITH_TOOLS, **extra}, {"t": route}) == expected


@given(st.sampled_from(["json", "label", "text"]))
def test_a_student_of_texts_gets_no_tools(output):
    route = replace(
        ROUTE, terms=TermsOfService(output=output), fingerprints=[fingerprint(WITH_TOOLS)]
    )
    assert reason(WITH_TOOLS, {"t": route}) == Reason.TOOLS


def test_an_edited_prompt_goes_to_the_teacher():
    edited = {**PLAIN, "messages": [{"role": "system", "content": "Be kind!"}, USER]}
    assert reason(edited) == Reason.OTHER_FINGERPRINT


def test_input_length_counts_all_messages():
    def of(length):
        return {
            **PLAIN,
            "messages": [PLAIN["messages"][0], {"role": "user", "content": "x" * length}],
        }

    assert reason(of(100 - len("Be kind."))) == Reason.CERTIFIED
    assert reason(of(101 - len("Be kind."))) == Reason.INPUT_TOO_LONG


values = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=4) | st.just([]) | st.just({})
)
names = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["adapters", "draft_model", "tools", "n", "stream", "stop", "logprobs", "seed", "audio"]
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": st.text(max_size=8) | st.none() | st.lists(st.just({"type": "image_url"})),
            "adapters": st.text(max_size=4),
        },
    ),
    min_size=1,
    max_size=3,
)
bodies = st.builds(
    lambda extra, turns: {**extra, "model": "m", "messages": turns},
    st.dictionaries(names, values, max_size=5),
    messages,
).filter(lambda body: isinstance(body.get("stream_options"), dict | None))


def certified_for(body):
    """A route that the certificate's part lets everything through."""
    return {
        "t": Route(
            task="t",
            target="student",
            reason="certified",
            base_url="http://127.0.0.1:1",
            fingerprints=[fingerprint(body)],
            max_input_chars=10_000,
        )
    }


@given(bodies)
@pytest.mark.slow
def test_untagged_never_reaches_a_student(body):
    assert decide(None, fingerprint(body), body, certified_for(body)).student is None


@given(bodies, st.text(min_size=1, max_size=12), st.integers() | st.text() | st.booleans())
@pytest.mark.slow
def test_an_unlisted_field_never_reaches_a_student(body, name, value):
    if name in HONOURED or name in IDLE:
        return
    decision = decide("t", fingerprint(body), {**body, name: value}, certified_for(body))
    assert decision.student is None


@given(bodies)
@pytest.mark.slow
def test_another_fingerprint_never_reaches_a_student(body):
    assert decide("t", "f" * 16, body, certified_for(body)).student is None


@given(bodies)
@pytest.mark.slow
def test_no_client_field_names_what_a_student_loads(body):
    decision = decide("t", fingerprint(body), body, certified_for(body))
    if decision.student is not None:
        sent = orjson.loads(student_body(body["messages"], max_tokens=5))
        assert sent["model"] == "default_model"
        ours = {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs"}
        assert set(sent) == {*ours, "stream"}
        assert all(set(message) == {"role", "content"} for message in sent["messages"])


# ---- frequent inputs that the teacher answers --------------------------------------------------


def asking(text, system="Be kind."):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return {"model": "gpt-4o", "messages": messages}


def listing(*hashes, **changes):
    return {"t": replace(ROUTE, teacher_inputs=list(hashes), **changes)}


def test_a_frequent_input_that_the_student_answers_otherwise_goes_to_the_teacher():
    listed = listing(input_hash([{"role": "user", "content": "are you still there?"}]))
    for spelt in ("are you still there?", " Are  you still\nthere? "):
        assert reason(asking(spelt), listed) == Reason.TEACHER_INPUT
    assert reason(asking("are you still here?"), listed) == Reason.CERTIFIED


def test_a_conversation_is_another_input_than_its_last_turn():
    listed = listing(input_hash([USER]))
    turns = [USER, {"role": "assistant", "content": "hi"}, USER]
    longer = {"model": "gpt-4o", "messages": [PLAIN["messages"][0], *turns]}
    assert reason(PLAIN, listed) == Reason.TEACHER_INPUT
    assert reason(longer, listed) == Reason.CERTIFIED
    assert reason(longer, listing(input_hash(longer["messages"]))) == Reason.TEACHER_INPUT


def test_a_listed_input_is_not_compared_in_the_shadow():
    listed = listing(input_hash([USER]), share=0.0, step="shadow")
    assert reason(PLAIN, listed) == Reason.TEACHER_INPUT
    assert reason(asking("something else"), listed) == Reason.SHADOW


def test_what_varies_in_a_prompt_is_part_of_a_listed_input():
    template = PromptTemplate(
        template_id="t1",
        shape=rest_of_shape(PLAIN),
        literals=["Today is ", ". Be kind."],
        holes=[20],
        distinct=9,
    )
    monday = asking("hello", "Today is Monday. Be kind.")
    listed = listing(
        input_hash(monday["messages"], ["Monday"]), fingerprints=["t1"], templates=[template]
    )
    assert reason(monday, listed) == Reason.TEACHER_INPUT
    assert reason(asking("hello", "Today is Friday. Be kind."), listed) == Reason.CERTIFIED
