"""Anthropic's client through the real LiteLLM (slow), to teachers that speak each of the APIs."""

import json
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import pytest

from proxy.surfaces.messages.view import chat_view
from store.chat.shape import fingerprint
from store.settings.config import load_config
from tests.helpers.load import Load
from tests.helpers.message_samples import echo, sure
from tests.helpers.reloaded import CONTROL_PLANE, Reloaded
from tests.helpers.serving import CLIENT_KEY, RunningProxy, settings, student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer, error

# of one worker, or LiteLLM is started in each
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("litellm_messages"),
]

HELLO = [{"role": "user", "content": "I am glad"}]
BODY = {"model": "rules", "max_tokens": 64, "system": "Label it.", "messages": HELLO}
TASK = {"X-Understudy-Task": "mood"}
KEY = "sk-of-the-teacher"
LITELLM = "litellm.proxy.proxy_cli"


def entry(name: str, model: str, base: str) -> dict:
    return {
        "model_name": name,
        "litellm_params": {"model": model, "api_base": base, "api_key": KEY},
    }


@pytest.fixture(scope="module")
def anthropics() -> Iterator[LoopbackServer]:
    with LoopbackServer(echo) as server:
        yield server


@pytest.fixture(scope="module")
def openais() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(
    anthropics: LoopbackServer, openais: LoopbackServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    """A proxy with LiteLLM behind it: `rules` speaks OpenAI's API, `claude` Anthropic's.

    LiteLLM starts and stops by reloads, and requests that do not need it do not wait for it.
    """
    direct = settings(openais.base_url, Path("unused"))["model_list"]
    through = [
        entry("rules", "hosted_vllm/rules-1", openais.base_url),
        entry("claude", "anthropic/claude-sonnet-4-5", anthropics.url),
    ]
    # whose control plane leaves the traces in the journal
    raw = {"model_list": direct, "scheduler": {"ingest_seconds": 3600}}
    with Reloaded(tmp_path_factory.mktemp("litellm"), raw) as server:
        server.child(CONTROL_PLANE)
        with Load(server, threads=1, rest_s=0.1) as load:
            server.change(model_list=[*direct, *through], litellm_settings={"num_retries": 0})
            assert "a new proxy, a new control plane, a new LiteLLM" in server.reload()
            load.wait_for(2)
        assert server.pids(LITELLM)
        yield RunningProxy(load_config(server.config_file), int(server.url.rpartition(":")[2]))
        with Load(server, threads=1) as load:
            server.change(model_list=direct, litellm_settings=None)
            assert "no LiteLLM" in server.reload()
            wait_until(lambda: not server.pids(LITELLM), within_s=60)
            load.wait_for(5)
        assert server.stop() == []


@pytest.fixture
def client(served: RunningProxy) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=served.url, api_key=CLIENT_KEY, max_retries=0, timeout=120
    ) as sdk:
        yield sdk


def text_of(answer: anthropic.types.Message) -> str:
    [block] = answer.content
    assert block.type == "text"
    return block.text


@pytest.mark.slow
def test_the_first_is_logged_and_the_second_is_the_students(
    client: anthropic.Anthropic, served: RunningProxy, openais: LoopbackServer
) -> None:
    answer = client.messages.create(**BODY, extra_headers=TASK)  # LiteLLM is waited for
    assert text_of(answer) == "echo: I am glad"
    assert answer.stop_reason == "end_turn"
    sent = openais.requests[-1]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert (sent.json["model"], sent.json["messages"][-1]["role"]) == ("rules-1", "user")
    trace = served.traces()[-1]
    assert (trace["api"], trace["task"], trace["provider_name"]) == (
        "messages",
        "mood",
        "hosted_vllm",
    )
    assert trace["reason"] == "no_student"
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: I am glad"
    assert (trace["input_tokens"], trace["output_tokens"]) == (7, 3)
    assert trace["finish_reasons"] == ["stop"]

    with client.messages.stream(**BODY, extra_headers=TASK) as stream:
        assert "".join(stream.text_stream) == "echo: I am glad"
    streamed = served.traces()[-1]
    assert (streamed["stream"], streamed["outcome"]) == (True, "complete")
    assert streamed["output_messages"] == trace["output_messages"]
    assert streamed["finish_reasons"] == ["stop"]

    asked = len(openais.requests)
    with LoopbackServer(lambda request: sure("good")) as student:
        shape = fingerprint(chat_view(BODY))
        served.publish(student_route("mood", student.url, shape))
        wait_until(lambda: httpx.get(f"{served.url}/health").json()["routes"]["students"] == 1)
        assert text_of(client.messages.create(**BODY, extra_headers=TASK)) == "good"
    assert served.traces()[-1]["served_by"] == "student"
    assert len(openais.requests) == asked
    served.publish()


@pytest.mark.slow
def test_anthropics_own_api_gets_what_is_its_own(
    client: anthropic.Anthropic, served: RunningProxy, anthropics: LoopbackServer
) -> None:
    answer = client.beta.messages.create(
        **{**BODY, "model": "claude"},
        betas=["context-1m-2025-08-07"],
        extra_body={"top_k": 5},
        extra_headers=TASK,
    )
    assert answer.content[0].text == "echo: I am glad"
    sent = anthropics.requests[-1]
    assert sent.path.split("?")[0] == "/v1/messages"
    assert sent.headers["x-api-key"] == KEY
    assert sent.headers["anthropic-version"]
    assert "context-1m-2025-08-07" in sent.headers["anthropic-beta"]
    assert (sent.json["model"], sent.json["top_k"]) == ("claude-sonnet-4-5", 5)
    trace = served.traces()[-1]
    assert (trace["response_id"], trace["provider_name"]) == ("msg_teacher", "anthropic")
    assert (trace["input_tokens"], trace["cached_tokens"]) == (9, 2)

    with client.messages.stream(**{**BODY, "model": "claude"}) as stream:
        assert "".join(stream.text_stream) == "echo: I am glad"
    assert served.traces()[-1]["outcome"] == "complete"

    counted = client.messages.count_tokens(model="claude", messages=HELLO)
    assert counted.input_tokens > 0


@pytest.mark.slow
def test_refusals_stay_refusals(
    client: anthropic.Anthropic, served: RunningProxy, openais: LoopbackServer
) -> None:
    openais.script(error(400, "no such thing", type="invalid_request_error"))
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**BODY)
    assert caught.value.response.json()["type"] == "error"
    trace = served.traces()[-1]
    assert (trace["outcome"], trace["status_code"]) == ("error", 400)
    assert trace["error_type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**BODY, "model": "unheard-of"})
