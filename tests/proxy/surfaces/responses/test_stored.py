"""Coming back to a response that a student gave: the teacher does not know it, and need not."""

import json
import time
from uuid import UUID

import httpx
import openai
import pytest

from store.files.responses import (
    forget_responses,
    keep_response,
    own_id,
    read_response,
    sweep_responses,
    trace_of,
)
from store.ids import new_id
from tests.helpers.responses_scene import BODY, TAG, good, post, publish
from tests.helpers.responses_teacher import ID, echo
from tests.helpers.serving import CLIENT_KEY, ProxyThread, settings
from tests.helpers.teacher_server import LoopbackServer

OTHER_KEY = "sk-of-another-client"
KEYS = [{"key": CLIENT_KEY, "name": "app"}, {"key": OTHER_KEY, "name": "other"}]
GREETING = {"role": "user", "content": "I am glad"}
HOUR_S = 3600


@pytest.fixture
def student(teacher):
    teacher.answer = echo
    with LoopbackServer(good) as server:
        yield server


@pytest.fixture
def first(client, proxy, student):
    """A response of the student."""
    publish(proxy, student)
    return client.responses.create(**BODY, extra_headers=TAG)


def files(proxy):
    return list(proxy.config.responses_dir.rglob("*.json"))


# ---- going on from it ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_teacher_continues_a_students_response(client, proxy, first, teacher):
    raw = client.responses.with_raw_response.create(
        **{**BODY, "input": "And now?"}, previous_response_id=first.id, extra_headers=TAG
    )
    assert raw.parse().output_text == "echo: And now?"
    assert raw.headers["x-understudy-route"] == "teacher"
    assert raw.headers["x-understudy-reason"] == "unknown_field"
    [request] = teacher.requests
    assert request.json == {
        "model": "gpt-4o",
        "instructions": "Label it.",
        "input": [
            GREETING,
            {"role": "assistant", "content": "good"},
            {"role": "user", "content": "And now?"},
        ],
    }
    trace = proxy.traces()[-1]
    assert [m["content"] for m in json.loads(trace["input_messages"])] == [
        "Label it.",
        "I am glad",
        "good",
        "And now?",
    ]
    assert json.loads(trace["request_params"])["previous_response_id"] == first.id
    # the teacher keeps its own, with all that came before
    second = raw.parse()
    client.responses.create(**BODY, previous_response_id=second.id)
    assert teacher.requests[-1].json["previous_response_id"] == second.id


@pytest.mark.slow
def test_also_in_a_stream_and_with_items(client, first, teacher):
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "More"}]}]
    with client.responses.stream(
        model="gpt-4o", input=asked, previous_response_id=first.id
    ) as stream:
        assert stream.get_final_response().output_text == "echo: More"
    assert teacher.requests[0].json["input"][-1] == asked[0]
    assert len(teacher.requests[0].json["input"]) == 3


@pytest.mark.slow
def test_a_response_can_be_continued_several_times(client, first, teacher):
    for text in ("a", "b"):
        client.responses.create(model="gpt-4o", input=text, previous_response_id=first.id)
    assert [request.json["input"][-1]["content"] for request in teacher.requests] == ["a", "b"]


@pytest.mark.slow
def test_references_to_its_items(client, proxy, first, teacher):
    """Vercel's SDK names the items of earlier answers instead of sending them."""
    [item] = first.output
    [asked] = client.responses.input_items.list(first.id).data
    theirs = {"type": "item_reference", "id": "msg_of_the_teacher"}
    references = [{"type": "item_reference", "id": name} for name in (asked.id, item.id)]
    post(proxy, {**BODY, "input": [*references, theirs, GREETING]})
    assert teacher.requests[0].json["input"] == [
        GREETING,
        {"role": "assistant", "content": "good"},
        theirs,
        GREETING,
    ]
    got = post(proxy, {**BODY, "input": [{"type": "item_reference", "id": first.id}]})
    assert got.status_code == 404
    assert got.json()["error"]["message"] == f"Item with id '{first.id}' not found."


@pytest.mark.slow
def test_its_output_as_input(client, proxy, first, student, teacher):
    """Without any state: the student may answer that."""
    asked = [GREETING, *first.output, GREETING]
    raw = client.responses.with_raw_response.create(
        **{**BODY, "input": asked}, store=False, extra_headers=TAG
    )
    assert raw.headers["x-understudy-route"] == "student"
    assert [m["content"] for m in student.requests[-1].json["messages"]][1:] == [
        "I am glad",
        "good",
        "I am glad",
    ]


@pytest.mark.slow
def test_counting_the_tokens_of_a_continued_response(proxy, first, teacher):
    for path in ("input_tokens", "compact"):
        body = {"model": "gpt-4o", "previous_response_id": first.id}
        httpx.post(f"{proxy.base_url}/responses/{path}", json=body)
        assert teacher.requests[-1].path == f"/v1/responses/{path}"
        said = {"role": "assistant", "content": "good"}
        assert teacher.requests[-1].json == {"model": "gpt-4o", "input": [GREETING, said]}
    headers = {"content-type": "application/json"}
    for raw in (b"{", b"[]", b'{"input": [1], "previous_response_id": 5}'):
        url = f"{proxy.base_url}/responses/compact"
        assert httpx.post(url, content=raw, headers=headers).status_code == 200
        assert teacher.requests[-1].body == raw


# ---- looking it up -------------------------------------------------------------------------------


@pytest.mark.slow
def test_retrieving(client, first, teacher):
    assert client.responses.retrieve(first.id) == first
    assert teacher.requests == []


@pytest.mark.slow
def test_a_streamed_one_too(client, proxy, student):
    publish(proxy, student)
    events = list(client.responses.create(**BODY, stream=True, extra_headers=TAG))
    given = events[-1].response
    assert client.responses.retrieve(given.id) == given


@pytest.mark.slow
def test_input_items_in_pages(client, proxy, student):
    publish(proxy, student)
    asked = [{"role": "user", "content": f"{n}"} for n in range(5)]
    asked[1] = {"role": "assistant", "content": "1"}
    given = client.responses.create(**{**BODY, "input": asked}, extra_headers=TAG)

    def texts(**query):
        items = client.responses.input_items.list(given.id, **query)
        return [item.content[0].text for item in items]

    assert texts(order="asc") == ["0", "1", "2", "3", "4"]
    assert texts(limit=2) == ["4", "3", "2", "1", "0"]  # the SDK asks for the next page by itself
    page = client.responses.input_items.list(given.id, order="asc", limit=2)
    assert page.has_more
    after = client.responses.input_items.list(given.id, order="asc", after=page.data[-1].id)
    assert [item.content[0].text for item in after.data] == ["2", "3", "4"]
    assert not after.has_more
    for wrong in ({"limit": 0}, {"limit": 101}):
        with pytest.raises(openai.BadRequestError):
            client.responses.input_items.list(given.id, **wrong)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(given.id, after="msg_x")


@pytest.mark.slow
def test_deleting(client, proxy, first, teacher):
    assert len(files(proxy)) == 1
    client.responses.delete(first.id)
    assert files(proxy) == []
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError) as caught:
            call(first.id)
        assert caught.value.body["message"] == f"Response with id '{first.id}' not found."
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**BODY, previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    assert teacher.requests == []


@pytest.mark.slow
def test_cancelling_and_streaming_are_for_background_responses_only(client, proxy, first, teacher):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.cancel(first.id)
    assert caught.value.body["message"] == "Cannot cancel a synchronous response."
    with pytest.raises(openai.BadRequestError):
        client.responses.retrieve(first.id, stream=True)
    assert httpx.put(f"{proxy.base_url}/responses/{first.id}").status_code == 404
    assert httpx.get(f"{proxy.base_url}/responses/{first.id}/files").status_code == 404
    assert teacher.requests == []


# ---- whose it is, and how long -------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_key_that_made_it(start_proxy, student, teacher):
    proxy = start_proxy(server={"keys": KEYS})
    publish(proxy, student)
    given = post(proxy, BODY).json()["id"]
    url = f"{proxy.base_url}/responses/{given}"
    for key, status in ((CLIENT_KEY, 200), (OTHER_KEY, 404), ("sk-nobody", 401)):
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(url, headers=headers).status_code == status
        assert httpx.get(f"{url}/input_items", headers=headers).status_code == status
    got = post(proxy, {**BODY, "previous_response_id": given}, key=OTHER_KEY)
    assert (got.status_code, got.json()["error"]["code"]) == (400, "previous_response_not_found")
    assert httpx.delete(url, headers={"authorization": f"Bearer {OTHER_KEY}"}).status_code == 404
    assert len(files(proxy)) == 1


@pytest.mark.slow
def test_the_file(client, proxy, first):
    [file] = files(proxy)
    trace = proxy.traces()[0]
    assert file.stem == UUID(trace["trace_id"]).hex
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert abs(time.time() - file.stat().st_mtime) < 60


@pytest.mark.slow
def test_store_false_is_not_kept(client, proxy, student):
    publish(proxy, student)
    given = client.responses.create(**BODY, store=False, extra_headers=TAG)
    assert (given.output_text, given.store) == ("good", False)
    assert files(proxy) == []


OPTED_OUT = {"server": {"keys": [{**KEYS[0], "store": False}]}}
REDACTED = {"privacy": {"redact": [{"name": "mood", "pattern": "glad"}]}}


@pytest.mark.parametrize("setting", [{"responses": {"keep_days": 0}}, OPTED_OUT, REDACTED])
@pytest.mark.slow
def test_the_teacher_answers_where_responses_may_not_be_kept(setting, start_proxy, student):
    proxy = start_proxy(**setting)
    publish(proxy, student)
    assert post(proxy, BODY).headers["x-understudy-reason"] == "not_kept"
    assert student.requests == []
    assert post(proxy, {**BODY, "store": False}).headers["x-understudy-route"] == "student"
    assert files(proxy) == []


@pytest.mark.slow
def test_the_teacher_answers_when_a_response_cannot_be_kept(proxy, student, teacher):
    publish(proxy, student)
    proxy.config.responses_dir.write_text("in the way")
    got = post(proxy, BODY)
    assert got.headers["x-understudy-route"] == "fallback"
    assert got.headers["x-understudy-reason"] == "not_kept"
    assert got.json()["id"] == ID
    assert post(proxy, {**BODY, "store": False}).headers["x-understudy-route"] == "student"
    one, other = proxy.traces()
    assert (one["served_by"], other["served_by"]) == ("teacher", "student")


@pytest.mark.slow
def test_another_worker_finds_a_kept_response(first, proxy, teacher, tmp_path):
    raw = settings(teacher.base_url, tmp_path / "data")
    with ProxyThread(raw, worker=1) as other:
        assert httpx.get(f"{other.base_url}/responses/{first.id}").json()["id"] == first.id


@pytest.mark.slow
def test_a_damaged_file_counts_as_missing(client, proxy, first):
    for content in (b"", b"{", b"[]", b'{"response": 1}'):
        files(proxy)[0].write_bytes(content)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.id)


@pytest.mark.slow
def test_a_kept_response_expires(start_proxy, student):
    proxy = start_proxy(responses={"keep_days": 1.5 / 86400})
    publish(proxy, student)
    given = post(proxy, BODY).json()["id"]
    url = f"{proxy.base_url}/responses/{given}"
    assert httpx.get(url).status_code == 200
    deadline = time.monotonic() + 20
    while httpx.get(url).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert post(proxy, {**BODY, "previous_response_id": given}).status_code == 400


@pytest.mark.slow
def test_no_longer_than_traces(start_proxy):
    assert start_proxy().config.responses_days == 30
    assert start_proxy(retention={"traces_days": 7}).config.responses_days == 7


# ---- the folder ----------------------------------------------------------------------------------


def trace_asked(hours_ago):
    """The id of a trace that was asked so long ago."""
    stamp = int((time.time() - hours_ago * HOUR_S) * 1000)
    return str(UUID(int=stamp << 80 | UUID(new_id()).int & (1 << 80) - 1))


def test_sweeping(tmp_path):
    ages = (0, 1, 5, 30, 1000)
    traces = {age: trace_asked(age) for age in ages}
    for trace_id in traces.values():
        keep_response(tmp_path, trace_id, b'{"id":1}', [], None)
    (tmp_path / "else").mkdir()
    sweep_responses(tmp_path, keep_s=10 * HOUR_S)
    left = [age for age in ages if read_response(tmp_path, traces[age], keep_s=1e9)]
    assert left == [0, 1, 5]
    assert (tmp_path / "else").is_dir()
    sweep_responses(tmp_path / "not there", keep_s=0)


@pytest.mark.slow
def test_a_proxy_sweeps_when_it_starts(start_proxy, tmp_path):
    folder = tmp_path / "data" / "responses"
    old, new = trace_asked(24 * 31), trace_asked(24 * 29)
    for trace_id in (old, new):
        keep_response(folder, trace_id, b"{}", [], None)
    start_proxy()
    deadline = time.monotonic() + 20
    while len(list(folder.rglob("*.json"))) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [file.stem for file in folder.rglob("*.json")] == [UUID(new).hex]


def test_forgetting(tmp_path):
    kept = [new_id() for _ in range(3)]
    for trace_id in kept:
        keep_response(tmp_path, trace_id, b"{}", [], None)
    assert forget_responses(tmp_path, [*kept[:2], new_id()]) == 2
    assert [file.stem for file in tmp_path.rglob("*.json")] == [UUID(kept[2]).hex]
    assert forget_responses(tmp_path / "not there", kept) == 0


def test_ids():
    trace_id = new_id()
    name = own_id("resp", trace_id)
    assert trace_of(name) == trace_id
    assert len(name) == len(ID)
    assert own_id("msg", trace_id, 1) != own_id("msg", trace_id, 2)
    wrong = (ID, "", "resp_", name[:-1], name + "0", name.upper(), f"msg{name[4:]}", f"{name}\n")
    assert [trace_of(other) for other in wrong] == [None] * len(wrong)
    for other in ("../../etc/passwd", f"resp_{'../' * 16}", "resp_" + "0" * 48, f"{name}/../x"):
        assert trace_of(other) is None
