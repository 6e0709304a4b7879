"""Any JSON at any API: an answer or a refusal in that API's words, and a trace for each answer."""

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.app import SURFACES
from tests.helpers.teacher_server import LoopbackServer, Reply

NAMES = [
    *("system", "stream", "metadata", "user", "tools", "max_tokens", "stop", "stop_sequences"),
    *("tool_choice", "output_config", "response_format", "n", "store", "thinking", "functions"),
]
INNER = ["role", "content", "type", "text", "task", "user_id", "name", "format", "input_schema"]
WORDS = st.sampled_from(["gpt-4o", "user", "assistant", "system", "text", "auto", "", "ä\ud83d"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats(-1, 1) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=4)
    ),
    max_leaves=10,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": WORDS, "content": VALUES}), min_size=1, max_size=3
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("gpt-4o"), "messages": MESSAGES, "prompt": VALUES, "input": VALUES},
    optional=dict.fromkeys(NAMES, VALUES),
)


@pytest.fixture(scope="module")
def teacher():
    """Answers everything with an object that says nothing."""
    with LoopbackServer(lambda request: Reply((b"{}",))) as server:
        yield server


@pytest.fixture(scope="module")
def http():
    with httpx.Client(timeout=20) as found:
        yield found


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.api)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES | VALUES)
@pytest.mark.slow
def test_no_body_breaks_the_surface(surface, body, proxy, http):
    response = http.post(f"{proxy.url}{surface.path}", content=json.dumps(body))
    assert response.status_code in (200, 400, 404)
    if response.status_code == 200:
        assert response.json() == {}
        assert response.headers["x-understudy-trace"] in proxy.journal()
    else:
        error = response.json()["error"]
        assert error["message"]
        assert error["type"] in ("invalid_request_error", "not_found_error")
        assert response.headers[surface.request_id.decode()].startswith("req_")
