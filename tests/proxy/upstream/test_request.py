"""Targets of URLs, and forward proxies of the environment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.environment import forward_proxy
from proxy.upstream.request import Origin, head_lines, target_of


@pytest.mark.parametrize(
    ("url", "origin", "host", "path"),
    [
        ("http://h", ("http", "h", 80), b"h", b"/"),
        ("HTTP://H:80/a", ("http", "h", 80), b"h", b"/a"),
        ("https://h/a?b=c#d", ("https", "h", 443), b"h", b"/a?b=c"),
        ("https://h:80/", ("https", "h", 80), b"h:80", b"/"),
        ("http://h?x", ("http", "h", 80), b"h", b"/?x"),
        ("http://[::1]:8000/v1", ("http", "::1", 8000), b"[::1]:8000", b"/v1"),
        ("http://[::1]", ("http", "::1", 80), b"[::1]", b"/"),
        ("http://b\xfccher.example/", ("http", "xn--bcher-kva.example", 80), None, b"/"),
        ("http://h/%2f/../%7E?q=%20+&r=\"<>\\^`{|}'", ("http", "h", 80), b"h", None),
        ("http://h/caf\xe9", ("http", "h", 80), b"h", b"/caf%C3%A9"),
    ],
)
def test_the_target_of_a_url(url, origin, host, path):
    target = target_of(url)
    assert target.origin == Origin(*origin)
    assert target.host == (host or origin[1].encode())
    assert target.path == (path or url[8:].encode())
    assert target.authorization is None


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=50))
def test_a_path_stays_as_it_is_written(text):
    path = "/" + text.replace("#", "").replace("?", "")
    assert target_of(f"http://h{path}").path == path.encode()


@pytest.mark.parametrize(
    "url",
    ["", "h", "/v1", "ftp://h", "http:///v1", "http://h:x/", "http://h/a b", "http://h/\r\nx"],
)
def test_a_url_without_a_target_is_refused(url):
    with pytest.raises(ValueError):
        target_of(url)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20))))
def test_a_head_has_as_many_lines_as_headers_or_is_refused(pairs):
    spoilt = any(set(b"\r\n\0") & set(name + value) for name, value in pairs)
    try:
        lines = head_lines(b"GET / HTTP/1.1\r\nhost: h", pairs)
    except ValueError:
        assert spoilt
    else:
        assert not spoilt
        assert lines.split(b"\r\n")[2:] == [name + b": " + value for name, value in pairs]


@pytest.mark.parametrize(
    ("url", "env", "proxy"),
    [
        ("https://api.example/", {}, None),
        ("https://api.example/", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example/", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://api.example/", {"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"}, "http://q:2"),
        ("https://api.example/", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("https://api.example/", {"HTTPS_PROXY": ""}, None),
        ("https://api.example/", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://api.example/", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, None),
        ("https://api.example/", {"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, None),
        ("https://api.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other"}, "http://p:1"),
        ("https://localhost/", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://x.localhost/", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://127.3.2.1/", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[::1]/", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://10.0.0.1/", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
    ],
)  # fmt: skip
def test_the_environment_names_the_forward_proxy(url, env, proxy, monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert forward_proxy(target_of(url).origin) == proxy
