"""Which headers cross the proxy, in both directions. Pure functions.

A client's credentials are dropped here: the teacher gets the deployment's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from proxy.http.asgi import Header, Headers
from store.settings.teachers import Deployment

# RFC 9110, section 7.6.1: for one connection, not for the message
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_CREDENTIALS = frozenset(
    {
        b"authorization",
        b"cookie",
        b"api-key",
        b"x-api-key",
        b"x-goog-api-key",
        b"openai-organization",
        b"openai-project",
    }
)
_NOT_SENT = _HOP_BY_HOP | _CREDENTIALS | {b"host", b"content-length", b"expect"}
_NOT_SENT_TO_TEACHER = _NOT_SENT | {b"origin"}  # it is us who ask, no page
_NOT_SENT_READABLE = _NOT_SENT_TO_TEACHER | {b"accept-encoding"}
_READABLE: Header = (b"accept-encoding", b"identity")
# cookies are not sent either; which pages may read an answer is not the teacher's to say
_NOT_RETURNED = _HOP_BY_HOP | {
    b"set-cookie",
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-allow-methods",
    b"access-control-allow-headers",
    b"access-control-expose-headers",
    b"access-control-max-age",
}
_USUAL_CONNECTION = (b"keep-alive", b"close", b"Keep-Alive", b"Close")
_OURS = b"x-understudy-"

Pairs = Headers  # as they are sent: bytes, never decoded


def to_teacher(
    headers: Iterable[Header], deployment: Deployment, *, readable: bool = False
) -> Pairs:
    """The client's headers as the teacher gets them, with the deployment's own key.

    The body's length is added by the sender. `readable`: asks for an uncompressed answer, which can
    be read as it passes.
    """
    if readable:
        sent = _passed_on(headers, _NOT_SENT_READABLE)
        sent.append(_READABLE)
    else:
        sent = _passed_on(headers, _NOT_SENT_TO_TEACHER)
    if deployment.api_key is not None:
        sent.append((b"authorization", b"Bearer " + deployment.api_key.encode()))
    return sent


def to_control_plane(
    headers: Iterable[Header], token: str, actor: str, routes: Iterable[int] = ()
) -> Pairs:
    """The client's headers for the control plane, with this run's token and the client's name.

    The actor's name is percent-encoded: a header holds ASCII, a name in the config anything.
    `routes`: the digests of the routes that the workers have.
    """
    sent = _passed_on(headers)
    sent.append((b"x-understudy-token", token.encode()))
    sent.append((b"x-understudy-actor", quote(actor).encode()))
    if held := ",".join(f"{digest:x}" for digest in routes):
        sent.append((b"x-understudy-routes", held.encode()))
    return sent


def wants_websocket(headers: Iterable[Header]) -> bool:
    """Whether a client asks to go on as a WebSocket (RFC 6455, section 4.1)."""
    for name, value in headers:
        if name == b"upgrade":
            return value.strip().lower() == b"websocket"
    return False


def from_upstream(headers: Iterable[Header]) -> Headers:
    """An upstream's headers as the client gets them. Names are in lower case."""
    return _passed_on(headers, _NOT_RETURNED)


def without_length(headers: Headers) -> Headers:
    """Headers without a length: the server states it, or marks the end of the body."""
    return [pair for pair in headers if pair[0] != b"content-length"]


def _passed_on(headers: Iterable[Header], never: frozenset[bytes] = _NOT_SENT) -> Pairs:
    passed = []
    for pair in headers:
        name = pair[0]
        if name in never:
            if name == b"connection" and pair[1] not in _USUAL_CONNECTION:
                return _passed_on(_without_named(headers, pair), never)
        elif not name.startswith(_OURS):
            passed.append(pair)
    return passed


def _without_named(headers: Iterable[Header], connection: Header) -> Pairs:
    """Headers without one of `Connection`, and without those that it names."""
    named = {name.strip().lower() for name in connection[1].split(b",")}
    return [pair for pair in headers if pair is not connection and pair[0] not in named]
