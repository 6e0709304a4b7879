"""Legacy completions: logged and passed through, and never a student's."""

import json

import httpx
import msgspec
import openai
import pytest

from proxy.surfaces.text_completions import TextCompletions
from tests.helpers.paths import GOLDEN as TRANSCRIPTS
from tests.helpers.serving import student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer, Reply, completion, error, events

GOLDEN = TRANSCRIPTS / "text_completions"
STREAM = (GOLDEN / "two_choices.sse").read_bytes()
EXPECTED = json.loads((GOLDEN / "two_choices.json").read_text(encoding="utf-8"))
MODEL = "gpt-3.5-turbo-instruct"
ANSWER = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_700_000_000,
    "model": MODEL,
    "choices": [
        {"text": " upon", "index": 0, "logprobs": {"tokens": [" upon"]}, "finish_reason": "length"},
        {"text": " more", "index": 1, "logprobs": None, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
}
PLAIN = Reply((json.dumps(ANSWER).encode(),))


def ask(client, **more):
    return client.completions.create(**{"model": "gpt-4o", "prompt": "Once", **more})


def test_a_plain_answer(client, proxy, teacher):
    teacher.script(PLAIN)
    answer = ask(client, n=2, echo=False, logprobs=1, best_of=2, suffix="!", user="u-7")
    assert [choice.text for choice in answer.choices] == [" upon", " more"]
    [request] = teacher.requests
    assert request.path == "/v1/completions"
    assert request.json["logprobs"] == 1
    [trace] = proxy.traces()
    assert (trace["api"], trace["operation_name"]) == ("completions", "text_completion")
    assert (trace["outcome"], trace["served_by"], trace["end_user"]) == (
        "complete",
        "teacher",
        "u-7",
    )
    assert json.loads(trace["input_messages"]) == [{"role": "user", "content": "Once"}]
    said = [message["content"] for message in json.loads(trace["output_messages"])]
    assert said == [" upon", " more"]
    assert trace["finish_reasons"] == ["length", "stop"]
    assert (trace["input_tokens"], trace["output_tokens"]) == (2, 3)
    assert (trace["response_id"], trace["response_model"]) == ("cmpl-1", MODEL)
    params = json.loads(trace["request_params"])
    assert (params["best_of"], params["suffix"]) == (2, "!")
    assert "prompt" not in params


def test_a_streamed_answer(client, proxy, teacher):
    teacher.script(events(*STREAM.splitlines(keepends=True)))
    chunks = list(ask(client, stream=True, n=2))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "OnceEr uponse"
    [trace] = proxy.traces()
    assert (trace["stream"], trace["outcome"]) == (True, "complete")
    said = [message["content"] for message in json.loads(trace["output_messages"])]
    assert said == ["Once upon", "Erse"]
    assert (trace["input_tokens"], trace["output_tokens"]) == (2, 4)


def test_cut_at_every_byte():
    for cut in range(len(STREAM) + 1):
        assembler = TextCompletions().assembler()
        assembler.feed(STREAM[:cut])
        assembler.feed(STREAM[cut:])
        assert msgspec.structs.asdict(assembler.finish()) == EXPECTED, cut
        assert assembler.done


@pytest.mark.parametrize(
    ("prompt", "messages"),
    [
        ("Once", ["Once"]),
        (["Once", "Twice"], ["Once", "Twice"]),
        ([12, 7], [[12, 7]]),
        ([[12, 7], [3]], [[12, 7], [3]]),
        ([], []),
        (None, []),
        ({"of": "the future"}, [{"of": "the future"}]),
    ],
)
def test_prompts(prompt, messages):
    surface = TextCompletions()
    raw = json.dumps({"model": "m", "prompt": prompt}).encode()
    view = surface.read_request(raw, None).chat
    assert view["messages"] == [{"role": "user", "content": one} for one in messages]
    assert surface.read_request(b'{"model": "m"}', None).chat["messages"] == []


def test_the_bytes_reach_the_teacher_as_they_were(client, teacher):
    raw = b'{ "model":"gpt-4o", "prompt":[1,2], "new": 1.50 }'
    teacher.script(PLAIN)
    client.post("/completions", content=raw, cast_to=object)
    assert teacher.requests[0].body == raw


@pytest.mark.slow
def test_a_tagged_one_is_never_a_students(client, proxy, teacher):
    with LoopbackServer(lambda request: completion("good")) as student:
        route = student_route("story", student.url, "0" * 16)
        proxy.publish(route)
        wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["students"] == 1)
        teacher.script(PLAIN, PLAIN)
        raw = client.completions.with_raw_response.create(
            model="gpt-4o", prompt="Once", extra_headers={"X-Understudy-Task": "story"}
        )
        ask(client, extra_body={"metadata": {"task": "story"}})
        assert student.requests == []
    assert raw.headers["x-understudy-reason"] == "other_api"
    assert "metadata" not in teacher.requests[1].json
    assert [(t["task"], t["reason"]) for t in proxy.traces()] == [("story", "other_api")] * 2


def test_a_model_that_no_entry_names_goes_to_the_default(client, proxy, teacher):
    teacher.script(PLAIN)
    ask(client, model=MODEL)
    assert teacher.requests[0].json["model"] == MODEL
    assert proxy.traces()[0]["request_model"] == MODEL


@pytest.mark.parametrize(
    ("change", "param"),
    [({"model": None}, "model"), ({"stream": 1}, "stream"), ({"user": 7}, "user")],
)
def test_400_for_wrong_types_of_fields_that_are_relied_on(change, param, proxy, teacher):
    response = httpx.post(
        f"{proxy.base_url}/completions", json={"model": "gpt-4o", "prompt": "x", **change}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert (proxy.traces(), teacher.requests) == ([], [])


def test_the_teachers_errors_pass_unchanged(client, proxy, teacher):
    teacher.script(error(429, "slow down", type="requests"))
    with pytest.raises(openai.RateLimitError):
        ask(client, stream=True)
    assert proxy.traces()[0]["error_type"] == "requests"


def test_a_stream_that_breaks_off(client, proxy, teacher):
    pieces = STREAM.splitlines(keepends=True)
    teacher.script(events(*pieces).broken(3))
    with pytest.raises(httpx.RemoteProtocolError):
        list(ask(client, stream=True))
    [trace] = proxy.wait_for_traces(1)
    assert trace["outcome"] == "teacher_broke"
    assert json.loads(trace["output_messages"])[0]["content"] == "Once"


@pytest.mark.slow
def test_the_client_hangs_up(client, proxy, teacher):
    teacher.script(events(*[STREAM[:200]] * 300).paced(0.05))
    chunks = ask(client, stream=True)
    next(chunks)
    chunks.close()
    assert proxy.wait_for_traces(1)[0]["outcome"] == "client_gone"
    wait_until(lambda: teacher.hang_ups == 1)
