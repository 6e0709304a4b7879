"""Which headers cross the proxy."""

from __future__ import annotations

import pytest

from proxy.http.headers import from_upstream, to_control_plane


@pytest.mark.parametrize(
    "connection",
    [[b"x-hop, close"], [b"Keep-Alive,X-Hop"], [b"close", b" X-HOP "], [b"other", b"x-hop"]],
)
def test_headers_that_connection_names_are_not_passed_on(connection: list[bytes]) -> None:
    headers = [(b"x-hop", b"1"), *((b"connection", c) for c in connection), (b"x-end", b"2")]
    assert from_upstream(headers) == [(b"x-end", b"2")]
    sent = to_control_plane(headers, "token", "local")
    assert sent[0] == (b"x-end", b"2")
    assert {name for name, _ in sent} == {b"x-end", b"x-understudy-token", b"x-understudy-actor"}
