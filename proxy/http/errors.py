"""Refusals in the shape that OpenAI's clients know, so that each raises its proper exception.

    {"error": {"message": …, "type": …, "param": …, "code": …}}

Messages go to the client that caused them. None holds a secret, and none is logged.
"""

from __future__ import annotations

import math
from http import HTTPStatus

import orjson

from proxy.http.asgi import JSON, Headers, Send, respond
from store.ids import new_id

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
RATE_LIMIT = "rate_limit_error"


class ApiError(Exception):
    """An answer that refuses a request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(f"{status} {code or ''}".strip())  # this may be logged
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or []
        self.request_id: str | None = None  # the id that the client is told

    @property
    def type(self) -> str:
        if self.status == 429:
            return RATE_LIMIT
        return INVALID_REQUEST if self.status < 500 else SERVER_ERROR

    def body(self) -> bytes:
        """The JSON that the client gets."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})

    async def send(self, send: Send) -> None:
        """Answers with this error."""
        await respond(send, self.status, self._all_headers(), self.body())

    def on_the_wire(self) -> bytes:
        """The whole answer in HTTP/1.1, for connections that no application answers.

        The connection closes after it.
        """
        body = self.body()
        closing = [(b"connection", b"close"), (b"content-length", b"%d" % len(body))]
        lines = [
            b"HTTP/1.1 %d %b" % (self.status, HTTPStatus(self.status).phrase.encode("ascii")),
            *(b"%b: %b" % pair for pair in [*self._all_headers(), *closing]),
        ]
        return b"\r\n".join([*lines, b"", body])

    def _all_headers(self) -> Headers:
        self.request_id = self.request_id or request_id_of(new_id())
        return [JSON, (b"x-request-id", self.request_id.encode()), *self.headers]


def request_id_of(trace_id: str) -> str:
    """The id of a request as clients are told it."""
    return f"req_{trace_id.replace('-', '')}"


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, message, param=param, code=code)


def too_deep() -> ApiError:
    """400: JSON that is nested too deeply to be written again."""
    return bad_request("The body of your request is nested too deeply.")


def unauthorized(*, presented: bool, browser: bool = False) -> ApiError:
    """401: no key, or one that is not in `server.keys`. `browser`: it asks its user for one."""
    ask = [(b"www-authenticate", b'Basic realm="Understudy: a key as the password"')]
    headers = ask if browser else None
    if presented:
        message = "Incorrect API key provided."
        return ApiError(401, message, code="invalid_api_key", headers=headers)
    return ApiError(
        401,
        "You didn't provide an API key. Provide it in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY).",
        headers=headers,
    )


def foreign_page() -> ApiError:
    """403: a web page of another site tries to use a proxy without keys."""
    return ApiError(
        403,
        "This proxy has no server.keys and answers programs of this machine, not web pages from "
        "other sites.",
        code="foreign_origin",
    )


def foreign_cors() -> ApiError:
    """403: a preflight of a page whose origin is not in `server.cors_origins`."""
    return ApiError(
        403,
        "Pages of this origin may not call this proxy from a browser: call it from your server, "
        "or add the origin to server.cors_origins.",
        code="foreign_origin",
    )


def foreign_host() -> ApiError:
    """403: a proxy without keys is asked under a name that is not this machine's own."""
    return ApiError(
        403,
        "This proxy has no server.keys and answers to localhost alone: use "
        "http://127.0.0.1 or http://localhost, or set server.keys.",
        code="foreign_host",
    )


def missing_right(name: str, right: str) -> ApiError:
    """403: the key is known, but `may` in `server.keys` does not allow this."""
    return ApiError(
        403,
        f"The key {name} does not have the right `{right}`, which this needs: add it to the key's "
        "`may` in server.keys.",
        code="missing_right",
    )


def foreign_command() -> ApiError:
    """403: a web page of another site tries to change something in its reader's name."""
    return ApiError(
        403,
        "Pages of other sites may not change anything here.",
        code="foreign_origin",
    )


def unknown_path(method: str, path: str) -> ApiError:
    """404: nothing is served there."""
    return ApiError(404, f"Invalid URL ({method} {path})", code="unknown_url")


def unknown_model(name: str) -> ApiError:
    """404: no entry of `model_list` answers for this name."""
    return ApiError(
        404,
        f"The model `{name}` does not exist: it matches no model_name of model_list.",
        param="model",
        code="model_not_found",
    )


def wrong_method(method: str, allowed: str) -> ApiError:
    """405: the path is served, but not with this method."""
    return ApiError(
        405,
        f"Not allowed: {method}. Use {allowed}.",
        code="method_not_allowed",
        headers=[(b"allow", allowed.encode("ascii"))],
    )


def no_websocket() -> ApiError:
    """426: a client opens a WebSocket, which no surface has."""
    return ApiError(
        426,
        "This proxy takes no WebSocket connections (OpenAI's Realtime API): open them to the "
        "teacher itself.",
        code="websocket_not_supported",
        headers=[(b"connection", b"close")],
    )


def too_large(limit_bytes: int) -> ApiError:
    """413: the body is over `server.body_limit_mb`."""
    megabytes = limit_bytes / 1024 / 1024
    return ApiError(
        413,
        f"The request body is larger than {megabytes:g} MB, the limit server.body_limit_mb.",
        code="request_too_large",
    )


def too_many_values(limit: int) -> ApiError:
    """413: JSON of so many small values that reading it would stop the proxy for others."""
    return ApiError(
        413,
        f"The request body has more than {limit:,} JSON values.",
        code="request_too_large",
    )


def unknown_coding() -> ApiError:
    """415: the body is compressed in a way that is not known here."""
    return ApiError(
        415,
        "The body's Content-Encoding is not supported. Use gzip, deflate, br or zstd.",
        code="unsupported_content_encoding",
        headers=[(b"accept-encoding", b"gzip, deflate, br, zstd")],
    )


def too_many(what: str, whose: str, wait_s: float) -> ApiError:
    """429: a limit of `server.limits` or of a key is reached. `whose`: the key's name, or all."""
    whom = "of all clients" if whose == "all" else f"of the key {whose}"
    seconds = max(1, math.ceil(wait_s))
    return ApiError(
        429,
        f"Rate limit reached: {what} {whom}. Try again in {seconds} s.",
        code="rate_limit_exceeded",
        headers=[(b"retry-after", b"%d" % seconds)],
    )


def not_http(status: int, message: str) -> ApiError:
    """400, 408 or 431: what came is no request, or not in time."""
    codes = {408: "request_timeout", 431: "headers_too_large"}
    return ApiError(status, message, code=codes.get(status, "invalid_http"))


def internal() -> ApiError:
    """500: an error in the proxy."""
    return ApiError(500, "The proxy failed on this request; its log says where.", code="internal")


def teacher_down(name: str) -> ApiError:
    """502: the teacher could not be reached, or closed the connection too early."""
    return ApiError(502, f"No answer from the teacher ({name}).", code="teacher_down")


def teacher_slow(name: str) -> ApiError:
    """504: the teacher sent nothing within `teacher.read_timeout_s`."""
    return ApiError(
        504,
        f"The teacher ({name}) did not answer in time.",
        code="teacher_slow",
        headers=[(b"x-should-retry", b"false")],  # SDKs would ask, and pay, twice more
    )


def teacher_starting(name: str) -> ApiError:
    """503: the LiteLLM child that this deployment needs does not answer yet."""
    return ApiError(
        503,
        f"The LiteLLM proxy that {name} is called through is not ready yet. Try again soon.",
        code="teacher_starting",
        headers=[(b"retry-after", b"5")],
    )


def too_many_connections() -> ApiError:
    """503: this process has no descriptors left for more connections."""
    return ApiError(
        503,
        "There are too many open connections. Try again soon.",
        code="too_many_connections",
        headers=[(b"retry-after", b"1")],
    )


def control_plane_down() -> ApiError:
    """503: the process behind /distill/ does not answer."""
    return ApiError(
        503,
        "The control plane does not answer now; completions are served all the same.",
        code="control_plane_down",
        headers=[(b"retry-after", b"2")],
    )
