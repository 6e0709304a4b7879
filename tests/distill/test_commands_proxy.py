"""Commands on their way through the proxy: who gives them, and that no other site's page can."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import httpx
import pytest

from tests.helpers.serving import CONTROL_TOKEN, ProxyThread
from tests.helpers.teacher_server import LoopbackServer, Reply

PATH = "/distill/tasks/triage/promote"
KEYS = [
    {"key": "first-key", "name": "support app", "may": ["operate", "forget"]},
    {
        "key": "second-key",
        "name": "B\N{LATIN SMALL LETTER U WITH DIAERESIS}ro; root",
        "task": "t",
        "may": ["operate"],
    },
    {"key": "clients-key", "name": "client"},
]


@pytest.fixture
def control() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def open_proxy(start_proxy, control: LoopbackServer) -> ProxyThread:
    """A proxy that asks for no key."""
    return start_proxy(runtime={"control_port": control.port})


@pytest.fixture
def closed_proxy(start_proxy, control: LoopbackServer) -> ProxyThread:
    """A proxy that asks for a key."""
    return start_proxy(runtime={"control_port": control.port}, server={"keys": KEYS})


def basic(key: str) -> str:
    return "Basic " + b64encode(f"anybody:{key}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "actor"),
    [
        ("Bearer first-key", "support%20app"),
        ("Bearer second-key", "B%C3%BCro%3B%20root"),
        (basic("second-key"), "B%C3%BCro%3B%20root"),
    ],
)
def test_the_actor_is_the_name_of_the_key_and_no_header_of_the_client(
    closed_proxy, control, authorization: str, actor: str
) -> None:
    headers = {
        "authorization": authorization,
        "X-Understudy-Actor": "the boss",
        "x-understudy-token": "forged",
    }
    assert httpx.post(f"{closed_proxy.url}{PATH}", json={}, headers=headers).status_code == 200
    [asked] = control.requests
    assert asked.headers["x-understudy-actor"] == actor
    assert asked.headers["x-understudy-token"] == CONTROL_TOKEN


def test_without_keys_the_actor_is_local(open_proxy, control) -> None:
    headers = {"x-understudy-actor": "the boss"}
    httpx.post(f"{open_proxy.url}{PATH}", json={}, headers=headers)
    assert control.requests[0].headers["x-understudy-actor"] == "local"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "page",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://[broken"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine, another name below ours
        {"sec-fetch-site": "cross-site", "origin": "OURS"},
    ],
)
@pytest.mark.slow
def test_a_page_of_another_site_commands_nothing(
    closed_proxy, control, method: str, page: dict[str, str]
) -> None:
    said = {k: closed_proxy.url if v == "OURS" else v for k, v in page.items()}
    headers = {"authorization": basic("first-key"), **said}
    url = f"{closed_proxy.url}{PATH}"
    answer = httpx.request(method, url, content=b"{}", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "foreign_origin"
    assert control.requests == []


@pytest.mark.parametrize(
    "page",
    [
        {"origin": "OURS"},
        {"sec-fetch-site": "same-origin", "origin": "OURS"},
        # behind another server that passes on a Host of its own, the browser knows better
        {"sec-fetch-site": "same-origin", "origin": "https://understudy.example"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_our_own_page_and_programs_may_command(closed_proxy, control, page: dict[str, str]) -> None:
    said = {k: closed_proxy.url if v == "OURS" else v for k, v in page.items()}
    headers = {"authorization": basic("first-key"), **said}
    assert httpx.post(f"{closed_proxy.url}{PATH}", json={}, headers=headers).status_code == 200
    assert len(control.requests) == 1


def test_a_page_that_took_over_a_name_commands_nothing_without_keys(open_proxy, control) -> None:
    """DNS rebinding: the name in Origin and Host is the page's own, its address is ours."""
    headers = {"origin": "http://rebound.example", "host": "rebound.example"}
    answer = httpx.post(f"{open_proxy.url}{PATH}", json={}, headers=headers)
    assert answer.status_code == 403
    assert control.requests == []


def test_reading_the_status_is_left_to_the_browsers_same_origin_rules(
    closed_proxy, control
) -> None:
    """It sends no page of another site what we answer: we allow none to read it."""
    headers = {"authorization": basic("first-key"), "sec-fetch-site": "cross-site"}
    answer = httpx.get(f"{closed_proxy.url}/distill/status", headers=headers)
    assert answer.status_code == 200
    assert not any(name.startswith("access-control-") for name in answer.headers)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        (PATH, "operate"),
        ("/distill/tasks/triage/pause", "operate"),
        ("/distill/tasks/triage/%70ause", "operate"),
        ("/distill/forget", "forget"),
        ("/distill/%66orget", "forget"),
        ("/distill/tasks", "configure"),
    ],
)
@pytest.mark.slow
def test_a_clients_key_commands_and_forgets_nothing(
    closed_proxy, control, path: str, right: str
) -> None:
    answer = httpx.post(
        f"{closed_proxy.url}{path}", json={}, headers={"authorization": "Bearer clients-key"}
    )
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == "missing_right"
    assert f"`{right}`" in error["message"] and "key client " in error["message"]
    assert control.requests == []


@pytest.mark.slow
def test_a_right_allows_nothing_but_its_own_commands(closed_proxy, control) -> None:
    second = {"authorization": "Bearer second-key"}
    forget = httpx.post(f"{closed_proxy.url}/distill/forget", json={}, headers=second)
    assert forget.status_code == 403
    assert httpx.post(f"{closed_proxy.url}{PATH}", json={}, headers=second).status_code == 200
    for path in ("/v1/chat/completions", "/v1/feedback", "/v1/files"):
        answer = httpx.post(f"{closed_proxy.url}{path}", json={}, headers=second)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_right")
    assert len(control.requests) == 1


@pytest.mark.slow
def test_every_key_may_read_the_status(closed_proxy, control) -> None:
    for key in ("first-key", "clients-key"):
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{closed_proxy.url}/distill/status", headers=headers).status_code == 200
        assert httpx.get(f"{closed_proxy.url}/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/distill/status", "/v1/models", "/health", "/metrics"])
def test_a_page_that_took_over_a_name_reads_nothing_without_keys(
    open_proxy, control, path: str
) -> None:
    """DNS rebinding: its own GET has no Origin, and the page's name as its Host."""
    answer = httpx.get(f"{open_proxy.url}{path}", headers={"host": "rebound.example:4100"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_host")
    assert control.requests == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/distill", 200),
        ("/distill/docs", 200),
        ("/distill/status", 200),
        ("/distill/", 308),
        ("/openapi.json", 200),
        ("/health", 200),
        ("/nowhere", 404),
    ],
)
@pytest.mark.slow
def test_no_page_frames_ours_and_no_script_of_another_host_runs_in_it(
    open_proxy, control, path: str, status: int
) -> None:
    answer = httpx.get(f"{open_proxy.url}{path}")
    assert answer.status_code == status
    guarded(answer.headers)


def guarded(headers: httpx.Headers) -> None:
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_refusals_in_the_place_of_a_page_have_its_headers(
    open_proxy, closed_proxy, control
) -> None:
    url = f"{closed_proxy.url}/distill"
    no_key = httpx.get(url)
    rebound = httpx.get(f"{open_proxy.url}/distill", headers={"host": "rebound.example"})
    foreign = httpx.post(
        f"{closed_proxy.url}/distill/forget",
        headers={"authorization": basic("first-key"), "sec-fetch-site": "cross-site"},
    )
    assert (no_key.status_code, rebound.status_code, foreign.status_code) == (401, 403, 403)
    for answer in (no_key, rebound, foreign):
        guarded(answer.headers)


def test_a_page_of_the_control_plane_keeps_its_own_policy(open_proxy, control) -> None:
    own = "default-src 'none'; script-src 'sha256-x'; frame-ancestors 'none'"
    control.script(Reply((b"<p>",), headers={"content-security-policy": own}))
    headers = httpx.get(f"{open_proxy.url}/distill").headers
    assert headers.get_list("content-security-policy") == [own]
    guarded(headers)


def test_answers_of_the_api_have_no_headers_of_pages(open_proxy) -> None:
    headers = httpx.get(f"{open_proxy.url}/v1/models").headers
    assert "content-security-policy" not in headers
