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

_MAX_KNOWN_NAMES = 1_000  # a client that invents names must not fill the memory

Pairs = Headers  # as they are sent: bytes, never decoded


class _Filter:
    """Leaves out headers by their names, ours, and those that a `Connection` names.

    What is decided about a name is kept, as most requests have the same names.
    """

    def __init__(self, never: frozenset[bytes]) -> None:
        self._never = never
        self._left_out = dict.fromkeys(never, True)

    def __call__(self, headers: Headers) -> Pairs:
        left_out = self._left_out
        for name, _ in headers:
            if name == b"connection":
                headers = _without_named(headers)
                break
        try:
            return [pair for pair in headers if not left_out[pair[0]]]
        except KeyError:
            return [pair for pair in headers if not self._decide(pair[0])]

    def _decide(self, name: bytes) -> bool:
        left_out = name in self._never or name.startswith(_OURS)
        if len(self._left_out) < _MAX_KNOWN_NAMES:
            self._left_out[name] = left_out
        return left_out


_to_teacher = _Filter(_NOT_SENT_TO_TEACHER)
_to_teacher_readable = _Filter(_NOT_SENT_READABLE)
_to_control_plane = _Filter(_NOT_SENT)
_to_client = _Filter(_NOT_RETURNED)
_to_client_unframed = _Filter(_NOT_RETURNED | {b"content-length"})


def to_teacher(headers: Headers, deployment: Deployment, *, readable: bool = False) -> Pairs:
    """The client's headers as the teacher gets them, with the deployment's own key.

    The body's length is added by the sender. `readable`: asks for an uncompressed answer, which can
    be read as it passes.
    """
    if readable:
        sent = _to_teacher_readable(headers)
        sent.append(_READABLE)
    else:
        sent = _to_teacher(headers)
    if deployment.api_key is not None:
        sent.append((b"authorization", b"Bearer " + deployment.api_key.encode()))
    return sent


def to_control_plane(headers: Headers, token: str, actor: str, routes: Iterable[int] = ()) -> Pairs:
    """The client's headers for the control plane, with this run's token and the client's name.

    The actor's name is percent-encoded: a header holds ASCII, a name in the config anything.
    `routes`: the digests of the routes that the workers have.
    """
    sent = _to_control_plane(headers)
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


def from_upstream(headers: Headers, *, framed: bool = True) -> Headers:
    """An upstream's headers as the client gets them. Names are in lower case.

    Not `framed`: without a length, as the server states it, or marks the end of the body.
    """
    return _to_client(headers) if framed else _to_client_unframed(headers)


def _without_named(headers: Headers) -> Headers:
    """Headers without those that a `Connection` names."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection" and value not in _USUAL_CONNECTION:
            named.update(one.strip().lower() for one in value.split(b","))
    return [pair for pair in headers if pair[0] not in named] if named else headers
