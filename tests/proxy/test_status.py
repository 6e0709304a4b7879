"""/health and /v1/models."""

import socket

import httpx
import openai
import pytest

from store.distribution import installed_version
from store.process.control_page import ControlPage
from tests.helpers.serving import ProxyThread, settings, wait_until


def test_health(proxy):
    response = httpx.get(f"{proxy.url}/health")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "version": installed_version(),
        "journal": {"ok": True, "error": None, "backlog": 0, "lost": 0},
        "routes": {"error": None, "students": 0},
    }
    head = httpx.head(f"{proxy.url}/health")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.slow
def test_health_says_when_the_routes_are_not_readable(proxy):
    proxy.config.routes_file.parent.mkdir(exist_ok=True)
    proxy.config.routes_file.write_text("[]")
    wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["status"] == "degraded")
    said = httpx.get(f"{proxy.url}/health").json()["routes"]["error"]
    assert said.startswith("routes.json: ")  # and not where that lies
    proxy.publish()
    wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["status"] == "ok")


@pytest.fixture
def page():
    page = ControlPage.create()
    yield page
    page.close()


@pytest.mark.slow
def test_health_says_when_the_journal_is_not_collected(teacher, tmp_path, page):
    raw = settings(teacher.base_url, tmp_path)

    def health():
        said = httpx.get(f"{running.url}/health").json()
        return said["status"], said["control_plane"]

    def state(*, alive=True, collecting=True, set_aside=0, skipped=0, error=None):
        return {
            "alive": alive,
            "collecting": collecting,
            "set_aside": set_aside,
            "skipped": skipped,
            "error": error,
        }

    with ProxyThread(raw, control_fd=page.fd) as running:
        assert health() == ("ok", state())  # none has started yet
        page.collected(ok=True, set_aside=2, skipped=0)
        page.beat()
        assert health() == ("ok", state(set_aside=2))
        page.collected(ok=True, set_aside=2, skipped=1)
        assert health() == ("degraded", state(set_aside=2, skipped=1))
        page.collected(ok=False, set_aside=0, skipped=0)
        page.beat()
        assert health() == ("degraded", state(collecting=False))
        wait_until(lambda: health() == ("degraded", state(alive=False, collecting=False)))
        page.collected(ok=True, set_aside=0, skipped=0)
        page.say(f"{tmp_path}/understudy.duckdb is damaged: run `understudy repair`")
        page.beat()
        damaged = "understudy.duckdb is damaged: run `understudy repair`"
        assert health() == ("degraded", state(error=damaged))
        page.say("")
        page.beat()
        assert health() == ("ok", state())


@pytest.mark.slow
def test_a_control_plane_that_hangs_is_a_503(teacher, tmp_path, page):
    """Stopped by a signal: the kernel still takes connections for it."""
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        raw, port = settings(teacher.base_url, tmp_path), stopped.getsockname()[1]
        page.beat()
        with ProxyThread(raw, control_fd=page.fd, control_port=port) as running:
            for path in ("/distill", "/distill/status"):
                assert httpx.get(f"{running.url}{path}", timeout=60).status_code == 503


@pytest.mark.slow
def test_a_query_that_is_stuck_is_a_503(teacher, tmp_path, page):
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        raw, port = settings(teacher.base_url, tmp_path), waiting.getsockname()[1]
        page.beat(query_s=60.0)
        with ProxyThread(raw, control_fd=page.fd, control_port=port) as running:
            assert httpx.get(f"{running.url}/distill/status", timeout=60).status_code == 503


@pytest.fixture
def several(start_proxy, teacher):
    def entry(name, model):
        params = {"model": model, "api_base": teacher.base_url, "api_key": "k"}
        return {"model_name": name, "litellm_params": params}

    return start_proxy(
        model_list=[
            entry("gpt-4o", "openai/gpt-4o"),
            entry("gpt-4o", "openai/gpt-4o-2"),
            entry("house/style", "openai/gpt-4o"),
            entry("wild/*", "openai/*"),
        ]
    )


def test_models_through_the_sdk(several, teacher):
    with openai.OpenAI(base_url=several.base_url, api_key="x", max_retries=0) as client:
        found = list(client.models.list())
        assert [model.id for model in found] == ["gpt-4o", "house/style"]
        assert {(model.object, model.owned_by) for model in found} == {("model", "openai")}
        assert client.models.retrieve("gpt-4o").id == "gpt-4o"
        assert httpx.get(f"{several.base_url}/models/house/style").json()["id"] == "house/style"
        assert client.models.retrieve("wild/one").id == "wild/one"
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"
    # what is behind the wildcard, which this teacher does not say
    assert {(request.method, request.path) for request in teacher.requests} == {
        ("GET", "/v1/models")
    }


def test_deleting_a_model_is_the_teachers_business(several, teacher):
    httpx.delete(f"{several.base_url}/models/ft:mine")
    assert (teacher.requests[0].method, teacher.requests[0].path) == (
        "DELETE",
        "/v1/models/ft:mine",
    )
