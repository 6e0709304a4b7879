"""The private parts of uvicorn that the proxy builds on: which one broke, when one does.

`pyproject.toml` admits only versions of uvicorn up to the one that these were checked against.
"""

from __future__ import annotations

import asyncio
import inspect
import tomllib

import pytest
import uvicorn
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.server import Server, ServerState

from tests.helpers.paths import ROOT

# class → its methods that are overridden or called
CLASSES = {
    httptools_impl.HttpToolsProtocol: (
        "connection_made",
        "connection_lost",
        "data_received",
        "pause_writing",
        "resume_writing",
        "shutdown",
        "on_message_begin",
        "on_url",
        "on_header",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
    ),
    httptools_impl.RequestResponseCycle: ("run_asgi", "send", "receive", "send_500_response"),
    flow_control.FlowControl: (
        "drain",
        "pause_reading",
        "resume_reading",
        "pause_writing",
        "resume_writing",
    ),
    Server: ("startup", "shutdown", "on_tick", "handle_exit", "capture_signals", "_serve", "run"),
}


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in CLASSES.items() for name in names]
)
def test_a_method_that_is_overridden_or_called_is_there(owner: type, name: str) -> None:
    assert inspect.isfunction(inspect.unwrap(getattr(owner, name, None))), f"{owner}.{name}"


def test_the_constants_are_there() -> None:
    assert httptools_impl.STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    assert httptools_impl.HEADER_RE.search(b"a b")
    assert not httptools_impl.HEADER_RE.search(b"x-name")
    assert flow_control.HIGH_WATER_LIMIT == 65536


async def _app(scope: object, receive: object, send: object) -> None:
    return None


class Transport(asyncio.Transport):
    """As much of a transport as a new connection asks."""


async def test_a_connection_sets_the_attributes_that_are_relied_on() -> None:
    config = uvicorn.Config(_app, http="httptools", log_config=None)
    config.load()
    state = ServerState()
    protocol = httptools_impl.HttpToolsProtocol(config, state, app_state={})
    protocol.connection_made(Transport())
    for name in ("app", "app_state", "client", "connections", "expect_100_continue", "flow"):
        assert hasattr(protocol, name), name
    for name in ("headers", "logger", "loop", "parser", "pipeline", "scheme", "server"):
        assert hasattr(protocol, name), name
    for name in ("server_state", "tasks", "timeout_keep_alive", "transport"):
        assert hasattr(protocol, name), name
    protocol.url = b"/"
    protocol.on_url(b"path")
    assert protocol.url == b"/path"
    assert state.total_requests == 0
    assert protocol in state.connections
    assert protocol.flow.read_paused is False
    assert protocol.flow.write_paused is False


def test_a_server_has_the_attributes_that_are_relied_on() -> None:
    server = Server(uvicorn.Config(_app, log_config=None))
    for name in ("config", "server_state", "started", "should_exit", "force_exit"):
        assert hasattr(server, name), name


def test_pyproject_admits_no_version_that_was_not_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [requirement] = [one for one in project["dependencies"] if one.startswith("uvicorn")]
    major, minor = map(int, uvicorn.__version__.split(".")[:2])
    assert requirement == f"uvicorn>=0.32,<{major}.{minor + 1}"
