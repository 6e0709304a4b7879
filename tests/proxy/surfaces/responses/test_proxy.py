"""The Responses API through the proxy, as the official SDK calls it: teacher's answers."""

import json

import httpx
import openai
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.paths import GOLDEN as TRANSCRIPTS
from tests.helpers.responses_scene import TAG
from tests.helpers.responses_teacher import echo, response, response_object, response_stream
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import Reply, error, events

GOLDEN = TRANSCRIPTS / "responses"
TRANSCRIPTS = sorted(path.stem for path in GOLDEN.glob("*.sse"))
LEAST = {"model": "gpt-4o", "input": "hi"}


@pytest.fixture(autouse=True)
def speaks_the_api(teacher):
    teacher.answer = echo


class Label(pydantic.BaseModel):
    label: str


@pytest.mark.slow
def test_a_response(client, proxy, teacher):
    raw = client.responses.with_raw_response.create(
        **LEAST, instructions="Be brief.", extra_headers=TAG
    )
    assert raw.parse().output_text == "echo: hi"
    assert raw.headers["x-understudy-route"] == "teacher"
    assert raw.headers["x-understudy-reason"] == "no_student"
    [request] = teacher.requests
    assert (request.method, request.path) == ("POST", "/v1/responses")
    assert request.json == {**LEAST, "instructions": "Be brief."}
    [trace] = proxy.traces()
    assert (trace["api"], trace["operation_name"]) == ("responses", "chat")
    assert (trace["task"], trace["outcome"]) == ("mood", "complete")
    assert json.loads(trace["input_messages"]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]
    assert json.loads(trace["output_messages"]) == [{"role": "assistant", "content": "echo: hi"}]
    assert trace["finish_reasons"] == ["stop"]
    assert (trace["input_tokens"], trace["output_tokens"]) == (36, 87)
    assert (trace["cached_tokens"], trace["reasoning_tokens"]) == (4, 2)
    assert trace["response_id"].startswith("resp_")
    assert (trace["request_model"], trace["response_model"]) == ("gpt-4o", "gpt-4o-2024-08-06")


@pytest.mark.slow
def test_the_tag_in_metadata_is_taken_out(client, proxy, teacher):
    client.responses.create(**LEAST, metadata={"task": "mood"})
    client.responses.create(**LEAST, metadata={"task": "mood", "team": "a"})
    assert "metadata" not in teacher.requests[0].json
    assert teacher.requests[1].json["metadata"] == {"team": "a"}
    assert [trace["task"] for trace in proxy.traces()] == ["mood", "mood"]


def test_a_stream(client, proxy, teacher):
    stream = client.responses.create(**LEAST, stream=True)
    events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == "echo: hi"
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["stream"]) == ("complete", True)
    assert trace["time_to_first_chunk_ms"] > 0
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: hi"


@pytest.mark.slow
def test_the_sdks_own_stream(client):
    with client.responses.stream(**LEAST) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "echo: hi"


async def test_the_async_sdk(proxy):
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="x", max_retries=0) as sdk:
        assert (await sdk.responses.create(**LEAST)).output_text == "echo: hi"
        stream = await sdk.responses.create(**LEAST, stream=True)
        kinds = [event.type async for event in stream]
    assert kinds[-1] == "response.completed"
    assert len(proxy.traces()) == 2


@pytest.mark.slow
def test_a_pydantic_model(client, teacher):
    teacher.script(response('{"label": "good"}'))
    found = client.responses.parse(**LEAST, text_format=Label)
    assert found.output_parsed == Label(label="good")


@pytest.mark.parametrize("name", TRANSCRIPTS)
@pytest.mark.slow
def test_transcripts_are_relayed_byte_for_byte(name, proxy, teacher):
    raw = (GOLDEN / f"{name}.sse").read_bytes()
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    sizes = [1, 7, 64, 1_000_000]
    for size in sizes:
        teacher.script(events(*[raw[i : i + size] for i in range(0, len(raw), size)]))
        got = httpx.post(f"{proxy.base_url}/responses", json={**LEAST, "stream": True})
        assert got.content == raw
    for trace in proxy.wait_for_traces(len(sizes)):
        assert json.loads(trace["output_messages"] or "[]") == expected["messages"]
        assert trace["finish_reasons"] == expected["finish_reasons"]
        assert trace["response_id"] == expected["response_id"]
        assert trace["error_type"] == expected["error_type"]
        assert trace["outcome"] == ("error" if expected["error_type"] else "complete")


@pytest.mark.slow
def test_the_trace_is_there_before_the_last_event(proxy, teacher):
    """Also for a client that does not wait for the event's empty line."""
    reply = response_stream("one two")
    cut = (*reply.chunks[:-1], reply.chunks[-1][:-1], b"\n")
    teacher.script(events(*cut).paced(0.02))
    with (
        httpx.Client() as http,
        http.stream("POST", f"{proxy.base_url}/responses", json={**LEAST, "stream": True}) as got,
    ):
        for line in got.iter_lines():
            if line.startswith('data: {"type": "response.completed"'):
                assert proxy.traces()[0]["outcome"] == "complete"


@pytest.mark.parametrize("after", [1, 6])
def test_a_stream_that_breaks_off(after, client, proxy, teacher):
    teacher.script(response_stream("one two three four").broken(after))
    with pytest.raises(httpx.RemoteProtocolError):
        list(client.responses.create(**LEAST, stream=True))
    [trace] = proxy.wait_for_traces(1)
    assert (trace["outcome"], trace["status_code"]) == ("teacher_broke", 200)
    assert trace["response_id"].startswith("resp_")
    said = json.loads(trace["output_messages"] or "[]")
    assert said == ([] if after == 1 else [{"role": "assistant", "content": "one two"}])


@pytest.mark.slow
def test_a_client_that_hangs_up_in_a_stream_leaves_a_trace(client, proxy, teacher):
    teacher.script(response_stream(" ".join(["word"] * 300)).paced(0.05))
    stream = client.responses.create(**LEAST, stream=True)
    for _ in range(6):
        next(stream)
    stream.close()
    [trace] = proxy.wait_for_traces(1)
    assert trace["outcome"] == "client_gone"
    assert json.loads(trace["output_messages"])[0]["content"].startswith("word")
    wait_until(lambda: teacher.hang_ups == 1)


def test_errors_pass(client, proxy, teacher):
    teacher.script(error(429, "slow down", type="rate_limit"))
    with pytest.raises(openai.RateLimitError) as caught:
        client.responses.create(**LEAST)
    assert caught.value.body["message"] == "slow down"
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["error_type"]) == ("error", "rate_limit")


def test_invalid_requests_are_refused_as_openai_does(client, proxy, teacher):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="gpt-4o", input=5)
    assert caught.value.code == "invalid_type"
    assert (proxy.traces(), teacher.requests) == ([], [])


def test_a_failed_response(client, proxy, teacher):
    failed = response_object(status="failed", error={"code": "server_error", "message": "x"})
    teacher.script(Reply((json.dumps(failed).encode(),)))
    assert client.responses.create(**LEAST).status == "failed"
    assert proxy.traces()[0]["error_type"] == "server_error"


def test_a_background_response(client, proxy, teacher):
    queued = response_object(status="queued", usage=None)
    teacher.script(Reply((json.dumps(queued).encode(),)))
    assert client.responses.create(**LEAST, background=True).status == "queued"
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["output_messages"]) == ("complete", None)


@pytest.mark.slow
def test_responses_that_the_teacher_keeps_are_the_teachers(client, proxy, teacher):
    """Its ids are passed on untouched, and so is the body that holds one."""
    first = client.responses.create(**LEAST)
    second = client.responses.with_raw_response.create(
        **LEAST, previous_response_id=first.id, extra_headers=TAG
    )
    assert teacher.requests[-1].json == {**LEAST, "previous_response_id": first.id}
    assert second.parse().output_text == "echo: hi"
    for path in ("", "/input_items?limit=3", "?stream=true&starting_after=4"):
        url = f"{proxy.base_url}/responses/{first.id}{path}"
        assert httpx.get(url).json() == {"path": f"/v1/responses/{first.id}{path}"}
    httpx.delete(f"{proxy.base_url}/responses/{first.id}")
    assert teacher.requests[-1].method == "DELETE"
    httpx.post(f"{proxy.base_url}/responses/{first.id}/cancel")
    assert teacher.requests[-1].path == f"/v1/responses/{first.id}/cancel"
    assert httpx.get(f"{proxy.base_url}/responses/resp_other").status_code == 404
    assert len(proxy.traces()) == 2


def test_a_prompt_that_names_the_model(proxy, teacher):
    """No deployment can be chosen by name: the default one is asked, with the client's bytes."""
    body = {"prompt": {"id": "pmpt_1", "variables": {"a": "hi"}}, "metadata": {"task": "mood"}}
    teacher.script(response("good"))
    assert httpx.post(f"{proxy.base_url}/responses", json=body).status_code == 200
    assert teacher.requests[0].json == {"prompt": body["prompt"]}
    [trace] = proxy.traces()
    assert (trace["task"], trace["request_model"]) == ("mood", None)


def test_the_model_of_the_deployment(start_proxy, teacher):
    params = {"model": "openai/up-1", "api_base": teacher.base_url, "api_key": "k"}
    proxy = start_proxy(model_list=[{"model_name": "first", "litellm_params": params}])
    assert httpx.post(
        f"{proxy.base_url}/responses", json={"model": "first", "input": "hi"}
    ).is_success
    assert teacher.requests[0].json == {"model": "up-1", "input": "hi"}
    assert proxy.traces()[0]["request_model"] == "first"


def test_a_query_string_goes_along(proxy, teacher):
    httpx.post(f"{proxy.base_url}/responses/?api-version=preview", json=LEAST)
    assert teacher.requests[0].path == "/v1/responses?api-version=preview"


names = ["input", "instructions", "text", "tools", "metadata", "stream", "previous_response_id"]
some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "format", "text"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(names), some_json, max_size=5))
@pytest.mark.slow
def test_no_body_breaks_the_proxy(proxy, teacher, body):
    teacher.answer = lambda request: response("fine")
    before = len(proxy.traces())
    got = httpx.post(f"{proxy.base_url}/responses", json={"model": "gpt-4o", **body})
    assert got.status_code in (200, 400)
    assert len(proxy.traces()) == before + (got.status_code == 200)
