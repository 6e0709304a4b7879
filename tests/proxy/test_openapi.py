"""GET /openapi.json describes every path and every reason, and is valid OpenAPI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from proxy.app import SURFACES, App, build
from proxy.http.errors import ApiError
from proxy.surfaces.responses import lookup
from store.process.runtime import Runtime
from store.records import (
    Content,
    Reason,
)
from store.settings.config import parse_config
from tests.helpers.serving import ProxyThread, settings


@pytest.fixture
def app(tmp_path: Path) -> App:
    raw = settings("http://127.0.0.1:9/v1", tmp_path)
    known = {"config_path": "", "control_port": 1, "control_token": ""}
    return build(parse_config(raw), Runtime(**known))


@pytest.fixture
def document(proxy: ProxyThread) -> dict[str, Any]:
    found = httpx.get(f"{proxy.url}/openapi.json")
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    return dict(found.json())


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Methods and paths."""
    return [
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    ]


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


def test_anybody_may_read_the_document(start_proxy: Any) -> None:
    proxy = start_proxy(server={"keys": [{"key": "sk-one", "name": "one"}]})
    assert httpx.get(f"{proxy.url}/openapi.json").status_code == 200
    assert httpx.post(f"{proxy.url}/openapi.json").status_code == 405


def test_every_served_path_is_in_the_document(document: dict[str, Any], app: App) -> None:
    described = set(operations(document))
    answered = {("POST", path) for path in app._answering}
    ours = {(own.methods[0], path) for path, own in app._own.items()}
    assert answered == {("POST", surface.path) for surface in SURFACES}
    assert answered | ours <= described
    looked_up = [
        line.split()[:2]
        for line in (lookup.__doc__ or "").splitlines()
        if line.strip().startswith(("GET ", "POST ", "DELETE "))
    ]
    assert len(looked_up) == 6
    for method, path in looked_up:
        assert (method, path.replace("ID", "{response_id}")) in described
    # nothing else is served but these, the models, and requests that are passed on
    assert described - answered - ours == {
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{name}"),
        *((method, path.replace("ID", "{response_id}")) for method, path in looked_up),
    }


@pytest.mark.slow
def test_every_path_of_the_document_is_served(document: dict[str, Any], app: App) -> None:
    passed_on = app._handler("GET", "/v1/files")
    for method, path in operations(document):
        handler = app._handler(method, path.replace("{", "").replace("}", ""))
        assert handler is not passed_on, path
    with pytest.raises(ApiError):
        app._handler("GET", "/openapi.yaml")


def test_every_reason_is_in_the_document(document: dict[str, Any]) -> None:
    headers = document["components"]["headers"]
    assert set(headers["Reason"]["schema"]["enum"]) == set(Reason) - {Reason.IMPORTED}
    assert set(headers["Content"]["schema"]["enum"]) == set(Content.__args__) - {"full"}


@pytest.mark.slow
def test_each_of_our_headers_is_in_the_document(
    document: dict[str, Any], proxy: ProxyThread
) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    told = {"X-Understudy-Task": "triage", "X-Understudy-Store": "false"}
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=body, headers=told)
    given = {name for name in answer.headers if name.startswith("x-understudy-")}
    assert given == set(document["components"]["responses"]["Answer"]["headers"])


@pytest.mark.slow
def test_the_document_is_the_same_each_time(proxy: ProxyThread) -> None:
    first = httpx.get(f"{proxy.url}/openapi.json").content
    assert httpx.head(f"{proxy.url}/openapi.json").status_code == 200
    assert httpx.get(f"{proxy.url}/openapi.json").content == first
    assert json.loads(first)["openapi"].startswith("3.1")
