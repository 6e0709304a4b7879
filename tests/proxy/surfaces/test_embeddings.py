"""Embeddings: logged and passed through, their vectors neither kept nor, where it shows, parsed."""

import base64
import json
import struct

import httpx
import openai
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.errors import ApiError
from proxy.surfaces.embeddings import Embeddings, without_vectors
from tests.helpers.teacher_server import LoopbackServer, Reply, error

MODEL = "text-embedding-3-small"
USAGE = {"prompt_tokens": 8, "total_tokens": 8}


def vectors(*found):
    return [{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(found)]


def answer(*found, **more):
    payload = {"object": "list", "data": vectors(*found), "model": MODEL, "usage": USAGE, **more}
    return Reply((json.dumps(payload).encode(),))


def test_floats(client, proxy, teacher):
    teacher.script(answer([0.5, -1.0], [0.25, 1.0]))
    found = client.embeddings.create(
        model="gpt-4o", input=["one", "two"], encoding_format="float", dimensions=2
    )
    assert [one.embedding for one in found.data] == [[0.5, -1.0], [0.25, 1.0]]
    assert teacher.requests[0].path == "/v1/embeddings"
    [trace] = proxy.traces()
    assert (trace["api"], trace["operation_name"]) == ("embeddings", "embeddings")
    assert (trace["outcome"], trace["served_by"]) == ("complete", "teacher")
    said = [message["content"] for message in json.loads(trace["input_messages"])]
    assert said == ["one", "two"]
    assert trace["output_messages"] is None
    assert (trace["input_tokens"], trace["output_tokens"]) == (8, None)
    assert trace["response_model"] == MODEL
    assert json.loads(trace["request_params"])["dimensions"] == 2
    assert trace["content_bytes"] > 0
    assert "0.25" not in proxy.journal()


def test_base64_is_what_the_client_asks_for(client, proxy, teacher):
    teacher.script(answer(base64.b64encode(struct.pack("<2f", 0.5, -1.0)).decode()))
    found = client.embeddings.create(model="gpt-4o", input="one")
    assert found.data[0].embedding == [0.5, -1.0]
    assert teacher.requests[0].json["encoding_format"] == "base64"
    assert proxy.traces()[0]["input_tokens"] == 8


def test_a_tagged_one_is_counted_for_its_task(client, proxy, teacher):
    teacher.script(answer([1.0]))
    raw = client.embeddings.with_raw_response.create(
        model="gpt-4o", input=[[1, 2], [3]], extra_body={"metadata": {"task": "search"}}
    )
    assert raw.headers["x-understudy-reason"] == "other_api"
    assert "metadata" not in teacher.requests[0].json
    [trace] = proxy.traces()
    assert trace["task"] == "search"
    assert [m["content"] for m in json.loads(trace["input_messages"])] == [[1, 2], [3]]


def test_a_model_that_no_entry_names_goes_to_the_default(start_proxy, teacher):
    """As it did when embeddings were only passed through."""
    with LoopbackServer() as other:
        params = {"model": "openai/up", "api_base": teacher.base_url, "api_key": "k"}
        entries = [
            {"model_name": "first", "litellm_params": {**params, "api_base": other.base_url}},
            {"model_name": "second", "litellm_params": params},
        ]
        proxy = start_proxy(model_list=entries, teacher={"model": "second"})
        teacher.script(answer([1.0]))
        with openai.OpenAI(base_url=proxy.base_url, api_key="x", max_retries=0) as client:
            client.embeddings.create(model=MODEL, input="hi")
        assert teacher.requests[0].json["model"] == MODEL
        assert other.requests == []


def test_the_teachers_errors_pass_unchanged(client, proxy, teacher):
    teacher.script(error(400, "too long", type="invalid_request_error"))
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="gpt-4o", input="x")
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["error_type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize("body", [{}, {"model": 7}, {"model": "m", "metadata": "x"}])
def test_400_for_wrong_types_of_fields_that_are_relied_on(body, proxy):
    response = httpx.post(f"{proxy.base_url}/embeddings", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


TEXTS = st.sampled_from(["", "a", "[", "]", '"', "\\", "]}", '[{"', "model", "usage"])
VALUES = st.recursive(
    st.none() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS | st.just("data"), VALUES, max_size=6), st.booleans())
@example({"model": None, "usage": []}, False)
@pytest.mark.slow
def test_an_answer_without_vectors_keeps_model_and_usage(payload, pretty):
    """Wherever the arrays are, and whatever the strings hold: model and usage are right."""
    raw = orjson.dumps(payload, option=orjson.OPT_INDENT_2 if pretty else None)
    found = without_vectors(raw)
    for name in ("model", "usage"):
        assert found.get(name) == payload.get(name)


@pytest.mark.parametrize("order", [("data", "model", "usage"), ("model", "usage", "data")])
def test_vectors_are_not_parsed(order):
    parts = {"data": vectors([0.5] * 4), "model": MODEL, "usage": USAGE}
    raw = orjson.dumps({name: parts[name] for name in order})
    found = without_vectors(raw)
    assert (found["model"], found["usage"]) == (MODEL, USAGE)
    assert not found.get("data")


@given(st.binary(max_size=40))
def test_any_bytes_are_read(raw):
    Embeddings().read_answer(raw)


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(raw):
    try:
        assert isinstance(Embeddings().read_request(raw, None).body, dict)
    except ApiError as refusal:
        assert refusal.status == 400
